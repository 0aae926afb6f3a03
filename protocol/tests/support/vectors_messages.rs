//! messages.json: every frame of both directions, and what must be refused.

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm, Urgency},
    error_code::ErrorCode,
    frame::{FrameDecoder, encode_frame, encode_payload},
    hlc::Hlc,
    ids::{BootId, ClientMessageId, ConversationId, DeviceId, SessionId},
    limits,
    message::{
        ConversationKind, ConversationState, Credit, Cursor, Direction, Durability, Member, MemberRole, Peer,
        RequestId, Role, SyncToken, UserRef,
        client::{ChangeMembers, ClientFrame, ClientInfo, Hello, History, Request, Send, Token},
        content::{Content, Membership},
        server::{GoAway, HistoryPage, Limits, Refused, Sent, ServerFrame, Welcome},
    },
    wire::{self, frame::Body},
};

use super::{
    MADE_BY, full, header,
    proto::{Schema, hex},
    user,
};

const CONVERSATION: ConversationId = ConversationId::new([0xc0; 16]);
const CHAIN: Chain = Chain::new([0xcc; 32]);

fn message_id() -> ClientMessageId {
    ClientMessageId::from_parts(1_790_000_000_000, [0x11; 10])
}

fn id(id: u64) -> RequestId {
    RequestId::new(id).unwrap_or_else(|| unreachable!("a vector's request id is not 0"))
}

fn payload(frame: &Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    decoder.extend(frame);
    decoder.poll_frame().ok().flatten().unwrap_or_default()
}

/// The whole file.
pub(super) fn messages() -> Value {
    let schema = Schema::wire();
    let vector = |name: &str, frame: &Bytes| json!({ "name": name, "frame": hex(frame), "message": schema.describe("Frame", &payload(frame)) });
    let mut client: Vec<_> = client().iter().map(|(name, frame)| vector(name, &frame.encode())).collect();
    let mut server: Vec<_> = server().iter().map(|(name, frame)| vector(name, &frame.encode())).collect();
    let ignored = encode_payload(&[0xe2, 3, 0]);
    for side in [&mut client, &mut server] {
        side.push(json!({ "name": "an unknown body, ignored", "frame": hex(&ignored), "message": null }));
    }
    json!({
        "about": MADE_BY,
        "client": client,
        "server": server,
        "invalid": { "client": invalid_client(), "server": invalid_server() },
    })
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        tenant: "acme".into(),
        token: Token("e30.e30.c2ln".into()),
        device: DeviceId::from_parts(1_780_000_000_000, [0x22; 10]),
        role: Role::PushFetch,
        client: ClientInfo { name: "app".into(), version: "1.2".into(), platform: "ios".into() },
        capabilities: vec![1, 300],
        credit: Credit { entries: 1_000, bytes: 1 << 20 },
        background: true,
    }
}

fn client() -> Vec<(&'static str, ClientFrame)> {
    let mut frames = vec![
        ("hello", ClientFrame::Hello(Box::new(hello()))),
        ("reauth", ClientFrame::Reauth { request_id: id(1), token: Token("e30.e30.c2ln".into()) }),
        ("logout", ClientFrame::Logout),
        ("cancel", ClientFrame::Cancel(id(7))),
        ("ping", ClientFrame::Ping(42)),
        ("ack", ClientFrame::Ack { conversation: CONVERSATION, up_to: 1_000_000 }),
        ("credit", ClientFrame::Credit(Credit { entries: 2_000, bytes: 3 << 20 })),
        (
            "resume",
            ClientFrame::Resume(vec![
                (CONVERSATION, Cursor { epoch: 1_790_000_000, seq: 12, chain: CHAIN }),
                (ConversationId::new([0xc1; 16]), Cursor::START),
            ]),
        ),
    ];
    let requests = requests().into_iter().zip(2..);
    frames.extend(requests.map(|((name, request), n)| (name, ClientFrame::Request(id(n), request))));
    frames
}

