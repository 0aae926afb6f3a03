//! How the two session machines stay alive on a virtual clock, and when they find out that they do not.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "support/pair.rs"]
mod support;

use std::time::Duration;

use support::Pair;
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameDecoder,
    hlc::Hlc,
    ids::ConversationId,
    limits,
    message::server::ServerFrame,
    session::client::{ClientEvent, CloseReason},
};

const CONVERSATION: ConversationId = ConversationId::new([5; 16]);

#[test]
fn an_idle_session_is_kept_by_pings_and_lost_two_periods_after_a_cut() {
    let mut pair = Pair::live(1);
    pair.run(600);
    assert!(pair.client.is_live() && pair.server.is_live());
    assert!((19..=21).contains(&pair.pings), "{} pings in ten minutes", pair.pings);
    pair.cut();
    pair.run(29);
    assert!(pair.client.is_live() && pair.server.is_live());
    pair.run(32);
    assert_eq!(pair.server.end_code(), Some(ErrorCode::KeepaliveTimeout as u32));
    assert_eq!(pair.client_events, [ClientEvent::Closed { reason: CloseReason::Dead }]);
}

#[test]
fn a_client_may_ping_more_often_and_is_not_lost_earlier() {
    let mut pair = Pair::live(1);
    pair.client.set_ping_every(Duration::from_secs(15));
    pair.run(600);
    assert!((38..=41).contains(&pair.pings), "{} pings in ten minutes", pair.pings);
    pair.client.set_ping_every(Duration::from_secs(3_600));
    pair.run(600);
    assert!((57..=61).contains(&pair.pings), "the server's period is the longest: {} pings", pair.pings);
    pair.client.set_ping_every(Duration::from_secs(15));
    pair.cut();
    pair.run(44);
    assert!(pair.client.is_live());
}

#[test]
fn a_talking_client_asks_whether_a_silent_server_is_there() {
    let mut pair = Pair::live(1);
    for up_to in 0..60 {
        pair.client.ack(pair.now, CONVERSATION, up_to);
        pair.run(10);
    }
    assert!(pair.client.is_live() && pair.server.is_live());
    assert!(pair.pings >= 15, "{} pings", pair.pings);
}

#[test]
fn a_server_that_no_longer_hears_tells_the_client() {
    let mut pair = Pair::live(1);
    pair.cut_up();
    pair.run(59);
    pair.run(3);
    assert_eq!(pair.server.end_code(), Some(ErrorCode::KeepaliveTimeout as u32));
    assert!(pair.client.is_closed());
}

#[test]
fn a_probe_is_answered_or_ends_the_session_within_seconds() {
    let mut pair = Pair::live(1);
    for _ in 0..20 {
        pair.client.probe(pair.now);
        pair.run(10);
        assert!(pair.client.is_live(), "its pong came");
    }
    pair.client.probe(pair.now);
    pair.cut();
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    decoder.extend(&ServerFrame::Pong { nonce: 1, hlc: Hlc(0) }.encode());
    let payload = decoder.poll_frame().unwrap().unwrap();
    // A pong of an earlier ping says nothing about the path now.
    pair.client.handle_frame(pair.now, payload);
    pair.run(6);
    assert_eq!(pair.client_events, [ClientEvent::Closed { reason: CloseReason::PathDead }]);
}
