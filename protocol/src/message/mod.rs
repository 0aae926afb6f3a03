//! Parsed messages: what a frame says, in types that cannot hold a bad value. Wire types stop here.
//! [`client`] is what a client sends, [`server`] what a server sends; each has `parse` (from a frame's payload)
//! and `encode` (to a whole frame). [`content`] is what an app says in a message.

pub mod client;
pub mod content;
mod convert;
pub mod server;

use bytes::Bytes;
use prost::Message;

use crate::{
    chain::Chain,
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{BootId, ConversationId, UserId},
    wire,
};

/// Names a request within its session; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

impl RequestId {
    /// The id of this number; `None` for 0.
    pub const fn new(id: u64) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }
    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Why a frame's payload is no message. With a request id it is answered by `Error` and the session goes on;
/// without one the session ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct ParseError {
    /// The request that it refuses, if the bytes name one.
    pub request_id: Option<RequestId>,
    /// What to answer.
    pub code: ErrorCode,
    /// The field, what it held (never content or a token), and what it may hold.
    pub message: String,
}

/// Which session of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// The app.
    #[default]
    Main,
    /// A phone's notification extension.
    PushFetch,
}

/// Absolute totals since the connection began that the server may send ([DLV-24]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Entries.
    pub entries: u64,
    /// Sum of encoded `Entry` lengths.
    pub bytes: u64,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Synced to stable storage.
    #[default]
    Fsync,
    /// Handed to the operating system.
    Os,
}

/// What a device holds of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Epoch of the entry at `seq`; 0 at seq 0.
    pub epoch: u64,
    /// Everything up to here is held.
    pub seq: u64,
    /// chain(seq).
    pub chain: Chain,
}

impl Cursor {
    /// Nothing is held.
    pub const START: Self = Self { epoch: 0, seq: 0, chain: Chain::ZERO };
}

/// A position in a log's history of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    /// The opening of the log.
    pub boot_id: BootId,
    /// The commit.
    pub commit: u64,
}

/// Kinds of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationKind {
    /// Two users.
    Direct,
    /// Many users, with roles.
    Group,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberRole {
    /// Send, leave.
    #[default]
    Member,
    /// And add and remove members.
    Admin,
    /// And remove admins.
    Owner,
}

/// A user, by id or by token subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    /// By id.
    Id(UserId),
    /// By the subject of their tokens, in the requester's tenant.
    Subject(String),
}

/// A user whom a client may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub user: UserId,
    /// The subject of their tokens.
    pub subject: String,
}

/// A conversation, as one user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationState {
    /// Which.
    pub conversation: ConversationId,
    /// Its kind.
    pub kind: ConversationKind,
    /// A group's title.
    pub title: String,
    /// Last durable seq that this user may know of.
    pub head: u64,
    /// Epoch at `head`.
    pub epoch: u64,
    /// Oldest seq kept.
    pub first_seq: u64,
    /// Stamp of the last entry.
    pub hlc: Hlc,
    /// A member now.
    pub member: bool,
    /// This user's role.
    pub role: MemberRole,
    /// The other user of a direct conversation.
    pub peer: Option<Peer>,
}

/// A member of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub peer: Peer,
    /// May do what.
    pub role: MemberRole,
    /// Since which entry.
    pub joined_seq: u64,
}

/// Which way a history page goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// To newer entries.
    #[default]
    Forward,
    /// To older ones.
    Backward,
}

/// Where the next page begins, as the server made it; opaque to clients, at most
/// [`PAGE_TOKEN_BYTES_MAX`](crate::limits::PAGE_TOKEN_BYTES_MAX) long. Empty: the first page, or no more.
pub type PageToken = Bytes;

/// The body of a frame; `None` for one that is not known and may be ignored ([FRM-7]).
fn decode_body(payload: Bytes) -> Result<Option<wire::frame::Body>, ParseError> {
    let error = |code, message: &str| ParseError { request_id: None, code, message: message.into() };
    let frame = wire::Frame::decode(payload)
        .map_err(|_| error(ErrorCode::ProtocolViolation, "the payload is no valid Frame message"))?;
    match frame.body {
        None if frame.critical => Err(error(ErrorCode::Unsupported, "a critical frame of an unknown kind")),
        body => Ok(body),
    }
}
