//! Early data: what a client says before the handshake is complete, and what becomes of it when somebody else says it again.

use quinn::{ClientConfig, Endpoint};
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    message::{
        RequestId,
        client::{ClientFrame, Token},
        server::ServerFrame,
    },
};

use crate::{
    support::{
        client::{QuicClient, assert_metric, config, endpoint, soon},
        relay::Relay,
    },
    tcp_support::{client::text_to, node::TestNode},
};

/// A client that has been here before: its configuration holds a session to resume.
async fn acquainted(node: &TestNode) -> (Endpoint, ClientConfig, ConversationId) {
    let (endpoint, config) = (endpoint(), config(&node.ca));
    let mut client = QuicClient::connect_to(endpoint.clone(), node.tcp_addr, config.clone()).await;
    client.hello(&node.token("alice"), 1).await;
    let conversation = client.direct_with("bob").await;
    client.close();
    assert_metric(node, "talaria_connections", 0.0).await;
    (endpoint, config, conversation)
}

fn hello(node: &TestNode) -> ClientFrame {
    ClientFrame::Hello(Box::new(QuicClient::hello_frame(&node.token("alice"), 1)))
}

#[tokio::test]
async fn hello_and_a_send_go_with_the_first_packet() {
    let node = TestNode::start();
    let (endpoint, config, conversation) = acquainted(&node).await;
    let (mut client, accepted) = QuicClient::connect_early(endpoint, node.tcp_addr, config).await;
    client.send(&hello(&node)).await;
    let asked = client.ask(text_to(conversation, "early")).await;
    client.welcome().await;
    assert!(matches!(client.answer(asked).await, ServerFrame::Sent(_)));
    assert!(soon(accepted).await, "the node took the early data");
    assert_metric(&node, "talaria_messages_sent_total", 1.0).await;
    assert_metric(&node, "talaria_sessions_opened_total", 2.0).await;
}

/// [QUI-20]
#[tokio::test]
async fn an_early_session_takes_over_once_the_handshake_is_complete() {
    let node = TestNode::start();
    let (endpoint, config, _) = acquainted(&node).await;
    let mut old = node.session("alice");
    let (mut client, accepted) = QuicClient::connect_early(endpoint, node.tcp_addr, config).await;
    client.send(&hello(&node)).await;
    client.welcome().await;
    assert!(soon(accepted).await);
    let ended = tokio::task::spawn_blocking(move || old.end()).await.unwrap();
    assert_eq!(ended, ErrorCode::TakenOver);
    client.direct_with("bob").await;
    assert_metric(&node, "talaria_sessions", 1.0).await;
}

/// [QUI-21]
#[tokio::test]
async fn early_logout_and_reauth_are_done_after_the_handshake() {
    let node = TestNode::start();
    let (endpoint, config, conversation) = acquainted(&node).await;
    let (mut client, accepted) = QuicClient::connect_early(endpoint, node.tcp_addr, config).await;
    client.send(&hello(&node)).await;
    let renewed = RequestId::new(77).unwrap();
    client.send(&ClientFrame::Reauth { request_id: renewed, token: Token(node.token("alice")) }).await;
    let asked = client.ask(text_to(conversation, "behind it")).await;
    client.send(&ClientFrame::Logout).await;
    client.welcome().await;
    assert!(matches!(client.answer(renewed).await, ServerFrame::Reauthed { .. }));
    assert_eq!(client.end().await, ErrorCode::LoggedOut);
    assert!(soon(accepted).await);
    assert_metric(&node, "talaria_sessions_ended_total{code=\"LOGGED_OUT\"}", 1.0).await;
    let _lost_by_the_logout = asked;
}

