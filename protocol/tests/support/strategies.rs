//! Any client and server frame within its limits, for proptest.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use talaria_protocol::{
    chain::{Chain, Commitment, Leaf},
    entry::{Entry, EntryForm, EntryHeader, EntryKind, Urgency},
    hlc::Hlc,
    ids::{BootId, ClientMessageId, ConversationId, DeviceId, SessionId, UserId},
    message::{
        ConversationKind, ConversationState, Credit, Cursor, Direction, Durability, Member, MemberRole, Peer,
        RequestId, Role, SyncToken, UserRef,
        client::{ChangeMembers, ClientFrame, ClientInfo, Hello, History, Request, Send, Token},
        content::Content,
        server::{GoAway, HistoryPage, Limits, Refused, Sent, ServerFrame, Welcome},
    },
};

fn text() -> impl Strategy<Value = String> {
    "[a-zé😀]{0,12}"
}

fn bytes(bytes_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=bytes_max).prop_map(Bytes::from)
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<[u8; 16]>().prop_map(ConversationId::new)
}

fn user() -> impl Strategy<Value = UserId> {
    any::<[u8; 16]>().prop_map(UserId::new)
}

fn message_id() -> impl Strategy<Value = ClientMessageId> {
    (0u64..1 << 48, any::<[u8; 10]>()).prop_map(|(ms, random)| ClientMessageId::from_parts(ms, random))
}

/// Small, so that frames of one sequence meet the same requests.
fn request_id() -> impl Strategy<Value = RequestId> {
    prop_oneof![1u64..6, 1..=u64::MAX].prop_map(|id| RequestId::new(id).unwrap())
}

fn chain() -> impl Strategy<Value = Chain> {
    any::<[u8; 32]>().prop_map(Chain::new)
}

fn user_ref() -> impl Strategy<Value = UserRef> {
    prop_oneof![user().prop_map(UserRef::Id), "[a-z]{1,12}".prop_map(UserRef::Subject)]
}

fn sync_token() -> impl Strategy<Value = SyncToken> {
    (any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, commit)| SyncToken { boot_id: BootId::new(id), commit })
}

fn credit() -> impl Strategy<Value = Credit> {
    prop_oneof![(0u64..5_000, 0u64..2_000_000), (any::<u64>(), any::<u64>())]
        .prop_map(|(entries, bytes)| Credit { entries, bytes })
}

fn cursor() -> impl Strategy<Value = Cursor> {
    prop_oneof![
        Just(Cursor::START),
        (any::<u64>(), 1..=u64::MAX, chain()).prop_map(|(epoch, seq, chain)| Cursor { epoch, seq, chain }),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    (text(), vec((text(), bytes(8)), 0..3))
        .prop_map(|(text, metadata)| Content { metadata, ..Content::text(text) })
}

fn urgency() -> impl Strategy<Value = Urgency> {
    prop_oneof![Just(Urgency::Normal), Just(Urgency::Urgent), Just(Urgency::Silent)]
}

/// A hello; its credit may be an abuse and its protocol range may not fit.
pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let client = (text(), text(), text());
    let client = client.prop_map(|(name, version, platform)| ClientInfo { name, version, platform });
    (
        (0u32..2, 1u32..3, text(), text(), any::<[u8; 10]>()),
        (any::<bool>(), client, vec(any::<u32>(), 0..4), credit(), any::<bool>()),
    )
        .prop_map(
            |((min, max, tenant, token, random), (push, client, capabilities, credit, background))| Hello {
                protocol_min: min,
                protocol_max: max,
                tenant,
                token: Token(token),
                device: DeviceId::from_parts(1_700_000_000_000, random),
                role: if push { Role::PushFetch } else { Role::Main },
                client,
                capabilities,
                credit,
                background,
            },
        )
}

fn send() -> impl Strategy<Value = Send> {
    (conversation(), message_id(), content(), option::of(message_id()), any::<u64>(), urgency(), any::<u64>())
        .prop_map(|(conversation, client_message_id, content, after, seen, urgency, expires_ms)| Send {
            conversation,
            client_message_id,
            content: content.encode(),
            after,
            seen,
            urgency,
            expires_ms,
        })
}

fn change() -> impl Strategy<Value = ChangeMembers> {
    (message_id(), conversation(), vec(user_ref(), 1..4)).prop_map(
        |(client_message_id, conversation, users)| ChangeMembers { client_message_id, conversation, users },
    )
}

fn history() -> impl Strategy<Value = History> {
    (conversation(), any::<u64>(), any::<bool>(), 1usize..=200).prop_map(
        |(conversation, from, back, entries_max)| {
            let direction = if back { Direction::Backward } else { Direction::Forward };
            History { conversation, from, direction, entries_max }
        },
    )
}

