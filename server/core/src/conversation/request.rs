//! What asks a conversation to append, with everything resolved: users are known, contents are encoded.

use bytes::Bytes;
use talaria_protocol::{
    entry::Urgency,
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{ClientMessageId, UserId},
    message::Peer,
};

use crate::peer::{AskId, ShardId};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The user and the subject of their tokens.
    pub peer: Peer,
    /// The device's small number.
    pub device: u32,
}

/// A request to append.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendRequest {
    /// Names it across retries.
    pub id: ClientMessageId,
    /// Must have been accepted before.
    pub after: Option<ClientMessageId>,
    /// What.
    pub kind: AppendKind,
}

/// What is to be appended.
#[derive(Clone, PartialEq)]
pub enum AppendKind {
    /// A message.
    Send {
        /// Encoded `Content`.
        content: Bytes,
        /// For notifications.
        urgency: Urgency,
        /// Ms since 1970; 0: never.
        expires_ms: u64,
    },
    /// The beginning of a direct conversation with this user.
    Direct(Peer),
    /// The beginning of a group.
    CreateGroup {
        /// Shown to members.
        title: String,
        /// Beside the creator.
        members: Vec<Peer>,
    },
    /// New members.
    AddMembers(Vec<Peer>),
    /// Members to go.
    RemoveMembers(Vec<UserId>),
    /// The sender goes.
    Leave,
}

impl std::fmt::Debug for AppendKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Send { .. } => "Send",
            Self::Direct(_) => "Direct",
            Self::CreateGroup { .. } => "CreateGroup",
            Self::AddMembers(_) => "AddMembers",
            Self::RemoveMembers(_) => "RemoveMembers",
            Self::Leave => "Leave",
        })
    }
}

impl AppendKind {
    /// May begin a conversation.
    pub fn creates(&self) -> bool {
        matches!(self, Self::Direct(_) | Self::CreateGroup { .. })
    }

    /// What a retry must repeat: BLAKE3 of the kind and all that was asked for ([DLV-4]).
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"talaria/1 digest");
        let mut users = |kind: u8, text: &[u8], users: &mut dyn Iterator<Item = UserId>| {
            hasher.update(&[kind]).update(&(text.len() as u64).to_be_bytes()).update(text);
            for user in users {
                hasher.update(user.as_bytes());
            }
        };
        match self {
            Self::Send { content, .. } => users(1, content, &mut std::iter::empty()),
            Self::Direct(peer) => users(2, b"", &mut std::iter::once(peer.user)),
            Self::CreateGroup { title, members } => {
                users(3, title.as_bytes(), &mut members.iter().map(|peer| peer.user));
            }
            Self::AddMembers(members) => users(4, b"", &mut members.iter().map(|peer| peer.user)),
            Self::RemoveMembers(members) => users(5, b"", &mut members.iter().copied()),
            Self::Leave => users(6, b"", &mut std::iter::empty()),
        }
        *hasher.finalize().as_bytes()
    }
}

/// Which frame answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// `Sent`.
    Sent,
    /// `ConversationResult`.
    Conversation,
}

/// A request that waits for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Which shard asked.
    pub shard: ShardId,
    /// What to name in the answer.
    pub ask: AskId,
    /// For whom.
    pub user: UserId,
    /// Which frame answers.
    pub reply: ReplyKind,
}

/// An accepted request's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Its number; 0: nothing had to be appended.
    pub seq: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Its stamp.
    pub hlc: Hlc,
    /// It had been accepted before.
    pub duplicate: bool,
}

/// A refused request. Nothing was appended by it, unless its code says that this is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the frozen table.
    pub code: ErrorCode,
    /// For a developer.
    pub message: &'static str,
    /// 0: no hint.
    pub retry_after_ms: u32,
}

impl Refusal {
    /// Without a hint when to retry.
    pub const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message, retry_after_ms: 0 }
    }

    /// A queue is full.
    pub const fn busy(message: &'static str) -> Self {
        Self { code: ErrorCode::Busy, message, retry_after_ms: crate::limits::BUSY_RETRY_AFTER_MS }
    }

    /// The log could not be read: it will hardly be any better in a moment.
    pub const fn read_failed() -> Self {
        Self {
            code: ErrorCode::ReadFailed,
            message: "the log could not be read",
            retry_after_ms: crate::limits::READ_FAILED_RETRY_AFTER_MS,
        }
    }

    /// The same for what does not exist and what one may not know of ([ERR-4]).
    pub const fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "no such conversation for this user")
    }
}
