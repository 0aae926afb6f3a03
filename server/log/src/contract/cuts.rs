//! Cases of retention: what a cut takes, and what stays as it was.

use talaria_core::log::{LogOp, Outcome, PageQuery, ReadAnswer, ReadOp, StoredEntry};
use talaria_protocol::{
    chain::Chain,
    ids::ConversationId,
    message::Direction::{self, Backward, Forward},
};

use super::{
    Make,
    domain::{chat, page, query, seeds},
};
use crate::{
    CommitLog, Family, GroupCommit, Scan,
    commit_log::Visit,
    keys::EntryKey,
    open, read,
    testing::{Scenario, conversation_id, device_id, message_id, user_id},
    verify,
};

const HEAD: u64 = 30;

fn seqs(log: &dyn CommitLog, conversation: ConversationId) -> Vec<u64> {
    let mut seqs = Vec::new();
    let range = Scan::prefix(&EntryKey::prefix(conversation));
    let scanned = log.view().scan(Family::Entries, &range, &mut |key, _| {
        seqs.push(EntryKey::decode(key).unwrap().seq);
        Visit::Continue(())
    });
    scanned.unwrap();
    seqs
}

fn apply(log: &dyn CommitLog, group: &mut GroupCommit, op: LogOp) {
    group.push(op);
    assert!(matches!(group.commit(log)[..], [Outcome::Committed { .. }]));
}

fn one_page(log: &dyn CommitLog, from: u64, direction: Direction) -> (Chain, Vec<StoredEntry>) {
    page(log, PageQuery { ..query(from, direction, 4) }).unwrap()
}

/// All entries and the chat, and neighbours that a cut must not touch.
fn with_neighbours(log: &dyn CommitLog) -> (Scenario, Vec<StoredEntry>, GroupCommit) {
    let (chat, all) = chat(log, HEAD);
    let mut group = GroupCommit::new(HEAD);
    for number in [0, 2] {
        let mut other = Scenario::new(number);
        for op in [other.create(), other.message(0, "x"), other.message(1, "y")] {
            apply(log, &mut group, op);
        }
    }
    (chat, all, group)
}

fn check(log: &dyn CommitLog, all: &[StoredEntry], first: u64, epoch_before: u64) {
    let id = conversation_id(1);
    let chain = |seq: u64| if seq == 0 { Chain::ZERO } else { all[seq as usize - 1].chain };
    assert_eq!(seqs(log, id), (first..=HEAD).collect::<Vec<_>>(), "first seq {first}");
    for from in 0..=first {
        let (before, entries) = one_page(log, from, Forward);
        let last = (first + 4).min(HEAD + 1);
        assert_eq!((before, &entries[..]), (chain(first - 1), &all[first as usize - 1..last as usize - 1]));
    }
    for from in first..=HEAD {
        let (before, entries) = one_page(log, from, Backward);
        let low = from.saturating_sub(4).max(first - 1);
        assert_eq!(
            (before, &entries[..]),
            (chain(low), &all[low as usize..from as usize]),
            "back from {from}"
        );
    }
    assert_eq!(one_page(log, first - 1, Backward), (chain(first - 1), vec![]));
    for seq in (0..=HEAD + 1).chain([u64::MAX]) {
        let (user, device) = (user_id(0), device_id(0));
        let point = read(log, &ReadOp::ResumePoint { conversation: id, seq, user, device }).unwrap();
        let ReadAnswer::ResumePoint { at, .. } = point else { panic!("{point:?}") };
        let known = seq > 0 && (first - 1..=HEAD).contains(&seq);
        assert_eq!(at.map(|(chain, _)| chain), known.then(|| chain(seq)), "seq {seq}, first {first}");
        if seq == first - 1 && seq > 0 {
            assert_eq!(at.map(|(_, epoch)| epoch), Some(epoch_before));
        }
    }
    let ids = (0..HEAD).map(message_id).collect();
    let dedup = read(log, &ReadOp::Dedup { conversation: id, user: user_id(0), ids }).unwrap();
    let ReadAnswer::Dedup { found, .. } = dedup else { panic!("{dedup:?}") };
    assert_eq!(found.len() as u64, HEAD / 2, "ids of cut entries are still recognised");
    let report = verify(log).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.truncated, report.cut), (u64::from(first > 1), first - 1));
    for neighbour in [0, 2] {
        assert_eq!(seqs(log, conversation_id(neighbour)), [1, 2, 3]);
    }
}

/// The second epoch begins at seq 16.
pub(super) fn cut_and_read(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let (mut chat, all, mut group) = with_neighbours(log);
    check(log, &all, 1, 0);
    for (first, epoch_before, epochs) in [(2, 100, 2), (15, 100, 2), (16, 0, 1), (17, 200, 1), (HEAD, 200, 1)]
    {
        let op = chat.cut(first, HEAD);
        assert_eq!(chat.heads.epochs.len(), epochs);
        apply(log, &mut group, op);
        check(log, &all, first, epoch_before);
    }
}

pub(super) fn cut_and_reopen(make: Make<'_>) {
    let mut log = make();
    let (mut chat, mut all, mut group) = with_neighbours(log.log());
    apply(log.log(), &mut group, chat.cut(12, HEAD));
    log.reopen();
    check(log.log(), &all, 12, 100);
    let mut group = GroupCommit::new(open(log.log(), seeds(2)).unwrap().commit);
    // One commit: an append that ends before the cut, the cut, and an append after it.
    let (before, after) = (chat.message(0, "before"), chat.cut(20, HEAD + 8));
    [before, after, chat.message(1, "after")].into_iter().for_each(|op| {
        if let LogOp::Append(append) = &op {
            all.extend(append.entries.clone());
        }
        group.push(op);
    });
    assert_eq!(group.commit(log.log()).len(), 3);
    log.reopen();
    let expected: Vec<u64> = (20..=HEAD + 2).collect();
    assert_eq!(seqs(log.log(), chat.conversation), expected);
    let (before, entries) = page(log.log(), query(0, Forward, 100)).unwrap();
    assert_eq!((before, &entries[..]), (all[18].chain, &all[19..]));
    assert!(verify(log.log()).unwrap().is_good());
}

pub(super) fn cut_is_no_news(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let (mut chat, _, mut group) = with_neighbours(log);
    apply(log, &mut group, chat.cut(12, HEAD));
    let changed = |since_commit| {
        let op = ReadOp::UserConversations { user: user_id(0), after: None, since_commit, rows_max: 10 };
        match read(log, &op).unwrap() {
            ReadAnswer::UserConversations { commit, rows, .. } => (commit, rows.len()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (changed(HEAD - 1), changed(HEAD)),
        ((HEAD + 7, 3), (HEAD + 7, 2)),
        "two others were written since"
    );
}
