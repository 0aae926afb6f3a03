//! Server frames to and from wire messages. A client is strict with its server: whatever does not fit ends the
//! session.

use bytes::{Bytes, BytesMut};

use super::{GoAway, HistoryPage, Limits, Refused, Sent, ServerFrame, Welcome};
use crate::{
    chain::Chain,
    entry::Entry,
    frame::{encode_frame, put_prefix},
    hlc::Hlc,
    ids::{ConversationId, SessionId},
    limits::FRAME_PREFIX_BYTES_MAX,
    message::{Durability, ParseError, RequestId, convert::Blame, decode_body},
    wire::{self, frame::Body, put},
};

/// All of a client's view of its server ends the session.
const BLAME: Blame = Blame::Session;

impl ServerFrame {
    /// Parses a frame's payload. Headers and contents are slices of it.
    ///
    /// # Errors
    /// The session ends: the server broke a rule, or sent a critical frame that this crate does not know.
    pub fn parse(payload: Bytes) -> Result<Self, ParseError> {
        let Some(body) = decode_body(payload)? else { return Ok(Self::Ignored) };
        match body {
            Body::Deliver(wire) => {
                let conversation = BLAME.conversation(&wire.conversation)?;
                Ok(Self::Deliver { conversation, entry: parse_entry(BLAME.present("entry", wire.entry)?)? })
            }
            Body::Sent(wire) => parse_sent(&wire),
            Body::Error(wire) => Ok(Self::Error {
                request_id: RequestId::new(wire.request_id),
                conversation: if wire.conversation.is_empty() {
                    None
                } else {
                    Some(BLAME.conversation(&wire.conversation)?)
                },
                code: wire.code,
                message: wire.message,
                retry_after_ms: wire.retry_after_ms,
            }),
            Body::Pong(wire) => Ok(Self::Pong { nonce: wire.nonce, hlc: Hlc(wire.hlc) }),
            Body::Welcome(wire) => Ok(Self::Welcome(Box::new(parse_welcome(wire)?))),
            Body::Refused(wire) => Ok(Self::Refused(Refused {
                code: wire.code,
                message: wire.message,
                retry_after_ms: wire.retry_after_ms,
                redirect: wire.redirect,
            })),
            Body::Reauthed(wire) => Ok(Self::Reauthed {
                request_id: answered(wire.request_id)?,
                token_expires_ms: wire.token_expires_ms,
            }),
            Body::GoAway(wire) => Ok(Self::GoAway(GoAway {
                code: wire.code,
                message: wire.message,
                redirect: wire.redirect,
                reconnect_after_ms: wire.reconnect_after_ms,
            })),
            other => parse_resume(other),
        }
    }

    /// The whole frame, length prefix included; empty for [`ServerFrame::Ignored`], which says nothing.
    pub fn encode(&self) -> Bytes {
        match self.to_body() {
            Some(body) => encode_frame(&wire::Frame { critical: false, body: Some(body) }),
            None => Bytes::new(),
        }
    }

    /// One arm per frame, short by the conversions below.
    fn to_body(&self) -> Option<Body> {
        Some(match self {
            Self::Ignored => return None,
            Self::Deliver { conversation, entry } => Body::Deliver(wire::Deliver {
                conversation: conversation.to_bytes(),
                entry: Some(entry.to_wire()),
            }),
            Self::Sent(sent) => Body::Sent(sent.into()),
            Self::Error { request_id, conversation, code, message, retry_after_ms } => {
                Body::Error(error_to_wire(*request_id, *conversation, *code, message, *retry_after_ms))
            }
            Self::Pong { nonce, hlc } => Body::Pong(wire::Pong { nonce: *nonce, hlc: hlc.0 }),
            Self::Welcome(welcome) => Body::Welcome(welcome.as_ref().into()),
            Self::Refused(refused) => Body::Refused(refused.into()),
            Self::Reauthed { request_id, token_expires_ms } => Body::Reauthed(wire::Reauthed {
                request_id: request_id.get(),
                token_expires_ms: *token_expires_ms,
            }),
            Self::GoAway(go_away) => Body::GoAway(go_away.into()),
            Self::CaughtUp { conversation, head, chain } => {
                let chain = chain.map_or_else(Bytes::new, Chain::to_bytes);
                Body::CaughtUp(wire::CaughtUp { conversation: conversation.to_bytes(), head: *head, chain })
            }
            Self::Changed(state) => Body::Changed(wire::Changed { conversation: Some(state.into()) }),
            Self::Skipped { conversation, from, to, chain } => {
                let (conversation, chain) = (conversation.to_bytes(), chain.to_bytes());
                Body::Skipped(wire::Skipped { conversation, from: *from, to: *to, chain })
            }
            Self::Truncated { conversation, first_seq, chain } => {
                let (conversation, chain) = (conversation.to_bytes(), chain.to_bytes());
                Body::Truncated(wire::Truncated { conversation, first_seq: *first_seq, chain })
            }
            Self::EpochChanged { conversation, first_seq, chain, epoch } => {
                let (conversation, chain) = (conversation.to_bytes(), chain.to_bytes());
                Body::EpochChanged(wire::EpochChanged {
                    conversation,
                    first_seq: *first_seq,
                    chain,
                    epoch: *epoch,
                })
            }
            Self::HistoryPage(page) => Body::HistoryPage(page.into()),
            Self::SyncResult { .. }
            | Self::ConversationResult { .. }
            | Self::ConversationList { .. }
            | Self::MemberList { .. } => return self.list_body(),
        })
    }

