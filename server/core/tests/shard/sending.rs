//! Sending: acknowledgement, retries, order, the dedup window, and what a failing log does to it.

use talaria_log::{CommitResult, MemoryLog};
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    limits::{DEDUP_WINDOW, ID_FUTURE_MAX},
    message::{Cursor, Direction, RequestId, server::ServerFrame},
};

use crate::support::{
    requests::{
        add, code, create_group, direct_with, history, id, id_at, members, remove, send, send_after, sync,
    },
    truth::Truth,
    world::{BEGIN_MS, World},
};

/// Ada and Ben, connected, and their conversation of one entry.
fn chat() -> (World, talaria_core::effect::SessionKey, talaria_core::effect::SessionKey, ConversationId) {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let conversation = world.direct_of(ada, "ben");
    world.take_out(ada);
    world.take_out(ben);
    (world, ada, ben, conversation)
}

fn head(world: &World, conversation: ConversationId) -> u64 {
    Truth::of(world, conversation).entries.len() as u64
}

#[test]
fn an_acknowledgement_comes_after_the_log() {
    let (mut world, ada, _, conversation) = chat();
    world.sent(ada, send(conversation, 2, "so that all is loaded"));
    let asked = world.begin(ada, send(conversation, 3, "hello"));
    assert_eq!(world.ops_waiting(), 1);
    assert_eq!(world.reply(ada, asked), None);
    world.commit(1);
    assert_eq!(world.reply(ada, asked), None, "the shard has not heard of it");
    world.complete_op();
    let Some(ServerFrame::Sent(sent)) = world.reply(ada, asked) else { panic!("not sent") };
    assert_eq!((sent.seq, sent.duplicate), (3, false));
}

#[test]
fn a_retry_gets_the_same_answer_wherever_it_comes_from() {
    let (mut world, ada, ben, conversation) = chat();
    let first = world.sent(ada, send(conversation, 2, "hello"));
    let again = world.sent(ada, send(conversation, 2, "hello"));
    assert_eq!((again.seq, again.epoch, again.hlc), (first.seq, first.epoch, first.hlc));
    assert!(!first.duplicate && again.duplicate);
    // Of another device; of another user it is another id.
    let other_device = world.session_of("ada", 2, crate::support::requests::PLENTY);
    assert_eq!(world.sent(other_device, send(conversation, 2, "hello")).seq, first.seq);
    assert_eq!(world.sent(ben, send(conversation, 2, "hello")).seq, first.seq + 1);
    world.restart();
    let ada = world.session("ada");
    let again = world.sent(ada, send(conversation, 2, "hello"));
    assert_eq!(
        (again.seq, again.epoch, again.hlc, again.duplicate),
        (first.seq, first.epoch, first.hlc, true)
    );
    assert_eq!(world.ask_code(ada, send(conversation, 2, "goodbye")), Some(ErrorCode::Conflict));
    assert_eq!(head(&world, conversation), 3);
}

#[test]
fn a_retry_joins_a_pending_send() {
    let (mut world, ada, _, conversation) = chat();
    world.sent(ada, send(conversation, 2, "loaded"));
    let first = world.begin(ada, send(conversation, 3, "hello"));
    let second = world.begin(ada, send(conversation, 3, "hello"));
    let third = world.begin(ada, send(conversation, 3, "something else"));
    assert_eq!((world.ops_waiting(), world.reads_waiting()), (1, 0));
    world.settle();
    let sent = |frame: Option<ServerFrame>| match frame {
        Some(ServerFrame::Sent(sent)) => (sent.seq, sent.duplicate),
        other => panic!("{other:?}"),
    };
    assert_eq!(sent(world.reply(ada, first)), (3, false));
    assert_eq!(sent(world.reply(ada, second)), (3, true));
    let refused = world.reply(ada, third).expect("an answer");
    assert_eq!(code(&refused), Some(ErrorCode::Conflict));
}

