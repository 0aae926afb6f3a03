//! What a client sends. [`ClientFrame::parse`] is the server's way in, [`ClientFrame::encode`] the client's way
//! out.

mod codec;

use bytes::Bytes;

use super::{Credit, Cursor, Direction, PageToken, RequestId, Role, SyncToken, UserRef};
use crate::{
    entry::Urgency,
    ids::{ClientMessageId, ConversationId, DeviceId},
};

/// A frame of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientFrame {
    /// Opens the session.
    Hello(Box<Hello>),
    /// Renews the token.
    Reauth {
        /// Answered by `Reauthed` or `Error`.
        request_id: RequestId,
        /// The new one.
        token: Token,
    },
    /// Ends the session.
    Logout,
    /// An answer is no longer wanted.
    Cancel(RequestId),
    /// Answered by `Pong` with the same nonce.
    Ping(u64),
    /// Everything up to `up_to` is in the device's store.
    Ack {
        /// Of this conversation.
        conversation: ConversationId,
        /// Cumulative.
        up_to: u64,
    },
    /// The server may send up to these totals.
    Credit(Credit),
    /// Deliver from these cursors on.
    Resume(Vec<(ConversationId, Cursor)>),
    /// Anything that is answered.
    Request(RequestId, Request),
    /// Of a newer protocol, not critical.
    Ignored,
}

/// A bearer token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The first frame ([SES-3]).
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Lowest protocol version that the client speaks.
    pub protocol_min: u32,
    /// Highest.
    pub protocol_max: u32,
    /// Empty: the default tenant.
    pub tenant: String,
    /// Proves the user.
    pub token: Token,
    /// The installation.
    pub device: DeviceId,
    /// Which of its sessions.
    pub role: Role,
    /// For the operator's logs.
    pub client: ClientInfo,
    /// Optional parts that the client understands.
    pub capabilities: Vec<u32>,
    /// First grant.
    pub credit: Credit,
    /// The app is in the background.
    pub background: bool,
}

/// For the operator's logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Of the app or SDK.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it runs on.
    pub platform: String,
}

/// A request, answered once by its result or an `Error`.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Answered by `Sent`.
    Send(Send),
    /// Answered by `ConversationResult`.
    DirectWith {
        /// The other user, or oneself.
        user: UserRef,
        /// Of the entry that begins the conversation, if it does not exist yet.
        client_message_id: ClientMessageId,
    },
    /// Answered by `ConversationResult`.
    CreateGroup {
        /// With the creator it makes the group's id.
        client_message_id: ClientMessageId,
        /// Shown to members.
        title: String,
        /// Beside the creator.
        members: Vec<UserRef>,
    },
    /// Answered by `ConversationResult`.
    AddMembers(ChangeMembers),
    /// Answered by `ConversationResult`.
    RemoveMembers(ChangeMembers),
    /// Answered by `ConversationResult`.
    Leave {
        /// Of the entry.
        client_message_id: ClientMessageId,
        /// Which group.
        conversation: ConversationId,
    },
    /// Answered by `ConversationList`.
    ListConversations {
        /// Empty: the first.
        page: PageToken,
    },
    /// Answered by `MemberList`.
    ListMembers {
        /// Of which.
        conversation: ConversationId,
        /// Empty: the first.
        page: PageToken,
    },
    /// Answered by `HistoryPage`.
    History(History),
    /// Answered by `SyncResult`.
    Sync {
        /// What the client keeps from an earlier one.
        token: Option<SyncToken>,
        /// Empty: the first.
        page: PageToken,
    },
}

/// A message to append.
#[derive(Clone, PartialEq)]
pub struct Send {
    /// Where to.
    pub conversation: ConversationId,
    /// Names it across retries.
    pub client_message_id: ClientMessageId,
    /// An encoded `Content`, valid UTF-8 and within its limits: checked by `parse`.
    pub content: Bytes,
    /// The device's previous send in the conversation, while unanswered.
    pub after: Option<ClientMessageId>,
    /// The sender has read up to here.
    pub seen: u64,
    /// For notifications.
    pub urgency: Urgency,
    /// Ms since 1970; 0: never.
    pub expires_ms: u64,
}

impl std::fmt::Debug for Send {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Send")
            .field("conversation", &self.conversation)
            .field("client_message_id", &self.client_message_id)
            .field("content_bytes", &self.content.len())
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// Users to add to or remove from a group.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeMembers {
    /// Of the entry.
    pub client_message_id: ClientMessageId,
    /// Which group.
    pub conversation: ConversationId,
    /// At least one.
    pub users: Vec<UserRef>,
}

/// A page of history to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Of which.
    pub conversation: ConversationId,
    /// First seq of a forward page, last of a backward one; backward with 0: from the head.
    pub from: u64,
    /// Which way.
    pub direction: Direction,
    /// At most this many, 1..=PAGE_ENTRIES_MAX (parse maps 0 and more to the limit).
    pub entries_max: usize,
}
