//! Every queue is bounded, and full is an answer.

use talaria_core::{
    effect::SessionKey,
    limits::{
        BUSY_RETRY_AFTER_MS, LOG_BYTES_IN_FLIGHT_MAX, LOG_OPS_IN_FLIGHT_MAX, LOG_OPS_RESERVED, PARKED_MAX,
        READS_IN_FLIGHT_MAX,
    },
};
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    message::{Credit, Cursor, Direction, RequestId, Role, client::Request, server::ServerFrame},
};

use crate::support::{
    requests::{PLENTY, add, code, create_group, history, id, members, remove, send, send_after, sync},
    world::{Out, World},
};

fn chat() -> (World, SessionKey, ConversationId) {
    let mut world = World::default();
    let ada = world.session("ada");
    let conversation = world.direct_of(ada, "ben");
    world.sent(ada, send(conversation, 2, "loaded"));
    world.take_out(ada);
    (world, ada, conversation)
}

fn is_busy(frame: &ServerFrame) -> bool {
    match frame {
        ServerFrame::Error { retry_after_ms, .. } => {
            assert_eq!(*retry_after_ms, BUSY_RETRY_AFTER_MS);
            code(frame) == Some(ErrorCode::Busy)
        }
        _ => false,
    }
}

fn fill_log(world: &mut World, ada: SessionKey, conversation: ConversationId) -> Vec<RequestId> {
    let places = (LOG_OPS_IN_FLIGHT_MAX - LOG_OPS_RESERVED) as u64;
    (0..places).map(|number| world.begin(ada, send(conversation, 10 + number, "x"))).collect()
}

#[test]
fn sends_are_refused_when_the_log_has_as_many_as_it_takes() {
    let (mut world, ada, conversation) = chat();
    let accepted = fill_log(&mut world, ada, conversation);
    let refused = world.begin(ada, send(conversation, 9_000, "x"));
    assert!(is_busy(&world.reply(ada, refused).expect("an answer")));
    // What came after it is not let past; a retry of what is on its way joins it.
    let linked = world.begin(ada, send_after(conversation, id(9_001), Some(id(9_000)), "x"));
    assert_eq!(code(&world.reply(ada, linked).expect("an answer")), Some(ErrorCode::OutOfOrder));
    let joined = world.begin(ada, send(conversation, 10, "x"));
    world.settle();
    let answers = world.take_out(ada);
    let sent = answers.iter().filter(|out| matches!(out, Out::Frame(ServerFrame::Sent(_)))).count();
    assert_eq!(sent, accepted.len() + 1);
    assert!(answers.iter().any(|out| matches!(out, Out::Frame(frame) if frame.request_id() == Some(joined))));
    assert_eq!(world.sent(ada, send(conversation, 9_000, "x")).seq, 3 + accepted.len() as u64);
}

#[test]
fn sends_are_refused_when_the_log_has_as_many_bytes_as_it_takes() {
    let (mut world, ada, conversation) = chat();
    let said = "x".repeat(60_000);
    let mut accepted = 0;
    let refused = loop {
        let request_id = world.begin(ada, send(conversation, 10 + accepted, &said));
        if let Some(answer) = world.reply(ada, request_id) {
            break answer;
        }
        accepted += 1;
    };
    assert!(is_busy(&refused));
    let bytes = accepted as usize * said.len();
    assert!((LOG_BYTES_IN_FLIGHT_MAX - 200_000..LOG_BYTES_IN_FLIGHT_MAX).contains(&bytes), "{bytes}");
    world.settle();
    world.sent(ada, send(conversation, 5_000, &said));
    world.assert_at_rest();
}