#[test]
fn the_dedup_window_has_two_ends() {
    let (mut world, ada, _, conversation) = chat();
    world.tick(1);
    let now = world.now.unix_ms;
    let (window, ahead) = (DEDUP_WINDOW.as_millis() as u64, ID_FUTURE_MAX.as_millis() as u64);
    for (at, expected) in [
        (now - window - 1, Some(ErrorCode::IdExpired)),
        (now - window, None),
        (now + ahead, None),
        (now + ahead + 1, Some(ErrorCode::IdFromFuture)),
    ] {
        let before = head(&world, conversation);
        assert_eq!(world.ask_code(ada, send_after(conversation, id_at(at, 1), None, "x")), expected);
        assert_eq!(head(&world, conversation), before + u64::from(expected.is_none()));
    }
}

#[test]
fn a_clock_that_went_back_neither_unsends_nor_reorders() {
    let (mut world, ada, _, conversation) = chat();
    let minted = id_at(world.now.unix_ms, 7);
    let first = world.sent(ada, send_after(conversation, minted, None, "hello"));
    // Within a run the clock that clients are told does not go back: ids of it stay good.
    world.skew_ms = -20 * 60_000;
    world.tick(1);
    let told = world.hlc().unix_ms();
    assert!(told >= BEGIN_MS);
    world.sent(ada, send_after(conversation, id_at(told, 8), None, "still good"));
    world.restart();
    let ada = world.session("ada");
    let again = world.sent(ada, send_after(conversation, minted, None, "hello"));
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let fresh = id_at(told + 1, 9);
    assert_eq!(
        world.ask_code(ada, send_after(conversation, fresh, None, "x")),
        Some(ErrorCode::IdFromFuture)
    );
    let now = world.now.unix_ms;
    world.sent(ada, send_after(conversation, id_at(now, 3), None, "stamps increase all the same"));
    Truth::of(&world, conversation);
}

#[test]
fn ids_beyond_what_memory_keeps_are_found_in_the_log() {
    let (mut world, ada, _, conversation) = chat();
    for number in 0..200 {
        world.sent(ada, send(conversation, 10 + 2 * number, "even"));
    }
    for number in [0, 1, 60, 199, 0] {
        let again = world.sent(ada, send(conversation, 10 + 2 * number, "even"));
        assert_eq!((again.seq, again.duplicate), (2 + number, true));
    }
    // Below the greatest and never used: new, once.
    let sent = world.sent(ada, send(conversation, 11, "odd"));
    assert_eq!((sent.seq, sent.duplicate), (202, false));
    let again = world.sent(ada, send(conversation, 11, "odd"));
    assert_eq!((again.seq, again.duplicate), (202, true));
    // Also when memory keeps it no more.
    for number in 0..200 {
        world.sent(ada, send(conversation, 1_000 + number, "x"));
    }
    let again = world.sent(ada, send(conversation, 11, "odd"));
    assert_eq!((again.seq, again.duplicate), (202, true));
    assert_eq!(head(&world, conversation), 402);
}

/// What the log says of an id that was pending when it was asked is out of date when it comes.
#[test]
fn a_pending_id_is_never_taken_for_absent() {
    let (mut world, ada, _, conversation) = chat();
    world.sent(ada, send(conversation, 5, "known"));
    let pending = world.begin(ada, send(conversation, 20, "pending"));
    let between = world.begin(ada, send_after(conversation, id(15), Some(id(20)), "between"));
    assert_eq!(world.reads_waiting(), 1);
    world.execute_read(0);
    world.settle();
    assert!(matches!(world.reply(ada, pending), Some(ServerFrame::Sent(_))));
    assert!(matches!(world.reply(ada, between), Some(ServerFrame::Sent(_))));
    for number in 0..140 {
        world.sent(ada, send(conversation, 100 + number, "x"));
    }
    let again = world.sent(ada, send(conversation, 20, "pending"));
    assert_eq!((again.seq, again.duplicate), (3, true));
}

