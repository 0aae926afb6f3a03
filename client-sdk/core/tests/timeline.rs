//! A timeline against the plainest model of itself: whatever order entries arrive in, they leave dense and once.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use talaria_client_core::{
    event::DamageKind,
    timeline::{CaughtUp, GAP_MS_MAX, Intake, LEFT_OUT_MAX, LeftOut, Phase, Ready, Streams, Timeline},
};
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm, EntryHeader, EntryKind, Urgency},
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{Cursor, content::Content},
    session::Millis,
};

const HERE: ConversationId = ConversationId::new([4; 16]);

fn entry_of(seq: u64, epoch: u64) -> Entry {
    let header = EntryHeader {
        seq,
        ordinal: seq,
        epoch,
        hlc: Hlc(seq),
        sender: UserId::new([1; 16]),
        device: 1,
        kind: EntryKind::Message,
        target_seq: 0,
        client_message_id: ClientMessageId::from_parts(seq, [0; 10]),
        urgency: Urgency::Normal,
        expires_ms: 0,
    };
    let content = Some(Content::text(seq.to_string()).encode());
    Entry { seq, form: EntryForm::Full { header: header.encode(), content, salt: [0; 16] } }
}

fn entry(seq: u64) -> Entry {
    entry_of(seq, 7)
}

fn resumed() -> Timeline {
    let mut timeline = Timeline::new(HERE, Cursor::START);
    assert_eq!(timeline.begin_resume().0, Some(Cursor::START));
    timeline
}

/// Takes what is ready.
fn drain(timeline: &mut Timeline) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Some(Ready::Entry(entry)) = timeline.poll_ready(Millis(0)) {
        seqs.push(timeline.apply(&entry).unwrap().stored.entry.seq);
    }
    seqs
}

fn arrive(timeline: &mut Timeline, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        timeline.handle_entry(entry(seq), Millis(0));
    }
}

/// Takes so many, and nothing after them.
fn drain_entries(timeline: &mut Timeline, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count
        && let Some(Ready::Entry(entry)) = timeline.poll_ready(Millis(0))
    {
        seqs.push(timeline.apply(&entry).unwrap().stored.entry.seq);
    }
    seqs
}

proptest! {
    #[test]
    fn arrivals_in_any_order_and_number_leave_dense_and_once(arrivals in prop::collection::vec(1u64..40, 0..200)) {
        let (mut timeline, mut left) = (resumed(), Vec::new());
        let mut arrived = std::collections::BTreeSet::new();
        for seq in arrivals {
            let intake = timeline.handle_entry(entry(seq), Millis(0));
            prop_assert_eq!(intake == Intake::Kept, arrived.insert(seq), "kept exactly the first time");
            left.extend(drain(&mut timeline));
            let dense = (1..).take_while(|seq| arrived.contains(seq)).last().unwrap_or(0);
            prop_assert_eq!(timeline.applied().seq, dense);
            prop_assert_eq!(timeline.gap_deadline().is_some(), arrived.len() as u64 > dense);
        }
        prop_assert_eq!(left, (1..=timeline.applied().seq).collect::<Vec<_>>());
        let chain = (1..=timeline.applied().seq)
            .fold(Chain::ZERO, |chain, seq| chain.next(HERE, seq, &entry(seq).leaf().unwrap()));
        prop_assert_eq!(timeline.applied().chain, chain);
    }
}

#[test]
fn acknowledges_only_what_is_committed_and_once() {
    let mut timeline = resumed();
    for seq in 1..=3 {
        timeline.handle_entry(entry(seq), Millis(0));
    }
    drain(&mut timeline);
    assert_eq!(timeline.poll_ack(), None, "nothing is committed");
    assert!(timeline.begin_resume().0.is_none(), "nor to be offered");
    timeline.on_committed(timeline.applied());
    assert_eq!(timeline.poll_ack(), None, "not resumed");
    timeline.begin_resume();
    assert_eq!(timeline.poll_ack(), None, "the offered cursor says it");
    timeline.handle_caught_up(3, None, Streams::One, Millis(0)).unwrap();
    assert_eq!((timeline.poll_ack(), timeline.poll_ack()), (Some(3), None));
    timeline.on_disconnected();
    assert_eq!((timeline.poll_ack(), timeline.phase()), (None, Phase::Idle));
}