    /// Results that list or show conversations and members; `None` for any other frame.
    fn list_body(&self) -> Option<Body> {
        Some(match self {
            Self::SyncResult { request_id, token, reset, conversations, next_page } => {
                let (request_id, next_page) = (request_id.get(), next_page.clone());
                let conversations = conversations.iter().map(Into::into).collect();
                let token = Some((*token).into());
                Body::SyncResult(wire::SyncResult {
                    request_id,
                    token,
                    reset: *reset,
                    conversations,
                    next_page,
                })
            }
            Self::ConversationResult { request_id, conversation, seq, duplicate } => {
                let (request_id, conversation) = (request_id.get(), Some(conversation.into()));
                Body::ConversationResult(wire::ConversationResult {
                    request_id,
                    conversation,
                    seq: *seq,
                    duplicate: *duplicate,
                })
            }
            Self::ConversationList { request_id, conversations, next_page } => {
                let (request_id, next_page) = (request_id.get(), next_page.clone());
                let conversations = conversations.iter().map(Into::into).collect();
                Body::ConversationList(wire::ConversationList { request_id, conversations, next_page })
            }
            Self::MemberList { request_id, members, next_page } => {
                let (request_id, next_page) = (request_id.get(), next_page.clone());
                let members = members.iter().map(Into::into).collect();
                Body::MemberList(wire::MemberList { request_id, members, next_page })
            }
            _ => return None,
        })
    }
}

fn answered(request_id: u64) -> Result<RequestId, ParseError> {
    RequestId::new(request_id).ok_or_else(|| BLAME.invalid("request_id is 0"))
}

/// A promise that this client does not know is taken for the weakest ([SES-27]).
fn durability(wire: i32) -> Durability {
    Durability::from_wire(wire).unwrap_or(Durability::Os)
}

fn parse_entry(wire: wire::Entry) -> Result<Entry, ParseError> {
    Entry::from_wire(wire).map_err(|error| BLAME.invalid(format!("entry: {error}")))
}

fn parse_sent(wire: &wire::Sent) -> Result<ServerFrame, ParseError> {
    Ok(ServerFrame::Sent(Sent {
        request_id: answered(wire.request_id)?,
        seq: BLAME.seq("seq", wire.seq)?,
        epoch: wire.epoch,
        hlc: Hlc(wire.hlc),
        durability: durability(wire.durability),
        duplicate: wire.duplicate,
    }))
}

/// Answers to `Resume`, and what else names a conversation.
fn parse_resume(body: Body) -> Result<ServerFrame, ParseError> {
    match body {
        Body::CaughtUp(wire) => {
            let chain = if wire.chain.is_empty() { None } else { Some(BLAME.chain(&wire.chain)?) };
            let conversation = BLAME.conversation(&wire.conversation)?;
            Ok(ServerFrame::CaughtUp { conversation, head: wire.head, chain })
        }
        Body::Changed(wire) => {
            Ok(ServerFrame::Changed(BLAME.state(BLAME.present("conversation", wire.conversation)?)?))
        }
        Body::Skipped(wire) => {
            let (from, to) = (BLAME.seq("from", wire.from)?, wire.to);
            if to < from {
                return Err(BLAME.invalid("skipped to before from"));
            }
            let conversation = BLAME.conversation(&wire.conversation)?;
            Ok(ServerFrame::Skipped { conversation, from, to, chain: BLAME.chain(&wire.chain)? })
        }
        Body::Truncated(wire) => Ok(ServerFrame::Truncated {
            conversation: BLAME.conversation(&wire.conversation)?,
            first_seq: BLAME.seq("first_seq", wire.first_seq)?,
            chain: BLAME.chain(&wire.chain)?,
        }),
        Body::EpochChanged(wire) => Ok(ServerFrame::EpochChanged {
            conversation: BLAME.conversation(&wire.conversation)?,
            first_seq: BLAME.seq("first_seq", wire.first_seq)?,
            chain: BLAME.chain(&wire.chain)?,
            epoch: wire.epoch,
        }),
        other => parse_result(other),
    }
}

