//! Sessions over QUIC, among each other and with sessions over TCP.

use talaria_protocol::{
    error_code::ErrorCode,
    message::{Cursor, client::ClientFrame, server::ServerFrame},
    session::Lane,
};

use crate::{
    support::client::{QuicClient, assert_metric},
    tcp_support::{client::text_to, node::TestNode},
};

#[tokio::test]
async fn two_clients_talk_over_quic() {
    let node = TestNode::start();
    let (mut alice, mut bob) =
        (QuicClient::session(&node, "alice").await, QuicClient::session(&node, "bob").await);
    let conversation = alice.direct_with("bob").await;
    bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)])).await;
    bob.wait_for(|_, frame| matches!(frame, ServerFrame::CaughtUp { .. }).then_some(())).await;
    for number in 2..30 {
        assert_eq!(alice.say(conversation, "hello").await, number);
        assert_eq!(bob.entry(conversation, number).await, Lane::Live);
    }
    bob.send(&ClientFrame::Ack { conversation, up_to: 29 }).await;
    assert_metric(&node, "talaria_messages_sent_total", 28.0).await;
    assert_metric(&node, "talaria_sessions", 2.0).await;
    assert_metric(&node, "talaria_quic_handshakes", 0.0).await;
    alice.close();
    bob.close();
    assert_metric(&node, "talaria_sessions", 0.0).await;
    assert_metric(&node, "talaria_connections", 0.0).await;
    assert_metric(&node, "talaria_transmit_queue_bytes", 0.0).await;
    node.shutdown();
}

#[tokio::test]
async fn quic_and_tcp_share_conversations() {
    let node = TestNode::start();
    let mut quic = QuicClient::session(&node, "alice").await;
    let conversation = quic.direct_with("bob").await;
    quic.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)])).await;
    let mut tcp = node.session("bob");
    tcp.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    assert_eq!(quic.say(conversation, "from QUIC").await, 2);
    tcp.wait_for(|frame| match frame {
        ServerFrame::Deliver { entry, .. } if entry.seq == 2 => Some(()),
        _ => None,
    });
    assert_eq!(tcp.say(conversation, "from TCP"), 3);
    quic.entry(conversation, 3).await;
}

#[tokio::test]
async fn a_session_over_one_transport_takes_over_that_of_the_other() {
    let node = TestNode::start();
    let mut tcp = node.session("alice");
    let mut quic = QuicClient::session(&node, "alice").await;
    assert_eq!(tcp.end(), ErrorCode::TakenOver);
    let conversation = quic.direct_with("bob").await;
    let mut tcp = node.session("alice");
    assert_eq!(quic.end().await, ErrorCode::TakenOver);
    assert_eq!(tcp.say(conversation, "the last one stays"), 2);
}

#[tokio::test]
async fn a_logout_is_said_and_then_the_connection_closes_normally() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    client.send(&ClientFrame::Logout).await;
    assert_eq!(client.end().await, ErrorCode::LoggedOut);
    // This client does not close, as it should: the node does after a while.
    assert_eq!(client.close_code().await, 0);
    assert_metric(&node, "talaria_connections", 0.0).await;
}

#[tokio::test]
async fn a_bad_token_is_refused_on_the_control_stream() {
    let node = TestNode::start();
    let mut client = QuicClient::connect(&node).await;
    let hello = QuicClient::hello_frame("not a token", 1);
    client.send(&ClientFrame::Hello(Box::new(hello))).await;
    assert_eq!(client.end().await, ErrorCode::TokenInvalid);
    client.close();
    assert_metric(&node, "talaria_connections", 0.0).await;
}

#[tokio::test]
async fn a_drain_answers_what_was_asked_says_goodbye_and_refuses_newcomers() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    let conversation = client.direct_with("bob").await;
    let asked = client.ask(text_to(conversation, "the last one")).await;
    assert_metric(&node, "talaria_requests_total", 2.0).await;
    node.begin_shutdown();
    assert!(matches!(client.answer(asked).await, ServerFrame::Sent(_)));
    assert_eq!(client.end().await, ErrorCode::Draining);
    let config = crate::support::client::config(&node.ca);
    let late = client.endpoint.connect_with(config, node.tcp_addr, "localhost").unwrap();
    assert!(late.await.is_err(), "no new connection while it drains");
    client.close();
    tokio::task::spawn_blocking(|| node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn shutting_down_closes_connections_that_do_not_close_themselves() {
    let node = TestNode::start_with(|config| config.drain_seconds = 1);
    let mut client = QuicClient::session(&node, "alice").await;
    let silent = QuicClient::connect(&node).await;
    assert_metric(&node, "talaria_quic_handshakes", 0.0).await;
    node.begin_shutdown();
    assert_eq!(client.end().await, ErrorCode::Draining);
    // By a Refused, or by the code where its control stream has not come yet.
    let code = silent.close_code().await;
    assert!(code == 0 || code == ErrorCode::Draining as u64, "{code}");
    assert_eq!(client.close_code().await, 0);
    tokio::task::spawn_blocking(|| node.shutdown()).await.unwrap();
}
