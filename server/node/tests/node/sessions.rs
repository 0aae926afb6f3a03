//! Sessions over their life: take-over, roles, tokens that are renewed or run out, keepalive, logout, drain.

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use talaria_protocol::{
    error_code::ErrorCode,
    message::{
        RequestId, Role,
        client::{ClientFrame, Token},
        server::ServerFrame,
    },
};

use crate::support::{
    client::{Client, text_to},
    honest::Honest,
    node::TestNode,
    slow_log::SlowLog,
};

#[test]
fn a_new_session_of_the_device_takes_the_old_one_over() {
    let node = TestNode::start();
    let mut old = node.session("alice");
    let conversation = old.direct_with("bob");
    let mut new = node.session("alice");
    assert_eq!(old.end(), ErrorCode::TakenOver);
    assert_eq!(new.say(conversation, "from the new one"), 2);
    node.assert_metric("talaria_sessions", 1.0);
    node.assert_metric("talaria_sessions_ended_total{code=\"TAKEN_OVER\"}", 1.0);
}

#[test]
fn another_device_another_role_and_another_user_take_nothing_over() {
    let node = TestNode::start();
    let mut app = node.session("alice");
    let conversation = app.direct_with("bob");
    let mut others = vec![node.session_of("alice", 2), node.session("bob")];
    let mut push = node.connect();
    let mut hello = Client::hello_frame(&node.token("alice"), 1);
    hello.role = Role::PushFetch;
    push.send(&ClientFrame::Hello(Box::new(hello)));
    assert!(matches!(push.frame(), ServerFrame::Welcome(_)));
    others.push(push);
    assert_eq!(app.say(conversation, "still here"), 2);
    node.assert_metric("talaria_sessions", 4.0);
}

#[test]
fn devices_are_numbered_and_keep_their_number() {
    let node = TestNode::start();
    let number = |device| {
        let mut client = node.connect();
        client.hello(&node.token("alice"), device).device_number
    };
    assert_eq!([number(7), number(8), number(7), number(9)], [1, 2, 1, 3]);
}

#[test]
fn expiry_ends_a_session_and_reauth_renews_it() {
    let node = TestNode::start();
    // The leeway is 30 s: this token holds for 2 s more.
    let token = node.token_until("alice", -28);
    let started = Instant::now();
    let (mut idle, mut renewed) = (node.connect(), node.connect());
    let welcome = idle.hello(&token, 1);
    renewed.hello(&token, 2);
    let request_id = RequestId::new(99).unwrap();
    renewed.send(&ClientFrame::Reauth { request_id, token: Token(node.token("alice")) });
    match renewed.answer(request_id) {
        ServerFrame::Reauthed { token_expires_ms, .. } => {
            assert!(token_expires_ms > welcome.token_expires_ms);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(idle.end(), ErrorCode::TokenExpired);
    assert!(started.elapsed() < Duration::from_secs(5));
    renewed.direct_with("bob");
    node.assert_metric("talaria_sessions_ended_total{code=\"TOKEN_EXPIRED\"}", 1.0);
}

#[test]
fn a_silent_session_ends_and_a_ping_keeps_one() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 1);
    let (mut silent, mut pinging) = (node.session("alice"), node.session("bob"));
    for nonce in 1..=6 {
        sleep(Duration::from_millis(500));
        pinging.send(&ClientFrame::Ping(nonce));
        match pinging.frame() {
            ServerFrame::Pong { nonce: answered, hlc } => assert!(answered == nonce && hlc.unix_ms() > 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(silent.end(), ErrorCode::KeepaliveTimeout);
    node.assert_metric("talaria_sessions", 1.0);
}

#[test]
fn logout_ends_the_session() {
    let node = TestNode::start();
    let mut client = node.session("alice");
    client.send(&ClientFrame::Logout);
    assert_eq!(client.end(), ErrorCode::LoggedOut);
}

#[test]
fn a_session_that_vanishes_is_closed() {
    let node = TestNode::start();
    let client = node.session("alice");
    node.assert_metric("talaria_sessions", 1.0);
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while node.metric("talaria_sessions") > 0.0 || node.metric("talaria_connections") > 0.0 {
        assert!(Instant::now() < deadline, "it stays");
        sleep(Duration::from_millis(10));
    }
    node.assert_metric("talaria_connections_dropped_total{reason=\"peer\"}", 1.0);
}

#[test]
fn no_more_sessions_than_connections_max_and_those_without_hello_make_place() {
    let node = TestNode::start_with(|config| config.connections_max = 3);
    let mut honest = Honest::on(&node);
    let mut silent = node.connect();
    silent.handshake().unwrap();
    // Both ends have it: before that nothing can be said.
    node.assert_metric("talaria_handshakes_in_progress", 0.0);
    let mut third = node.session("carol");
    assert_eq!(silent.end(), ErrorCode::Busy, "it made place");
    let mut fourth = node.connect();
    assert!(fourth.handshake().is_err(), "all places have sessions");
    third.direct_with("alice");
    honest.go_on();
    node.assert_metric("talaria_connections_dropped_total{reason=\"connections_max\"}", 2.0);
}

#[test]
fn a_drain_answers_what_was_asked_tells_everyone_and_ends() {
    let node = TestNode::start_on(Arc::new(SlowLog::new(Duration::from_millis(300))), |_| {});
    let mut busy = node.session("alice");
    let conversation = busy.direct_with("bob");
    let idle: Vec<Client> = (2..12).map(|device| node.session_of("alice", device)).collect();
    let mut early = node.connect();
    early.handshake().unwrap();
    let asked = busy.ask(text_to(conversation, "the last"));
    sleep(Duration::from_millis(100));
    node.begin_shutdown();
    assert!(matches!(busy.answer(asked), ServerFrame::Sent(_)));
    let mut hints = Vec::new();
    for mut client in std::iter::once(busy).chain(idle) {
        hints.push(client.wait_for(|frame| match frame {
            ServerFrame::GoAway(go_away) => {
                assert_eq!(go_away.code, ErrorCode::Draining as u32);
                Some(go_away.reconnect_after_ms)
            }
            _ => None,
        }));
        client.closed();
    }
    assert!(hints.iter().all(|after_ms| (1..=3_000).contains(after_ms)), "{hints:?}");
    hints.sort_unstable();
    hints.dedup();
    assert!(hints.len() > 5, "not all come back at once: {hints:?}");
    assert_eq!(early.end(), ErrorCode::Draining);
    let address = node.tcp_addr;
    node.shutdown();
    assert!(std::net::TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn a_drain_does_not_wait_for_those_who_do_not_go() {
    let node = TestNode::start_with(|config| config.drain_seconds = 1);
    let client = node.session("alice");
    let started = Instant::now();
    node.shutdown();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    drop(client);
}