#[test]
fn a_gap_is_asked_for_after_a_while_and_what_waited_comes_again() {
    let mut timeline = resumed();
    timeline.handle_entry(entry(1), Millis(10));
    drain(&mut timeline);
    assert_eq!(timeline.gap_deadline(), None);
    timeline.handle_entry(entry(3), Millis(20));
    assert_eq!(timeline.gap_deadline(), Some(Millis(20 + GAP_MS_MAX)));
    timeline.on_committed(timeline.applied());
    let (cursor, dropped) = timeline.begin_resume();
    assert_eq!((cursor.unwrap().seq, dropped.len()), (1, 1));
    timeline.handle_entry(entry(2), Millis(30));
    timeline.handle_entry(entry(3), Millis(30));
    assert_eq!(drain(&mut timeline), [2, 3]);
}

#[test]
fn caught_up_without_all_entries_or_with_another_chain_is_damage() {
    let mut timeline = resumed();
    timeline.handle_entry(entry(1), Millis(0));
    drain(&mut timeline);
    assert_eq!(timeline.handle_caught_up(2, None, Streams::One, Millis(0)), Err(DamageKind::Incomplete));
    let other = Some(Chain::new([9; 32]));
    assert_eq!(timeline.handle_caught_up(1, other, Streams::One, Millis(0)), Err(DamageKind::ChainMismatch));
    let own = Some(timeline.applied().chain);
    assert_eq!(
        timeline.handle_caught_up(1, own, Streams::One, Millis(0)),
        Ok(CaughtUp::Yes { proven: false })
    );
}

fn left_out(from: u64, to: u64) -> LeftOut {
    LeftOut { from, to, chain: Chain::new([to as u8; 32]) }
}

#[test]
fn what_is_left_out_waits_for_the_entries_before_it() {
    let mut timeline = resumed();
    timeline.handle_entry(entry(1), Millis(0));
    drain(&mut timeline);
    // On another stream: 2 is on its way still, 9 to 11 have come.
    assert!(timeline.handle_left_out(left_out(3, 9), Millis(0)));
    (9..=11).for_each(|seq| assert_eq!(timeline.handle_entry(entry(seq), Millis(0)), Intake::Kept));
    assert_eq!(timeline.poll_ready(Millis(0)), None);
    assert!(timeline.gap_deadline().is_some());
    timeline.handle_entry(entry(2), Millis(0));
    assert_eq!(drain_entries(&mut timeline, 1), [2]);
    let gap = Ready::Gap { from: 3, to: 9, is_truncated: false, dropped: vec![entry(9)] };
    assert_eq!(timeline.poll_ready(Millis(0)), Some(gap));
    assert_eq!(drain(&mut timeline), [10, 11]);
    assert_eq!((timeline.gap_deadline(), timeline.waiting()), (None, 0));
}

#[test]
fn a_gap_begins_after_what_is_held_and_an_old_one_says_nothing() {
    let mut timeline = resumed();
    arrive(&mut timeline, 1..=4);
    drain(&mut timeline);
    assert!(timeline.handle_left_out(left_out(2, 4), Millis(0)));
    assert_eq!(timeline.poll_ready(Millis(0)), None, "all of it is held");
    assert!(timeline.handle_left_out(left_out(2, 6), Millis(0)));
    let gap = Ready::Gap { from: 5, to: 6, is_truncated: false, dropped: Vec::new() };
    assert_eq!(timeline.poll_ready(Millis(0)), Some(gap), "5 and 6 only");
    assert!(timeline.handle_left_out(left_out(0, 8), Millis(0)));
    let gap = Ready::Gap { from: 7, to: 8, is_truncated: true, dropped: Vec::new() };
    assert_eq!(timeline.poll_ready(Millis(0)), Some(gap));
    let many = (0..=LEFT_OUT_MAX as u64).map(|n| left_out(20 + 2 * n, 21 + 2 * n));
    assert!(!many.fold(true, |_, next| timeline.handle_left_out(next, Millis(0))), "not without bound");
}

