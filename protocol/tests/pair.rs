//! The two session machines against each other on a virtual clock, with delays, chopped bytes and cuts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pair.rs"]
mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{Pair, START_UNIX_MS, answer, hello, welcome};
use talaria_protocol::{
    chain::Leaf,
    entry::{Entry, EntryForm},
    error_code::ErrorCode,
    frame::{FrameDecoder, encode_payload},
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, DeviceId},
    limits,
    message::{
        Credit, Cursor, RequestId,
        client::{ClientFrame, Hello, Request, Send, Token},
        content::Content,
        server::{GoAway, Refused, ServerFrame, encode_deliver},
    },
    session::{
        Lane, Millis,
        client::{self, ClientEvent, ClientSession, CloseReason, TooManyRequests},
        server::{Config, ServerEvent, ServerSession},
    },
};

const CONVERSATION: ConversationId = ConversationId::new([5; 16]);

fn list() -> Request {
    Request::ListConversations { page: Bytes::new() }
}

fn id(id: u64) -> RequestId {
    RequestId::new(id).unwrap()
}

// ---- opening -----------------------------------------------------------------------------------------------

#[test]
fn hello_is_welcomed_whatever_the_delays() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed);
        pair.run(1);
        assert!(pair.client.is_live() && pair.server.is_live(), "seed {seed}");
        assert!(matches!(pair.client_events[..], [ClientEvent::Welcome(_)]));
        let server_ms = pair.client.server_unix_ms(pair.now).unwrap();
        let error_ms = (START_UNIX_MS + pair.now.0).checked_sub(server_ms).expect("never ahead");
        assert!(error_ms <= 1_000, "off by a delay at most, not {error_ms} ms");
    }
}

#[test]
fn one_seed_gives_one_run() {
    let run = |seed| {
        let mut pair = Pair::live(seed);
        pair.client.request(pair.now, list()).unwrap();
        pair.run(100);
        pair.cut();
        pair.run(200);
        format!("{:?} {:?} {} {:?}", pair.client_events, pair.server_events, pair.pings, pair.server)
    };
    assert_eq!(run(7), run(7));
}

#[test]
fn a_refusal_is_told_and_is_the_end() {
    let mut pair = Pair::new(1);
    let code = ErrorCode::TokenInvalid as u32;
    let refused = Refused { code, message: "no".into(), retry_after_ms: 5, redirect: "b:1".into() };
    pair.refusal = Some(refused.clone());
    pair.run(1);
    assert_eq!(pair.client_events, [ClientEvent::Refused(refused)]);
    pair.assert_ended(ErrorCode::TokenInvalid);
}

#[test]
fn a_hello_that_does_not_come_in_10_s_is_refused() {
    let mut pair = Pair::new(1);
    pair.cut_up();
    pair.run(9);
    assert_eq!(pair.server.end_code(), None);
    pair.run(2);
    pair.assert_ended(ErrorCode::HelloTimeout);
}

#[test]
fn a_client_waits_20_s_for_a_welcome() {
    let mut pair = Pair::new(1);
    pair.cut();
    pair.run(19);
    assert!(!pair.client.is_closed());
    pair.run(2);
    assert_eq!(pair.client_events, [ClientEvent::Closed { reason: CloseReason::WelcomeTimeout }]);
}

#[test]
fn another_protocol_is_unsupported() {
    let newer = Hello { protocol_min: 2, protocol_max: 9, ..hello() };
    let mut pair = Pair::with_hello(1, newer);
    pair.run(1);
    pair.assert_ended(ErrorCode::Unsupported);
}

#[test]
fn a_welcome_after_the_session_has_ended_has_no_effect() {
    let mut server = ServerSession::new(Millis(0), Default::default());
    server.handle_frame(Millis(0), strip(&ClientFrame::Hello(Box::new(hello())).encode()));
    assert!(matches!(server.poll_event(), Some(ServerEvent::Hello(_))));
    server.end(ErrorCode::Draining, "going down");
    server.handle_welcome(Millis(1), welcome(Millis(1)), Millis(9));
    assert!(server.poll_transmit().is_some() && server.is_closed() && server.poll_transmit().is_none());
}

