//! Delivery: live, caught up, within credit; cursors, forks, gaps; acknowledgements.

use talaria_core::{effect::SessionKey, limits::TAIL_ENTRIES_MAX};
use talaria_protocol::{
    chain::Chain,
    ids::ConversationId,
    message::{Credit, Cursor, Role, server::ServerFrame},
};

use crate::support::{
    requests::{PLENTY, add, create_group, direct_with, members, remove, send},
    world::{Out, World},
};

const NONE: Credit = Credit { entries: 0, bytes: 0 };

/// A conversation of Ada and Ben with entries up to `head`; both are connected.
fn chat(head: u64) -> (World, SessionKey, SessionKey, ConversationId) {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let conversation = world.direct_of(ada, "ben");
    for seq in 2..=head {
        assert_eq!(world.sent(ada, send(conversation, seq, "some words")).seq, seq);
    }
    world.take_out(ada);
    world.take_out(ben);
    (world, ada, ben, conversation)
}

fn resumed(world: &mut World, session: SessionKey, conversation: ConversationId, seq: u64) -> Vec<String> {
    let cursor = world.cursor_at(conversation, seq);
    world.resume(session, conversation, cursor);
    world.settle();
    world.heard(session)
}

fn seqs(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|seq| seq.to_string()).collect()
}

#[test]
fn live_entries_reach_all_devices_and_the_sending_one_without_its_content() {
    let (mut world, ada, ben, conversation) = chat(1);
    let tablet = world.session_of("ada", 2, PLENTY);
    for session in [ada, ben, tablet] {
        assert_eq!(resumed(&mut world, session, conversation, 0), ["1", "caught up 1"]);
    }
    world.begin(ada, send(conversation, 2, "hello"));
    world.settle();
    let sent = world.heard(ada);
    assert!(sent[0].starts_with("Sent") && sent[1] == "2 own", "{sent:?}");
    assert_eq!(world.heard(ben), ["2"]);
    assert_eq!(world.heard(tablet), ["2"]);
    // The same when it is caught up with.
    let again = world.session_of("ada", 1, PLENTY);
    assert_eq!(resumed(&mut world, again, conversation, 1), ["2 own", "caught up 2"]);
}

#[test]
fn one_that_has_not_resumed_is_told_once() {
    let (mut world, ada, ben, conversation) = chat(1);
    world.sent(ada, send(conversation, 2, "x"));
    world.sent(ada, send(conversation, 3, "x"));
    assert_eq!(world.heard(ben), Vec::<String>::new(), "it was told of entry 1");
    let tablet = world.session_of("ben", 2, PLENTY);
    world.sent(ada, send(conversation, 4, "x"));
    world.sent(ada, send(conversation, 5, "x"));
    assert_eq!(world.heard(tablet), ["changed 4"]);
    assert_eq!(resumed(&mut world, tablet, conversation, 2), ["3", "4", "5", "caught up 5"]);
}

#[test]
fn a_resume_goes_on_from_any_cursor_whatever_is_in_memory() {
    let head = TAIL_ENTRIES_MAX as u64 + 20;
    let (mut world, _, ben, conversation) = chat(head);
    for restarted in [false, true] {
        let ben = if restarted {
            world.restart();
            world.session("ben")
        } else {
            ben
        };
        for seq in [0, 1, 10, 19, 20, 21, 22, head - 1, head] {
            let mut expected = seqs(seq + 1, head);
            expected.push(format!("caught up {head}"));
            assert_eq!(resumed(&mut world, ben, conversation, seq), expected, "from {seq}");
        }
    }
}

#[test]
fn credit_is_taken_entry_by_entry() {
    let (mut world, _, _, conversation) = chat(70);
    let ben = world.session_of("ben", 1, NONE);
    let mut heard = resumed(&mut world, ben, conversation, 0);
    assert_eq!(heard, Vec::<String>::new());
    for entries in 1..=70 {
        world.credit(ben, Credit { entries, bytes: 1 << 30 });
        world.settle();
        heard.extend(world.heard(ben));
        let caught_up = (entries == 70).then(|| "caught up 70".to_owned());
        assert!(seqs(1, entries).iter().chain(&caught_up).eq(&heard), "entry {entries}: {heard:?}");
    }
    // A lower total is ignored.
    world.credit(ben, NONE);
    world.credit(ben, Credit { entries: 71, bytes: 0 });
    let ada = world.session("ada");
    world.sent(ada, send(conversation, 71, "x"));
    assert_eq!(world.heard(ben), ["71"]);
}

