//! What the domain asks of the log, as data: operations to commit, reads, and their outcomes. The log crates turn
//! these into keys and records; nothing here knows an encoding.

use bytes::Bytes;
use talaria_protocol::{
    chain::{Chain, Leaf, Salt},
    hlc::Hlc,
    ids::{BootId, ClientMessageId, ConversationId, DeviceId, UserId},
    message::{ConversationKind, Direction, MemberRole},
};

/// An entry as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Dense number.
    pub seq: u64,
    /// Encoded `EntryHeader`.
    pub header: Bytes,
    /// Content and salt, or what is left of them.
    pub body: StoredBody,
    /// chain(seq).
    pub chain: Chain,
}

/// The part of an entry that can be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredBody {
    /// As sent.
    Kept {
        /// Encoded `Content`.
        content: Bytes,
        /// Of its commitment.
        salt: Salt,
    },
    /// Erased.
    Erased {
        /// Of the content that was.
        commitment: talaria_protocol::chain::Commitment,
    },
}

impl StoredEntry {
    /// Of header and commitment, whether or not the content is still there.
    pub fn leaf(&self) -> Leaf {
        use talaria_protocol::chain::Commitment;
        match &self.body {
            StoredBody::Kept { content, salt } => Leaf::of(&self.header, &Commitment::of(salt, content)),
            StoredBody::Erased { commitment } => Leaf::of(&self.header, commitment),
        }
    }
}

/// One period of who was allowed to assign seqs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, greater than the one before.
    pub epoch: u64,
    /// The first seq assigned in it.
    pub first_seq: u64,
    /// chain(first_seq − 1).
    pub chain_before: Chain,
}

/// A conversation's heads and settings, after some entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Its kind.
    pub kind: ConversationKind,
    /// A group's title.
    pub title: String,
    /// Last seq.
    pub head: u64,
    /// Messages among the entries.
    pub ordinal: u64,
    /// chain(head).
    pub chain: Chain,
    /// Oldest seq kept.
    pub first_seq: u64,
    /// chain(first_seq - 1).
    pub first_chain: Chain,
    /// Ascending in both numbers, never empty once there is an entry. Epochs that ended before `first_seq` may be gone.
    pub epochs: Vec<Epoch>,
    /// Of the last entry.
    pub hlc: Hlc,
    /// New members may read what came before them.
    pub history_open: bool,
}

/// What a user may see of a conversation: `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First seq.
    pub from: u64,
    /// Last seq; `None` while a member.
    pub to: Option<u64>,
}

/// A user in a conversation, now or once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// May do what.
    pub role: MemberRole,
    /// The subject of their tokens.
    pub subject: String,
    /// Ascending, never empty; only the last may be open.
    pub spans: Vec<Span>,
}

impl MemberRow {
    /// Is a member now.
    pub fn is_member(&self) -> bool {
        self.spans.last().is_some_and(|span| span.to.is_none())
    }
    /// May see this seq.
    pub fn sees(&self, seq: u64) -> bool {
        self.spans.iter().any(|span| span.from <= seq && span.to.is_none_or(|to| seq <= to))
    }
    /// Last seq that this user may know of, where the conversation's head is `head`.
    pub fn head(&self, head: u64) -> u64 {
        self.spans.last().map_or(0, |span| span.to.unwrap_or(head).min(head))
    }
}

/// What an accepted client message id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The entry.
    pub seq: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Its stamp.
    pub hlc: Hlc,
    /// Of what was asked for.
    pub digest: [u8; 32],
}

/// One conversation's atomic step: all of it is committed, or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// Where.
    pub conversation: ConversationId,
    /// Ascending, dense, ending at `heads.head`. Never empty.
    pub entries: Vec<StoredEntry>,
    /// After the last of them.
    pub heads: Heads,
    /// To be recognised from now on.
    pub accepted: Vec<(UserId, ClientMessageId, Accepted)>,
    /// Rows to set.
    pub members: Vec<(UserId, MemberRow)>,
}

/// A conversation whose oldest entries may go, as a sweep of the log found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Which.
    pub conversation: ConversationId,
    /// The oldest entry to keep.
    pub first_seq: u64,
    /// chain(first_seq - 1).
    pub chain_before: Chain,
}

/// The oldest entries of a conversation go: all below `row.heads.first_seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where.
    pub conversation: ConversationId,
    /// To be set. Its `commit` stays that of the last append: a cut is no news. Its heads must be those of the append
    /// before it in the log's queue.
    pub row: ConversationRow,
}

/// A user and, perhaps, a device seen for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserWrite {
    /// Who.
    pub user: UserId,
    /// The row to set.
    pub row: UserRow,
    /// A device to set.
    pub device: Option<(DeviceId, DeviceRow)>,
}

/// What is kept of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Of the deployment.
    pub tenant: String,
    /// Of their tokens.
    pub subject: String,
    /// Devices are numbered 1, 2, 3 …
    pub last_device_number: u32,
}

/// What is kept of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Stands for it in headers.
    pub number: u32,
    /// Ms since 1970.
    pub first_seen_ms: u64,
}

/// A device's delivered cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorWrite {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// Epoch of the entry at `seq`.
    pub epoch: u64,
    /// Everything up to here is in the device's store.
    pub seq: u64,
}

