//! Many at once: reconnect storms are paced and told when to come again, addresses have bounds, and a loaded node empties
//! in its time.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use talaria_protocol::{error_code::ErrorCode, message::client::ClientFrame, message::server::ServerFrame};

use crate::support::{client::Client, honest::Honest, node::TestNode};

/// Sessions of so many users, opened by a few threads.
fn sessions(node: &TestNode, count: usize) -> Vec<Client> {
    let opened = std::thread::scope(|scope| {
        let open = |part: usize| {
            move || {
                let mine = (0..count).filter(|n| n % 4 == part);
                mine.map(|n| node.session(&format!("user-{n}"))).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..4).map(|part| scope.spawn(open(part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(opened.len(), count);
    opened
}

#[test]
fn a_loaded_node_empties_in_its_time_and_spreads_those_who_come_back() {
    const SESSIONS: usize = 1_000;
    let node = TestNode::start_with(|config| {
        config.handshakes_per_second = 5_000;
        config.hellos_per_second = 5_000;
        config.drain_seconds = 20;
    });
    let mut clients = sessions(&node, SESSIONS);
    node.assert_metric("talaria_sessions", SESSIONS as f64);
    let started = Instant::now();
    node.begin_shutdown();
    let mut hints: Vec<u32> = clients
        .iter_mut()
        .map(|client| {
            client.wait_for(|frame| match frame {
                ServerFrame::GoAway(go_away) => Some(go_away.reconnect_after_ms),
                _ => None,
            })
        })
        .collect();
    clients.iter_mut().for_each(Client::closed);
    drop(clients);
    node.shutdown();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    hints.sort_unstable();
    // Evenly over three seconds: each tenth of them has about a tenth.
    let tenths: Vec<usize> =
        (0..10).map(|n| hints.iter().filter(|ms| (n * 300..(n + 1) * 300).contains(*ms)).count()).collect();
    assert!(hints.last().is_some_and(|last| *last <= 3_000), "{hints:?}");
    assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
}

#[test]
fn hellos_beyond_the_rate_are_told_when_to_come_again() {
    let node = TestNode::start_with(|config| config.hellos_per_second = 10);
    let mut honest = Honest::on(&node);
    let mut told = Vec::new();
    for n in 0..40 {
        let mut client = node.connect();
        client.send(&ClientFrame::Hello(Box::new(Client::hello_frame(&node.token(&format!("user-{n}")), 1))));
        match client.frame() {
            ServerFrame::Welcome(_) => {}
            ServerFrame::Refused(refused) => {
                assert_eq!(refused.code, ErrorCode::Busy as u32);
                told.push(refused.retry_after_ms);
                client.closed();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(told.len() > 10, "{told:?}");
    assert!(told.iter().all(|ms| (100..=6_000).contains(ms)), "{told:?}");
    node.assert_metric("talaria_hellos_paced_total", told.len() as f64);
    let of_refused = "talaria_hello_refused_total{code=\"BUSY\"}";
    node.assert_metric(of_refused, told.len() as f64);
    told.sort_unstable();
    told.dedup();
    assert!(told.len() > 10, "not all at once: {told:?}");
    honest.go_on();
}

#[test]
fn handshakes_beyond_the_rate_wait_and_sessions_do_not_notice() {
    let node = TestNode::start_with(|config| config.handshakes_per_second = 20);
    let mut honest = Honest::on(&node);
    let storm: Vec<_> = (0..30)
        .map(|n| {
            let (address, tls, token) = (node.tcp_addr, node.tls.clone(), node.token(&format!("user-{n}")));
            std::thread::spawn(move || Client::connect(address, &tls).hello(&token, 1).device_number)
        })
        .collect();
    for _ in 0..20 {
        honest.go_on();
    }
    assert!(storm.into_iter().all(|client| client.join().unwrap() == 1), "all got in");
    assert!(node.metric("talaria_handshakes_paced_total") > 0.0);
    node.assert_metric("talaria_handshakes_in_progress", 0.0);
}

#[test]
fn an_address_has_its_bounds() {
    let node = TestNode::start_with(|config| {
        config.address_limits_loopback = true;
        config.address_without_hello_max = 5;
        config.address_connections_per_second = 1_000;
    });
    let mut honest = Honest::on(&node);
    let silent: Vec<_> = (0..5).map(|_| TcpStream::connect(node.tcp_addr).unwrap()).collect();
    node.assert_metric("talaria_connections_without_hello", 5.0);
    assert!(node.connect().handshake().is_err(), "the sixth without Hello");
    node.assert_metric("talaria_connections_dropped_total{reason=\"address_without_hello\"}", 1.0);
    honest.go_on();
    drop(silent);
    node.assert_metric("talaria_connections_without_hello", 0.0);
    node.session("carol");

    let node = TestNode::start_with(|config| {
        config.address_limits_loopback = true;
        config.address_connections_per_second = 1;
    });
    let begun = Instant::now();
    let admitted = (0..30).filter(|_| node.connect().handshake().is_ok()).count();
    let most = 10 + begun.elapsed().as_secs() as usize + 1;
    assert!((10..=most).contains(&admitted), "ten at once and one a second, not {admitted}");
    let refused = (30 - admitted) as f64;
    node.assert_metric("talaria_connections_dropped_total{reason=\"address_rate\"}", refused);
    // Another address of this machine is another address.
    let other = connect_from(SocketAddr::from(([127, 0, 0, 2], 0)), node.tcp_addr);
    Client::over(other, &node.tls).handshake().unwrap();
}

fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}