/// Credit that is too small for the next entry is waited for, not asked the log about again and again.
#[test]
fn too_little_credit_waits() {
    let (mut world, ada, ben, conversation) = chat(70);
    resumed(&mut world, ben, conversation, 70);
    let tablet = world.session_of("ben", 2, Credit { entries: 100, bytes: 10 });
    let reads = world.reads_done;
    assert_eq!(resumed(&mut world, tablet, conversation, 0), Vec::<String>::new());
    assert!(world.reads_done <= reads + 2, "{} reads", world.reads_done - reads);
    world.sent(ada, send(conversation, 71, "others go on"));
    assert_eq!(world.heard(ben), ["71"]);
    world.credit(tablet, PLENTY);
    world.settle();
    let mut expected = seqs(1, 71);
    expected.push("caught up 71".to_owned());
    assert_eq!(world.heard(tablet), expected);
    // Live, and then none left.
    let phone = world.session_of("ben", 3, NONE);
    assert_eq!(resumed(&mut world, phone, conversation, 71), ["caught up 71"]);
    world.sent(ada, send(conversation, 72, "x"));
    world.sent(ada, send(conversation, 73, "x"));
    assert_eq!(world.heard(phone), Vec::<String>::new());
    world.credit(phone, PLENTY);
    world.settle();
    assert_eq!(world.heard(phone), ["72", "73"]);
    world.assert_at_rest();
}

/// From the page that was read before an entry was durable to the live one after it, without a gap.
#[test]
fn catching_up_becomes_live_without_a_gap() {
    let (mut world, ada, ben, conversation) = chat(80);
    let cursor = world.cursor_at(conversation, 3);
    world.resume(ben, conversation, cursor);
    world.execute_read(0);
    world.begin(ada, send(conversation, 81, "between cursor and answer"));
    world.commit(1);
    world.complete_op();
    world.complete_read(0);
    world.execute_read(0);
    world.begin(ada, send(conversation, 82, "between page and answer"));
    world.commit(1);
    world.complete_op();
    world.begin(ada, send(conversation, 83, "in the log, not heard of"));
    world.commit(1);
    world.complete_read(0);
    let mut expected = seqs(4, 82);
    expected.push("caught up 82".to_owned());
    assert_eq!(world.heard(ben), expected);
    world.settle();
    assert_eq!(world.heard(ben), ["83"]);
}

#[test]
fn resuming_again_begins_anew() {
    let (mut world, ada, ben, conversation) = chat(5);
    assert_eq!(resumed(&mut world, ben, conversation, 3), ["4", "5", "caught up 5"]);
    assert_eq!(resumed(&mut world, ben, conversation, 1), ["2", "3", "4", "5", "caught up 5"]);
    // Twice in a row: the last one counts.
    let cursor = world.cursor_at(conversation, 4);
    world.resume(ben, conversation, Cursor::START);
    world.resume(ben, conversation, cursor);
    world.complete_read(1);
    world.complete_read(0);
    world.settle();
    assert_eq!(world.heard(ben), ["5", "caught up 5"]);
    world.resume(ben, conversation, Cursor::START);
    world.resume(ben, conversation, cursor);
    world.complete_read(0);
    world.settle();
    assert_eq!(world.heard(ben), ["5", "caught up 5"]);
    // While a page is read for the one before.
    for number in 6..80 {
        world.begin(ada, send(conversation, number, "x"));
    }
    world.settle();
    world.heard(ben);
    world.resume(ben, conversation, Cursor::START);
    world.complete_read(0);
    let cursor = world.cursor_at(conversation, 78);
    world.resume(ben, conversation, cursor);
    world.settle();
    assert_eq!(world.heard(ben), ["79", "caught up 79"]);
    world.assert_at_rest();
}

// Cursors that do not fit.

#[test]
fn what_a_user_may_not_know_of_is_not_found() {
    let (mut world, _, _, conversation) = chat(3);
    let cleo = world.session("cleo");
    for id in [conversation, ConversationId::new([5; 16])] {
        for cursor in [Cursor::START, world.cursor_at(conversation, 2)] {
            world.resume(cleo, id, cursor);
            world.settle();
            assert_eq!(world.heard(cleo), ["NotFound"]);
        }
    }
}

