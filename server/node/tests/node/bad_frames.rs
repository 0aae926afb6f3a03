//! Bad frames: prefixes, protobuf, order. Each is answered by its code, ends only its own session.

use std::time::Instant;

use talaria_protocol::{
    error_code::ErrorCode,
    frame::{encode_frame, encode_payload},
    ids::ConversationId,
    limits::{CLIENT_FRAME_BYTES_MAX, FRAME_BYTES_MAX_BEFORE_WELCOME},
    message::{
        RequestId,
        client::{ClientFrame, Request},
        server::ServerFrame,
    },
    wire,
};

use crate::support::{client::Client, honest::Honest, node::TestNode};

/// A length prefix.
fn prefix(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}

/// A body of a protocol to come: field 1000.
fn unknown_body(critical: bool) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x08, 0x01] } else { &[] };
    encode_payload(&[critical, &[0xc2, 0x3e, 0x02, 0x08, 0x07]].concat()).to_vec()
}

#[test]
fn bad_prefixes_before_and_after_welcome() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let always =
        [vec![0], vec![0x80, 0x00], vec![0x80; 4], vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff], vec![0xff; 9]];
    for bytes in always.iter().cloned().chain([prefix(FRAME_BYTES_MAX_BEFORE_WELCOME + 1)]) {
        let mut client = node.connect();
        client.send_bytes(&bytes);
        assert_eq!(client.end(), ErrorCode::ProtocolViolation, "{bytes:02x?} before Welcome");
    }
    for bytes in always.into_iter().chain([prefix(CLIENT_FRAME_BYTES_MAX + 1)]) {
        let mut client = node.session("mallory");
        client.send_bytes(&bytes);
        assert_eq!(client.end(), ErrorCode::ProtocolViolation, "{bytes:02x?} after Welcome");
    }
    honest.go_on();
    node.assert_metric("talaria_sessions_ended_total{code=\"PROTOCOL_VIOLATION\"}", 6.0);
}

#[test]
fn a_frame_that_is_never_completed() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 1);
    let started = Instant::now();
    let mut before = node.connect();
    before.send_bytes(&prefix(FRAME_BYTES_MAX_BEFORE_WELCOME));
    let mut after = node.session("mallory");
    after.send_bytes(&prefix(CLIENT_FRAME_BYTES_MAX));
    after.send_bytes(&[7; 100]);
    assert_eq!(after.end(), ErrorCode::KeepaliveTimeout);
    let mut honest = Honest::on(&node);
    honest.go_on();
    assert_eq!(before.end(), ErrorCode::HelloTimeout);
    assert!(started.elapsed().as_secs() >= 9, "Hello has 10 s");
}

#[test]
fn bad_protobuf() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    // A length beyond the end; a group; a truncated varint; Send as a number.
    let bad: [&[u8]; 4] = [&[0x0a, 0x7f, 1], &[0x0b], &[0x08, 0x80], &[0x18, 0x05]];
    for payload in bad {
        let mut client = node.connect();
        client.send_bytes(&encode_payload(payload));
        assert_eq!(client.end(), ErrorCode::ProtocolViolation, "{payload:02x?} before Welcome");
        let mut client = node.session("mallory");
        client.send_bytes(&encode_payload(payload));
        assert_eq!(client.end(), ErrorCode::ProtocolViolation, "{payload:02x?} after Welcome");
    }
    honest.go_on();
}

#[test]
fn frames_before_hello() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let id = RequestId::new(1).unwrap();
    let frames = [
        ClientFrame::Ping(1),
        ClientFrame::Logout,
        ClientFrame::Request(id, Request::ListConversations { page: Default::default() }),
        ClientFrame::Ack { conversation: ConversationId::new([1; 16]), up_to: 1 },
    ];
    for frame in frames {
        let mut client = node.connect();
        client.send(&frame);
        assert_eq!(client.end(), ErrorCode::ProtocolViolation, "{frame:?}");
    }
    // A second frame that does not wait for Welcome.
    let mut client = node.connect();
    let hello = ClientFrame::Hello(Box::new(Client::hello_frame(&node.token("mallory"), 1)));
    client.send_bytes(&[hello.encode(), ClientFrame::Ping(1).encode()].concat());
    assert_eq!(client.end(), ErrorCode::ProtocolViolation);
    honest.go_on();
}

#[test]
fn unknown_bodies_critical_and_not() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    client.send_bytes(&unknown_body(false));
    client.send(&ClientFrame::Ping(7));
    assert!(matches!(client.frame(), ServerFrame::Pong { nonce: 7, .. }), "ignored");
    client.send_bytes(&unknown_body(true));
    assert_eq!(client.end(), ErrorCode::Unsupported);
    let mut early = node.connect();
    early.send_bytes(&unknown_body(true));
    assert_eq!(early.end(), ErrorCode::Unsupported);
    honest.go_on();
}

#[test]
fn frames_that_only_a_server_sends_and_a_second_hello() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let bodies = [
        wire::frame::Body::Pong(wire::Pong { nonce: 1, hlc: 1 }),
        wire::frame::Body::GoAway(wire::GoAway::default()),
        wire::frame::Body::Sent(wire::Sent { request_id: 1, ..Default::default() }),
    ];
    for body in bodies {
        let mut client = node.session("mallory");
        client.send_bytes(&encode_frame(&wire::Frame { critical: false, body: Some(body) }));
        assert_eq!(client.end(), ErrorCode::ProtocolViolation);
    }
    let mut client = node.session("mallory");
    client.send(&ClientFrame::Hello(Box::new(Client::hello_frame(&node.token("mallory"), 1))));
    assert_eq!(client.end(), ErrorCode::ProtocolViolation);
    honest.go_on();
}

#[test]
fn request_ids_zero_and_in_flight() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let list = |request_id| {
        let body = wire::frame::Body::ListConversations(wire::ListConversations {
            request_id,
            ..Default::default()
        });
        encode_frame(&wire::Frame { critical: false, body: Some(body) })
    };
    let mut client = node.session("mallory");
    client.send_bytes(&list(0));
    assert_eq!(client.end(), ErrorCode::ProtocolViolation);
    let mut client = node.session("mallory");
    client.send_bytes(&[list(5), list(5)].concat());
    assert_eq!(client.end(), ErrorCode::ProtocolViolation);
    honest.go_on();
}

#[test]
fn more_requests_than_may_wait() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    let conversation = client.direct_with("bob");
    let ids: Vec<_> = (1_001..=1_200u64).map(|id| RequestId::new(id).unwrap()).collect();
    let burst: Vec<u8> = ids
        .iter()
        .flat_map(|id| ClientFrame::Request(*id, crate::support::client::text_to(conversation, "x")).encode())
        .collect();
    client.send_bytes(&burst);
    let (mut sent, mut refused) = (0, 0);
    for id in ids {
        match client.answer(id) {
            ServerFrame::Sent(_) => sent += 1,
            ServerFrame::Error { code, .. } if code == ErrorCode::TooManyRequests as u32 => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(sent >= 64 && refused > 0, "{sent} sent, {refused} refused");
    client.say(conversation, "and the session goes on");
    honest.go_on();
}
