//! Which streams there may be, and what becomes of all others.

use quinn::{ReadError, VarInt, WriteError};
use talaria_protocol::{
    error_code::ErrorCode,
    message::{Cursor, client::ClientFrame, server::ServerFrame},
};

use crate::{
    support::client::{QuicClient, assert_metric, config, endpoint, soon},
    tcp_support::{client::text_to, node::TestNode},
};

const UNKNOWN: VarInt = VarInt::from_u32(0x10);

/// [QUI-8]
#[tokio::test]
async fn streams_of_unknown_types_are_refused_and_the_session_goes_on() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    for kind in [0, 2, 3, 4, 200] {
        let mut uni = soon(client.connection.open_uni()).await.unwrap();
        uni.write_all(&[kind; 100]).await.unwrap();
        assert_eq!(soon(uni.stopped()).await.unwrap(), Some(UNKNOWN), "type {kind}");
        let (mut send, mut receive) = soon(client.connection.open_bi()).await.unwrap();
        send.write_all(&[kind; 100]).await.unwrap();
        assert_eq!(soon(send.stopped()).await.unwrap(), Some(UNKNOWN), "type {kind}");
        let read = soon(receive.read(&mut [0; 8])).await;
        assert_eq!(read, Err(ReadError::Reset(UNKNOWN)), "type {kind}");
    }
    client.direct_with("bob").await;
}

/// An unknown stream before the control stream, and one that ends without a type.
#[tokio::test]
async fn unknown_streams_may_come_before_the_control_stream() {
    let node = TestNode::start();
    let endpoint = endpoint();
    let connection =
        soon(endpoint.connect_with(config(&node.ca), node.tcp_addr, "localhost").unwrap()).await.unwrap();
    let (mut empty, _receive) = soon(connection.open_bi()).await.unwrap();
    empty.finish().unwrap();
    let (mut strange, mut receive) = soon(connection.open_bi()).await.unwrap();
    strange.write_all(&[77]).await.unwrap();
    assert_eq!(soon(receive.read(&mut [0; 8])).await, Err(ReadError::Reset(UNKNOWN)));
    let mut client = QuicClient::over(endpoint, connection).await;
    client.hello(&node.token("alice"), 1).await;
}

/// [QUI-6]
#[tokio::test]
async fn a_second_control_stream_is_a_violation() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    let (mut second, _receive) = soon(client.connection.open_bi()).await.unwrap();
    second.write_all(&[1]).await.unwrap();
    assert_eq!(client.end().await, ErrorCode::ProtocolViolation);
    client.close();
    assert_metric(&node, "talaria_sessions_ended_total{code=\"PROTOCOL_VIOLATION\"}", 1.0).await;
}

/// [QUI-12]
#[tokio::test]
async fn a_client_that_ends_its_control_stream_ends_its_session() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    client.send.finish().unwrap();
    assert_eq!(client.close_code().await, 0);
    assert_metric(&node, "talaria_sessions", 0.0).await;
    let mut client = QuicClient::session(&node, "alice").await;
    client.send.reset(VarInt::from_u32(1)).unwrap();
    assert_eq!(client.close_code().await, 0);
    assert_metric(&node, "talaria_connections_dropped_total{reason=\"peer\"}", 2.0).await;
}

/// [QUI-9]
#[tokio::test]
async fn a_client_that_stops_a_stream_of_the_session_ends_it() {
    let node = TestNode::start();
    let mut alice = QuicClient::session(&node, "alice").await;
    let mut bob = QuicClient::session(&node, "bob").await;
    let conversation = alice.direct_with("bob").await;
    bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)])).await;
    let mut bulk = soon(bob.connection.accept_uni()).await.unwrap();
    let mut first = [0];
    soon(bulk.read_exact(&mut first)).await.unwrap();
    assert_eq!(first, [3], "catch-up comes by the bulk stream");
    bulk.stop(VarInt::from_u32(0)).unwrap();
    bob.send(&ClientFrame::Request(
        talaria_protocol::message::RequestId::new(9).unwrap(),
        text_to(conversation, "x"),
    ))
    .await;
    let mut fresh = node.session("carol");
    let group = fresh.direct_with("bob");
    bob.send(&ClientFrame::Resume(vec![(group, Cursor::START)])).await;
    assert_eq!(bob.end().await, ErrorCode::ProtocolViolation);
}

/// [FRM-13]
#[tokio::test]
async fn what_follows_the_end_is_not_interpreted() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    let conversation = client.direct_with("bob").await;
    let mut bytes = ClientFrame::Logout.encode().to_vec();
    let id = talaria_protocol::message::RequestId::new(50).unwrap();
    bytes.extend_from_slice(&ClientFrame::Request(id, text_to(conversation, "too late")).encode());
    client.send_bytes(&bytes).await;
    assert_eq!(client.end().await, ErrorCode::LoggedOut);
    match client.send.write_all(&ClientFrame::Request(id, text_to(conversation, "later")).encode()).await {
        Ok(()) | Err(WriteError::Stopped(_) | WriteError::ConnectionLost(_)) => {}
        other => panic!("{other:?}"),
    }
    client.close();
    assert_metric(&node, "talaria_connections", 0.0).await;
    assert_metric(&node, "talaria_messages_sent_total", 0.0).await;
}

/// [QUI-10]
#[tokio::test]
async fn frames_may_follow_hello_at_once_and_wait_for_welcome() {
    let node = TestNode::start();
    let conversation = {
        let mut before = QuicClient::session(&node, "alice").await;
        before.direct_with("bob").await
    };
    let mut client = QuicClient::connect(&node).await;
    let hello = QuicClient::hello_frame(&node.token("alice"), 1);
    let mut bytes = ClientFrame::Hello(Box::new(hello)).encode().to_vec();
    // Longer than a frame may be before Welcome: it waits until it may be.
    let text = "x".repeat(40_000);
    let ids: Vec<_> = (1..=3).map(|id| talaria_protocol::message::RequestId::new(id).unwrap()).collect();
    for id in &ids {
        bytes.extend_from_slice(&ClientFrame::Request(*id, text_to(conversation, &text)).encode());
    }
    client.send_bytes(&bytes).await;
    client.welcome().await;
    for (id, seq) in ids.into_iter().zip(2..) {
        match client.answer(id).await {
            ServerFrame::Sent(sent) => assert_eq!(sent.seq, seq),
            other => panic!("{other:?}"),
        }
    }
}

/// What follows a Hello that is refused is not interpreted either.
#[tokio::test]
async fn frames_behind_a_refused_hello_change_nothing() {
    let node = TestNode::start();
    let mut client = QuicClient::connect(&node).await;
    let mut bytes = ClientFrame::Hello(Box::new(QuicClient::hello_frame("no token", 1))).encode().to_vec();
    bytes.extend_from_slice(&ClientFrame::Ping(1).encode());
    client.send_bytes(&bytes).await;
    assert_eq!(client.end().await, ErrorCode::TokenInvalid);
}

/// [QUI-15]
#[tokio::test]
async fn without_a_control_stream_the_close_code_says_why() {
    let node = TestNode::start();
    let endpoint = endpoint();
    let connection =
        soon(endpoint.connect_with(config(&node.ca), node.tcp_addr, "localhost").unwrap()).await.unwrap();
    let closed = soon(connection.closed()).await;
    assert_eq!(crate::support::client::application_code(&closed), ErrorCode::HelloTimeout as u64);
    assert_metric(&node, "talaria_hello_refused_total{code=\"HELLO_TIMEOUT\"}", 1.0).await;
}