fn send() -> Send {
    Send {
        conversation: CONVERSATION,
        client_message_id: message_id(),
        content: Content::text("hello").encode(),
        after: None,
        seen: 0,
        urgency: Urgency::Normal,
        expires_ms: 0,
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let change = ChangeMembers {
        client_message_id: message_id(),
        conversation: CONVERSATION,
        users: vec![UserRef::Id(user(2)), UserRef::Subject("carol".into())],
    };
    let all = Send {
        after: Some(ClientMessageId::from_parts(1_789_999_999_000, [0x12; 10])),
        seen: 11,
        urgency: Urgency::Silent,
        expires_ms: 1_790_000_060_000,
        ..send()
    };
    let token = SyncToken { boot_id: BootId::new([0xb0; 16]), commit: 99 };
    let (client_message_id, conversation) = (message_id(), CONVERSATION);
    let backward = History { conversation, from: 0, direction: Direction::Backward, entries_max: 50 };
    let page = Bytes::from_static(&[1, 2, 3]);
    vec![
        ("send", Request::Send(send())),
        ("send with everything", Request::Send(all)),
        (
            "direct_with by subject",
            Request::DirectWith { user: UserRef::Subject("bob".into()), client_message_id },
        ),
        (
            "create_group",
            Request::CreateGroup { client_message_id, title: "Crew".into(), members: change.users.clone() },
        ),
        ("add_members", Request::AddMembers(change.clone())),
        ("remove_members", Request::RemoveMembers(change)),
        ("leave", Request::Leave { client_message_id, conversation }),
        ("list_conversations, first page", Request::ListConversations { page: Bytes::new() }),
        ("list_members, a later page", Request::ListMembers { conversation, page }),
        ("history, backward", Request::History(backward)),
        ("sync, first", Request::Sync { token: None, page: Bytes::new() }),
        ("sync with a token", Request::Sync { token: Some(token), page: Bytes::new() }),
    ]
}

fn welcome() -> Welcome {
    Welcome {
        session: SessionId::new([0x55; 16]),
        user: user(1),
        subject: "alice".into(),
        device_number: 3,
        protocol: 1,
        limits: Limits::default(),
        keepalive_ms: 30_000,
        hlc: Hlc::from_ms(1_790_000_000_123),
        node: "n1".into(),
        token_expires_ms: 1_790_003_600_000,
        durability: Durability::Fsync,
    }
}

fn state() -> ConversationState {
    ConversationState {
        conversation: CONVERSATION,
        kind: ConversationKind::Direct,
        title: String::new(),
        head: 12,
        epoch: 1_790_000_000,
        first_seq: 1,
        hlc: Hlc::from_ms(1_790_000_000_123),
        member: true,
        role: MemberRole::Member,
        peer: Some(Peer { user: user(2), subject: "bob".into() }),
    }
}

fn text_entry(seq: u64) -> Entry {
    let content = Content::text("hello").encode();
    Entry { seq, form: full(&header(seq).encode(), &content, [0xa0; 16]) }
}

fn server() -> Vec<(&'static str, ServerFrame)> {
    let code = ErrorCode::Draining as u32;
    let message = String::from("for a developer");
    let mut frames = vec![
        ("welcome", ServerFrame::Welcome(Box::new(welcome()))),
        (
            "refused",
            ServerFrame::Refused(Refused {
                code,
                message: message.clone(),
                retry_after_ms: 250,
                redirect: "b.example:7443".into(),
            }),
        ),
        (
            "go_away",
            ServerFrame::GoAway(GoAway {
                code,
                message,
                redirect: "b.example:7443".into(),
                reconnect_after_ms: 250,
            }),
        ),
        ("reauthed", ServerFrame::Reauthed { request_id: id(1), token_expires_ms: 1_790_007_200_000 }),
        ("pong", ServerFrame::Pong { nonce: 42, hlc: Hlc::from_ms(1_790_000_000_123) }),
        ("error", ServerFrame::error_retry(Some(id(2)), ErrorCode::Busy, "the log is full", 40)),
        (
            "error of a conversation",
            ServerFrame::conversation_error(CONVERSATION, ErrorCode::NotFound, "no such"),
        ),
    ];
    frames.extend(deliveries());
    frames.extend(results());
    frames
}

fn deliveries() -> Vec<(&'static str, ServerFrame)> {
    let conversation = CONVERSATION;
    let entry = text_entry(12);
    let omitted = EntryForm::Full { header: header(12).encode(), content: None, salt: [0xa0; 16] };
    let hidden = entry.leaf().map_or_else(|| omitted.clone(), |leaf| EntryForm::Hidden { leaf });
    vec![
        ("deliver", ServerFrame::Deliver { conversation, entry }),
        (
            "deliver, content omitted",
            ServerFrame::Deliver { conversation, entry: Entry { seq: 12, form: omitted } },
        ),
        ("deliver, hidden", ServerFrame::Deliver { conversation, entry: Entry { seq: 12, form: hidden } }),
        ("caught_up", ServerFrame::CaughtUp { conversation, head: 12, chain: Some(CHAIN) }),
        ("caught_up, chain not told", ServerFrame::CaughtUp { conversation, head: 12, chain: None }),
        ("changed", ServerFrame::Changed(state())),
        ("skipped", ServerFrame::Skipped { conversation, from: 1, to: 500, chain: CHAIN }),
        ("truncated", ServerFrame::Truncated { conversation, first_seq: 10, chain: CHAIN }),
        (
            "epoch_changed",
            ServerFrame::EpochChanged { conversation, first_seq: 1, chain: Chain::ZERO, epoch: 0 },
        ),
    ]
}

fn results() -> Vec<(&'static str, ServerFrame)> {
    let sent = Sent {
        request_id: id(2),
        seq: 12,
        epoch: 1_790_000_000,
        hlc: Hlc((1_790_000_000_123 << 16) | 1),
        durability: Durability::Os,
        duplicate: true,
    };
    let group = ConversationState {
        kind: ConversationKind::Group,
        title: "Crew".into(),
        role: MemberRole::Owner,
        peer: None,
        ..state()
    };
    let members = vec![Member {
        peer: Peer { user: user(1), subject: "alice".into() },
        role: MemberRole::Owner,
        joined_seq: 1,
    }];
    let token = SyncToken { boot_id: BootId::new([0xb0; 16]), commit: 100 };
    let next_page = Bytes::from_static(&[1, 2, 3]);
    let page = HistoryPage {
        request_id: id(10),
        chain_before: CHAIN,
        entries: vec![text_entry(11), text_entry(12)],
        first_seq: 1,
        head: 12,
        more: true,
    };
    vec![
        ("sent", ServerFrame::Sent(sent)),
        (
            "sync_result",
            ServerFrame::SyncResult {
                request_id: id(12),
                token,
                reset: true,
                conversations: vec![state(), group.clone()],
                next_page: next_page.clone(),
            },
        ),
        (
            "conversation_result",
            ServerFrame::ConversationResult {
                request_id: id(4),
                conversation: group,
                seq: 1,
                duplicate: false,
            },
        ),
        (
            "conversation_list",
            ServerFrame::ConversationList {
                request_id: id(9),
                conversations: vec![state()],
                next_page: Bytes::new(),
            },
        ),
        ("member_list", ServerFrame::MemberList { request_id: id(10), members, next_page }),
        ("history_page", ServerFrame::HistoryPage(page)),
    ]
}

fn wire_frame(body: Body) -> Bytes {
    encode_frame(&wire::Frame { critical: false, body: Some(body) })
}

fn invalid(name: &str, frame: &Bytes, code: ErrorCode, request_id: Option<u64>) -> Value {
    json!({
        "name": name, "frame": hex(frame), "code": code.name(),
        "request_id": request_id.map(|id| id.to_string()),
    })
}

/// A `request_id` of null: the session ends with the code.
fn invalid_client() -> Vec<Value> {
    let mut vectors = invalid_sends();
    let violation = |name: &str, frame: Bytes| invalid(name, &frame, ErrorCode::ProtocolViolation, None);
    let conversation = CONVERSATION.to_bytes();
    let cursor =
        wire::Cursor { conversation: conversation.clone(), epoch: 1, seq: 1, chain: vec![0; 31].into() };
    let title = wire::CreateGroup {
        request_id: 5,
        client_message_id: message_id().to_bytes(),
        title: "t".repeat(limits::TITLE_BYTES_MAX + 1),
        members: Vec::new(),
    };
    let add = wire::AddMembers {
        request_id: 6,
        client_message_id: message_id().to_bytes(),
        conversation: conversation.clone(),
        users: Vec::new(),
    };
    let history = wire::History { request_id: 7, conversation, direction: 2, ..Default::default() };
    let page =
        wire::ListConversations { request_id: 8, page: vec![0; limits::PAGE_TOKEN_BYTES_MAX + 1].into() };
    vectors.extend([
        violation("no protobuf", encode_payload(&[0xff, 0xff])),
        violation("a request id of 0", wire_frame(Body::Sync(wire::Sync::default()))),
        violation("cancel of 0", wire_frame(Body::Cancel(wire::Cancel::default()))),
        violation(
            "ack without a conversation",
            wire_frame(Body::Ack(wire::Ack { up_to: 1, ..Default::default() })),
        ),
        violation("a chain of 31 bytes", wire_frame(Body::Resume(wire::Resume { cursors: vec![cursor] }))),
        violation(
            "a server's frame",
            ServerFrame::CaughtUp { conversation: CONVERSATION, head: 1, chain: None }.encode(),
        ),
        violation(
            "text that is no UTF-8 in a string field",
            encode_payload(&[0x9a, 1, 4, 0x12, 2, 0xff, 0xfe]),
        ),
        invalid(
            "a critical unknown body",
            &encode_payload(&[8, 1, 0xe2, 3, 0]),
            ErrorCode::Unsupported,
            None,
        ),
        invalid("a long title", &wire_frame(Body::CreateGroup(title)), ErrorCode::TooLarge, Some(5)),
        invalid("no users", &wire_frame(Body::AddMembers(add)), ErrorCode::Invalid, Some(6)),
        invalid("an unknown direction", &wire_frame(Body::History(history)), ErrorCode::Invalid, Some(7)),
        invalid(
            "a long page token",
            &wire_frame(Body::ListConversations(page)),
            ErrorCode::TooLarge,
            Some(8),
        ),
    ]);
    vectors.extend(invalid_hellos());
    vectors
}

fn invalid_hellos() -> Vec<Value> {
    let bad_hello = |change: fn(&mut wire::Hello)| {
        let mut hello = wire::Hello { protocol_min: 1, protocol_max: 1, ..wire::Hello::default() };
        hello.device_id = message_id().to_bytes();
        change(&mut hello);
        wire_frame(Body::Hello(hello))
    };
    vec![
        invalid(
            "hello of device 0",
            &bad_hello(|hello| hello.device_id = vec![0; 16].into()),
            ErrorCode::Invalid,
            None,
        ),
        invalid("hello of an unknown role", &bad_hello(|hello| hello.role = 9), ErrorCode::Invalid, None),
        invalid(
            "hello with a long tenant",
            &bad_hello(|hello| hello.tenant = "t".repeat(256)),
            ErrorCode::TooLarge,
            None,
        ),
    ]
}

fn invalid_sends() -> Vec<Value> {
    let changed = |change: &dyn Fn(&mut wire::Send)| {
        let mut wire = wire::Send {
            request_id: 2,
            conversation: CONVERSATION.to_bytes(),
            client_message_id: message_id().to_bytes(),
            content: send().content,
            ..wire::Send::default()
        };
        change(&mut wire);
        wire_frame(Body::Send(wire))
    };
    let bad =
        |name: &str, code, change: &dyn Fn(&mut wire::Send)| invalid(name, &changed(change), code, Some(2));
    let metadata: Bytes = wire::Content {
        body: Some(wire::content::Body::Text("t".into())),
        metadata: vec![wire::Metadata::default(); limits::METADATA_PAIRS_MAX + 1],
    }
    .encode_to_vec()
    .into();
    let membership = Content::membership(Membership { created: true, ..Membership::default() }).encode();
    let (refused, too_large) = (ErrorCode::Invalid, ErrorCode::TooLarge);
    vec![
        bad("send to a conversation of 15 bytes", refused, &|send| send.conversation = vec![1; 15].into()),
        bad("send with an id that is no UUIDv7", refused, &|send| {
            send.client_message_id = vec![0; 16].into();
        }),
        bad("send after an id that is no UUIDv7", refused, &|send| send.after = vec![0; 16].into()),
        bad("send of an unknown urgency", refused, &|send| send.urgency = 9),
        bad("send of no content", refused, &|send| send.content = Bytes::new()),
        bad("send of text that is no UTF-8", refused, &|send| {
            send.content = Bytes::from_static(&[0x0a, 2, 0xff, 0xfe]);
        }),
        bad("send of a membership change", refused, &|send| send.content = membership.clone()),
        bad("send of 33 pairs of metadata", too_large, &|send| send.content = metadata.clone()),
    ]
}

/// All of these end the session; a client tells no code.
fn invalid_server() -> Vec<Value> {
    let bad = |name: &str, body: Body| json!({ "name": name, "frame": hex(&wire_frame(body)) });
    let deliver =
        |entry: Entry| wire::Deliver { conversation: CONVERSATION.to_bytes(), entry: Some(entry.to_wire()) };
    let page = wire::HistoryPage {
        request_id: 1,
        chain_before: CHAIN.to_bytes(),
        entries: vec![text_entry(1).to_wire(), text_entry(3).to_wire()],
        ..wire::HistoryPage::default()
    };
    let skipped =
        wire::Skipped { conversation: CONVERSATION.to_bytes(), from: 5, to: 4, chain: CHAIN.to_bytes() };
    let truncated =
        wire::Truncated { conversation: CONVERSATION.to_bytes(), first_seq: 1, chain: Bytes::new() };
    vec![
        bad("another seq beside the header's", Body::Deliver(deliver(Entry { seq: 13, ..text_entry(12) }))),
        bad(
            "deliver without an entry",
            Body::Deliver(wire::Deliver { entry: None, ..deliver(text_entry(1)) }),
        ),
        bad(
            "sent without a request id",
            Body::Sent(wire::Sent { seq: 1, durability: 1, ..Default::default() }),
        ),
        bad("sent of seq 0", Body::Sent(wire::Sent { request_id: 1, durability: 1, ..Default::default() })),
        bad("a page with a gap", Body::HistoryPage(page)),
        bad("skipped backwards", Body::Skipped(skipped)),
        bad("truncated without a chain", Body::Truncated(truncated)),
        bad("a client's frame", Body::Ping(wire::Ping { nonce: 1 })),
        json!({ "name": "a critical unknown body", "frame": hex(&encode_payload(&[8, 1, 0xe2, 3, 0])) }),
    ]
}