#[test]
fn after_keeps_a_pipeline_in_order() {
    let (mut world, ada, _, conversation) = chat();
    let out_of_order = Some(ErrorCode::OutOfOrder);
    assert_eq!(world.ask_code(ada, send_after(conversation, id(12), Some(id(11)), "second")), out_of_order);
    let pipeline: Vec<RequestId> = (20..30)
        .map(|number| {
            let after = (number > 20).then(|| id(number - 1));
            world.begin(ada, send_after(conversation, id(number), after, "x"))
        })
        .collect();
    world.settle();
    for (seq, request_id) in (2..).zip(pipeline) {
        match world.reply(ada, request_id) {
            Some(ServerFrame::Sent(sent)) => assert_eq!(sent.seq, seq),
            other => panic!("{other:?}"),
        }
    }
    // Of one accepted long ago, also after a restart; of what another user sent: not.
    world.restart();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    assert_eq!(world.ask_code(ben, send_after(conversation, id(41), Some(id(22)), "x")), out_of_order);
    assert_eq!(world.sent(ada, send_after(conversation, id(40), Some(id(22)), "x")).seq, 12);
    // A retry is recognised whatever it comes after.
    assert!(world.sent(ada, send_after(conversation, id(40), Some(id(77)), "x")).duplicate);
}

#[test]
fn a_change_of_members_holds_sends_back_in_their_order() {
    let mut world = World::default();
    let (ada, ben, cleo) = (world.session("ada"), world.session("ben"), world.session("cleo"));
    let (group, ..) = world.changed(ada, create_group(1, &["ben", "cleo"]));
    world.sent(ben, send(group, 2, "ben is known"));
    world.sent(ada, send(group, 2, "ada is known"));
    let removal = world.begin(ada, remove(group, 3, &["cleo"]));
    let sends = [
        (ben, world.begin(ben, send(group, 10, "first"))),
        (cleo, world.begin(cleo, send(group, 10, "not durable yet: no refusal"))),
        (ada, world.begin(ada, send(group, 11, "second"))),
        (ben, world.begin(ben, send(group, 12, "third"))),
    ];
    assert_eq!(world.ops_waiting(), 1, "only the change is on its way");
    for (session, request_id) in sends {
        assert_eq!(world.reply(session, request_id), None);
    }
    world.settle();
    assert!(world.reply(ada, removal).is_some());
    let answers = sends.map(|(session, request_id)| match world.reply(session, request_id) {
        Some(ServerFrame::Sent(sent)) => Ok(sent.seq),
        Some(frame) => Err(code(&frame).expect("a code")),
        None => panic!("no answer"),
    });
    assert_eq!(answers, [Ok(5), Err(ErrorCode::Forbidden), Ok(6), Ok(7)]);
}

/// A list read from the log tells of a conversation before the shard hears that it is durable.
#[test]
fn one_who_is_joining_waits_for_the_log() {
    let mut world = World::default();
    let (ada, ben, cleo) = (world.session("ada"), world.session("ben"), world.session("cleo"));
    let (group, ..) = world.changed(ada, create_group(1, &[]));
    world.begin(ada, add(group, 2, &["ben"]));
    world.commit(1);
    let asked = [
        world.begin(ben, send(group, 3, "here I am")),
        world.begin(ben, history(group, 0, Direction::Backward, 10)),
        world.begin(ben, members(group)),
    ];
    world.resume(ben, group, Cursor::START);
    assert_eq!(
        world.ask_code_now(cleo, members(group)),
        Some(ErrorCode::NotFound),
        "not of those who do not join"
    );
    assert_eq!(world.heard(ben), Vec::<String>::new());
    world.settle();
    for request_id in asked {
        assert_eq!(code(&world.reply(ben, request_id).expect("an answer")), None);
    }
    let heard = world.heard(ben);
    assert_eq!(heard.iter().filter(|heard| heard.starts_with("caught up")).count(), 1, "{heard:?}");
    world.assert_at_rest();
}

// A log that fails.

fn fail(world: &mut World, result: CommitResult, applied: bool) {
    world.log.fail_next_commit(result, applied);
}

fn unknown() -> CommitResult {
    CommitResult::Unknown { why: "told to".to_owned() }
}