/// Results of requests; what is left is a client's.
fn parse_result(body: Body) -> Result<ServerFrame, ParseError> {
    match body {
        Body::SyncResult(wire) => Ok(ServerFrame::SyncResult {
            request_id: answered(wire.request_id)?,
            token: BLAME.sync_token(&BLAME.present("token", wire.token)?)?,
            reset: wire.reset,
            conversations: BLAME.states(wire.conversations)?,
            next_page: BLAME.page(&wire.next_page)?,
        }),
        Body::ConversationResult(wire) => Ok(ServerFrame::ConversationResult {
            request_id: answered(wire.request_id)?,
            conversation: BLAME.state(BLAME.present("conversation", wire.conversation)?)?,
            seq: wire.seq,
            duplicate: wire.duplicate,
        }),
        Body::ConversationList(wire) => Ok(ServerFrame::ConversationList {
            request_id: answered(wire.request_id)?,
            conversations: BLAME.states(wire.conversations)?,
            next_page: BLAME.page(&wire.next_page)?,
        }),
        Body::MemberList(wire) => Ok(ServerFrame::MemberList {
            request_id: answered(wire.request_id)?,
            members: BLAME.members(wire.members)?,
            next_page: BLAME.page(&wire.next_page)?,
        }),
        Body::HistoryPage(wire) => parse_page(wire),
        _ => Err(BLAME.invalid("only a client sends this frame")),
    }
}

fn parse_page(wire: wire::HistoryPage) -> Result<ServerFrame, ParseError> {
    let entries = wire.entries.into_iter().map(parse_entry).collect::<Result<Vec<_>, _>>()?;
    if entries.windows(2).any(|pair| pair[0].seq.checked_add(1) != Some(pair[1].seq)) {
        return Err(BLAME.invalid("a page has a gap"));
    }
    // Before nothing it says nothing, and may be absent ([DLV-63]).
    let chain_before = match wire.chain_before.is_empty() && entries.is_empty() {
        true => Chain::ZERO,
        false => BLAME.chain(&wire.chain_before)?,
    };
    Ok(ServerFrame::HistoryPage(HistoryPage {
        request_id: answered(wire.request_id)?,
        chain_before,
        entries,
        first_seq: wire.first_seq,
        head: wire.head,
        more: wire.more,
    }))
}

fn parse_welcome(wire: wire::Welcome) -> Result<Welcome, ParseError> {
    if wire.keepalive_ms == 0 {
        return Err(BLAME.invalid("keepalive_ms is 0"));
    }
    Ok(Welcome {
        session: SessionId::try_from(&wire.session_id[..])
            .map_err(|error| BLAME.invalid(format!("session_id: {error}")))?,
        user: BLAME.user(&wire.user_id)?,
        subject: wire.subject,
        device_number: wire.device_number,
        protocol: wire.protocol,
        limits: parse_limits(&BLAME.present("limits", wire.limits)?)?,
        keepalive_ms: wire.keepalive_ms,
        hlc: Hlc(wire.hlc),
        node: wire.node,
        token_expires_ms: wire.token_expires_ms,
        durability: durability(wire.durability),
    })
}

fn parse_limits(wire: &wire::Limits) -> Result<Limits, ParseError> {
    if wire.requests_in_flight_max == 0 || wire.cursors_per_resume_max == 0 {
        return Err(BLAME.invalid("a limit is 0"));
    }
    Ok(Limits {
        frame_bytes_max: wire.frame_bytes_max,
        content_bytes_max: wire.content_bytes_max,
        requests_in_flight_max: wire.requests_in_flight_max,
        group_members_max: wire.group_members_max,
        page_entries_max: wire.page_entries_max,
        members_per_request_max: wire.members_per_request_max,
        dedup_window_ms: wire.dedup_window_ms,
        id_future_ms_max: wire.id_future_ms_max,
        title_bytes_max: wire.title_bytes_max,
        credit_entries_max: wire.credit_entries_max,
        credit_bytes_max: wire.credit_bytes_max,
        cursors_per_resume_max: wire.cursors_per_resume_max,
        client_frame_bytes_max: wire.client_frame_bytes_max,
    })
}