/// Any request.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        send().prop_map(Request::Send),
        (user_ref(), message_id())
            .prop_map(|(user, client_message_id)| Request::DirectWith { user, client_message_id }),
        (message_id(), text(), vec(user_ref(), 0..4)).prop_map(|(client_message_id, title, members)| {
            Request::CreateGroup { client_message_id, title, members }
        }),
        change().prop_map(Request::AddMembers),
        change().prop_map(Request::RemoveMembers),
        (message_id(), conversation())
            .prop_map(|(client_message_id, conversation)| Request::Leave { client_message_id, conversation }),
        bytes(64).prop_map(|page| Request::ListConversations { page }),
        (conversation(), bytes(64))
            .prop_map(|(conversation, page)| Request::ListMembers { conversation, page }),
        history().prop_map(Request::History),
        (option::of(sync_token()), bytes(64)).prop_map(|(token, page)| Request::Sync { token, page }),
    ]
}

/// Any frame of a client but `Ignored`, which has no bytes.
pub(crate) fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        1 => hello().prop_map(|hello| ClientFrame::Hello(Box::new(hello))),
        1 => (request_id(), text())
            .prop_map(|(request_id, token)| ClientFrame::Reauth { request_id, token: Token(token) }),
        1 => Just(ClientFrame::Logout),
        4 => request_id().prop_map(ClientFrame::Cancel),
        4 => any::<u64>().prop_map(ClientFrame::Ping),
        4 => (conversation(), any::<u64>())
            .prop_map(|(conversation, up_to)| ClientFrame::Ack { conversation, up_to }),
        2 => credit().prop_map(ClientFrame::Credit),
        2 => vec((conversation(), cursor()), 0..4).prop_map(ClientFrame::Resume),
        20 => (request_id(), request()).prop_map(|(id, request)| ClientFrame::Request(id, request)),
    ]
}

fn header(seq: u64) -> impl Strategy<Value = EntryHeader> {
    let kind = prop_oneof![
        Just(EntryKind::Message),
        Just(EntryKind::Membership),
        (100i32..=i32::MAX).prop_map(EntryKind::Unknown),
        (i32::MIN..0).prop_map(EntryKind::Unknown),
    ];
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
    (numbers, user(), kind, message_id(), urgency()).prop_map(
        move |(
            (ordinal, epoch, hlc, device, target_seq, expires_ms),
            sender,
            kind,
            client_message_id,
            urgency,
        )| {
            EntryHeader {
                seq,
                ordinal,
                epoch,
                hlc: Hlc(hlc),
                sender,
                device,
                kind,
                target_seq,
                client_message_id,
                urgency,
                expires_ms,
            }
        },
    )
}

/// Any header.
pub(crate) fn any_header() -> impl Strategy<Value = EntryHeader> {
    (1..=u64::MAX).prop_flat_map(header)
}

fn entry_at(seq: u64) -> impl Strategy<Value = Entry> {
    let full = (header(seq), option::of(content()), any::<[u8; 16]>()).prop_map(|(header, content, salt)| {
        EntryForm::Full { header: header.encode(), content: content.map(|content| content.encode()), salt }
    });
    let erased = (header(seq), any::<[u8; 32]>()).prop_map(|(header, commitment)| EntryForm::Erased {
        header: header.encode(),
        commitment: Commitment::new(commitment),
    });
    let hidden = any::<[u8; 32]>().prop_map(|leaf| EntryForm::Hidden { leaf: Leaf::new(leaf) });
    prop_oneof![full, erased, hidden].prop_map(move |form| Entry { seq, form })
}

/// Any entry.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (1..=u64::MAX).prop_flat_map(entry_at)
}

fn peer() -> impl Strategy<Value = Peer> {
    (user(), text()).prop_map(|(user, subject)| Peer { user, subject })
}

fn role() -> impl Strategy<Value = MemberRole> {
    prop_oneof![Just(MemberRole::Member), Just(MemberRole::Admin), Just(MemberRole::Owner)]
}

fn state() -> impl Strategy<Value = ConversationState> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    (conversation(), any::<bool>(), text(), numbers, any::<bool>(), role(), option::of(peer())).prop_map(
        |(conversation, group, title, (head, epoch, first_seq, hlc), member, role, peer)| ConversationState {
            conversation,
            kind: if group { ConversationKind::Group } else { ConversationKind::Direct },
            title,
            head,
            epoch,
            first_seq,
            hlc: Hlc(hlc),
            member,
            role,
            peer,
        },
    )
}

/// A welcome that suits [`hello`].
pub(crate) fn welcome() -> impl Strategy<Value = Welcome> {
    (any::<[u8; 16]>(), user(), text(), any::<u32>(), 1u32..100_000, any::<u64>(), any::<bool>()).prop_map(
        |(session, user, subject, device_number, keepalive_ms, hlc, os)| Welcome {
            session: SessionId::new(session),
            user,
            subject,
            device_number,
            protocol: 1,
            limits: Limits::default(),
            keepalive_ms,
            hlc: Hlc(hlc),
            node: "n1".into(),
            token_expires_ms: hlc >> 16,
            durability: if os { Durability::Os } else { Durability::Fsync },
        },
    )
}

