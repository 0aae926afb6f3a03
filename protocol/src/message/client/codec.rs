//! Client frames to and from wire messages. Every bound of [`crate::limits`] that a client must obey is checked
//! here, and nowhere behind.

use bytes::Bytes;

use super::{ChangeMembers, ClientFrame, ClientInfo, Hello, History, Request, Send, Token};
use crate::{
    entry::Urgency,
    error_code::ErrorCode,
    frame::encode_frame,
    ids::DeviceId,
    limits::{
        CAPABILITIES_MAX, CLIENT_INFO_BYTES_MAX, CURSORS_PER_RESUME_MAX, MEMBERS_PER_REQUEST_MAX,
        PAGE_ENTRIES_MAX, SUBJECT_BYTES_MAX, TITLE_BYTES_MAX, TOKEN_BYTES_MAX,
    },
    message::{Direction, ParseError, RequestId, Role, content::Content, convert::Blame, decode_body},
    wire::{self, frame::Body},
};

impl ClientFrame {
    /// Parses a frame's payload. Contents and ids of the result are slices or copies of it, never re-encoded.
    ///
    /// # Errors
    /// With a request id: that request has a bad field (`INVALID`, `TOO_LARGE`); answer it, the session goes on.
    /// Without one: the session ends with the code.
    pub fn parse(payload: Bytes) -> Result<Self, ParseError> {
        let Some(body) = decode_body(payload)? else { return Ok(Self::Ignored) };
        match body {
            Body::Hello(hello) => Ok(Self::Hello(Box::new(parse_hello(hello)?))),
            Body::Reauth(reauth) => {
                let (request_id, blame) = Blame::request(reauth.request_id)?;
                let token = Token(blame.text("token", reauth.token, TOKEN_BYTES_MAX)?);
                Ok(Self::Reauth { request_id, token })
            }
            Body::Logout(_) => Ok(Self::Logout),
            Body::Cancel(cancel) => Ok(Self::Cancel(Blame::request(cancel.request_id)?.0)),
            Body::Ping(ping) => Ok(Self::Ping(ping.nonce)),
            Body::Ack(ack) => Ok(Self::Ack {
                conversation: Blame::Session.conversation(&ack.conversation)?,
                up_to: ack.up_to,
            }),
            Body::Credit(credit) => Ok(Self::Credit(credit.into())),
            Body::Resume(resume) => {
                Blame::Session.at_most("cursors", resume.cursors.len(), CURSORS_PER_RESUME_MAX)?;
                let cursors = resume.cursors.iter().map(|cursor| Blame::Session.cursor(cursor));
                Ok(Self::Resume(cursors.collect::<Result<_, _>>()?))
            }
            other => parse_request(other),
        }
    }

    /// The whole frame, length prefix included; empty for [`ClientFrame::Ignored`], which says nothing.
    pub fn encode(&self) -> Bytes {
        let body = match self {
            Self::Hello(hello) => Body::Hello(hello.as_ref().into()),
            Self::Reauth { request_id, token } => {
                Body::Reauth(wire::Reauth { request_id: request_id.get(), token: token.0.clone() })
            }
            Self::Logout => Body::Logout(wire::Logout {}),
            Self::Cancel(request_id) => Body::Cancel(wire::Cancel { request_id: request_id.get() }),
            Self::Ping(nonce) => Body::Ping(wire::Ping { nonce: *nonce }),
            Self::Ack { conversation, up_to } => {
                Body::Ack(wire::Ack { conversation: conversation.to_bytes(), up_to: *up_to })
            }
            Self::Credit(credit) => Body::Credit((*credit).into()),
            Self::Resume(cursors) => {
                Body::Resume(wire::Resume { cursors: cursors.iter().map(Into::into).collect() })
            }
            Self::Request(request_id, request) => request.to_body(request_id.get()),
            Self::Ignored => return Bytes::new(),
        };
        encode_frame(&wire::Frame { critical: false, body: Some(body) })
    }
}