#[test]
fn a_cursor_that_does_not_fit_is_told_where_the_log_parts() {
    let (mut world, _, _, conversation) = chat(5);
    let snapshot = world.log.inner().reopen();
    world.restart();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    for number in 6..=9 {
        world.sent(ada, send(conversation, number, "will be lost"));
    }
    resumed(&mut world, ben, conversation, 0);
    let lost = [6, 8, 9].map(|seq| world.cursor_at(conversation, seq));
    let kept = world.cursor_at(conversation, 5);
    world.restart_over(snapshot);
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let fork = |world: &mut World, cursor: Cursor| {
        world.resume(ben, conversation, cursor);
        world.settle();
        match &world.take_out(ben)[..] {
            [Out::Frame(ServerFrame::EpochChanged { first_seq, chain, epoch, .. })] => {
                assert_eq!(*chain, world.cursor_at(conversation, first_seq - 1).chain);
                assert_eq!(*epoch, world.cursor_at(conversation, first_seq - 1).epoch);
                *first_seq
            }
            other => panic!("{other:?}"),
        }
    };
    // Nothing was appended since: they are beyond the head.
    assert_eq!(lost.map(|cursor| fork(&mut world, cursor)), [6, 6, 6]);
    // Nothing is delivered until it resumes again, but it is told.
    world.sent(ada, send(conversation, 20, "x"));
    assert_eq!(world.heard(ben), ["changed 6"]);
    world.sent(ada, send(conversation, 21, "x"));
    world.sent(ada, send(conversation, 22, "x"));
    // Now others stand in their places.
    assert_eq!(lost.map(|cursor| fork(&mut world, cursor)), [6, 6, 6]);
    world.resume(ben, conversation, kept);
    world.settle();
    assert_eq!(world.heard(ben), ["6", "7", "8", "caught up 8"]);
    // Nonsense ends well.
    let nonsense = Cursor { epoch: u64::MAX, seq: u64::MAX, chain: Chain::ZERO };
    assert_eq!(fork(&mut world, nonsense), 9);
    assert_eq!(fork(&mut world, Cursor { epoch: 0, ..nonsense }), 1);
}

#[test]
fn another_chain_at_the_same_place_is_damage() {
    let (mut world, ada, ben, conversation) = chat(3);
    let good = world.cursor_at(conversation, 2);
    world.resume(ben, conversation, Cursor { chain: Chain::new([9; 32]), ..good });
    world.settle();
    assert_eq!(world.heard(ben), ["ChainMismatch"]);
    world.sent(ada, send(conversation, 4, "x"));
    assert_eq!(world.heard(ben), ["changed 4"]);
    // The same chain is the same history, whatever epoch the client knows of.
    world.resume(ben, conversation, Cursor { epoch: 0, ..good });
    world.settle();
    assert_eq!(world.heard(ben), ["3", "4", "caught up 4"]);
}

// Members that come and go.

/// A group of Ada's, of four entries, the last of which adds Ben.
fn late() -> (World, SessionKey, ConversationId) {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, ..) = world.changed(ada, create_group(1, &["cleo"]));
    world.sent(ada, send(group, 2, "before"));
    world.sent(ada, send(group, 3, "before"));
    assert_eq!(world.changed(ada, add(group, 4, &["ben"])).1, 4);
    world.take_out(ada);
    (world, ada, group)
}

#[test]
fn one_who_came_late_is_told_what_is_left_out() {
    let (mut world, ada, group) = late();
    world.sent(ada, send(group, 5, "after"));
    let ben = world.session("ben");
    assert_eq!(resumed(&mut world, ben, group, 0), ["skipped 1..3", "4", "5", "caught up 5"]);
    assert_eq!(resumed(&mut world, ben, group, 2), ["skipped 3..3", "4", "5", "caught up 5"]);
    // Of the gap a client has no header: its epoch is 0, its chain good.
    let at_gap = Cursor { epoch: 0, ..world.cursor_at(group, 3) };
    world.resume(ben, group, at_gap);
    world.settle();
    assert_eq!(world.heard(ben), ["4", "5", "caught up 5"]);
}

