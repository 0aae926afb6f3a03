//! Tables of policies, bounds of a call, damage, and a model.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use talaria_core::log::{LogOp, ReadAnswer, ReadOp};
use talaria_protocol::ids::BootId;

use super::*;
use crate::{
    Batch, CommitLog, GroupCommit, MemoryLog, OpenSeeds, open, read,
    testing::{FaultyLog, Scenario, conversation_id},
    verify,
};

/// The stamp of a scenario's first entry, ms.
const BEGIN_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

fn opened() -> (MemoryLog, GroupCommit) {
    let log = MemoryLog::new();
    let seeds = OpenSeeds { boot_id: BootId::new([1; 16]), id_key_if_new: [2; 32], now_ms: 0 };
    let group = GroupCommit::new(open(&log, seeds).unwrap().commit);
    (log, group)
}

/// A conversation whose entries were written on these days.
fn chat_of_days(number: u8, days: &[u64]) -> (Scenario, Vec<LogOp>) {
    let mut chat = Scenario::new(number);
    let mut ops = Vec::new();
    for (n, day) in days.iter().enumerate() {
        chat.now(BEGIN_MS + day * DAY_MS);
        ops.push(if n == 0 { chat.create() } else { chat.message((n % 2) as u8, "m") });
    }
    (chat, ops)
}

fn push(group: &mut GroupCommit, log: &MemoryLog, ops: Vec<LogOp>) {
    ops.into_iter().for_each(|op| group.push(op));
    group.commit(log);
}

fn all(log: &dyn CommitLog, policy: &Policy, now_ms: u64) -> Sweep {
    sweep(&*log.view(), policy, now_ms, None, usize::MAX).unwrap()
}

fn heads(log: &dyn CommitLog, conversation: ConversationId) -> ConversationRow {
    match read(log, &ReadOp::Conversation(conversation)).unwrap() {
        ReadAnswer::Conversation(Some((row, _))) => row,
        other => panic!("{other:?}"),
    }
}