#[test]
fn a_failed_commit_is_answered_by_what_it_may_have_done() {
    let not_committed = CommitResult::NotCommitted { why: "told to".to_owned() };
    for (result, expected) in [
        (unknown(), ErrorCode::OutcomeUnknown),
        (not_committed, ErrorCode::ReadOnly),
        (CommitResult::Fenced, ErrorCode::ReadOnly),
    ] {
        let (mut world, ada, ben, conversation) = chat();
        world.sent(ada, send(conversation, 2, "loaded"));
        world.resume(ben, conversation, Cursor::START);
        world.settle();
        world.take_out(ben);
        // One waits for the batch that fails, one for the next, one joins the first.
        let first = world.begin(ada, send(conversation, 3, "first"));
        let again = world.begin(ada, send(conversation, 3, "first"));
        fail(&mut world, result.clone(), false);
        world.commit(1);
        let second = world.begin(ada, send_after(conversation, id(4), Some(id(3)), "second"));
        world.settle();
        for request_id in [first, again] {
            assert_eq!(code(&world.reply(ada, request_id).expect("an answer")), Some(expected));
        }
        let second = code(&world.reply(ada, second).expect("an answer")).expect("refused");
        assert!(second == expected || second == ErrorCode::ReadOnly);
        assert_eq!(world.heard(ben), Vec::<String>::new(), "nothing that is not durable is shown");
        // From now on nothing is written, everything can be read, and what was accepted is recognised.
        let retry = world.ask_code(ada, send(conversation, 3, "first"));
        assert_eq!(retry, Some(expected), "a retry of what may be in the log is not told that it is not");
        assert_eq!(world.ask_code(ada, send(conversation, 9, "new")), Some(ErrorCode::ReadOnly));
        assert!(world.sent(ada, send(conversation, 2, "loaded")).duplicate);
        assert_eq!(world.page_of(ada, history(conversation, 0, Direction::Backward, 10)).head, 2);
        world.assert_at_rest();
        world.restart();
        let ada = world.session("ada");
        let sent = world.sent(ada, send(conversation, 3, "first"));
        assert_eq!((sent.seq, sent.duplicate), (3, false));
    }
}

/// The core that knew which sends are in doubt is gone.
#[test]
fn a_shard_that_begins_anew_over_a_log_in_doubt_promises_nothing() {
    let (mut world, ada, _, conversation) = chat();
    let first = world.begin(ada, send(conversation, 3, "first"));
    fail(&mut world, unknown(), true);
    world.commit(1);
    world.complete_op();
    assert_eq!(code(&world.reply(ada, first).expect("an answer")), Some(ErrorCode::OutcomeUnknown));
    world.restart_shard(0);
    let ada = world.session("ada");
    // The log has it; another's write is refused, and nobody knows of it either.
    assert_eq!(world.ask_code(ada, send(conversation, 9, "new")), Some(ErrorCode::OutcomeUnknown));
    world.assert_at_rest();
}

#[test]
fn an_unknown_commit_may_turn_out_to_be_there() {
    let (mut world, ada, _, conversation) = chat();
    world.sent(ada, send(conversation, 2, "loaded"));
    let first = world.begin(ada, send(conversation, 3, "first"));
    fail(&mut world, unknown(), true);
    world.commit(1);
    world.complete_op();
    assert_eq!(code(&world.reply(ada, first).expect("an answer")), Some(ErrorCode::OutcomeUnknown));
    world.restart();
    let ada = world.session("ada");
    let sent = world.sent(ada, send(conversation, 3, "first"));
    assert_eq!((sent.seq, sent.duplicate), (3, true));
}

#[test]
fn what_waited_behind_a_failed_change_is_asked_again() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let (group, ..) = world.changed(ada, create_group(1, &["ben"]));
    let removal = world.begin(ada, remove(group, 2, &["ben"]));
    let said = world.begin(ben, send(group, 3, "still here"));
    world.settle_reads();
    fail(&mut world, unknown(), false);
    world.settle();
    assert_eq!(code(&world.reply(ada, removal).expect("an answer")), Some(ErrorCode::OutcomeUnknown));
    assert_eq!(code(&world.reply(ben, said).expect("an answer")), Some(ErrorCode::ReadOnly));
    world.assert_at_rest();
}

