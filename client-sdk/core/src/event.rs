//! What an app is told, and the reasons in it.

use talaria_protocol::{
    entry::{Entry, EntryForm, EntryHeader, HeaderError},
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId},
    message::{
        ConversationState, Durability,
        content::{Body, Content},
    },
};

use crate::store::LocalId;

/// An entry of a conversation, to show.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryView {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Its dense number.
    pub seq: u64,
    /// Who, when, what; `None` for a hidden one.
    pub header: Option<EntryHeader>,
    /// What it says.
    pub shown: Shown,
}

/// What an entry says to this reader.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// It.
    Content(Content),
    /// The content was erased.
    Erased,
    /// This user may not see it.
    Hidden,
    /// The content is of a newer protocol.
    Unknown,
}

impl EntryView {
    /// Of a held entry.
    ///
    /// # Errors
    /// A header that no server makes.
    pub fn new(conversation: ConversationId, entry: &Entry) -> Result<Self, HeaderError> {
        let shown = match &entry.form {
            EntryForm::Full { content: Some(content), .. } => {
                Content::parse(content).map_or(Shown::Unknown, Shown::Content)
            }
            // Never held: content is filled in before an entry is stored.
            EntryForm::Full { content: None, .. } => Shown::Unknown,
            EntryForm::Erased { .. } => Shown::Erased,
            EntryForm::Hidden { .. } => Shown::Hidden,
        };
        Ok(Self { conversation, seq: entry.seq, header: entry.header()?, shown })
    }

    /// Its text, if it is a text message.
    pub fn text(&self) -> Option<&str> {
        match &self.shown {
            Shown::Content(Content { body: Body::Text(text), .. }) => Some(text),
            _ => None,
        }
    }
}

/// An own message is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Names it on this device.
    pub local_id: LocalId,
    /// Names it in the log.
    pub id: ClientMessageId,
    /// Where.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: u64,
    /// Who assigned it.
    pub epoch: u64,
    /// Its stamp; for display.
    pub hlc: Hlc,
    /// How durable it is.
    pub durability: Durability,
    /// The server had accepted it at an earlier try. Unknown, and false, when the own entry told before `Sent` did.
    pub duplicate: bool,
}

/// Why an own message is not, and will not be, in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// The server refused it for good. Fix the request: trying again unchanged gives the same answer.
    #[error("the server refused the message: {} ({message})", code_name(*code))]
    Refused {
        /// A number of spec/errors.md.
        code: u32,
        /// For a developer.
        message: String,
    },
    /// It waited longer than the server remembers, and what is held here does not show whether it was appended.
    /// Ask the user whether to send it again.
    #[error("the message waited too long: whether it was delivered is not known")]
    OutcomeUnknown,
}

/// Name of a code in spec/errors.md.
pub(crate) fn code_name(code: u32) -> &'static str {
    ErrorCode::from_wire(code).map_or("a code of a newer server", ErrorCode::name)
}

/// What is wrong with a conversation's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The server's hash of the history up to here is another than this device's: one of both was changed.
    ChainMismatch,
    /// An entry contradicts its own header or its predecessor.
    BadEntry,
    /// The server said that its log went back, to a point that this device's history does not contain.
    BadFork,
    /// The server says that it sent all, and something is missing.
    Incomplete,
}

/// What happened, in the order in which it did. Entries are in the store before they are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new entry, the next one of its conversation; own ones too.
    Entry(EntryView),
    /// An own message is in the log.
    Acknowledged(Acknowledged),
    /// An own message was given up; it is out of the outbox.
    Failed {
        /// Names it on this device.
        local_id: LocalId,
        /// Where it should have gone.
        conversation: ConversationId,
        /// Why.
        failure: SendFailure,
    },
    /// Entries `from..=to` are not held; history has them.
    Skipped {
        /// Of which conversation.
        conversation: ConversationId,
        /// First.
        from: u64,
        /// Last.
        to: u64,
    },
    /// Entries below `first_seq` that were not held are gone from the server too.
    Truncated {
        /// Of which conversation.
        conversation: ConversationId,
        /// Oldest kept.
        first_seq: u64,
    },
    /// The server lost entries from `first_seq` on (1: the conversation): they were dropped here too, and own
    /// messages among them are on their way again.
    Rewound {
        /// Of which conversation.
        conversation: ConversationId,
        /// First dropped.
        first_seq: u64,
        /// Own messages that are sent again.
        reoffered: usize,
    },
    /// A conversation is new or has changed.
    Conversation(ConversationState),
    /// All up to `head` is in the store; what follows is live.
    CaughtUp {
        /// Which conversation.
        conversation: ConversationId,
        /// Its last entry.
        head: u64,
    },
    /// So many events came before anybody listened. Entries among them are in the store.
    Missed {
        /// How many.
        events: u64,
    },
    /// History cannot be trusted from here on: nothing more of this conversation is taken. Report it.
    Damage {
        /// Which conversation.
        conversation: ConversationId,
        /// Where it was noticed.
        seq: u64,
        /// What.
        kind: DamageKind,
    },
}

/// What an engine has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions opened.
    pub sessions: u64,
    /// Connections that were lost or refused.
    pub disconnects: u64,
    /// Conversations resumed, counted per session.
    pub resumes: u64,
    /// Entries stored.
    pub entries_stored: u64,
    /// Entries that came though they were held already; dropped.
    pub duplicates_dropped: u64,
    /// Entries dropped for another reason: their conversation waits for a repair, or is damaged.
    pub entries_dropped: u64,
    /// Sends on the wire, repetitions included.
    pub transmissions: u64,
    /// `Sent` answers for a send that the server had accepted before.
    pub dedup_hits: u64,
    /// Own messages acknowledged.
    pub acknowledged: u64,
    /// Sends refused and repeated later.
    pub retries: u64,
    /// Own messages given up.
    pub failed: u64,
    /// Conversations whose chain differs from the server's.
    pub chain_mismatches: u64,
    /// Forks of a log that went back, dropped here.
    pub rewinds: u64,
    /// Gaps that did not close by themselves.
    pub gaps: u64,
}