#[test]
fn what_was_skipped_may_be_acknowledged() {
    let (mut world, _, group) = late();
    let ben = world.session_of("ben", 1, Credit { entries: 1, bytes: 1 });
    world.resume(ben, group, Cursor::START);
    world.settle();
    assert_eq!(world.heard(ben), ["skipped 1..3"]);
    world.ack(ben, group, 3);
    assert!(world.is_open(ben));
    world.ack(ben, group, 4);
    assert_eq!(world.heard(ben), ["end ProtocolViolation"]);
}

#[test]
fn one_who_was_removed_hears_of_it_and_of_nothing_after() {
    let (mut world, ada, group) = late();
    let ben = world.session("ben");
    resumed(&mut world, ben, group, 0);
    let beyond = world.changed(ada, remove(group, 5, &["ben"])).1;
    assert_eq!(world.heard(ben), ["5"]);
    for number in 6..10 {
        world.sent(ada, send(group, number, "without ben"));
    }
    assert_eq!(world.heard(ben), Vec::<String>::new());
    assert_eq!(resumed(&mut world, ben, group, 0), ["skipped 1..3", "4", "5", "caught up 5"]);
    // No cursor makes the log tell how much there is since.
    for seq in [6, 8, 9, 10, u64::MAX] {
        let cursor = Cursor { epoch: u64::MAX, seq, chain: Chain::new([1; 32]) };
        world.resume(ben, group, cursor);
        world.settle();
        assert_eq!(world.heard(ben), ["fork at 6"], "from {seq}");
        let cursor = Cursor { epoch: world.cursor_at(group, 5).epoch, ..cursor };
        world.resume(ben, group, cursor);
        world.settle();
        assert_eq!(world.heard(ben), ["fork at 6"], "from {seq}");
    }
    assert_eq!(resumed(&mut world, ben, group, beyond), ["caught up 5"]);
    // Added again, it goes on with stubs for what was between.
    world.changed(ada, add(group, 20, &["ben"]));
    let expected: Vec<String> =
        ["6 hidden", "7 hidden", "8 hidden", "9 hidden", "10"].map(String::from).into();
    assert_eq!(
        {
            world.settle();
            world.heard(ben)
        },
        expected
    );
    let tablet = world.session_of("ben", 2, PLENTY);
    let again = resumed(&mut world, tablet, group, 0);
    assert_eq!(again[..3], ["skipped 1..3", "4", "5"]);
    assert_eq!(again[3..8], expected[..]);
}

/// A cursor is judged by what its user may know of when the answer comes.
#[test]
fn a_removal_while_a_cursor_is_compared() {
    let (mut world, ada, group) = late();
    let ben = world.session("ben");
    world.begin(ada, remove(group, 5, &["ben"]));
    let cursor = Cursor { epoch: u64::MAX, seq: 50, chain: Chain::ZERO };
    world.resume(ben, group, cursor);
    world.settle();
    assert_eq!(world.heard(ben), ["fork at 6"]);
    world.begin(ada, add(group, 6, &["ben"]));
    world.resume(ben, group, cursor);
    world.settle();
    let heard = world.heard(ben);
    assert!(heard.contains(&"fork at 7".to_owned()), "{heard:?}");
    world.assert_at_rest();
}

// Acknowledgements.

#[test]
fn only_what_was_sent_may_be_acknowledged() {
    for (from, up_to, violates) in [(3, 5, false), (3, 3, false), (3, 6, true), (5, 5, false), (5, 6, true)] {
        let (mut world, _, ben, conversation) = chat(5);
        resumed(&mut world, ben, conversation, from);
        world.ack(ben, conversation, up_to);
        assert_eq!(world.is_open(ben), !violates, "{up_to} after a resume from {from}");
    }
    let (mut world, _, ben, conversation) = chat(5);
    world.resume(ben, conversation, Cursor::START);
    world.ack(ben, conversation, 1);
    assert_eq!(world.heard(ben), ["end ProtocolViolation"], "nothing was sent yet");
}