fn error_to_wire(
    request_id: Option<RequestId>,
    conversation: Option<ConversationId>,
    code: u32,
    message: &str,
    retry_after_ms: u32,
) -> wire::Error {
    wire::Error {
        request_id: request_id.map_or(0, RequestId::get),
        code,
        message: message.into(),
        retry_after_ms,
        conversation: conversation.map_or_else(Bytes::new, ConversationId::to_bytes),
    }
}

impl From<&Limits> for wire::Limits {
    fn from(limits: &Limits) -> Self {
        Self {
            frame_bytes_max: limits.frame_bytes_max,
            content_bytes_max: limits.content_bytes_max,
            requests_in_flight_max: limits.requests_in_flight_max,
            group_members_max: limits.group_members_max,
            page_entries_max: limits.page_entries_max,
            members_per_request_max: limits.members_per_request_max,
            dedup_window_ms: limits.dedup_window_ms,
            id_future_ms_max: limits.id_future_ms_max,
            title_bytes_max: limits.title_bytes_max,
            credit_entries_max: limits.credit_entries_max,
            credit_bytes_max: limits.credit_bytes_max,
            cursors_per_resume_max: limits.cursors_per_resume_max,
            client_frame_bytes_max: limits.client_frame_bytes_max,
        }
    }
}

impl From<&Welcome> for wire::Welcome {
    fn from(welcome: &Welcome) -> Self {
        Self {
            session_id: welcome.session.to_bytes(),
            user_id: welcome.user.to_bytes(),
            device_number: welcome.device_number,
            protocol: welcome.protocol,
            limits: Some((&welcome.limits).into()),
            keepalive_ms: welcome.keepalive_ms,
            hlc: welcome.hlc.0,
            node: welcome.node.clone(),
            token_expires_ms: welcome.token_expires_ms,
            durability: welcome.durability.to_wire(),
            subject: welcome.subject.clone(),
        }
    }
}

impl From<&Refused> for wire::Refused {
    fn from(refused: &Refused) -> Self {
        Self {
            code: refused.code,
            message: refused.message.clone(),
            retry_after_ms: refused.retry_after_ms,
            redirect: refused.redirect.clone(),
        }
    }
}

impl From<&GoAway> for wire::GoAway {
    fn from(go_away: &GoAway) -> Self {
        Self {
            code: go_away.code,
            message: go_away.message.clone(),
            redirect: go_away.redirect.clone(),
            reconnect_after_ms: go_away.reconnect_after_ms,
        }
    }
}

impl From<&Sent> for wire::Sent {
    fn from(sent: &Sent) -> Self {
        Self {
            request_id: sent.request_id.get(),
            seq: sent.seq,
            epoch: sent.epoch,
            hlc: sent.hlc.0,
            durability: sent.durability.to_wire(),
            duplicate: sent.duplicate,
        }
    }
}

impl From<&HistoryPage> for wire::HistoryPage {
    fn from(page: &HistoryPage) -> Self {
        Self {
            request_id: page.request_id.get(),
            chain_before: page.chain_before.to_bytes(),
            entries: page.entries.iter().map(Entry::to_wire).collect(),
            first_seq: page.first_seq,
            head: page.head,
            more: page.more,
        }
    }
}

/// Tags of the messages around an entry in a `Deliver` frame.
const TAG_FRAME_DELIVER: u32 = 2;
const TAG_DELIVER_CONVERSATION: u32 = 1;
const TAG_DELIVER_ENTRY: u32 = 2;

/// A whole `Deliver` frame, written in one allocation: encoded once, shared by all recipients who get the same.
/// The same bytes as [`ServerFrame::encode`].
pub fn encode_deliver(conversation: ConversationId, entry: &Entry) -> Bytes {
    let entry_bytes = entry.encoded_len();
    let deliver_bytes = put::bytes_len(16) + put::nested_len(entry_bytes);
    let frame_bytes = put::nested_len(deliver_bytes);
    let mut out = BytesMut::with_capacity(FRAME_PREFIX_BYTES_MAX + frame_bytes);
    put_prefix(frame_bytes, &mut out);
    put::nested(TAG_FRAME_DELIVER, deliver_bytes, &mut out);
    put::bytes(TAG_DELIVER_CONVERSATION, conversation.as_bytes(), &mut out);
    put::nested(TAG_DELIVER_ENTRY, entry_bytes, &mut out);
    entry.encode_into(&mut out);
    out.freeze()
}
