//! Bad input before there is TLS: plaintext, garbage, the wrong ALPN. Answered by a TLS alert, harms nobody.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use talaria_protocol::message::client::ClientFrame;

use crate::support::{
    client::{Client, Tls},
    honest::Honest,
    node::TestNode,
};

const HANDSHAKE_DROPS: &str = "talaria_connections_dropped_total{reason=\"handshake\"}";

/// Sends bytes without TLS; gives all that comes back until the node closes.
fn answer_to(node: &TestNode, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(node.tcp_addr).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    tcp.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    answer
}

/// A fatal alert in a plaintext TLS record, of this description.
fn assert_alert(answer: &[u8]) {
    assert!(answer.len() == 7 && answer[0] == 21 && answer[5] == 2, "{answer:02x?} is no fatal alert");
}

#[test]
fn plaintext_on_the_tls_port() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let hello = ClientFrame::Hello(Box::new(Client::hello_frame("a.b.c", 1))).encode();
    for bytes in [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice(), &hello] {
        assert_alert(&answer_to(&node, bytes));
    }
    node.assert_metric(HANDSHAKE_DROPS, 2.0);
    honest.go_on();
}

#[test]
fn garbage_on_the_tls_port() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_alert(&answer_to(&node, &noise));
    let endless_record = [&[22, 3, 1, 0xff, 0xff], noise.as_slice()].concat();
    assert_alert(&answer_to(&node, &endless_record));
    node.assert_metric(HANDSHAKE_DROPS, 2.0);
    honest.go_on();
}

#[test]
fn no_alpn_and_a_wrong_one() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    for (alpn, alert) in [(Vec::new(), "AccessDenied"), (vec![b"h2".to_vec()], "NoApplicationProtocol")] {
        let mut client = Client::connect(node.tcp_addr, &Tls::with_alpn(&node.ca, alpn));
        let error = client.handshake().expect_err("refused").to_string();
        assert!(error.contains(alert), "{error}");
    }
    node.assert_metric(HANDSHAKE_DROPS, 2.0);
    honest.go_on();
}