#[test]
fn an_acknowledgement_of_what_is_not_delivered_is_ignored() {
    let (mut world, ada, ben, conversation) = chat(3);
    world.ack(ben, conversation, 3);
    assert!(world.is_open(ben), "never resumed, or hinted at only");
    resumed(&mut world, ben, conversation, 0);
    let cleo = world.session("cleo");
    world.ack(cleo, conversation, 3);
    world.ack(cleo, ConversationId::new([1; 16]), 3);
    assert!(world.is_open(cleo));
    // Its delivery has stopped, and begins again from an older cursor: what was sent before still counts.
    world.resume(ben, conversation, Cursor { chain: Chain::ZERO, ..world.cursor_at(conversation, 2) });
    world.settle();
    assert_eq!(world.heard(ben), ["ChainMismatch"]);
    world.ack(ben, conversation, 3);
    assert!(world.is_open(ben), "the news has not reached it");
    world.sent(ada, send(conversation, 4, "x"));
    world.ack(ben, conversation, 3);
    assert!(world.is_open(ben), "hinted at since");
    world.sent(ada, send(conversation, 5, "x"));
    let cursor = world.cursor_at(conversation, 2);
    world.resume(ben, conversation, cursor);
    world.ack(ben, conversation, 3);
    assert!(world.is_open(ben), "sent before it stopped");
    world.settle();
    assert_eq!(world.heard(ben), ["changed 4", "3", "4", "5", "caught up 5"]);
}

fn delivered(world: &World, conversation: ConversationId, name: &str) -> Option<u64> {
    let identity = world.identity(name, 1, Role::Main);
    let op = talaria_core::log::ReadOp::ResumePoint {
        conversation,
        seq: 0,
        user: identity.user,
        device: identity.device,
    };
    match talaria_log::read(world.log.inner(), &op) {
        Ok(talaria_core::log::ReadAnswer::ResumePoint { delivered, .. }) => delivered.map(|(_, seq)| seq),
        other => panic!("{other:?}"),
    }
}

#[test]
fn acknowledgements_are_durable_within_a_tenth_of_a_second_and_never_go_back() {
    let (mut world, _, ben, conversation) = chat(9);
    resumed(&mut world, ben, conversation, 0);
    world.ack(ben, conversation, 4);
    world.tick(99);
    world.ack(ben, conversation, 6);
    assert_eq!(world.ops_waiting(), 0);
    world.tick(1);
    assert_eq!(world.ops_waiting(), 1, "one write for both");
    world.settle();
    assert_eq!(delivered(&world, conversation, "ben"), Some(6));
    world.ack(ben, conversation, 5);
    world.ack(ben, conversation, 6);
    world.tick(200);
    assert_eq!(world.ops_waiting(), 0);
    // A cursor that is found good says as much; an older one, of a device that began anew, nothing.
    resumed(&mut world, ben, conversation, 8);
    world.tick(200);
    world.settle();
    assert_eq!(delivered(&world, conversation, "ben"), Some(8));
    let again = world.session("ben");
    resumed(&mut world, again, conversation, 2);
    world.ack(again, conversation, 7);
    world.tick(200);
    assert_eq!(world.ops_waiting(), 0);
    world.ack(again, conversation, 9);
    world.tick(200);
    world.settle();
    assert_eq!(delivered(&world, conversation, "ben"), Some(9));
    world.assert_at_rest();
}

/// The world objects to a delivered cursor that goes back.
#[test]
fn the_sessions_of_a_device_share_its_cursor() {
    let (mut world, _, main, conversation) = chat(9);
    resumed(&mut world, main, conversation, 0);
    let identity = world.identity("ben", 1, Role::PushFetch);
    let fetch = world.open(identity, PLENTY);
    world.settle();
    world.take_out(fetch);
    resumed(&mut world, fetch, conversation, 0);
    world.ack(main, conversation, 9);
    world.tick(200);
    world.settle();
    world.close(main);
    world.ack(fetch, conversation, 5);
    world.tick(200);
    world.settle();
    assert_eq!(delivered(&world, conversation, "ben"), Some(9));
}

/// What is on its way to the log counts for the session that follows.
#[test]
fn an_older_cursor_does_not_overtake_a_newer_acknowledgement() {
    for ticks in [0, 200] {
        let (mut world, _, ben, conversation) = chat(9);
        resumed(&mut world, ben, conversation, 0);
        world.ack(ben, conversation, 9);
        world.tick(ticks);
        let again = {
            let identity = world.identity("ben", 1, Role::Main);
            let session = world.open(identity, PLENTY);
            world.settle_reads();
            session
        };
        let cursor = world.cursor_at(conversation, 4);
        world.resume(again, conversation, cursor);
        world.execute_read(0);
        world.commit(1);
        world.complete_op();
        world.settle_reads();
        world.tick(200);
        world.settle();
        world.tick(200);
        world.settle();
        assert_eq!(delivered(&world, conversation, "ben"), Some(9));
        world.assert_at_rest();
    }
}