fn strip(frame: &Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    decoder.extend(frame);
    decoder.poll_frame().unwrap().unwrap()
}

// ---- breaches ----------------------------------------------------------------------------------------------

#[test]
fn breaches_end_the_session_with_their_code() {
    let overlong = Bytes::from_static(&[0x81, 0]);
    let critical_unknown = encode_payload(&[8, 1, 0xe2, 3, 0]);
    let hello_frame = ClientFrame::Hello(Box::new(hello())).encode();
    let request = ClientFrame::Request(id(70), list()).encode();
    let server_only = ServerFrame::CaughtUp { conversation: CONVERSATION, head: 1, chain: None }.encode();
    let mut twice = request.to_vec();
    twice.extend_from_slice(&request);
    let too_much = Credit { entries: limits::CREDIT_ENTRIES_MAX + 1, bytes: 0 };
    let too_many_bytes = Credit { entries: 0, bytes: limits::CREDIT_BYTES_MAX + 1 };
    let table = [
        ("an overlong length", overlong, ErrorCode::ProtocolViolation),
        ("a critical unknown body", critical_unknown, ErrorCode::Unsupported),
        ("a second hello", hello_frame, ErrorCode::ProtocolViolation),
        ("a body of servers", server_only, ErrorCode::ProtocolViolation),
        ("a request id twice", Bytes::from(twice), ErrorCode::ProtocolViolation),
        ("too much credit", ClientFrame::Credit(too_much).encode(), ErrorCode::ProtocolViolation),
        ("too many credit bytes", ClientFrame::Credit(too_many_bytes).encode(), ErrorCode::ProtocolViolation),
        ("no protobuf", encode_payload(&[0xff; 5]), ErrorCode::ProtocolViolation),
    ];
    for (name, bytes, code) in table {
        let mut pair = Pair::live(3);
        pair.inject_bytes(bytes.clone());
        pair.run(1);
        assert_eq!(pair.server.end_code(), Some(code as u32), "{name}");
        pair.assert_ended(code);

        // The same, first on the connection.
        if name == "a second hello" {
            continue;
        }
        let mut pair = Pair::new(3);
        while pair.client.poll_transmit().is_some() {}
        pair.inject_bytes(bytes);
        pair.run(1);
        assert!(matches!(pair.client_events[..], [ClientEvent::Refused(_)]), "{name}");
        pair.assert_ended(code);
    }
}

#[test]
fn frames_are_small_before_welcome_and_larger_after() {
    let large = encode_payload(&vec![0x0a; limits::FRAME_BYTES_MAX_BEFORE_WELCOME + 1]);
    let mut pair = Pair::new(1);
    while pair.client.poll_transmit().is_some() {}
    pair.inject_bytes(large);
    pair.run(1);
    pair.assert_ended(ErrorCode::ProtocolViolation);

    let mut pair = Pair::live(1);
    let content = Content::text("x".repeat(60_000)).encode();
    let send = Send {
        conversation: CONVERSATION,
        client_message_id: ClientMessageId::from_parts(START_UNIX_MS, [0; 10]),
        content,
        after: None,
        seen: 0,
        urgency: Default::default(),
        expires_ms: 0,
    };
    pair.client.request(pair.now, Request::Send(send)).unwrap();
    pair.run(1);
    assert_eq!(pair.take_requests().len(), 1);
}

#[test]
fn one_request_may_go_behind_the_hello_and_is_answered_after_welcome() {
    let mut client = ClientSession::new(Millis(0), hello(), client::Config::default());
    let early = client.request_early(list()).unwrap();
    assert_eq!(client.request_early(list()), None, "one");
    assert_eq!(client.requests_in_flight(), 0, "it counts from Welcome on");
    for expected in ["Hello", "Request"] {
        let frame = ClientFrame::parse(strip(&client.poll_transmit().unwrap())).unwrap();
        assert!(format!("{frame:?}").starts_with(expected), "{frame:?}");
    }
    client.handle_frame(Millis(1), strip(&ServerFrame::Welcome(Box::new(welcome(Millis(1)))).encode()));
    assert_eq!((client.requests_in_flight(), client.request_early(list())), (1, None));
    assert_ne!(client.request(Millis(1), list()).unwrap(), early);
    client.handle_frame(Millis(2), strip(&answer(early).encode()));
    assert!(matches!(client.poll_event(), Some(ClientEvent::Welcome(_))));
    assert_eq!(client.poll_event(), Some(ClientEvent::Frame(answer(early))));
    assert_eq!(client.requests_in_flight(), 1);
}