/// (days of the entries, today, max age in days, max entries, the first seq to keep)
type Line = (&'static [u64], u64, Option<u64>, Option<u64>, Option<u64>);

#[test]
fn what_goes() {
    let table: &[Line] = &[
        (&[0, 1, 2, 3], 9, None, None, None),
        // By count.
        (&[0, 1, 2, 3], 9, None, Some(4), None),
        (&[0, 1, 2, 3], 9, None, Some(3), Some(2)),
        (&[0, 1, 2, 3], 9, None, Some(1), Some(4)),
        (&[0, 1, 2, 3], 9, None, Some(0), Some(4)),
        // By age: an entry as old as the limit stays.
        (&[0, 1, 2, 3], 3, Some(3), None, None),
        (&[0, 1, 2, 3], 4, Some(3), None, Some(2)),
        (&[0, 1, 2, 3], 6, Some(3), None, Some(4)),
        (&[0, 1, 2, 3], 900, Some(3), None, Some(4)),
        (&[0, 0, 0, 3], 6, Some(3), None, Some(4)),
        (&[5], 900, Some(3), Some(1), None),
        // A clock that is behind takes nothing.
        (&[5, 6], 0, Some(3), None, None),
        // Both: the stricter one.
        (&[0, 1, 2, 3], 4, Some(3), Some(2), Some(3)),
        (&[0, 1, 2, 3], 6, Some(3), Some(3), Some(4)),
        // Coarse: 2 of 17 or none.
        (&[0; 17], 0, None, Some(16), None),
        (&[0; 17], 0, None, Some(15), Some(3)),
    ];
    for (days, today, age, entries, expected) in table {
        let (log, mut group) = opened();
        let (chat, ops) = chat_of_days(1, days);
        push(&mut group, &log, ops);
        let policy = Policy { age_ms_max: age.map(|days| days * DAY_MS), entries_max: *entries };
        let found = all(&log, &policy, BEGIN_MS + today * DAY_MS);
        let first: Vec<_> = found.cuts.iter().map(|cut| cut.first_seq).collect();
        assert_eq!(first, Vec::from_iter(*expected), "{days:?} on day {today}: {policy:?}");
        assert!(found.failed.is_empty() && found.next.is_none());
        for cut in found.cuts {
            let mut same = chat.clone();
            same.cut(cut.first_seq, 1);
            assert_eq!((cut.conversation, cut.chain_before), (chat.conversation, same.heads.first_chain));
        }
    }
}

#[test]
fn an_entry_exactly_as_old_as_the_limit_stays() {
    let (log, mut group) = opened();
    let (_, ops) = chat_of_days(1, &[0, 1]);
    push(&mut group, &log, ops);
    let policy = Policy { age_ms_max: Some(DAY_MS), entries_max: None };
    // The first entry's stamp is a millisecond after the beginning.
    assert_eq!(all(&log, &policy, BEGIN_MS + 1 + DAY_MS).cuts, []);
    assert_eq!(all(&log, &policy, BEGIN_MS + 2 + DAY_MS).cuts[0].first_seq, 2);
}

#[test]
fn large_conversations_are_cut_by_64() {
    let (log, mut group) = opened();
    let (mut chat, ops) = chat_of_days(1, &[0; 3_000]);
    push(&mut group, &log, ops);
    let keep = |entries_max| all(&log, &Policy { age_ms_max: None, entries_max: Some(entries_max) }, 0).cuts;
    assert_eq!(keep(3_000 - CUT_ENTRIES + 1), []);
    assert_eq!(keep(3_000 - CUT_ENTRIES)[0].first_seq, CUT_ENTRIES + 1);
    // After a cut it counts from there.
    push(&mut group, &log, vec![chat.cut(1_001, 1)]);
    assert_eq!(keep(2_000 - CUT_ENTRIES + 1), []);
    assert_eq!(keep(2_000 - CUT_ENTRIES)[0].first_seq, 1_000 + CUT_ENTRIES + 1);
}

#[test]
fn a_call_is_bounded_and_goes_on() {
    let (log, mut group) = opened();
    for number in 0..20 {
        let (_, ops) = chat_of_days(number, &[0, 1, 2]);
        push(&mut group, &log, ops);
    }
    let policy = Policy { age_ms_max: None, entries_max: Some(1) };
    let (mut found, mut after, mut calls) = (Vec::new(), None, 0);
    loop {
        let some = sweep(&*log.view(), &policy, 0, after, 6).unwrap();
        assert!(some.cuts.len() <= 6);
        found.extend(some.cuts.iter().map(|cut| cut.conversation));
        calls += 1;
        after = some.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((calls, found.len()), (4, 20));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 20, "each once");
    assert_eq!(sweep(&*log.view(), &policy, 0, None, 20).unwrap().next, None, "no call for nothing");
}

#[test]
fn what_cannot_be_read_is_named_and_passed_over() {
    let (log, mut group) = opened();
    for number in 1..4 {
        let (_, ops) = chat_of_days(number, &[0, 1, 2, 3, 4]);
        push(&mut group, &log, ops);
    }
    let mut batch = Batch::default();
    batch.delete(Family::Entries, &EntryKey { conversation: conversation_id(1), seq: 1 }.encode());
    batch.put(Family::Conversations, &ConversationKey { conversation: conversation_id(2) }.encode(), vec![1]);
    log.commit(&batch);
    let policy = Policy { age_ms_max: Some(DAY_MS), entries_max: None };
    let found = all(&log, &policy, BEGIN_MS + 4 * DAY_MS);
    let (cuts, mut failed): (Vec<_>, Vec<_>) = (
        found.cuts.iter().map(|cut| (cut.conversation, cut.first_seq)).collect(),
        found.failed.iter().map(|(id, _)| *id).collect(),
    );
    failed.sort();
    assert_eq!(cuts, [(conversation_id(3), 4)]);
    assert_eq!(failed, [conversation_id(1), conversation_id(2)]);
    let faulty = FaultyLog::new(log);
    faulty.fail_next_reads(1);
    assert!(sweep(&*faulty.view(), &policy, 0, None, 9).is_err(), "nothing can be said of the rest");
}

/// What must go, by looking at every entry.
fn brute_force(
    days: &[u64],
    first_seq: u64,
    today: u64,
    age: Option<u64>,
    entries: Option<u64>,
) -> Option<u64> {
    let head = days.len() as u64;
    let goes = |seq: u64| {
        let too_old = age.is_some_and(|age| days[seq as usize - 1] + age < today);
        let too_many = entries.is_some_and(|most| head - seq >= most.max(1));
        seq < head && (too_old || too_many)
    };
    let first = (first_seq..=head).find(|seq| !goes(*seq)).unwrap();
    let (kept, gone) = (head + 1 - first_seq, first - first_seq);
    (gone > 0 && (gone * CUT_PART >= kept || gone >= CUT_ENTRIES)).then_some(first)
}

proptest! {
    #[test]
    fn as_if_every_entry_was_looked_at(
        steps in proptest::collection::vec(0..3u64, 1..150),
        cut in any::<prop::sample::Index>(),
        more_days in 0..40u64,
        age in proptest::option::of(0..60u64),
        entries in proptest::option::of(0..150u64),
    ) {
        let days: Vec<u64> = steps.iter().scan(0, |day, step| { *day += step; Some(*day) }).collect();
        let today = days.last().unwrap() + more_days;
        let (log, mut group) = opened();
        let (mut chat, ops) = chat_of_days(1, &days);
        push(&mut group, &log, ops);
        let first_seq = cut.index(days.len()) as u64 + 1;
        push(&mut group, &log, vec![chat.cut(first_seq, 1)]);
        let policy = Policy { age_ms_max: age.map(|days| days * DAY_MS), entries_max: entries };
        let found = all(&log, &policy, BEGIN_MS + today * DAY_MS);
        let expected = brute_force(&days, first_seq, today, age, entries);
        prop_assert_eq!(found.cuts.iter().map(|cut| cut.first_seq).collect::<Vec<_>>(), Vec::from_iter(expected));
        for cut in found.cuts {
            let op = chat.cut(cut.first_seq, heads(&log, chat.conversation).commit);
            prop_assert_eq!(chat.heads.first_chain, cut.chain_before);
            push(&mut group, &log, vec![op]);
            let report = verify(&log).unwrap();
            prop_assert!(report.is_good(), "{}", report);
            prop_assert_eq!(report.cut, cut.first_seq - 1);
        }
    }
}
