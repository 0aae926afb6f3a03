//! A client changes its network address while frames go both ways.

use std::net::{SocketAddr, UdpSocket};

use talaria_protocol::message::{Cursor, client::ClientFrame};

use crate::{
    support::client::{QuicClient, assert_metric},
    tcp_support::node::TestNode,
};

/// [QUI-17]
#[tokio::test]
async fn a_session_goes_on_from_another_address() {
    let node = TestNode::start_with(|config| config.shards = 4);
    let (mut alice, mut bob) =
        (QuicClient::session(&node, "alice").await, QuicClient::session(&node, "bob").await);
    let conversation = alice.direct_with("bob").await;
    bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)])).await;
    let connection = bob.connection.stable_id();
    for number in 2..22 {
        let fresh = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        bob.endpoint.rebind(fresh).unwrap();
        assert_eq!(alice.say(conversation, "where are you?").await, number);
        bob.entry(conversation, number).await;
        bob.send(&ClientFrame::Ack { conversation, up_to: number }).await;
    }
    assert_eq!(bob.connection.stable_id(), connection);
    assert_metric(&node, "talaria_sessions_opened_total", 2.0).await;
    assert_metric(&node, "talaria_connections_accepted_total", 2.0).await;
    assert_metric(&node, "talaria_quic_misrouted_total", 0.0).await;
}