#[test]
fn a_frame_between_hello_and_welcome_is_a_breach() {
    let mut server = ServerSession::new(Millis(0), Default::default());
    server.handle_frame(Millis(0), strip(&ClientFrame::Hello(Box::new(hello())).encode()));
    server.handle_frame(Millis(0), strip(&ClientFrame::Ping(1).encode()));
    assert_eq!(server.end_code(), Some(ErrorCode::ProtocolViolation as u32));
}

#[test]
fn an_unknown_body_that_is_not_critical_is_ignored_everywhere() {
    let unknown = encode_payload(&[0xe2, 3, 0]);
    let mut pair = Pair::new(1);
    pair.inject_bytes(unknown.clone());
    pair.inject_down(unknown.clone());
    pair.run(1);
    pair.inject_bytes(unknown.clone());
    pair.inject_down(unknown);
    pair.run(1);
    assert!(pair.client.is_live() && pair.server.is_live());
    assert!(matches!(pair.client_events[..], [ClientEvent::Welcome(_)]));
}

#[test]
fn a_bad_field_is_answered_and_the_session_goes_on() {
    let mut pair = Pair::live(1);
    let first = pair.client.request(pair.now, list()).unwrap();
    let long = Request::ListConversations { page: vec![0; 65].into() };
    let second = pair.client.request(pair.now, long).unwrap();
    pair.run(1);
    assert_eq!(pair.take_requests(), [first]);
    pair.server.reply(answer(first));
    pair.run(1);
    let answered = pair.client_events.iter().map(|event| match event {
        ClientEvent::Frame(ServerFrame::Error { request_id, code, .. }) => (*request_id, *code),
        ClientEvent::Frame(frame) => (frame.request_id(), 0),
        other => panic!("{other:?}"),
    });
    let answered = answered.collect::<Vec<_>>();
    assert_eq!(answered, [(Some(second), ErrorCode::TooLarge as u32), (Some(first), 0)]);
    assert!(pair.server.is_live() && pair.client.requests_in_flight() == 0);
}

#[test]
fn a_client_closes_on_a_breach_of_its_server() {
    let refused = Refused { code: 1, message: String::new(), retry_after_ms: 0, redirect: String::new() };
    let table = [
        encode_payload(&[8, 1, 0xe2, 3, 0]),
        Bytes::from_static(&[0]),
        ClientFrame::Ping(1).encode(),
        ServerFrame::Welcome(Box::new(welcome(Millis(0)))).encode(),
        ServerFrame::Refused(refused).encode(),
    ];
    for bytes in table {
        let mut pair = Pair::live(1);
        pair.inject_down(bytes);
        pair.run(1);
        let closed = matches!(
            pair.client_events[..],
            [ClientEvent::Closed { reason: CloseReason::Violation(_) | CloseReason::Frame(_) }]
        );
        assert!(closed && pair.client.is_closed(), "{:?}", pair.client_events);
    }
    let mut pair = Pair::new(1);
    pair.inject_down(ServerFrame::Pong { nonce: 1, hlc: Hlc(0) }.encode());
    pair.run(1);
    assert!(matches!(pair.client_events[..], [ClientEvent::Closed { .. }]), "nothing before Welcome");
}

// ---- tokens ----------------------------------------------------------------------------------------------

