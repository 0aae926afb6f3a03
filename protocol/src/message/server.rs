//! What a server sends. [`ServerFrame::parse`] is the client's way in, [`ServerFrame::encode`] the server's way
//! out; [`encode_deliver`] the fast one for what many recipients share.

mod codec;

pub use codec::encode_deliver;

use super::{ConversationState, Durability, Member, PageToken, RequestId, SyncToken};
use crate::{
    chain::Chain,
    entry::Entry,
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{ConversationId, SessionId, UserId},
    limits,
};

/// A frame of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerFrame {
    /// The session is open.
    Welcome(Box<Welcome>),
    /// It is not, and the connection ends.
    Refused(Refused),
    /// The token was renewed.
    Reauthed {
        /// Answers this.
        request_id: RequestId,
        /// Ms since 1970.
        token_expires_ms: u64,
    },
    /// The session ends.
    GoAway(GoAway),
    /// Answers `Ping`.
    Pong {
        /// The ping's.
        nonce: u64,
        /// The server's clock.
        hlc: Hlc,
    },
    /// A refusal: of a request, or, without a request id, of a conversation's delivery, which ends.
    Error {
        /// Answers this.
        request_id: Option<RequestId>,
        /// Without a request id: the conversation that is no longer delivered on this session.
        conversation: Option<ConversationId>,
        /// Raw, since a newer server may know more codes; see [`ErrorCode::from_wire`].
        code: u32,
        /// For a developer.
        message: String,
        /// 0: no hint.
        retry_after_ms: u32,
    },
    /// A message is in the log.
    Sent(Sent),
    /// An entry.
    Deliver {
        /// Of this conversation.
        conversation: ConversationId,
        /// It.
        entry: Entry,
    },
    /// What changed.
    SyncResult {
        /// Answers this.
        request_id: RequestId,
        /// To be kept once all listed is held.
        token: SyncToken,
        /// The offered token was of another history.
        reset: bool,
        /// In the order of their ids.
        conversations: Vec<ConversationState>,
        /// Empty: no more.
        next_page: PageToken,
    },
    /// All up to `head` was sent; what follows is live.
    CaughtUp {
        /// Of this conversation.
        conversation: ConversationId,
        /// Last seq sent.
        head: u64,
        /// chain(head), to be compared with the client's own ([DLV-44]); `None`: it is not told.
        chain: Option<Chain>,
    },
    /// A conversation that was not resumed has changed.
    Changed(ConversationState),
    /// Entries were left out.
    Skipped {
        /// Of this conversation.
        conversation: ConversationId,
        /// First left out.
        from: u64,
        /// Last.
        to: u64,
        /// chain(to).
        chain: Chain,
    },
    /// Entries are gone.
    Truncated {
        /// Of this conversation.
        conversation: ConversationId,
        /// Oldest kept.
        first_seq: u64,
        /// chain(first_seq − 1).
        chain: Chain,
    },
    /// The client's cursor is on a fork.
    EpochChanged {
        /// Of this conversation.
        conversation: ConversationId,
        /// First seq to drop.
        first_seq: u64,
        /// chain(first_seq − 1).
        chain: Chain,
        /// Epoch of entry first_seq − 1.
        epoch: u64,
    },
    /// Answers requests on one conversation.
    ConversationResult {
        /// Answers this.
        request_id: RequestId,
        /// As it is now.
        conversation: ConversationState,
        /// Of the entry that was appended; 0: none.
        seq: u64,
        /// It had been appended before.
        duplicate: bool,
    },
    /// Answers `ListConversations`.
    ConversationList {
        /// Answers this.
        request_id: RequestId,
        /// In the order of their ids.
        conversations: Vec<ConversationState>,
        /// Empty: no more.
        next_page: PageToken,
    },
    /// Answers `ListMembers`.
    MemberList {
        /// Answers this.
        request_id: RequestId,
        /// In the order of their ids.
        members: Vec<Member>,
        /// Empty: no more.
        next_page: PageToken,
    },
    /// Answers `History`.
    HistoryPage(HistoryPage),
    /// Of a newer protocol, not critical.
    Ignored,
}

/// The session is open ([SES-6]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// For the operator's logs.
    pub session: SessionId,
    /// Who the token names.
    pub user: UserId,
    /// The token's subject.
    pub subject: String,
    /// Stands for this device in headers.
    pub device_number: u32,
    /// The version chosen.
    pub protocol: u32,
    /// What the client must obey.
    pub limits: Limits,
    /// Ms; send something at least this often.
    pub keepalive_ms: u32,
    /// The server's clock.
    pub hlc: Hlc,
    /// The node's name.
    pub node: String,
    /// Ms since 1970.
    pub token_expires_ms: u64,
    /// What `Sent` means here.
    pub durability: Durability,
}

