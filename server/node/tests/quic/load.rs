//! Too many at once: half-open handshakes, and connections without a session.

use talaria_server::transport::quic::limits::HANDSHAKES_UNPROVEN_MAX;

use crate::{
    support::{
        client::{QuicClient, assert_metric, config, endpoint},
        relay::Relay,
    },
    tcp_support::node::TestNode,
};

/// Clients that never hear us, as forged addresses would not: from some number on, addresses are proven first.
#[tokio::test]
async fn many_half_open_handshakes_make_newcomers_prove_their_address() {
    // The bound is a shard's, and all may come at once.
    let node = TestNode::start_with(|config| {
        config.shards = 1;
        config.handshakes_per_second = 5_000;
    });
    let relay = Relay::to(node.tcp_addr);
    relay.mute(true);
    let deaf = endpoint();
    let waiting: Vec<_> = (0..HANDSHAKES_UNPROVEN_MAX)
        .map(|_| deaf.connect_with(config(&node.ca), relay.address, "localhost").unwrap())
        .collect();
    assert_metric(&node, "talaria_quic_handshakes", HANDSHAKES_UNPROVEN_MAX as f64).await;
    assert_eq!(node.metric("talaria_quic_retried_total"), 0.0);
    let mut honest = QuicClient::session(&node, "alice").await;
    honest.direct_with("bob").await;
    assert_metric(&node, "talaria_quic_retried_total", 1.0).await;
    // An early client too: its early data comes again with its proof.
    let newcomer = config(&node.ca);
    let mut first = QuicClient::connect_with(&node, newcomer.clone()).await;
    first.hello(&node.token("carol"), 1).await;
    first.direct_with("bob").await;
    first.close();
    let (mut early, accepted) = QuicClient::connect_early(endpoint(), node.tcp_addr, newcomer).await;
    early.hello(&node.token("carol"), 1).await;
    assert!(accepted.await);
    assert_metric(&node, "talaria_quic_retried_total", 3.0).await;
    // Those who do not complete their handshakes go, and nobody needs a proof any more.
    assert_metric(&node, "talaria_quic_handshakes", 0.0).await;
    drop(waiting);
}

/// A connection without Hello makes place for a new one, and is told.
#[tokio::test]
async fn when_all_places_are_taken_the_oldest_without_a_session_goes() {
    let node = TestNode::start_with(|config| config.connections_max = 2);
    let silent = QuicClient::connect(&node).await;
    assert_metric(&node, "talaria_connections", 1.0).await;
    let mut alice = QuicClient::session(&node, "alice").await;
    let mut bob = QuicClient::session(&node, "bob").await;
    assert_eq!(silent.close_code().await, u64::from(talaria_protocol::error_code::ErrorCode::Busy as u32));
    alice.direct_with("bob").await;
    bob.direct_with("alice").await;
    let config = config(&node.ca);
    let third = alice.endpoint.connect_with(config, node.tcp_addr, "localhost").unwrap();
    assert!(third.await.is_err(), "sessions are not dropped for newcomers");
    alice.direct_with("carol").await;
}