#[test]
fn a_token_is_renewed_or_ends_the_session() {
    let mut pair = Pair::new(1);
    pair.token_lifetime = Duration::from_secs(100);
    pair.run(50);
    let request_id = pair.client.reauth(pair.now, Token("newer".into())).unwrap();
    pair.run(1);
    assert_eq!(pair.server_events, [ServerEvent::Reauth { request_id, token: Token("newer".into()) }]);
    pair.server.handle_reauthed(request_id, 4_711, pair.now.after(Duration::from_secs(200)));
    pair.run(150);
    let reauthed = ServerFrame::Reauthed { request_id, token_expires_ms: 4_711 };
    assert_eq!(pair.client_events[1..], [ClientEvent::Frame(reauthed)]);
    assert!(pair.client.is_live(), "beyond the old token's time");

    let request_id = pair.client.reauth(pair.now, Token("of another".into())).unwrap();
    pair.run(1);
    pair.server.reply(ServerFrame::error(Some(request_id), ErrorCode::TokenOfAnother, "another user"));
    pair.run(40);
    assert!(pair.client.is_live(), "the old token holds");
    pair.run(20);
    pair.assert_ended(ErrorCode::TokenExpired);
}

// ---- requests ----------------------------------------------------------------------------------------------

#[test]
fn a_cancelled_request_is_not_answered_and_keeps_its_place_until_done() {
    let mut pair = Pair::live(1);
    let cancelled = pair.client.request(pair.now, list()).unwrap();
    let wanted = pair.client.request(pair.now, list()).unwrap();
    pair.run(1);
    pair.client.cancel(pair.now, cancelled);
    pair.client.cancel(pair.now, cancelled);
    pair.run(1);
    assert_eq!((pair.client.requests_in_flight(), pair.server.requests_in_flight()), (1, 2));
    pair.server.reply(answer(cancelled));
    assert_eq!(pair.server.transmit_bytes(), 0, "it does not even leave the server");
    pair.server.reply(answer(wanted));
    pair.server.reply(answer(wanted));
    assert_eq!(pair.server.requests_in_flight(), 0);
    pair.run(1);
    assert_eq!(pair.client_events, [ClientEvent::Frame(answer(wanted))]);
}

#[test]
fn an_answer_that_crosses_its_cancel_does_not_come_out() {
    let mut pair = Pair::live(1);
    let request_id = pair.client.request(pair.now, list()).unwrap();
    pair.run(1);
    pair.server.reply(answer(request_id));
    pair.client.cancel(pair.now, request_id);
    pair.run(1);
    assert_eq!(pair.client_events, []);
    assert!(pair.client.is_live() && pair.server.is_live());
}

#[test]
fn requests_in_flight_are_limited_on_both_ends() {
    let mut pair = Pair::live(1);
    for _ in 0..limits::REQUESTS_IN_FLIGHT_MAX {
        pair.client.request(pair.now, list()).unwrap();
    }
    assert_eq!(pair.client.request(pair.now, list()), Err(TooManyRequests));
    assert_eq!(pair.client.reauth(pair.now, Token(String::new())), Err(TooManyRequests));
    pair.run(1);
    let mut requests = pair.take_requests();
    assert_eq!(requests.len(), limits::REQUESTS_IN_FLIGHT_MAX);

    // A client that does not count is told, and only that request is refused.
    pair.inject(&ClientFrame::Request(id(1_000), list()));
    let freed = requests.pop().unwrap();
    pair.run(1);
    assert!(pair.take_requests().is_empty() && pair.client.is_live());
    pair.server.reply(answer(freed));
    pair.run(1);
    assert_eq!(pair.client_events, [ClientEvent::Frame(answer(freed))], "the other answer was to no request");
    pair.client.request(pair.now, list()).unwrap();
    pair.run(1);
    assert_eq!(pair.take_requests().len(), 1);
}

#[test]
fn a_full_server_says_so_by_the_requests_id() {
    let config = Config { requests_in_flight_max: 1, ..Default::default() };
    let mut server = ServerSession::new(Millis(0), config);
    server.handle_frame(Millis(0), strip(&ClientFrame::Hello(Box::new(hello())).encode()));
    server.handle_welcome(Millis(0), welcome(Millis(0)), Millis(u64::MAX));
    server.handle_frame(Millis(0), strip(&ClientFrame::Request(id(1), list()).encode()));
    server.handle_frame(Millis(0), strip(&ClientFrame::Request(id(2), list()).encode()));
    let _welcome = server.poll_transmit();
    let refusal = ServerFrame::parse(strip(&server.poll_transmit().unwrap())).unwrap();
    let ServerFrame::Error { request_id, code, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!((request_id, code), (Some(id(2)), ErrorCode::TooManyRequests as u32));
}

#[test]
fn cursors_are_split_by_the_servers_limit() {
    let mut pair = Pair::live(1);
    let cursors: Vec<_> = (0..600u16)
        .map(|n| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&n.to_be_bytes());
            (ConversationId::new(id), Cursor::START)
        })
        .collect();
    pair.client.resume(pair.now, &cursors);
    pair.run(1);
    let parts = pair.server_events.drain(..).map(|event| match event {
        ServerEvent::Resume(part) => part,
        other => panic!("{other:?}"),
    });
    let parts: Vec<_> = parts.collect();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
    assert_eq!(parts.concat(), cursors);
}