#[test]
fn devices_and_cursors_have_places_of_their_own() {
    let (mut world, ada, conversation) = chat();
    world.resume(ada, conversation, Cursor::START);
    world.settle();
    fill_log(&mut world, ada, conversation);
    let open = |world: &mut World, number: usize| {
        let identity = world.identity(&format!("user{number}"), 1, Role::Main);
        let session = world.open(identity, PLENTY);
        world.settle_reads();
        session
    };
    let sessions: Vec<_> = (0..LOG_OPS_RESERVED).map(|number| open(&mut world, number)).collect();
    assert_eq!(world.ops_waiting(), LOG_OPS_IN_FLIGHT_MAX);
    let one_more = open(&mut world, LOG_OPS_RESERVED);
    assert_eq!(world.take_out(one_more), [Out::Refused(ErrorCode::Busy)]);
    // A cursor waits, and is not lost.
    world.ack(ada, conversation, 2);
    world.tick(150);
    assert_eq!(world.ops_waiting(), LOG_OPS_IN_FLIGHT_MAX);
    world.settle();
    world.tick(150);
    assert_eq!(world.ops_waiting(), 1, "the cursor is on its way");
    world.settle();
    assert!(sessions.into_iter().all(|session| world.is_open(session)));
    world.assert_at_rest();
}

#[test]
fn a_loading_conversation_parks_only_so_many() {
    let (mut world, _, conversation) = chat();
    world.restart();
    let ada = world.session("ada");
    let parked: Vec<_> =
        (0..PARKED_MAX as u64).map(|number| world.begin(ada, send(conversation, 10 + number, "x"))).collect();
    assert_eq!(world.queues().parked, PARKED_MAX);
    for request in [send(conversation, 900, "x"), members(conversation)] {
        let refused = world.begin(ada, request);
        assert!(is_busy(&world.reply(ada, refused).expect("an answer")));
    }
    world.resume(ada, conversation, Cursor::START);
    assert_eq!(world.heard(ada), ["Busy"]);
    world.settle();
    for (seq, request_id) in (3..).zip(parked) {
        let answer = world.reply(ada, request_id).expect("an answer");
        assert!(matches!(answer, ServerFrame::Sent(sent) if sent.seq == seq), "{answer:?}");
    }
    world.assert_at_rest();
}

#[test]
fn a_barred_conversation_parks_only_so_many() {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, ..) = world.changed(ada, create_group(1, &["ben"]));
    world.begin(ada, remove(group, 2, &["ben"]));
    let parked: Vec<_> =
        (0..PARKED_MAX as u64).map(|number| world.begin(ada, send(group, 10 + number, "x"))).collect();
    let refused = world.begin(ada, send(group, 900, "x"));
    assert!(is_busy(&world.reply(ada, refused).expect("an answer")));
    let linked = world.begin(ada, send_after(group, id(901), Some(id(900)), "x"));
    assert!(is_busy(&world.reply(ada, linked).expect("an answer")));
    world.settle();
    for (seq, request_id) in (3..).zip(parked) {
        let answer = world.reply(ada, request_id).expect("an answer");
        assert!(matches!(answer, ServerFrame::Sent(sent) if sent.seq == seq), "{answer:?}");
    }
    world.assert_at_rest();
}