/// The first flight of a resumed connection, as it would be on the wire; the node gets nothing of it.
async fn held_flight(node: &TestNode, frames: &[ClientFrame]) -> (Relay, Vec<Vec<u8>>) {
    let (endpoint, config, _) = acquainted(node).await;
    let relay = Relay::to(node.tcp_addr);
    relay.hold(true);
    let (mut client, _accepted) = QuicClient::connect_early(endpoint, relay.address, config).await;
    client.send(&hello(node)).await;
    for frame in frames {
        client.send(frame).await;
    }
    // The flight is out once it has been sent again: quinn's first probe comes after a second.
    soon(async {
        let mut first = 0;
        loop {
            let count = relay.recorded().len();
            if first == 0 {
                first = count;
            } else if count > first + 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(client);
    let flight = relay.take_recorded();
    (relay, flight)
}

/// Somebody holds a flight back and lets it go when its device has a session again. [QUI-20] [QUI-22]
#[tokio::test]
async fn a_flight_that_comes_late_changes_nothing() {
    let node = TestNode::start();
    let (_, _, conversation) = acquainted(&node).await;
    // What the flight sends, the device then sends itself.
    let sent = text_to(conversation, "once");
    let request = RequestId::new(5).unwrap();
    let frames = [ClientFrame::Request(request, sent.clone()), ClientFrame::Logout];
    let (relay, flight) = held_flight(&node, &frames).await;
    assert_metric(&node, "talaria_connections", 0.0).await;

    let mut live = node.session("alice");
    let seq = match live.request(sent) {
        ServerFrame::Sent(sent) => sent.seq,
        other => panic!("{other:?}"),
    };
    let opened = node.metric("talaria_sessions_opened_total");
    let answers = tokio::task::spawn_blocking(move || relay.replay(&flight)).await.unwrap();
    assert!(answers > 0, "the node took the flight for a connection");
    // It was read, so that this test could fail: a session was opened, and the send recognised.
    assert_metric(&node, "talaria_sessions_opened_total", opened + 1.0).await;
    assert_metric(&node, "talaria_dedup_hits_total", 1.0).await;

    let mut live = tokio::task::spawn_blocking(move || {
        assert_eq!(live.say(conversation, "still here"), seq + 1, "no entry twice, no take-over");
        live
    })
    .await
    .unwrap();
    assert_eq!(node.metric("talaria_sessions_ended_total{code=\"TAKEN_OVER\"}"), 0.0);
    assert_eq!(node.metric("talaria_sessions_ended_total{code=\"LOGGED_OUT\"}"), 0.0);
    // Its handshake is never completed.
    assert_metric(&node, "talaria_connections_dropped_total{reason=\"handshake_timeout\"}", 1.0).await;
    assert_metric(&node, "talaria_sessions", 1.0).await;
    tokio::task::spawn_blocking(move || assert_eq!(live.say(conversation, "and now"), seq + 2))
        .await
        .unwrap();
}

/// Somebody says again what was already said: the session that it resumes can be resumed once.
#[tokio::test]
async fn a_flight_that_comes_twice_is_not_read_again() {
    let node = TestNode::start();
    let (endpoint, config, conversation) = acquainted(&node).await;
    let relay = Relay::to(node.tcp_addr);
    let (mut client, accepted) = QuicClient::connect_early(endpoint, relay.address, config).await;
    client.send(&hello(&node)).await;
    let asked = client.ask(text_to(conversation, "once")).await;
    client.welcome().await;
    assert!(matches!(client.answer(asked).await, ServerFrame::Sent(_)));
    assert!(soon(accepted).await);
    let flight = relay.take_recorded();
    let nothing_changed = || {
        assert_eq!(node.metric("talaria_sessions_opened_total"), 2.0);
        assert_eq!(node.metric("talaria_requests_total"), 2.0);
        assert_eq!(node.metric("talaria_dedup_hits_total"), 0.0);
    };
    // While its connection is there, the packets are its own.
    let (again, packets) = (relay.clone(), flight.clone());
    tokio::task::spawn_blocking(move || again.replay(&packets)).await.unwrap();
    nothing_changed();
    assert_metric(&node, "talaria_sessions", 1.0).await;
    client.say(conversation, "still here").await;
    // Once QUIC has forgotten it, they begin a connection, which cannot resume the session again.
    client.close();
    let answers = tokio::task::spawn_blocking(move || {
        (0..50).map(|_| relay.replay(&flight)).find(|answers| *answers > 0).expect("it becomes a connection")
    });
    assert!(answers.await.unwrap() > 0);
    assert_eq!(node.metric("talaria_sessions_opened_total"), 2.0);
    assert_eq!(node.metric("talaria_requests_total"), 3.0);
    assert_eq!(node.metric("talaria_dedup_hits_total"), 0.0);
}

/// [QUI-19]
#[tokio::test]
async fn refused_early_data_can_be_said_again_on_the_same_connection() {
    let before = TestNode::start();
    let (endpoint, config, _) = acquainted(&before).await;
    // A node with the same certificate that knows nothing of the session.
    let node = TestNode::start_with(|config| {
        let dev = config.data_dir.join("dev");
        std::fs::create_dir_all(&dev).unwrap();
        for file in std::fs::read_dir(before.ca.parent().unwrap()).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), dev.join(file.file_name())).unwrap();
        }
    });
    let (mut client, accepted) = QuicClient::connect_early(endpoint, node.tcp_addr, config).await;
    client.send(&hello(&node)).await;
    assert!(!soon(accepted).await);
    assert_eq!(node.metric("talaria_sessions_opened_total"), 0.0);
    let QuicClient { endpoint, connection, .. } = client;
    let mut client = QuicClient::over(endpoint, connection).await;
    client.hello(&node.token("alice"), 1).await;
    client.direct_with("bob").await;
}
