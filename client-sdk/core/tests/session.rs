//! The rules of connecting, staying connected and stopping, one per test, against the model server.
#![allow(clippy::unwrap_used)]

mod model;

use model::world::{TICK_MS, World};
use talaria_client_core::{
    ask::{Answer, Ask, AskError},
    engine::{Connection, StopReason, TokenError},
    timeline::Streams,
};
use talaria_protocol::{entry::EntryKind, error_code::ErrorCode, ids::ConversationId, message::UserRef};

const ALICE: usize = 0;
const BOB: usize = 1;

fn pair() -> (World, ConversationId) {
    let mut world = World::new(1);
    world.add("alice");
    world.add("bob");
    let conversation = world.conversation(ALICE, Ask::DirectWith(UserRef::Subject("bob".into())));
    world.settle();
    (world, conversation)
}

fn log(world: &World, conversation: ConversationId) -> Vec<String> {
    let entries = &world.model.conversations[&conversation].entries;
    let texts = entries.iter().filter(|entry| entry.header.kind == EntryKind::Message);
    texts.map(|entry| String::from_utf8_lossy(&entry.content[2..]).into_owned()).collect()
}

#[test]
fn tokens_are_renewed_before_they_expire() {
    let (mut world, _) = pair();
    world.model.token_life_ms = 300_000;
    world.cut(ALICE);
    world.settle();
    let before = world.devices[ALICE].tokens_asked;
    world.devices[ALICE].token = Err(TokenError::Unavailable);
    world.run(245_000);
    assert_eq!(world.devices[ALICE].tokens_asked, before + 1, "a minute ahead");
    world.devices[ALICE].token = Ok("alice#new".into());
    world.run(500_000);
    assert_eq!(world.devices[ALICE].engine.stats().disconnects, 1, "the session never ended for it");
    assert!(world.devices[ALICE].tokens_asked >= before + 3);
}

#[test]
fn an_expired_token_is_replaced_once_then_the_user_must_log_in() {
    let (mut world, _) = pair();
    world.model.accepts_token = |token| token.ends_with("#2");
    let before = world.devices[ALICE].tokens_asked;
    world.cut(ALICE);
    world.run(3_000);
    assert_eq!(world.devices[ALICE].states.last(), Some(&Connection::AuthRequired));
    assert_eq!(world.devices[ALICE].tokens_asked, before + 1);
    world.devices[ALICE].token = Ok("alice#2".into());
    let now = world.now;
    world.devices[ALICE].engine.handle_retry(now);
    world.devices[BOB].offline = true;
    world.settle();
    assert_eq!(world.devices[ALICE].states.last(), Some(&Connection::Online));
}

#[test]
fn the_end_of_a_session_says_whether_to_come_back() {
    for (code, stops) in [
        (ErrorCode::TakenOver, true),
        (ErrorCode::ProtocolViolation, true),
        (ErrorCode::Unsupported, true),
        (ErrorCode::Draining, false),
        (ErrorCode::SlowConsumer, false),
        (ErrorCode::Internal, false),
    ] {
        let (mut world, _) = pair();
        world.model.end_sessions(code, 4_000);
        world.run(3_900);
        assert_ne!(world.devices[ALICE].states.last(), Some(&Connection::Online), "{code:?}: not before 4 s");
        world.run(4_000);
        assert_eq!(world.stop_reason(ALICE).is_some(), stops, "{code:?}");
        assert_eq!(world.devices[ALICE].states.last() == Some(&Connection::Online), !stops, "{code:?}");
    }
}

#[test]
fn a_wait_ends_when_the_network_changes_but_not_before_the_server_allows() {
    for (after_ms, waits) in [(0, false), (4_000, true)] {
        let (mut world, _) = pair();
        world.model.end_sessions(ErrorCode::Draining, after_ms);
        world.run(20);
        world.devices[ALICE].offline = true;
        if !waits {
            // Long enough for the backoff to have grown.
            world.run(60_000);
        }
        world.devices[ALICE].offline = false;
        assert!(matches!(world.devices[ALICE].states.last(), Some(Connection::Backoff { .. })));
        let now = world.now;
        world.devices[ALICE].engine.handle_network_changed(now);
        world.run(100);
        let is_online = world.devices[ALICE].states.last() == Some(&Connection::Online);
        assert_eq!(is_online, !waits, "asked to wait {after_ms} ms");
        if waits {
            world.run(3_700);
            assert_ne!(world.devices[ALICE].states.last(), Some(&Connection::Online));
            world.run(400);
            assert_eq!(world.devices[ALICE].states.last(), Some(&Connection::Online), "then at once");
        }
    }
}

#[test]
fn an_idle_app_in_the_background_waits_and_one_that_comes_to_the_front_does_not() {
    let (mut world, conversation) = pair();
    world.devices[ALICE].offline = true;
    world.cut(ALICE);
    let now = world.now;
    world.devices[ALICE].engine.handle_foreground(now, false);
    world.run(120_000);
    let attempts = |world: &World| {
        world.devices[ALICE].states.iter().filter(|state| matches!(state, Connection::Connecting)).count()
    };
    let before = attempts(&world);
    let changed = |world: &mut World| {
        let now = world.now;
        world.devices[ALICE].engine.handle_network_changed(now);
        world.tick();
    };
    changed(&mut world);
    assert_eq!(attempts(&world), before, "idle: the wait goes on");
    let now = world.now;
    world.devices[ALICE].engine.handle_foreground(now, true);
    world.tick();
    assert_eq!(attempts(&world), before + 1, "in front: at once");
    let now = world.now;
    world.devices[ALICE].engine.handle_foreground(now, false);
    world.send(ALICE, conversation, "something to say");
    let before = attempts(&world);
    changed(&mut world);
    assert_eq!(attempts(&world), before + 1, "not idle: at once");
    world.devices[ALICE].offline = false;
    changed(&mut world);
    world.settle();
    assert!(world.model.told_background.contains(&true), "the server was told");
}