/// The limits of a node, as `Welcome` tells them. `Default`: this crate's constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`crate::limits::FRAME_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// See [`crate::limits::CONTENT_BYTES_MAX`].
    pub content_bytes_max: u32,
    /// See [`crate::limits::REQUESTS_IN_FLIGHT_MAX`].
    pub requests_in_flight_max: u32,
    /// See [`crate::limits::GROUP_MEMBERS_MAX`].
    pub group_members_max: u32,
    /// See [`crate::limits::PAGE_ENTRIES_MAX`].
    pub page_entries_max: u32,
    /// See [`crate::limits::MEMBERS_PER_REQUEST_MAX`].
    pub members_per_request_max: u32,
    /// See [`crate::limits::DEDUP_WINDOW`].
    pub dedup_window_ms: u64,
    /// See [`crate::limits::ID_FUTURE_MAX`].
    pub id_future_ms_max: u64,
    /// See [`crate::limits::TITLE_BYTES_MAX`].
    pub title_bytes_max: u32,
    /// See [`crate::limits::CREDIT_ENTRIES_MAX`].
    pub credit_entries_max: u64,
    /// See [`crate::limits::CREDIT_BYTES_MAX`].
    pub credit_bytes_max: u64,
    /// See [`crate::limits::CURSORS_PER_RESUME_MAX`].
    pub cursors_per_resume_max: u32,
    /// See [`crate::limits::CLIENT_FRAME_BYTES_MAX`].
    pub client_frame_bytes_max: u32,
}

/// In place of `Welcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Raw; see [`ErrorCode::from_wire`].
    pub code: u32,
    /// For a developer.
    pub message: String,
    /// 0: no hint.
    pub retry_after_ms: u32,
    /// "host:port" to go to; empty: none.
    pub redirect: String,
}

/// The session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// Raw; see [`ErrorCode::from_wire`].
    pub code: u32,
    /// For a developer.
    pub message: String,
    /// "host:port" to go to; empty: none.
    pub redirect: String,
    /// Come back after this; 0: no hint.
    pub reconnect_after_ms: u32,
}

/// A message is in the log ([DLV-1]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Answers this.
    pub request_id: RequestId,
    /// Its number.
    pub seq: u64,
    /// Who assigned it.
    pub epoch: u64,
    /// Its stamp.
    pub hlc: Hlc,
    /// How durable it is.
    pub durability: Durability,
    /// It had been accepted before.
    pub duplicate: bool,
}

/// A page of history: ascending seqs without a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// Answers this.
    pub request_id: RequestId,
    /// Before the first entry here.
    pub chain_before: Chain,
    /// Ascending, dense.
    pub entries: Vec<Entry>,
    /// Oldest kept.
    pub first_seq: u64,
    /// Last durable seq that this user may know of.
    pub head: u64,
    /// More in the asked direction.
    pub more: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            content_bytes_max: limits::CONTENT_BYTES_MAX as u32,
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX as u32,
            group_members_max: limits::GROUP_MEMBERS_MAX as u32,
            page_entries_max: limits::PAGE_ENTRIES_MAX as u32,
            members_per_request_max: limits::MEMBERS_PER_REQUEST_MAX as u32,
            dedup_window_ms: limits::DEDUP_WINDOW.as_millis() as u64,
            id_future_ms_max: limits::ID_FUTURE_MAX.as_millis() as u64,
            title_bytes_max: limits::TITLE_BYTES_MAX as u32,
            credit_entries_max: limits::CREDIT_ENTRIES_MAX,
            credit_bytes_max: limits::CREDIT_BYTES_MAX,
            cursors_per_resume_max: limits::CURSORS_PER_RESUME_MAX as u32,
            client_frame_bytes_max: limits::CLIENT_FRAME_BYTES_MAX as u32,
        }
    }
}

impl ServerFrame {
    /// A refusal of a request.
    pub fn error(request_id: Option<RequestId>, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::error_retry(request_id, code, message, 0)
    }

    /// The same with a hint: again after `retry_after_ms`.
    pub fn error_retry(
        request_id: Option<RequestId>,
        code: ErrorCode,
        message: impl Into<String>,
        retry_after_ms: u32,
    ) -> Self {
        Self::Error {
            request_id,
            conversation: None,
            code: code as u32,
            message: message.into(),
            retry_after_ms,
        }
    }

    /// A conversation is no longer delivered on this session ([DLV-46]).
    pub fn conversation_error(
        conversation: ConversationId,
        code: ErrorCode,
        message: impl Into<String>,
    ) -> Self {
        Self::Error {
            request_id: None,
            conversation: Some(conversation),
            code: code as u32,
            message: message.into(),
            retry_after_ms: 0,
        }
    }

    /// The request that this frame answers.
    pub fn request_id(&self) -> Option<RequestId> {
        match self {
            Self::Error { request_id, .. } => *request_id,
            Self::Reauthed { request_id, .. }
            | Self::SyncResult { request_id, .. }
            | Self::ConversationResult { request_id, .. }
            | Self::ConversationList { request_id, .. }
            | Self::MemberList { request_id, .. } => Some(*request_id),
            Self::Sent(sent) => Some(sent.request_id),
            Self::HistoryPage(page) => Some(page.request_id),
            _ => None,
        }
    }
}