#[test]
fn what_needs_a_read_is_refused_when_all_readers_are_taken() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let conversation = world.direct_of(ada, "ben");
    world.sent(ada, send(conversation, 2, "ada is known"));
    // A session that lags, to go on when a reader is free.
    for number in 3..80 {
        world.sent(ada, send(conversation, number, "x"));
    }
    let lagging = world.session_of("ben", 2, Credit { entries: 0, bytes: 0 });
    world.resume(lagging, conversation, Cursor::START);
    world.settle();
    let other = world.session("cleo");
    for _ in 0..READS_IN_FLIGHT_MAX {
        world.begin(other, sync(None));
    }
    assert_eq!(world.reads_waiting(), READS_IN_FLIGHT_MAX);
    for request in [
        sync(None),
        Request::ListConversations { page: bytes::Bytes::new() },
        history(conversation, 0, Direction::Backward, 10),
        send(ConversationId::new([7; 16]), 500, "loads"),
        Request::DirectWith { user: world.id_of("cleo"), client_message_id: id(501) },
        send(conversation, 1, "an id of ben's below his greatest, or not: the log is asked"),
    ] {
        let refused = world.begin(ben, request.clone());
        assert!(is_busy(&world.reply(ben, refused).expect("an answer")), "{request:?}");
    }
    world.resume(ben, conversation, Cursor::START);
    assert_eq!(world.heard(ben).last().map(String::as_str), Some("Busy"));
    let identity = world.identity("dan", 1, Role::Main);
    let dan = world.open(identity, PLENTY);
    assert_eq!(world.take_out(dan), [Out::Refused(ErrorCode::Busy)]);
    // Needs none: it goes on; and so does the other as soon as a reader is free.
    world.begin(ada, send(conversation, 200, "no read"));
    world.credit(lagging, PLENTY);
    assert_eq!(world.heard(lagging), Vec::<String>::new());
    assert_eq!(world.queues().waiting_to_read, 1);
    world.settle();
    let heard = world.heard(lagging);
    assert_eq!((heard.len(), heard.last().map(String::as_str)), (81, Some("caught up 80")));
    world.assert_at_rest();
}

#[test]
fn a_new_conversation_is_refused_when_none_can_leave_the_memory() {
    let mut world = World::new(2);
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let (one, ..) = world.changed(ada, create_group(1, &["ben"]));
    let (two, ..) = world.changed(ada, create_group(2, &["ben"]));
    let (three, ..) = world.changed(ada, create_group(3, &["ben"]));
    assert_eq!(world.conversations_loaded(), 2);
    world.ask(ada, members(one));
    world.ask(ada, members(two));
    world.begin(ada, add(one, 4, &["cleo"]));
    world.begin(ada, add(two, 5, &["cleo"]));
    world.settle_reads();
    let refused = world.begin(ben, members(three));
    assert!(is_busy(&world.reply(ben, refused).expect("an answer")));
    world.settle();
    assert!(matches!(world.ask(ben, members(three)), ServerFrame::MemberList { .. }));
    world.assert_at_rest();
}

/// Thousands of deliveries that stop at once do not nest.
#[test]
fn many_catch_ups_that_cannot_load_are_refused_one_by_one() {
    const CONVERSATIONS: u64 = 3_000;
    let mut world = World::new(1);
    let ada = world.session("ada");
    let groups: Vec<_> =
        (0..CONVERSATIONS).map(|number| world.changed(ada, create_group(number, &["ben"])).0).collect();
    let ben = world.session_of("ben", 1, Credit { entries: 0, bytes: 0 });
    for group in &groups {
        world.resume(ben, *group, Cursor::START);
        world.settle();
    }
    let (busy, ..) = world.changed(ada, create_group(9_000, &[]));
    world.begin(ada, add(busy, 9_001, &["cleo"]));
    world.settle_reads();
    world.take_out(ben);
    world.credit(ben, PLENTY);
    let heard = world.heard(ben);
    assert_eq!(heard.len() as u64, CONVERSATIONS);
    assert!(heard.iter().all(|heard| heard == "Busy"));
    world.settle();
    world.assert_at_rest();
}

/// Asks of a conversation that does not exist are answered by one look at the log.
#[test]
fn many_asks_of_nothing_cost_one_read() {
    let mut world = World::default();
    let ada = world.session("ada");
    let nothing = ConversationId::new([3; 16]);
    let asked: Vec<_> = (0..100).map(|number| world.begin(ada, send(nothing, number, "x"))).collect();
    assert_eq!(world.reads_waiting(), 1);
    world.complete_read(0);
    assert_eq!(world.reads_waiting(), 0);
    for request_id in asked {
        assert_eq!(code(&world.reply(ada, request_id).expect("an answer")), Some(ErrorCode::NotFound));
    }
    assert_eq!(world.conversations_loaded(), 0);
    world.assert_at_rest();
}