fn page() -> impl Strategy<Value = HistoryPage> {
    let entries = (1u64..u64::MAX - 4, 0usize..4)
        .prop_flat_map(|(from, count)| (0..count as u64).map(|n| entry_at(from + n)).collect::<Vec<_>>());
    (request_id(), chain(), entries, any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
        |(request_id, chain_before, entries, first_seq, head, more)| HistoryPage {
            request_id,
            chain_before,
            entries,
            first_seq,
            head,
            more,
        },
    )
}

fn session_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        welcome().prop_map(|welcome| ServerFrame::Welcome(Box::new(welcome))),
        (any::<u32>(), text(), any::<u32>(), text()).prop_map(|(code, message, retry_after_ms, redirect)| {
            ServerFrame::Refused(Refused { code, message, retry_after_ms, redirect })
        }),
        (any::<u32>(), text(), any::<u32>(), text()).prop_map(
            |(code, message, reconnect_after_ms, redirect)| {
                ServerFrame::GoAway(GoAway { code, message, redirect, reconnect_after_ms })
            }
        ),
    ]
}

fn error() -> impl Strategy<Value = ServerFrame> {
    let names = (option::of(request_id()), option::of(conversation()));
    (names, any::<u32>(), text(), any::<u32>()).prop_map(
        |((request_id, conversation), code, message, retry_after_ms)| ServerFrame::Error {
            request_id,
            conversation,
            code,
            message,
            retry_after_ms,
        },
    )
}

fn answer() -> impl Strategy<Value = ServerFrame> {
    let sent = (request_id(), 1..=u64::MAX, any::<u64>(), any::<u64>(), any::<bool>());
    prop_oneof![
        (request_id(), any::<u64>()).prop_map(|(request_id, token_expires_ms)| ServerFrame::Reauthed {
            request_id,
            token_expires_ms
        }),
        error(),
        sent.prop_map(|(request_id, seq, epoch, hlc, duplicate)| ServerFrame::Sent(Sent {
            request_id,
            seq,
            epoch,
            hlc: Hlc(hlc),
            durability: Durability::Fsync,
            duplicate,
        })),
        (request_id(), sync_token(), any::<bool>(), vec(state(), 0..3), bytes(64)).prop_map(
            |(request_id, token, reset, conversations, next_page)| ServerFrame::SyncResult {
                request_id,
                token,
                reset,
                conversations,
                next_page
            }
        ),
        (request_id(), state(), any::<u64>(), any::<bool>()).prop_map(
            |(request_id, conversation, seq, duplicate)| ServerFrame::ConversationResult {
                request_id,
                conversation,
                seq,
                duplicate
            }
        ),
        (request_id(), vec(state(), 0..3), bytes(64)).prop_map(|(request_id, conversations, next_page)| {
            ServerFrame::ConversationList { request_id, conversations, next_page }
        }),
        (request_id(), vec((peer(), role(), any::<u64>()), 0..3), bytes(64)).prop_map(
            |(request_id, members, next_page)| {
                let members = members
                    .into_iter()
                    .map(|(peer, role, joined_seq)| Member { peer, role, joined_seq })
                    .collect();
                ServerFrame::MemberList { request_id, members, next_page }
            }
        ),
        page().prop_map(ServerFrame::HistoryPage),
    ]
}

fn delivery() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        (conversation(), entry())
            .prop_map(|(conversation, entry)| ServerFrame::Deliver { conversation, entry }),
        (conversation(), any::<u64>(), option::of(chain()))
            .prop_map(|(conversation, head, chain)| ServerFrame::CaughtUp { conversation, head, chain }),
        state().prop_map(ServerFrame::Changed),
        (conversation(), 1u64..9, 9u64..99, chain()).prop_map(|(conversation, from, to, chain)| {
            ServerFrame::Skipped { conversation, from, to, chain }
        }),
        (conversation(), 1..=u64::MAX, chain()).prop_map(|(conversation, first_seq, chain)| {
            ServerFrame::Truncated { conversation, first_seq, chain }
        }),
        (conversation(), 1..=u64::MAX, chain(), any::<u64>()).prop_map(
            |(conversation, first_seq, chain, epoch)| {
                ServerFrame::EpochChanged { conversation, first_seq, chain, epoch }
            }
        ),
        (any::<u64>(), any::<u64>()).prop_map(|(nonce, hlc)| ServerFrame::Pong { nonce, hlc: Hlc(hlc) }),
    ]
}

/// Any frame of a server but `Ignored`, which has no bytes.
pub(crate) fn server_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![1 => session_frame(), 8 => answer(), 8 => delivery()]
}
