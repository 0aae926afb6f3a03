//! What both directions' codecs share: how a bad field is answered, fields to ids and lists, enums, and the parts
//! that occur in several messages. Wire values come in, domain values or a [`ParseError`] go out. An error's
//! message never holds a token or a text.

use bytes::Bytes;

use super::{
    ConversationKind, ConversationState, Credit, Cursor, Direction, Durability, Member, MemberRole,
    ParseError, Peer, RequestId, Role, SyncToken, UserRef, content::MemberAction,
};
use crate::{
    chain::Chain,
    entry::{EntryKind, Urgency},
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{BootId, ClientMessageId, ConversationId, UserId},
    limits::{PAGE_TOKEN_BYTES_MAX, SUBJECT_BYTES_MAX},
    wire,
};

/// Who answers for a bad field of the message at hand.
#[derive(Clone, Copy)]
pub(super) enum Blame {
    /// The request: an `Error` names it and the session goes on.
    Request(RequestId),
    /// The hello: it is refused with the field's own code.
    Hello,
    /// The peer: the session ends with `PROTOCOL_VIOLATION`.
    Session,
}

impl Blame {
    /// Of a request; one without an id breaks the session.
    pub(super) fn request(request_id: u64) -> Result<(RequestId, Self), ParseError> {
        let id = RequestId::new(request_id).ok_or_else(|| Self::Session.invalid("request_id is 0"))?;
        Ok((id, Self::Request(id)))
    }

    pub(super) fn error(self, code: ErrorCode, message: impl Into<String>) -> ParseError {
        let (request_id, code) = match self {
            Self::Request(id) => (Some(id), code),
            Self::Hello => (None, code),
            Self::Session => (None, ErrorCode::ProtocolViolation),
        };
        ParseError { request_id, code, message: message.into() }
    }

    pub(super) fn invalid(self, message: impl Into<String>) -> ParseError {
        self.error(ErrorCode::Invalid, message)
    }

    /// Refuses what is larger than its limit.
    pub(super) fn at_most(self, field: &str, size: usize, size_max: usize) -> Result<(), ParseError> {
        if size <= size_max {
            return Ok(());
        }
        Err(self.error(ErrorCode::TooLarge, format!("{field} is {size}, at most {size_max} is allowed")))
    }

    pub(super) fn text(self, field: &str, text: String, bytes_max: usize) -> Result<String, ParseError> {
        self.at_most(field, text.len(), bytes_max)?;
        Ok(text)
    }

    pub(super) fn conversation(self, bytes: &Bytes) -> Result<ConversationId, ParseError> {
        ConversationId::try_from(&bytes[..]).map_err(|error| self.invalid(format!("conversation: {error}")))
    }

    pub(super) fn user(self, bytes: &Bytes) -> Result<UserId, ParseError> {
        UserId::try_from(&bytes[..]).map_err(|error| self.invalid(format!("user: {error}")))
    }

    pub(super) fn message_id(self, field: &str, bytes: &Bytes) -> Result<ClientMessageId, ParseError> {
        ClientMessageId::parse(bytes).map_err(|error| self.invalid(format!("{field}: {error}")))
    }

    pub(super) fn chain(self, bytes: &Bytes) -> Result<Chain, ParseError> {
        Chain::from_slice(bytes)
            .ok_or_else(|| self.invalid(format!("a chain is 32 bytes, got {}", bytes.len())))
    }