// ---- credit ------------------------------------------------------------------------------------------------

fn hidden(seq: u64) -> Entry {
    Entry { seq, form: EntryForm::Hidden { leaf: Leaf::new([7; 32]) } }
}

/// Delivers while credit lasts; what is left waits.
fn deliver(pair: &mut Pair, seqs: &mut std::ops::RangeInclusive<u64>) {
    loop {
        let Some(&seq) = Some(seqs.start()).filter(|_| !seqs.is_empty()) else { return };
        let entry = hidden(seq);
        if !pair.server.take_credit(1, entry.encoded_len() as u64) {
            return;
        }
        pair.server.send_of(CONVERSATION, Lane::Live, encode_deliver(CONVERSATION, &entry));
        seqs.next();
    }
}

#[test]
fn deliveries_wait_for_credit_and_go_on_with_it() {
    for (entries, bytes) in [(10, 1 << 20), (1, 1 << 20), (1_000, 400), (1_000, 100_000)] {
        let credit = Credit { entries, bytes };
        let mut pair = Pair::with_hello(1, Hello { credit, ..hello() });
        pair.run(1);
        pair.client_events.clear();
        let mut seqs = 1..=100;
        let (mut received, mut rounds) = (Vec::new(), 0);
        while received.len() < 100 {
            deliver(&mut pair, &mut seqs);
            pair.run(1);
            let came: Vec<_> = pair.client_events.drain(..).collect();
            assert!(came.len() as u64 <= entries, "{} at once", came.len());
            for event in came {
                let ClientEvent::Frame(ServerFrame::Deliver { entry, .. }) = event else {
                    panic!("{event:?}")
                };
                pair.client.consumed(pair.now, 1, entry.encoded_len() as u64);
                received.push(entry.seq);
            }
            pair.run(1);
            rounds += 1;
            assert!(rounds <= 101, "the client never grants more");
        }
        assert_eq!(received, (1..=100).collect::<Vec<_>>());
        assert!(pair.server.is_live());
        assert!(pair.server_events.iter().all(|event| *event == ServerEvent::CreditGranted));
    }
}

#[test]
fn a_server_that_sends_more_than_was_granted_is_left() {
    for credit in [Credit { entries: 2, bytes: 1 << 20 }, Credit { entries: 100, bytes: 80 }] {
        let mut pair = Pair::with_hello(1, Hello { credit, ..hello() });
        pair.run(1);
        pair.client_events.clear();
        for seq in 1..=3 {
            pair.server.send_of(CONVERSATION, Lane::Live, encode_deliver(CONVERSATION, &hidden(seq)));
        }
        pair.run(1);
        let last = pair.client_events.last();
        assert!(matches!(last, Some(ClientEvent::Closed { reason: CloseReason::Violation(_) })), "{last:?}");
        assert_eq!(pair.client_events.len(), 3, "two entries of the grant, and the end");
    }
}

#[test]
fn credit_is_granted_by_quarters_not_by_entries() {
    let mut pair = Pair::live(1);
    for _ in 0..1_000 {
        assert!(pair.server.take_credit(1, 100));
    }
    assert!(!pair.server.take_credit(1, 100), "nothing is left");
    pair.client.consumed(pair.now, 250, 25_000);
    pair.run(1);
    assert_eq!(pair.server.credit_left().entries, 0);
    pair.client.consumed(pair.now, 1, 100);
    pair.run(1);
    assert_eq!(pair.server.credit_left().entries, 251);
    assert_eq!(pair.server_events, [ServerEvent::CreditGranted]);
}

