//! What is no QUIC, no Talaria, or no TLS 1.3 with our protocol.

use std::net::{SocketAddr, UdpSocket};

use quinn::ConnectionError;
use talaria_protocol::message::client::ClientFrame;

use crate::{
    support::client::{QuicClient, assert_metric, config_with, endpoint, soon},
    tcp_support::node::TestNode,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// [QUI-2]
#[tokio::test]
async fn another_protocol_or_none_ends_the_handshake() {
    let node = TestNode::start();
    let endpoint = endpoint();
    for alpn in [vec![b"h3".to_vec()], vec![b"talaria/2".to_vec()], vec![]] {
        let config = config_with(&node.ca, alpn.clone(), |_| {});
        let connecting = endpoint.connect_with(config, node.tcp_addr, "localhost").unwrap();
        match soon(connecting).await {
            // A TLS alert: 0x100 and its number.
            Err(ConnectionError::ConnectionClosed(close)) => {
                assert_eq!(u64::from(close.error_code) & !0xff, 0x100, "{close:?}");
            }
            other => panic!("{alpn:?}: {other:?}"),
        }
    }
    assert_metric(&node, "talaria_connections_dropped_total{reason=\"handshake\"}", 3.0).await;
    assert_metric(&node, "talaria_connections", 0.0).await;
    assert_metric(&node, "talaria_quic_handshakes", 0.0).await;
}

/// RFC 9000, 6.1: a version that we do not speak is answered by those that we do.
#[tokio::test]
async fn an_unknown_version_is_answered_by_version_negotiation() {
    let node = TestNode::start();
    let socket = UdpSocket::bind(ANY).unwrap();
    socket.set_read_timeout(Some(crate::support::client::PATIENCE)).unwrap();
    let mut packet = vec![0; 1200];
    packet[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
    packet[6..14].copy_from_slice(b"whatever");
    packet[14] = 4;
    packet[15..19].copy_from_slice(b"mine");
    socket.send_to(&packet, node.tcp_addr).unwrap();
    let mut answer = [0; 1500];
    let bytes = socket.recv(&mut answer).unwrap();
    assert_eq!(answer[1..5], [0; 4], "a version negotiation");
    assert_eq!(&answer[5..10], b"\x04mine");
    let versions: Vec<&[u8]> =
        answer[19..bytes].chunks(4).filter(|version| version[3] & 0xf != 0xa).collect();
    assert_eq!(versions, [[0, 0, 0, 1]], "version 1, reserved ones apart");
}

#[tokio::test]
async fn garbage_draws_no_answer_and_harms_nobody() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    let conversation = client.direct_with("bob").await;
    let socket = UdpSocket::bind(ANY).unwrap();
    let mut random = blake3::Hasher::new().update(b"garbage").finalize_xof();
    for number in 0..3_000usize {
        let mut datagram = vec![0; number % 1300];
        random.fill(&mut datagram);
        if let Some(version) = datagram.get_mut(1..5) {
            // A known version: an unknown one is answered, as it must be.
            version.copy_from_slice(&[0, 0, 0, 1]);
        }
        socket.send_to(&datagram, node.tcp_addr).unwrap();
        if number % 100 == 0 {
            client.say(conversation, "still here").await;
        }
    }
    client.say(conversation, "and now").await;
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    assert!(socket.recv(&mut [0; 1500]).is_err(), "no answer to garbage");
    assert_metric(&node, "talaria_sessions", 1.0).await;
}

/// A datagram of the application: there is no frame for it yet.
#[tokio::test]
async fn datagrams_are_taken_and_ignored() {
    let node = TestNode::start();
    let mut client = QuicClient::session(&node, "alice").await;
    assert!(client.connection.max_datagram_size().is_some(), "the node takes datagrams");
    for _ in 0..100 {
        client.connection.send_datagram(ClientFrame::Logout.encode()).unwrap();
        client.connection.send_datagram(bytes::Bytes::from_static(&[0xff; 900])).unwrap();
    }
    client.direct_with("bob").await;
    assert_metric(&node, "talaria_sessions", 1.0).await;
}

#[test]
fn a_udp_port_that_is_taken_is_named() {
    let taken = UdpSocket::bind(ANY).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = talaria_server::config::Config::new(dir.path());
    config.dev = true;
    config.listen = taken.local_addr().unwrap();
    config.admin_listen = ANY;
    let log = std::sync::Arc::new(talaria_log::MemoryLog::new());
    let Err(error) = talaria_server::Node::start(config, log) else { panic!("it shares the port") };
    let message = error.to_string();
    assert!(message.starts_with("listen = ") && message.contains("UDP: "), "{message}");
}