    /// A page token, copied: a kept one must not hold a whole receive buffer.
    pub(super) fn page(self, bytes: &Bytes) -> Result<Bytes, ParseError> {
        self.at_most("page", bytes.len(), PAGE_TOKEN_BYTES_MAX)?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    /// The value of a request's enum, which must be known ([SES-27]).
    pub(super) fn known<T>(self, field: &str, value: Option<T>) -> Result<T, ParseError> {
        value.ok_or_else(|| self.invalid(format!("{field} has no known value")))
    }

    /// A message that must be there.
    pub(super) fn present<T>(self, field: &str, value: Option<T>) -> Result<T, ParseError> {
        value.ok_or_else(|| self.invalid(format!("{field} is missing")))
    }

    /// A seq that is not 0.
    pub(super) fn seq(self, field: &str, seq: u64) -> Result<u64, ParseError> {
        if seq == 0 { Err(self.invalid(format!("{field} is 0"))) } else { Ok(seq) }
    }

    pub(super) fn user_ref(self, wire: wire::UserRef) -> Result<UserRef, ParseError> {
        match self.present("user", wire.by)? {
            wire::user_ref::By::Id(id) => Ok(UserRef::Id(self.user(&id)?)),
            wire::user_ref::By::Subject(subject) if subject.is_empty() => {
                Err(self.invalid("subject is empty"))
            }
            wire::user_ref::By::Subject(subject) => {
                Ok(UserRef::Subject(self.text("subject", subject, SUBJECT_BYTES_MAX)?))
            }
        }
    }

    pub(super) fn user_refs(
        self,
        wire: Vec<wire::UserRef>,
        users_max: usize,
    ) -> Result<Vec<UserRef>, ParseError> {
        self.at_most("users", wire.len(), users_max)?;
        wire.into_iter().map(|user| self.user_ref(user)).collect()
    }

    pub(super) fn cursor(self, wire: &wire::Cursor) -> Result<(ConversationId, Cursor), ParseError> {
        let conversation = self.conversation(&wire.conversation)?;
        if wire.seq == 0 {
            if wire.epoch != 0 || !wire.chain.is_empty() {
                return Err(self.invalid("a cursor at seq 0 has epoch 0 and no chain"));
            }
            return Ok((conversation, Cursor::START));
        }
        Ok((conversation, Cursor { epoch: wire.epoch, seq: wire.seq, chain: self.chain(&wire.chain)? }))
    }

    pub(super) fn sync_token(self, wire: &wire::SyncToken) -> Result<SyncToken, ParseError> {
        let boot_id =
            BootId::try_from(&wire.boot_id[..]).map_err(|error| self.invalid(format!("boot_id: {error}")))?;
        Ok(SyncToken { boot_id, commit: wire.commit })
    }

    pub(super) fn peer(self, wire: wire::Peer) -> Result<Peer, ParseError> {
        Ok(Peer { user: self.user(&wire.user)?, subject: wire.subject })
    }

    /// As a client reads it: an unknown kind is shown as a group, an unknown role has no rights ([SES-27]).
    pub(super) fn state(self, wire: wire::ConversationState) -> Result<ConversationState, ParseError> {
        Ok(ConversationState {
            conversation: self.conversation(&wire.conversation)?,
            kind: ConversationKind::from_wire(wire.kind).unwrap_or(ConversationKind::Group),
            title: wire.title,
            head: wire.head,
            epoch: wire.epoch,
            first_seq: wire.first_seq,
            hlc: Hlc(wire.hlc),
            member: wire.member,
            role: MemberRole::from_wire(wire.role).unwrap_or_default(),
            peer: wire.peer.map(|peer| self.peer(peer)).transpose()?,
        })
    }

    pub(super) fn states(
        self,
        wire: Vec<wire::ConversationState>,
    ) -> Result<Vec<ConversationState>, ParseError> {
        wire.into_iter().map(|state| self.state(state)).collect()
    }

    pub(super) fn members(self, wire: Vec<wire::Member>) -> Result<Vec<Member>, ParseError> {
        wire.into_iter()
            .map(|member| {
                Ok(Member {
                    peer: Peer { user: self.user(&member.user)?, subject: member.subject },
                    role: MemberRole::from_wire(member.role).unwrap_or_default(),
                    joined_seq: member.joined_seq,
                })
            })
            .collect()
    }
}

impl From<Credit> for wire::Credit {
    fn from(credit: Credit) -> Self {
        Self { entries: credit.entries, bytes: credit.bytes }
    }
}

impl From<wire::Credit> for Credit {
    fn from(wire: wire::Credit) -> Self {
        Self { entries: wire.entries, bytes: wire.bytes }
    }
}

impl From<SyncToken> for wire::SyncToken {
    fn from(token: SyncToken) -> Self {
        Self { boot_id: token.boot_id.to_bytes(), commit: token.commit }
    }
}

impl From<&UserRef> for wire::UserRef {
    fn from(user: &UserRef) -> Self {
        Self {
            by: Some(match user {
                UserRef::Id(id) => wire::user_ref::By::Id(id.to_bytes()),
                UserRef::Subject(subject) => wire::user_ref::By::Subject(subject.clone()),
            }),
        }
    }
}

impl From<&(ConversationId, Cursor)> for wire::Cursor {
    fn from((conversation, cursor): &(ConversationId, Cursor)) -> Self {
        if cursor.seq == 0 {
            return Self { conversation: conversation.to_bytes(), ..Self::default() };
        }
        Self {
            conversation: conversation.to_bytes(),
            epoch: cursor.epoch,
            seq: cursor.seq,
            chain: cursor.chain.to_bytes(),
        }
    }
}

impl From<&Peer> for wire::Peer {
    fn from(peer: &Peer) -> Self {
        Self { user: peer.user.to_bytes(), subject: peer.subject.clone() }
    }
}

impl From<&ConversationState> for wire::ConversationState {
    fn from(state: &ConversationState) -> Self {
        Self {
            conversation: state.conversation.to_bytes(),
            kind: state.kind.to_wire(),
            title: state.title.clone(),
            head: state.head,
            epoch: state.epoch,
            first_seq: state.first_seq,
            hlc: state.hlc.0,
            member: state.member,
            role: state.role.to_wire(),
            peer: state.peer.as_ref().map(Into::into),
        }
    }
}

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        Self {
            user: member.peer.user.to_bytes(),
            subject: member.peer.subject.clone(),
            role: member.role.to_wire(),
            joined_seq: member.joined_seq,
        }
    }
}