#[test]
fn with_streams_what_changed_is_asked_with_the_hello() {
    for (lanes, round_trips) in [(None, 3), (Some([1; 3]), 2)] {
        let (mut world, conversation) = pair();
        world.store_ms_max = 0;
        // A round trip of 200 ms.
        world.slow_up_ms = 200;
        world.lanes_ms_max = lanes;
        world.cut(ALICE);
        let local_id = world.send(ALICE, conversation, "waits");
        let now = world.now;
        world.devices[ALICE].engine.handle_retry(now);
        let mut took_ms = 0;
        while !world.devices[ALICE].acknowledged.contains_key(&local_id) {
            world.tick();
            took_ms += TICK_MS;
        }
        assert_eq!((took_ms + 100) / 200, round_trips, "{took_ms} ms");
    }
}

#[test]
fn over_udp_an_app_in_front_is_heard_of_twice_as_often() {
    for (lanes, foreground, pings) in
        [(None, true, 19..=21), (Some([20; 3]), true, 38..=46), (Some([20; 3]), false, 19..=21)]
    {
        let (mut world, _) = pair();
        world.lanes_ms_max = lanes;
        world.cut(ALICE);
        world.devices[BOB].offline = true;
        world.cut(BOB);
        world.settle();
        let now = world.now;
        world.devices[ALICE].engine.handle_foreground(now, foreground);
        let before = world.model.pings;
        world.run(600_000);
        assert!(
            pings.contains(&(world.model.pings - before)),
            "{lanes:?} {foreground}: {}",
            world.model.pings
        );
        assert_eq!(world.devices[ALICE].engine.stats().sessions, 2);
    }
}

#[test]
fn a_path_that_died_is_left_within_seconds_of_the_change() {
    let (mut world, _) = pair();
    world.devices[ALICE].mute = true;
    world.run(5_000);
    assert_eq!(world.devices[ALICE].states.last(), Some(&Connection::Online), "nobody noticed yet");
    let now = world.now;
    world.devices[ALICE].engine.handle_network_changed(now);
    world.run(900);
    assert_eq!(world.devices[ALICE].engine.stats().sessions, 1, "it has a second to answer");
    world.devices[ALICE].mute = false;
    world.run(500);
    assert_eq!(world.devices[ALICE].states.last(), Some(&Connection::Online));
    assert_eq!(world.devices[ALICE].engine.stats().sessions, 2, "a new one, without a backoff");
    let now = world.now;
    world.devices[ALICE].engine.handle_network_changed(now);
    world.run(10_000);
    assert_eq!(world.devices[ALICE].engine.stats().sessions, 2, "a path that answers is kept");
}

#[test]
fn what_was_not_received_is_said_again_on_the_same_connection() {
    let (mut world, conversation) = pair();
    world.cut(ALICE);
    world.devices[ALICE].mute = true;
    for _ in 0..100 {
        world.tick();
    }
    // The first hello was lost with the early data.
    world.devices[ALICE].mute = false;
    let now = world.now;
    world.devices[ALICE].engine.handle_connected(now, Streams::One);
    world.send(ALICE, conversation, "here");
    world.settle();
    assert_eq!(log(&world, conversation), ["here"]);
    let stats = world.devices[ALICE].engine.stats();
    assert_eq!((stats.sessions, stats.disconnects), (2, 1), "{stats:?}");
}

#[test]
fn requests_go_on_over_a_cut_and_end_at_their_deadline() {
    let (mut world, _) = pair();
    world.devices[ALICE].offline = true;
    world.cut(ALICE);
    assert_eq!(world.ask(ALICE, Ask::ListConversations(Default::default())), Err(AskError::Timeout));
    let group = Ask::CreateGroup { title: "once".into(), members: vec![UserRef::Subject("bob".into())] };
    let now = world.now;
    let id = world.devices[ALICE].engine.handle_ask(now, group, std::time::Duration::from_secs(30));
    world.run(1_000);
    world.devices[ALICE].offline = false;
    for _ in 0..10 {
        world.cut(ALICE);
        let now = world.now;
        world.devices[ALICE].engine.handle_retry(now);
        world.run(60);
    }
    world.settle();
    assert!(matches!(world.devices[ALICE].answers.get(&id), Some(Ok(Answer::Conversation(_)))));
    assert_eq!(world.model.conversations.len(), 2, "one group, however often it was asked for");
}

#[test]
fn a_shutdown_keeps_what_is_queued() {
    let (mut world, conversation) = pair();
    world.model.faults.busy = 1_000;
    world.send(ALICE, conversation, "kept");
    world.run(100);
    let now = world.now;
    world.devices[ALICE].engine.handle_shutdown(now);
    world.run(1_000);
    assert_eq!(world.stop_reason(ALICE), Some(StopReason::ShutDown));
    world.model.faults.busy = 0;
    world.crash(ALICE);
    world.settle();
    assert_eq!(log(&world, conversation), ["kept"]);
}