#[test]
fn a_grant_is_renewed_before_the_largest_entry_would_not_fit() {
    let credit = Credit { entries: 1_000, bytes: 80_000 };
    let mut pair = Pair::with_hello(1, Hello { credit, ..hello() });
    pair.run(1);
    assert!(pair.server.take_credit(1, 15_000));
    pair.client.consumed(pair.now, 1, 15_000);
    pair.run(1);
    assert!(pair.server.credit_left().bytes >= limits::ENTRY_BYTES_MAX as u64, "less than a quarter is used");
}

#[test]
fn a_lower_total_is_ignored_and_a_total_counts_from_what_was_sent() {
    let mut pair = Pair::live(1);
    let before = pair.server.credit_left();
    pair.inject(&ClientFrame::Credit(Credit { entries: 1, bytes: 1 }));
    pair.run(1);
    assert_eq!((pair.server.credit_left(), pair.server_events.len()), (before, 0));

    assert!(pair.server.take_credit(1_000, 1_000_000));
    let most =
        Credit { entries: 1_000 + limits::CREDIT_ENTRIES_MAX, bytes: 1_000_000 + limits::CREDIT_BYTES_MAX };
    pair.inject(&ClientFrame::Credit(most));
    pair.run(1);
    let left = Credit { entries: limits::CREDIT_ENTRIES_MAX, bytes: limits::CREDIT_BYTES_MAX };
    assert_eq!(pair.server.credit_left(), left);
    pair.inject(&ClientFrame::Credit(Credit { entries: most.entries + 1, ..most }));
    pair.run(1);
    pair.assert_ended(ErrorCode::ProtocolViolation);
}

#[test]
fn a_first_grant_beyond_the_limit_is_refused() {
    let credit = Credit { entries: limits::CREDIT_ENTRIES_MAX + 1, bytes: 0 };
    let mut pair = Pair::with_hello(1, Hello { credit, ..hello() });
    pair.run(1);
    pair.assert_ended(ErrorCode::ProtocolViolation);
}

// ---- ending ------------------------------------------------------------------------------------------------

#[test]
fn go_away_comes_after_what_was_sent_and_before_nothing() {
    let mut pair = Pair::live(1);
    let request_id = pair.client.request(pair.now, list()).unwrap();
    pair.run(1);
    let pong = ServerFrame::CaughtUp { conversation: CONVERSATION, head: 3, chain: None };
    let code = ErrorCode::Draining as u32;
    let go_away =
        GoAway { code, message: "bye".into(), redirect: "other:7443".into(), reconnect_after_ms: 1_500 };
    pair.server.send(&pong);
    pair.server.go_away(go_away.clone());
    pair.server.reply(answer(request_id));
    pair.server.send(&pong);
    pair.server.end(ErrorCode::Internal, "too late");
    assert!(!pair.server.is_closed(), "the last frames wait to be taken");
    pair.run(1);
    assert_eq!(pair.client_events, [ClientEvent::Frame(pong), ClientEvent::GoAway(go_away)]);
    pair.assert_ended(ErrorCode::Draining);
    assert_eq!(pair.client.request(pair.now, list()), Err(TooManyRequests));
    assert_eq!((pair.client.poll_timeout(), pair.server.poll_timeout()), (None, None));
}

#[test]
fn logout_is_answered_and_is_the_end() {
    let mut pair = Pair::live(1);
    pair.client.logout(pair.now);
    pair.run(1);
    assert_eq!(pair.server_events, [ServerEvent::Logout]);
    pair.assert_ended(ErrorCode::LoggedOut);
}

#[test]
fn a_hello_comes_out_as_it_went_in() {
    let device = DeviceId::from_parts(1, [9; 10]);
    let mut server = ServerSession::new(Millis(0), Default::default());
    let hello = Hello { device, ..hello() };
    server.handle_frame(Millis(0), strip(&ClientFrame::Hello(Box::new(hello.clone())).encode()));
    assert_eq!(server.poll_event(), Some(ServerEvent::Hello(Box::new(hello))));
}