#[test]
fn caught_up_on_another_stream_waits_for_its_last_entry() {
    let caught_up =
        |timeline: &mut Timeline, chain| timeline.handle_caught_up(3, chain, Streams::Many, Millis(0));
    let chain = (1..=3).fold(Chain::ZERO, |chain, seq| chain.next(HERE, seq, &entry(seq).leaf().unwrap()));
    let mut timeline = resumed();
    assert_eq!(caught_up(&mut timeline, Some(chain)), Ok(CaughtUp::No));
    for seq in [2, 3, 1] {
        assert_eq!(timeline.poll_caught_up(), Ok(None));
        timeline.handle_entry(entry(seq), Millis(0));
    }
    assert_eq!(drain_entries(&mut timeline, 3), [1, 2, 3]);
    assert_eq!(timeline.phase(), Phase::Resuming);
    assert_eq!(timeline.poll_caught_up(), Ok(Some((3, CaughtUp::Yes { proven: false }))));
    assert_eq!((timeline.poll_caught_up(), timeline.phase()), (Ok(None), Phase::Live), "once");
    assert_eq!(timeline.gap_deadline(), None);
    let mut timeline = resumed();
    assert_eq!(caught_up(&mut timeline, Some(Chain::new([9; 32]))), Ok(CaughtUp::No));
    arrive(&mut timeline, 1..=3);
    drain_entries(&mut timeline, 3);
    assert_eq!(timeline.poll_caught_up(), Err(DamageKind::ChainMismatch));
}

#[test]
fn the_caught_up_of_an_earlier_resume_proves_nothing() {
    let mut timeline = resumed();
    // The delivery stops; that news overtakes the caught-up of the first resume.
    timeline.on_refused(Millis(0));
    timeline.want_proof();
    timeline.begin_resume();
    let first = timeline.handle_caught_up(0, None, Streams::Many, Millis(0));
    assert_eq!(first, Ok(CaughtUp::Yes { proven: false }));
    assert!(timeline.wants_proof());
    timeline.begin_resume();
    let second = timeline.handle_caught_up(0, None, Streams::Many, Millis(0));
    assert_eq!(second, Ok(CaughtUp::Yes { proven: true }));
}

#[test]
fn a_gap_that_moves_has_its_full_time_again_and_the_end_drops_all() {
    let mut timeline = resumed();
    timeline.handle_entry(entry(2), Millis(10));
    timeline.handle_entry(entry(4), Millis(10));
    timeline.handle_entry(entry(1), Millis(3_000));
    while let Some(Ready::Entry(entry)) = timeline.poll_ready(Millis(3_000)) {
        timeline.apply(&entry).unwrap();
    }
    assert_eq!(timeline.gap_deadline(), Some(Millis(3_000 + GAP_MS_MAX)));
    timeline.handle_left_out(left_out(6, 9), Millis(3_000));
    assert_eq!(timeline.on_disconnected(), [entry(4)]);
    assert_eq!((timeline.waiting(), timeline.gap_deadline()), (0, None));
    timeline.on_committed(timeline.applied());
    timeline.begin_resume();
    arrive(&mut timeline, 3..=5);
    assert_eq!(drain(&mut timeline), [3, 4, 5], "and nothing is left of what was said to be left out");
    assert_eq!(timeline.applied().seq, 5);
}

#[test]
fn a_proof_is_of_a_resume_after_it_was_wanted() {
    let mut timeline = resumed();
    assert!(!timeline.want_proof(), "this resume began before");
    assert_eq!(
        timeline.handle_caught_up(0, None, Streams::One, Millis(0)),
        Ok(CaughtUp::Yes { proven: false })
    );
    assert!(timeline.wants_proof());
    timeline.begin_resume();
    assert_eq!(
        timeline.handle_caught_up(0, None, Streams::One, Millis(0)),
        Ok(CaughtUp::Yes { proven: true })
    );
}

#[test]
fn entries_that_contradict_themselves_are_damage() {
    let mut timeline = resumed();
    timeline.apply(&entry_of(1, 7)).unwrap();
    assert_eq!(timeline.apply(&entry_of(2, 6)), Err(DamageKind::BadEntry), "an epoch that goes back");
    let mut moved = entry_of(3, 7);
    moved.seq = 2;
    assert_eq!(timeline.apply(&moved), Err(DamageKind::BadEntry), "a header of another seq");
    let EntryForm::Full { header, salt, .. } = entry_of(2, 7).form else { unreachable!() };
    let form = EntryForm::Full { header, content: None, salt };
    assert_eq!(timeline.apply(&Entry { seq: 2, form }), Err(DamageKind::BadEntry), "content that is missing");
    let form = EntryForm::Full { header: Bytes::from_static(b"\xff"), content: Some(Bytes::new()), salt };
    assert_eq!(timeline.apply(&Entry { seq: 2, form }), Err(DamageKind::BadEntry), "a header that is none");
    assert_eq!(timeline.apply(&entry_of(2, 8)).unwrap().stored.entry.seq, 2, "and the right one is taken");
}
