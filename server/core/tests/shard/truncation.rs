//! Old entries go, and long backlogs are not sent: what a session is told instead.

use talaria_core::{
    effect::{Input, SessionKey},
    limits::BACKLOG_ENTRIES_MAX,
    log::{LogOp, Retention},
};
use talaria_protocol::{
    chain::Chain,
    ids::ConversationId,
    limits::PAGE_ENTRIES_MAX,
    message::{Credit, Cursor, Direction},
};

use crate::support::{
    cuts::Cuts,
    requests::{PLENTY, add, create_group, history, remove, send},
    world::World,
};

fn chat(head: u64) -> (World, SessionKey, ConversationId) {
    let mut world = World::default();
    let ada = world.session("ada");
    let conversation = world.direct_of(ada, "ben");
    for number in 2..=head {
        world.begin(ada, send(conversation, number, "some words"));
        if number % 50 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.take_out(ada);
    (world, ada, conversation)
}

fn retain(world: &mut World, conversation: ConversationId, first_seq: u64) {
    let retention = Cuts::retention(&world.log, conversation, first_seq).expect("it is there");
    world.handle_at(0, Input::Retain(retention));
}

fn resumed(world: &mut World, session: SessionKey, conversation: ConversationId, seq: u64) -> Vec<String> {
    let cursor = world.cursor_at(conversation, seq);
    world.resume(session, conversation, cursor);
    world.settle();
    world.heard(session)
}

fn told(begin: &[&str], from: u64, to: u64) -> Vec<String> {
    let entries = (from..=to).map(|seq| seq.to_string());
    let begin = begin.iter().map(|told| (*told).to_owned());
    begin.chain(entries).chain([format!("caught up {to}")]).collect()
}

#[test]
fn a_long_backlog_begins_with_the_newest_page() {
    let page = PAGE_ENTRIES_MAX as u64;
    let head = BACKLOG_ENTRIES_MAX + 51;
    let (mut world, _, conversation) = chat(head);
    let ben = world.session("ben");
    for (from, all) in [(50, false), (51, true), (52, true)] {
        let skipped = format!("skipped {}..{}", from + 1, head - page);
        let expected = if all { told(&[], from + 1, head) } else { told(&[&skipped], head - page + 1, head) };
        assert_eq!(resumed(&mut world, ben, conversation, from), expected, "from {from}");
    }
    // What is skipped is told as soon as there is anything to say it with, and may be acknowledged.
    let tablet = world.session_of("ben", 2, Credit { entries: 1, bytes: 1 });
    let skipped = format!("skipped 1..{}", head - page);
    assert_eq!(resumed(&mut world, tablet, conversation, 0), [skipped]);
    world.ack(tablet, conversation, head - page);
    assert!(world.is_open(tablet));
    world.credit(tablet, PLENTY);
    world.settle();
    assert_eq!(world.heard(tablet), told(&[], head - page + 1, head));
    world.assert_at_rest();
}

#[test]
fn a_cursor_before_the_first_entry_goes_on_from_there() {
    for restarted in [false, true] {
        let (mut world, ada, conversation) = chat(90);
        let before = world.cursor_at(conversation, 30);
        retain(&mut world, conversation, 41);
        world.settle();
        if restarted {
            world.restart();
        }
        let ben = world.session("ben");
        for seq in [0, 1, 30, 39] {
            assert_eq!(
                resumed(&mut world, ben, conversation, seq),
                told(&["Truncated"], 41, 90),
                "from {seq}, restarted {restarted}"
            );
        }
        for seq in [40, 41, 89, 90] {
            assert_eq!(resumed(&mut world, ben, conversation, seq), told(&[], seq + 1, 90), "from {seq}");
        }
        // One that is wrong there is brought to where the log begins; after it, it is damage.
        for (seq, expected) in [(40, told(&["Truncated"], 41, 90)), (41, vec!["ChainMismatch".to_owned()])] {
            let cursor = Cursor { chain: Chain::new([7; 32]), ..world.cursor_at(conversation, seq) };
            world.resume(ben, conversation, cursor);
            world.settle();
            assert_eq!(world.heard(ben), expected, "wrong at {seq}");
        }
        // What was truncated counts as sent.
        world.resume(ben, conversation, before);
        world.settle();
        world.ack(ben, conversation, 40);
        assert!(world.is_open(ben));
        let ada = if restarted { world.session("ada") } else { ada };
        let page = world.page_of(ada, history(conversation, 1, Direction::Forward, 10));
        assert_eq!((page.first_seq, page.entries[0].seq, page.entries.len()), (41, 41, 10));
        let page = world.page_of(ada, history(conversation, 45, Direction::Backward, 10));
        assert_eq!((page.entries[0].seq, page.more), (41, false));
        world.assert_at_rest();
    }
}

#[test]
fn a_cut_waits_for_what_is_under_way_and_appends_wait_for_it() {
    let (mut world, ada, conversation) = chat(10);
    let ben = world.session("ben");
    resumed(&mut world, ben, conversation, 10);
    world.begin(ada, send(conversation, 100, "before"));
    retain(&mut world, conversation, 6);
    world.begin(ada, send(conversation, 101, "after"));
    assert_eq!((world.ops_waiting(), world.queues().parked), (1, 2));
    world.commit(1);
    world.complete_op();
    assert_eq!((world.ops_waiting(), world.queues().parked), (1, 1), "the cut, and nothing else");
    world.settle();
    assert_eq!(world.heard(ben), ["11", "12"], "one who follows live hears nothing of it");
    assert_eq!(world.cuts.first_seq(conversation), 6);
    assert_eq!(resumed(&mut world, ben, conversation, 0), told(&["Truncated"], 6, 12));
    world.assert_at_rest();
}

/// The log has made a cut, of which the conversation has not heard: what is read then is asked again.
#[test]
fn what_is_read_between_a_cut_and_its_news_waits_for_that() {
    for pages in [false, true] {
        let (mut world, _, conversation) = chat(90);
        let ben = world.session("ben");
        let cursor = world.cursor_at(conversation, 5);
        world.resume(ben, conversation, cursor);
        if pages {
            world.complete_read(0);
        }
        assert_eq!(world.reads_waiting(), 1);
        retain(&mut world, conversation, 41);
        world.commit(1);
        world.complete_read(0);
        assert_eq!((world.reads_waiting(), world.heard(ben).len()), (0, 0));
        world.complete_op();
        world.settle();
        assert_eq!(world.heard(ben), told(&["Truncated"], 41, 90));
        world.assert_at_rest();
    }
}

#[test]
fn what_is_no_cut_any_more_is_dropped() {
    let (mut world, ..) = chat(2);
    let ada = world.session("ada");
    let conversation = world.direct("ada", "ben");
    retain(&mut world, conversation, 2);
    world.settle();
    assert_eq!(world.cuts.done, 1);
    for first_seq in [0, 1, 2, 3, 99] {
        let chain_before = Chain::ZERO;
        world.handle_at(0, Input::Retain(Retention { conversation, first_seq, chain_before }));
        world.settle();
    }
    let nothing =
        Retention { conversation: ConversationId::new([9; 16]), first_seq: 2, chain_before: Chain::ZERO };
    world.handle_at(0, Input::Retain(nothing));
    world.settle();
    assert_eq!(world.cuts.done, 1);
    assert_eq!(world.sent(ada, send(conversation, 50, "goes on")).seq, 3);
    world.assert_at_rest();
}

/// A failed cut is as if it had not been asked for.
#[test]
fn a_cut_that_fails_changes_nothing() {
    let (mut world, ada, conversation) = chat(10);
    retain(&mut world, conversation, 6);
    let why = "told to fail".to_owned();
    world.log.fail_next_commit(talaria_log::CommitResult::NotCommitted { why }, false);
    world.begin(ada, send(conversation, 100, "waits"));
    world.settle();
    let ben = world.session_of("ada", 1, PLENTY);
    assert_eq!(resumed(&mut world, ben, conversation, 0).len(), 11);
    world.assert_at_rest();
}

#[test]
fn one_who_was_removed_before_all_that_is_left() {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, ..) = world.changed(ada, create_group(1, &["ben"]));
    world.changed(ada, remove(group, 2, &["ben"]));
    for number in 3..20 {
        world.sent(ada, send(group, number, "without ben"));
    }
    retain(&mut world, group, 10);
    world.settle();
    let ben = world.session("ben");
    for seq in [0, 1, 2] {
        assert_eq!(resumed(&mut world, ben, group, seq), ["Truncated", "caught up 9"], "from {seq}");
    }
    let page = world.page_of(ben, history(group, 0, Direction::Backward, 10));
    assert_eq!((page.entries.len(), page.more), (0, false));
    world.changed(ada, add(group, 30, &["ben"]));
    let heard = world.heard(ben);
    assert_eq!(heard.last().map(String::as_str), Some("20"), "{heard:?}");
    assert!(heard[..10].iter().all(|heard| heard.ends_with("hidden")), "{heard:?}");
    world.assert_at_rest();
}

/// Its row's commit stays: a cut is no news to anyone who syncs.
#[test]
fn a_cut_is_one_operation_by_itself() {
    let (mut world, _, conversation) = chat(5);
    retain(&mut world, conversation, 3);
    let ops = world.ops_of();
    assert!(matches!(ops[..], [LogOp::Cut(cut)] if cut.row.heads.first_seq == 3), "{ops:?}");
    world.assert_at_rest();
}