#[test]
fn a_conversation_that_left_the_memory_is_delivered_all_the_same() {
    let mut world = World::new(1);
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let chats = ["ben", "cleo", "dan"].map(|name| world.changed(ada, direct_with(name, 1)).0);
    for session in [ada, ben] {
        assert_eq!(resumed(&mut world, session, chats[0], 0).last().map(String::as_str), Some("caught up 1"));
    }
    for round in 0..3 {
        for chat in chats {
            world.sent(ada, send(chat, 10 + round, "x"));
            world.ask(ada, members(chat));
            assert_eq!(world.conversations_loaded(), 1);
        }
    }
    assert_eq!(world.heard(ben), ["2", "3", "4"]);
    world.ack(ben, chats[0], 4);
    world.settle();
    world.tick(200);
    world.settle();
    assert_eq!(delivered(&world, chats[0], "ben"), Some(4));
    world.assert_at_rest();
}

#[test]
fn a_failed_read_stops_one_delivery_and_says_so() {
    let (mut world, ada, _, conversation) = chat(80);
    let (other, ..) = world.changed(ada, create_group(500, &["ben"]));
    let ben = world.session_of("ben", 2, PLENTY);
    world.resume(ben, conversation, Cursor::START);
    world.resume(ben, other, Cursor::START);
    world.complete_read(0);
    world.complete_read(0);
    assert_eq!(world.reads_waiting(), 1, "a page for the first");
    world.fail_read(0);
    world.settle();
    assert_eq!(world.heard(ben), ["ReadFailed", "1", "caught up 1"]);
    assert_eq!(resumed(&mut world, ben, conversation, 79), ["80", "caught up 80"]);
    world.resume(ben, conversation, Cursor::START);
    world.fail_read(0);
    world.settle();
    assert_eq!(world.heard(ben), ["ReadFailed"]);
    world.assert_at_rest();
}

/// All who waited for a conversation are heard before what one of them sets off takes it out of memory again.
#[test]
fn a_conversation_stays_until_all_who_waited_for_it_are_heard() {
    let mut world = World::new(1);
    let ada = world.session("ada");
    let groups = [1, 2, 3].map(|number| world.changed(ada, create_group(number, &["ben"])).0);
    let ben = world.session_of("ben", 1, NONE);
    assert_eq!(resumed(&mut world, ben, groups[0], 0), Vec::<String>::new());
    for group in &groups[1..] {
        assert_eq!(resumed(&mut world, ben, *group, 1), Vec::<String>::new(), "the first is before them");
    }
    world.credit(ben, PLENTY);
    let load = talaria_core::log::ReadOp::Conversation(groups[1]);
    while !world.waits_for(&load) {
        assert!(world.reads_waiting() > 0, "it has to be loaded again");
        world.complete_read(0);
    }
    world.take_out(ada);
    world.resume(ada, groups[1], Cursor::START);
    let asked = world.begin(ada, members(groups[1]));
    world.settle();
    assert!(matches!(world.reply(ada, asked), Some(ServerFrame::MemberList { .. })));
    assert_eq!(world.heard(ada), ["1", "caught up 1"]);
    assert_eq!(world.heard(ben), ["1", "caught up 1", "caught up 1", "Busy"], "the only place was taken");
    assert_eq!(resumed(&mut world, ben, groups[2], 1), ["caught up 1"]);
    world.assert_at_rest();
}

#[test]
fn two_that_resume_do_not_drive_each_other_out_of_memory() {
    let mut world = World::new(1);
    let ada = world.session("ada");
    let groups = [1, 2].map(|number| world.changed(ada, create_group(number, &[])).0);
    world.take_out(ada);
    for group in groups {
        world.resume(ada, group, Cursor::START);
        while world.waits_for(&talaria_core::log::ReadOp::Conversation(group)) {
            world.complete_read(0);
        }
    }
    world.settle();
    assert_eq!(world.heard(ada), ["Busy", "1", "caught up 1"]);
    assert_eq!(resumed(&mut world, ada, groups[1], 0), ["1", "caught up 1"]);
}