/// The word on an append of a conversation that was dropped and loaded anew is not taken for another's.
#[test]
fn late_words_of_a_dropped_conversation_hit_nobody() {
    let (mut world, ada, _, conversation) = chat();
    world.sent(ada, send(conversation, 2, "loaded"));
    let old = [3, 4, 5].map(|number| world.begin(ada, send(conversation, number, "old")));
    fail(&mut world, unknown(), false);
    world.commit(1);
    world.commit(1);
    world.commit(1);
    world.complete_op();
    let new = world.begin(ada, send(conversation, 6, "new"));
    world.settle_reads();
    assert_eq!(world.ops_waiting(), 1, "the new one is on its way");
    world.complete_op();
    world.complete_op();
    world.settle();
    for request_id in old.into_iter().chain([new]) {
        let answer = world.reply(ada, request_id).expect("an answer");
        assert!(matches!(code(&answer), Some(ErrorCode::OutcomeUnknown | ErrorCode::ReadOnly)), "{answer:?}");
    }
    world.assert_at_rest();
}

#[test]
fn reads_that_fail_are_answered() {
    let (mut world, _, _, conversation) = chat();
    world.restart();
    let ada = world.session("ada");
    let asked = [
        world.begin(ada, send(conversation, 2, "x")),
        world.begin(ada, members(conversation)),
        world.begin(ada, history(conversation, 0, Direction::Backward, 5)),
        world.begin(ada, direct_with("ben", 3)),
    ];
    world.resume(ada, conversation, Cursor::START);
    world.fail_read(0);
    world.settle();
    for request_id in asked {
        assert_eq!(code(&world.reply(ada, request_id).expect("an answer")), Some(ErrorCode::ReadFailed));
    }
    assert_eq!(world.heard(ada), ["ReadFailed"]);
    // The lookup of an id: only its own request fails.
    let first = world.begin(ada, send(conversation, 4, "x"));
    world.complete_read(0);
    let second = world.begin(ada, send(conversation, 5, "x"));
    world.fail_read(0);
    world.settle();
    assert_eq!(code(&world.reply(ada, first).expect("an answer")), Some(ErrorCode::ReadFailed));
    assert!(matches!(world.reply(ada, second), Some(ServerFrame::Sent(_))));
    // And each other kind of read.
    let session = world.session("cleo");
    for request in [sync(None), history(conversation, 0, Direction::Backward, 5)] {
        let (session, request_id) = match request {
            talaria_protocol::message::client::Request::Sync { .. } => {
                (session, world.begin(session, request))
            }
            other => (ada, world.begin(ada, other)),
        };
        world.fail_read(0);
        world.settle();
        let answer = world.reply(session, request_id).expect("an answer");
        assert_eq!(code(&answer), Some(ErrorCode::ReadFailed));
    }
    let by_id = talaria_protocol::message::client::Request::DirectWith {
        user: world.id_of("cleo"),
        client_message_id: id(50),
    };
    let request_id = world.begin(ada, by_id);
    world.fail_read(0);
    world.settle();
    assert_eq!(code(&world.reply(ada, request_id).expect("an answer")), Some(ErrorCode::ReadFailed));
    world.assert_at_rest();
}

/// What a session has asked for is done, though it is gone and hears nothing: its retry elsewhere finds it.
#[test]
fn parked_requests_of_a_closed_session_are_done() {
    let (mut world, _, _, conversation) = chat();
    world.restart();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    world.begin(ada, send(conversation, 2, "unheard"));
    let bens = world.begin(ben, send(conversation, 2, "sent"));
    world.close(ada);
    world.settle();
    assert!(matches!(world.reply(ben, bens), Some(ServerFrame::Sent(sent)) if sent.seq == 3));
    let ada = world.session("ada");
    let again = world.sent(ada, send(conversation, 2, "unheard"));
    assert!(again.duplicate && again.seq == 2, "{again:?}");
    world.assert_at_rest();
}

/// Nothing that was acknowledged is kept in the shard only.
#[test]
fn an_empty_log_knows_nothing() {
    let (mut world, _, _, conversation) = chat();
    world.restart_over(MemoryLog::new());
    let ada = world.session("ada");
    assert_eq!(world.ask_code(ada, send(conversation, 2, "x")), Some(ErrorCode::NotFound));
    assert_eq!(world.conversations_loaded(), 0, "what does not exist takes no memory");
}