fn parse_hello(wire: wire::Hello) -> Result<Hello, ParseError> {
    let blame = Blame::Hello;
    if wire.protocol_min > wire.protocol_max {
        return Err(blame.invalid("protocol_min is above protocol_max"));
    }
    blame.at_most("capabilities", wire.capabilities.len(), CAPABILITIES_MAX)?;
    let client = wire.client.unwrap_or_default();
    Ok(Hello {
        protocol_min: wire.protocol_min,
        protocol_max: wire.protocol_max,
        tenant: blame.text("tenant", wire.tenant, SUBJECT_BYTES_MAX)?,
        token: Token(blame.text("token", wire.token, TOKEN_BYTES_MAX)?),
        device: DeviceId::parse(&wire.device_id)
            .map_err(|error| blame.invalid(format!("device_id: {error}")))?,
        role: blame.known("role", Role::from_wire(wire.role))?,
        client: ClientInfo {
            name: blame.text("client name", client.name, CLIENT_INFO_BYTES_MAX)?,
            version: blame.text("client version", client.version, CLIENT_INFO_BYTES_MAX)?,
            platform: blame.text("client platform", client.platform, CLIENT_INFO_BYTES_MAX)?,
        },
        capabilities: wire.capabilities,
        credit: wire.credit.unwrap_or_default().into(),
        background: wire.client_state.is_some_and(|state| state.background),
    })
}

impl From<&Hello> for wire::Hello {
    fn from(hello: &Hello) -> Self {
        Self {
            protocol_min: hello.protocol_min,
            protocol_max: hello.protocol_max,
            tenant: hello.tenant.clone(),
            token: hello.token.0.clone(),
            device_id: hello.device.to_bytes(),
            role: hello.role.to_wire(),
            client: Some(wire::ClientInfo {
                name: hello.client.name.clone(),
                version: hello.client.version.clone(),
                platform: hello.client.platform.clone(),
            }),
            capabilities: hello.capabilities.clone(),
            credit: Some(hello.credit.into()),
            client_state: hello.background.then_some(wire::ClientState { background: true }),
        }
    }
}

/// Bodies that are answered; what is left is a server's.
fn parse_request(body: Body) -> Result<ClientFrame, ParseError> {
    let (request_id, request) = match body {
        Body::Send(wire) => parse_send(wire)?,
        Body::DirectWith(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let user = blame.user_ref(blame.present("user", wire.user)?)?;
            let client_message_id = blame.message_id("client_message_id", &wire.client_message_id)?;
            (request_id, Request::DirectWith { user, client_message_id })
        }
        Body::CreateGroup(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let client_message_id = blame.message_id("client_message_id", &wire.client_message_id)?;
            let title = blame.text("title", wire.title, TITLE_BYTES_MAX)?;
            let members = blame.user_refs(wire.members, MEMBERS_PER_REQUEST_MAX)?;
            (request_id, Request::CreateGroup { client_message_id, title, members })
        }
        Body::AddMembers(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let change = parse_change(blame, &wire.client_message_id, &wire.conversation, wire.users)?;
            (request_id, Request::AddMembers(change))
        }
        Body::RemoveMembers(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let change = parse_change(blame, &wire.client_message_id, &wire.conversation, wire.users)?;
            (request_id, Request::RemoveMembers(change))
        }
        Body::Leave(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let client_message_id = blame.message_id("client_message_id", &wire.client_message_id)?;
            (
                request_id,
                Request::Leave { client_message_id, conversation: blame.conversation(&wire.conversation)? },
            )
        }
        other => parse_read(other)?,
    };
    Ok(ClientFrame::Request(request_id, request))
}

/// Requests that change nothing.
fn parse_read(body: Body) -> Result<(RequestId, Request), ParseError> {
    match body {
        Body::ListConversations(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            Ok((request_id, Request::ListConversations { page: blame.page(&wire.page)? }))
        }
        Body::ListMembers(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let conversation = blame.conversation(&wire.conversation)?;
            Ok((request_id, Request::ListMembers { conversation, page: blame.page(&wire.page)? }))
        }
        Body::History(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let history = History {
                conversation: blame.conversation(&wire.conversation)?,
                from: wire.from,
                direction: blame.known("direction", Direction::from_wire(wire.direction))?,
                entries_max: match wire.entries_max as usize {
                    0 => PAGE_ENTRIES_MAX,
                    asked => asked.min(PAGE_ENTRIES_MAX),
                },
            };
            Ok((request_id, Request::History(history)))
        }
        Body::Sync(wire) => {
            let (request_id, blame) = Blame::request(wire.request_id)?;
            let token = wire.token.map(|token| blame.sync_token(&token)).transpose()?;
            Ok((request_id, Request::Sync { token, page: blame.page(&wire.page)? }))
        }
        _ => Err(Blame::Session.invalid("only a server sends this frame")),
    }
}