/// Something to commit.
#[derive(Clone, Debug, PartialEq)]
pub enum LogOp {
    /// Entries of a conversation.
    Append(Append),
    /// A user or device.
    User(UserWrite),
    /// Cursors; may be committed late, and lost with a crash.
    Cursors(Vec<CursorWrite>),
    /// Old entries go.
    Cut(Cut),
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable, in this commit.
    Committed {
        /// Number of the commit.
        commit: u64,
    },
    /// Surely nothing was written.
    NotCommitted,
    /// It may be in the log or not: only reopening tells.
    Unknown,
    /// Another owner writes this log now: surely nothing was written.
    Fenced,
}

/// Something to read. Each read sees one moment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOp {
    /// Answered by [`ReadAnswer::Conversation`].
    Conversation(ConversationId),
    /// Answered by [`ReadAnswer::Dedup`].
    Dedup {
        /// Where.
        conversation: ConversationId,
        /// Whose id.
        user: UserId,
        /// The ids to look up.
        ids: Vec<ClientMessageId>,
    },
    /// Answered by [`ReadAnswer::Page`].
    Page(PageQuery),
    /// Answered by [`ReadAnswer::ResumePoint`].
    ResumePoint {
        /// Where.
        conversation: ConversationId,
        /// The client's cursor.
        seq: u64,
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
    },
    /// Answered by [`ReadAnswer::UserConversations`].
    UserConversations {
        /// Whose.
        user: UserId,
        /// Only ids greater than this; `None`: from the first.
        after: Option<ConversationId>,
        /// Only those whose last append has a greater commit number.
        since_commit: u64,
        /// At most this many.
        rows_max: usize,
    },
    /// Answered by [`ReadAnswer::RecentConversations`].
    RecentConversations {
        /// Whose.
        user: UserId,
        /// Only those that come after this one in the list; `None`: from the most recent. The list has the greatest
        /// stamp first, among equal ones the least id.
        before: Option<(Hlc, ConversationId)>,
        /// At most this many.
        rows_max: usize,
    },
    /// Answered by [`ReadAnswer::User`].
    User {
        /// Who.
        user: UserId,
        /// Its device to look up too.
        device: Option<DeviceId>,
    },
}

/// Entries to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// Where.
    pub conversation: ConversationId,
    /// First seq of a forward page, last of a backward one.
    pub from: u64,
    /// Which way.
    pub direction: Direction,
    /// At most this many entries.
    pub entries_max: usize,
    /// The page ends with the entry that reaches this many header and content bytes.
    pub bytes_max: usize,
}

/// A conversation as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRow {
    /// Heads and settings.
    pub heads: Heads,
    /// Commit of the last append.
    pub commit: u64,
}

/// One line of a user's conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserConversation {
    /// Which.
    pub conversation: ConversationId,
    /// As stored, save that `heads.hlc` is of the last entry that this user may know of: one who left does not see what
    /// came later. 0 when retention has taken that entry.
    pub row: ConversationRow,
    /// This user in it.
    pub member: MemberRow,
    /// Of a direct conversation: the other user (none: notes to oneself).
    pub peer: Option<(UserId, String)>,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// The conversation and all its rows of members, or nothing.
    Conversation(Option<(ConversationRow, Vec<(UserId, MemberRow)>)>),
    /// What is known of client message ids.
    Dedup {
        /// The greatest id accepted of this user here.
        highest: Option<ClientMessageId>,
        /// Those of the asked ids that were accepted.
        found: Vec<(ClientMessageId, Accepted)>,
    },
    /// Ascending, dense entries.
    Page {
        /// Before the first of them (chain(from − 1) of an empty page).
        chain_before: Chain,
        /// They.
        entries: Vec<StoredEntry>,
    },
    /// What the log says of a cursor.
    ResumePoint {
        /// chain(seq) and the epoch of that entry; `None` when the log has no such entry. Known of `first_seq - 1` too,
        /// with epoch 0 when that epoch is not in the list any more.
        at: Option<(Chain, u64)>,
        /// The device's durable cursor: (epoch, seq).
        delivered: Option<(u64, u64)>,
    },
    /// A page of a user's conversations, in the order of their ids as the log keeps them.
    UserConversations {
        /// Last commit that this answer saw.
        commit: u64,
        /// They.
        rows: Vec<UserConversation>,
        /// There may be more after the last scanned one: go on after this.
        next: Option<ConversationId>,
    },
    /// A page of a user's conversations, the one with the most recent entry that the user may know of first.
    RecentConversations {
        /// They.
        rows: Vec<UserConversation>,
        /// There are more: go on after this last one.
        next: Option<(Hlc, ConversationId)>,
    },
    /// A user and its device.
    User {
        /// If known.
        row: Option<UserRow>,
        /// If asked for and known.
        device: Option<DeviceRow>,
    },
    /// The log could not be read; the node has logged why, with file and key.
    Failed,
}

/// An opening of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Drawn at opening.
    pub boot_id: BootId,
    /// First commit number of it.
    pub first_commit: u64,
    /// Ms since 1970.
    pub opened_ms: u64,
}

/// What is known of the log when it has been opened.
#[derive(Clone, Debug)]
pub struct LogInfo {
    /// All openings, ascending; the last is this one.
    pub boots: Vec<Boot>,
    /// Number of the last commit before this opening.
    pub commit: u64,
    /// Derives ids.
    pub id_key: talaria_protocol::ids::IdKey,
}
