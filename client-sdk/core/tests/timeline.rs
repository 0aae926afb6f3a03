//! A timeline against the plainest model of itself: whatever order entries arrive in, they leave dense and once.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use talaria_client_core::{
    event::DamageKind,
    timeline::{CaughtUp, GAP_MS_MAX, Intake, Phase, Ready, Streams, Timeline},
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
    assert_eq!(timeline.handle_caught_up(1, own, Streams::One, Millis(0)), Ok(CaughtUp::Yes { proven: false }));
}

#[test]
fn a_proof_is_of_a_resume_after_it_was_wanted() {
    let mut timeline = resumed();
    assert!(!timeline.want_proof(), "this resume began before");
    assert_eq!(timeline.handle_caught_up(0, None, Streams::One, Millis(0)), Ok(CaughtUp::Yes { proven: false }));
    assert!(timeline.wants_proof());
    timeline.begin_resume();
    assert_eq!(timeline.handle_caught_up(0, None, Streams::One, Millis(0)), Ok(CaughtUp::Yes { proven: true }));
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