fn parse_send(wire: wire::Send) -> Result<(RequestId, Request), ParseError> {
    let (request_id, blame) = Blame::request(wire.request_id)?;
    let conversation = blame.conversation(&wire.conversation)?;
    let client_message_id = blame.message_id("client_message_id", &wire.client_message_id)?;
    Content::parse_from_client(&wire.content)
        .map_err(|error| blame.error(error.code(), format!("content: {error}")))?;
    let after = match wire.after.is_empty() {
        true => None,
        false => Some(blame.message_id("after", &wire.after)?),
    };
    let send = Send {
        conversation,
        client_message_id,
        content: wire.content,
        after,
        seen: wire.seen,
        urgency: blame.known("urgency", Urgency::from_wire(wire.urgency))?,
        expires_ms: wire.expires_ms,
    };
    Ok((request_id, Request::Send(send)))
}

fn parse_change(
    blame: Blame,
    client_message_id: &Bytes,
    conversation: &Bytes,
    users: Vec<wire::UserRef>,
) -> Result<ChangeMembers, ParseError> {
    let client_message_id = blame.message_id("client_message_id", client_message_id)?;
    let conversation = blame.conversation(conversation)?;
    let users = blame.user_refs(users, MEMBERS_PER_REQUEST_MAX)?;
    if users.is_empty() {
        return Err(blame.error(ErrorCode::Invalid, "users is empty"));
    }
    Ok(ChangeMembers { client_message_id, conversation, users })
}

impl Request {
    fn to_body(&self, request_id: u64) -> Body {
        match self {
            Self::Send(send) => Body::Send(send.to_wire(request_id)),
            Self::DirectWith { user, client_message_id } => Body::DirectWith(wire::DirectWith {
                request_id,
                user: Some(user.into()),
                client_message_id: client_message_id.to_bytes(),
            }),
            Self::CreateGroup { client_message_id, title, members } => Body::CreateGroup(wire::CreateGroup {
                request_id,
                client_message_id: client_message_id.to_bytes(),
                title: title.clone(),
                members: members.iter().map(Into::into).collect(),
            }),
            Self::AddMembers(change) => Body::AddMembers(change.to_add(request_id)),
            Self::RemoveMembers(change) => Body::RemoveMembers(change.to_remove(request_id)),
            Self::Leave { client_message_id, conversation } => Body::Leave(wire::Leave {
                request_id,
                client_message_id: client_message_id.to_bytes(),
                conversation: conversation.to_bytes(),
            }),
            Self::ListConversations { page } => {
                Body::ListConversations(wire::ListConversations { request_id, page: page.clone() })
            }
            Self::ListMembers { conversation, page } => Body::ListMembers(wire::ListMembers {
                request_id,
                conversation: conversation.to_bytes(),
                page: page.clone(),
            }),
            Self::History(history) => Body::History(history.to_wire(request_id)),
            Self::Sync { token, page } => {
                Body::Sync(wire::Sync { request_id, token: token.map(Into::into), page: page.clone() })
            }
        }
    }
}

impl ChangeMembers {
    fn to_add(&self, request_id: u64) -> wire::AddMembers {
        wire::AddMembers {
            request_id,
            client_message_id: self.client_message_id.to_bytes(),
            conversation: self.conversation.to_bytes(),
            users: self.users.iter().map(Into::into).collect(),
        }
    }

    fn to_remove(&self, request_id: u64) -> wire::RemoveMembers {
        wire::RemoveMembers {
            request_id,
            client_message_id: self.client_message_id.to_bytes(),
            conversation: self.conversation.to_bytes(),
            users: self.users.iter().map(Into::into).collect(),
        }
    }
}

impl History {
    fn to_wire(self, request_id: u64) -> wire::History {
        wire::History {
            request_id,
            conversation: self.conversation.to_bytes(),
            from: self.from,
            direction: self.direction.to_wire(),
            entries_max: u32::try_from(self.entries_max).unwrap_or(u32::MAX),
        }
    }
}

impl Send {
    fn to_wire(&self, request_id: u64) -> wire::Send {
        wire::Send {
            request_id,
            conversation: self.conversation.to_bytes(),
            client_message_id: self.client_message_id.to_bytes(),
            content: self.content.clone(),
            after: self.after.map(|id| id.to_bytes()).unwrap_or_default(),
            seen: self.seen,
            urgency: self.urgency.to_wire(),
            expires_ms: self.expires_ms,
        }
    }
}