macro_rules! wire_enum {
    ($name:ident { $($value:ident),* }) => {
        impl $name {
            /// The value of this wire number; `None` for one of a newer protocol.
            pub fn from_wire(value: i32) -> Option<Self> {
                match wire::$name::try_from(value) {
                    $(Ok(wire::$name::$value) => Some(Self::$value),)*
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }
            /// Its number on the wire.
            pub const fn to_wire(self) -> i32 {
                match self { $(Self::$value => wire::$name::$value as i32),* }
            }
        }
    };
}

wire_enum!(Role { Main, PushFetch });
wire_enum!(Durability { Fsync, Os });
wire_enum!(Urgency { Normal, Urgent, Silent });
wire_enum!(Direction { Forward, Backward });
wire_enum!(ConversationKind { Direct, Group });
wire_enum!(MemberRole { Member, Admin, Owner });
wire_enum!(MemberAction { Added, Removed, Left, RoleChanged });

impl EntryKind {
    /// The kind of this wire number.
    pub fn from_wire(value: i32) -> Self {
        match wire::EntryKind::try_from(value) {
            Ok(wire::EntryKind::Message) => Self::Message,
            Ok(wire::EntryKind::Edit) => Self::Edit,
            Ok(wire::EntryKind::Deletion) => Self::Deletion,
            Ok(wire::EntryKind::Reaction) => Self::Reaction,
            Ok(wire::EntryKind::Membership) => Self::Membership,
            Ok(wire::EntryKind::Settings) => Self::Settings,
            Err(_) => Self::Unknown(value),
        }
    }

    /// Its number on the wire.
    pub const fn to_wire(self) -> i32 {
        match self {
            Self::Message => wire::EntryKind::Message as i32,
            Self::Edit => wire::EntryKind::Edit as i32,
            Self::Deletion => wire::EntryKind::Deletion as i32,
            Self::Reaction => wire::EntryKind::Reaction as i32,
            Self::Membership => wire::EntryKind::Membership as i32,
            Self::Settings => wire::EntryKind::Settings as i32,
            Self::Unknown(value) => value,
        }
    }
}
