//! What every [`CommitLog`] must do, as a suite that each implementation's tests run. For tests only: a violated
//! promise is a panic that names it.

#![allow(clippy::unwrap_used)]

mod cuts;
mod domain;
mod recent;

use bytes::Bytes;

use crate::{
    Batch, CommitLog, CommitResult, Family, Scan, View,
    commit_log::{Order, Visit},
};

/// A log under test that can be closed and opened again.
pub trait Reopen {
    /// The open log.
    fn log(&self) -> &dyn CommitLog;
    /// Closes and opens it, as a restart does.
    fn reopen(&mut self);
}

/// Makes a new, empty log.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn Reopen>;

/// A promise, in words, and what proves it.
pub type Case = (&'static str, fn(Make<'_>));

/// The suite: (name, case). Each case makes the logs that it needs.
pub const CASES: &[Case] = &[
    ("a batch is all there or not at all", batch_is_atomic),
    ("a range is deleted whole, and keeps its bounds", ranges_are_deleted),
    ("scans go by byte order and keep to their bounds", scans_keep_bounds),
    ("a scan ends where its visitor breaks, and reads nest", scans_break_and_nest),
    ("a view sees one moment", views_are_snapshots),
    ("rows survive reopening", rows_survive),
    ("boots and commit numbers run on over openings", domain::boots_run_on),
    ("operations come back as they were written", domain::operations_round_trip),
    ("an id is found, and the highest of its user", domain::dedup_lookup),
    ("pages are dense in both directions at every boundary", domain::pages),
    ("a page ends with the entry that fills it", domain::page_bytes),
    ("a missing entry is an error, never a shorter page", domain::missing_entry),
    ("a bad value is an error, never served", domain::bad_value),
    ("a resume point is the entry's chain and epoch", domain::resume_points),
    ("a user's conversations come in pages, each once", domain::user_conversations),
    ("what was written verifies", domain::verifies),
    ("a cut takes the oldest entries and nothing else", cuts::cut_and_read),
    ("a cut survives reopening, and appends go on after it", cuts::cut_and_reopen),
    ("a cut is no news", cuts::cut_is_no_news),
    ("a user's conversations come by recency, each once", recent::by_recency),
    ("recency does not show what came after someone left", recent::former_members),
];

/// Runs the suite.
///
/// # Panics
/// A case fails.
pub fn contract(make: Make<'_>) {
    for (name, case) in CASES {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(make)));
        assert!(result.is_ok(), "contract: {name}");
    }
}

fn commit(log: &dyn CommitLog, batch: &Batch) {
    assert_eq!(log.commit(batch), CommitResult::Committed);
}

fn put(log: &dyn CommitLog, rows: &[(Family, &[u8], &[u8])]) {
    let mut batch = Batch::default();
    rows.iter().for_each(|(family, key, value)| batch.put(*family, key, value.to_vec()));
    commit(log, &batch);
}

fn get(view: &dyn View, family: Family, key: &[u8]) -> Option<Bytes> {
    view.get(family, key).unwrap()
}

fn keys_of(view: &dyn View, scan: &Scan) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    view.scan(Family::Members, scan, &mut |key, _| {
        keys.push(key.to_vec());
        Visit::Continue(())
    })
    .unwrap();
    keys
}

fn keys(view: &dyn View, scan: &Scan) -> Vec<Vec<u8>> {
    let keys = keys_of(view, scan);
    for key in &keys {
        assert_eq!(get(view, Family::Members, key).as_deref(), Some(&key[..]), "each value is its key's");
    }
    keys
}

fn batch_is_atomic(make: Make<'_>) {
    let log = make();
    let log = log.log();
    put(log, &[(Family::Entries, b"a", b"1"), (Family::Users, b"b", b"2")]);
    let mut batch = Batch::default();
    batch.put(Family::Entries, b"c", b"3".to_vec());
    batch.put(Family::Users, b"c", b"first".to_vec());
    batch.put(Family::Users, b"c", b"last".to_vec());
    batch.delete(Family::Users, b"b");
    batch.delete(Family::Devices, b"never there");
    commit(log, &batch);
    let view = &*log.view();
    assert_eq!(get(view, Family::Entries, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(view, Family::Entries, b"c").as_deref(), Some(&b"3"[..]));
    assert_eq!(
        get(view, Family::Users, b"c").as_deref(),
        Some(&b"last"[..]),
        "the later write of a key wins"
    );
    assert_eq!(get(view, Family::Users, b"b"), None);
    assert_eq!(get(view, Family::Devices, b"a"), None, "families are apart");
    commit(log, &Batch::default());
    put(log, &[(Family::Meta, b"empty", b"")]);
    assert_eq!(
        get(&*log.view(), Family::Meta, b"empty").as_deref(),
        Some(&b""[..]),
        "an empty value is a value"
    );
    assert!(!log.is_read_only() && log.read_only().is_none());
}

fn ranges_are_deleted(make: Make<'_>) {
    let mut log = make();
    let all: Vec<Vec<u8>> =
        vec![vec![0], vec![1], vec![1, 0], vec![1, 0xff], vec![2], vec![2, 0], vec![0xff, 0xff]];
    let bounds: Vec<Vec<u8>> = all.iter().cloned().chain([vec![], vec![1, 1], vec![3]]).collect();
    for start in &bounds {
        for end in bounds.iter().filter(|end| *end >= start) {
            for key in &all {
                put(log.log(), &[(Family::Members, key, key), (Family::Entries, key, key)]);
            }
            let before = log.log().view();
            let mut batch = Batch::default();
            batch.put(Family::Members, &[1, 0], b"put before, so deleted too".to_vec());
            batch.delete_range(Family::Members, start, end);
            batch.put(Family::Members, &[1], vec![1]);
            commit(log.log(), &batch);
            let left = |key: &&Vec<u8>| **key == [1] || *key < start || *key >= end;
            let expected: Vec<_> = all.iter().filter(left).cloned().collect();
            assert_eq!(keys(&*before, &Scan::all()), all, "a view sees one moment");
            let view = &*log.log().view();
            let seen: Vec<_> =
                all.iter().filter(|key| get(view, Family::Members, key).is_some()).cloned().collect();
            assert_eq!(seen, expected, "{start:?}..{end:?}");
            let mut backward = keys_of(view, &Scan::all().backward());
            backward.reverse();
            assert_eq!(backward, expected, "{start:?}..{end:?} backward");
            for key in &all {
                assert!(get(view, Family::Entries, key).is_some(), "families are apart");
            }
        }
    }
    let mut batch = Batch::default();
    batch.delete_range(Family::Members, &[0], &[0xff]);
    commit(log.log(), &batch);
    log.reopen();
    assert_eq!(keys(&*log.log().view(), &Scan::all()), [[0xff, 0xff]]);
    put(log.log(), &[(Family::Members, &[1], &[1])]);
    log.reopen();
    assert_eq!(
        keys(&*log.log().view(), &Scan::all()),
        [vec![1], vec![0xff, 0xff]],
        "what is put later stays"
    );
}

fn scans_keep_bounds(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let all: Vec<Vec<u8>> = vec![
        vec![0],
        vec![0, 0],
        vec![1],
        vec![1, 2],
        vec![1, 2, 3],
        vec![1, 0xff],
        vec![1, 0xff, 0xff],
        vec![2],
        vec![0xff],
        vec![0xff, 0xff],
    ];
    for key in all.iter().rev() {
        put(log, &[(Family::Members, key, key), (Family::Entries, &[9], b"another family")]);
    }
    let view = &*log.view();
    assert_eq!(keys(view, &Scan::all()), all);
    let mut bounds = all.clone();
    bounds.extend([vec![], vec![1, 2, 2], vec![1, 3], vec![3]]);
    for start in &bounds {
        for end in bounds.iter().map(Some).chain([None]) {
            let within = |key: &Vec<u8>| key >= start && end.is_none_or(|end| key < end);
            let mut expected: Vec<_> = all.iter().filter(|key| within(key)).cloned().collect();
            let scan = Scan { start: start.clone(), end: end.cloned(), order: Order::Forward };
            assert_eq!(keys(view, &scan), expected, "{scan:?}");
            expected.reverse();
            assert_eq!(keys(view, &scan.clone().backward()), expected, "{scan:?} backward");
        }
    }
    for prefix in &bounds {
        let expected: Vec<_> = all.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        assert_eq!(keys(view, &Scan::prefix(prefix)), expected, "prefix {prefix:?}");
    }
}

fn scans_break_and_nest(make: Make<'_>) {
    let log = make();
    let log = log.log();
    for key in 0..10u8 {
        put(log, &[(Family::Members, &[key], &[key])]);
    }
    let view = &*log.view();
    let mut seen = Vec::new();
    view.scan(Family::Members, &Scan::all().backward(), &mut |key, _| {
        seen.push(key[0]);
        assert_eq!(get(view, Family::Members, key).as_deref(), Some(key));
        assert_eq!(keys(view, &Scan::prefix(key)).len(), 1);
        if key[0] == 7 { Visit::Break(()) } else { Visit::Continue(()) }
    })
    .unwrap();
    assert_eq!(seen, [9, 8, 7]);
}

fn views_are_snapshots(make: Make<'_>) {
    let log = make();
    let log = log.log();
    put(log, &[(Family::Members, &[1], &[1]), (Family::Members, &[3], &[3])]);
    let before = log.view();
    let mut seen = Vec::new();
    before
        .scan(Family::Members, &Scan::all(), &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            let mut batch = Batch::default();
            batch.put(Family::Members, &[2], vec![2]);
            batch.put(Family::Members, &[3], vec![33]);
            commit(log, &batch);
            Visit::Continue(())
        })
        .unwrap();
    assert_eq!(seen, [(vec![1], vec![1]), (vec![3], vec![3])]);
    assert_eq!(get(&*before, Family::Members, &[2]), None);
    assert_eq!(get(&*before, Family::Members, &[3]).as_deref(), Some(&[3][..]));
    let after = log.view();
    assert_eq!(get(&*after, Family::Members, &[2]).as_deref(), Some(&[2][..]));
    assert_eq!(get(&*after, Family::Members, &[3]).as_deref(), Some(&[33][..]));
}

fn rows_survive(make: Make<'_>) {
    let mut log = make();
    let large = vec![7; 300_000];
    for round in 0..3u8 {
        put(log.log(), &[(Family::Entries, &[round], &large), (Family::Members, &[round], &[round])]);
        log.reopen();
        let view = log.log().view();
        assert_eq!(keys(&*view, &Scan::all()), (0..=round).map(|key| vec![key]).collect::<Vec<_>>());
        assert_eq!(get(&*view, Family::Entries, &[round]).as_deref(), Some(&large[..]));
        assert!(!log.log().is_read_only());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryLog;

    struct Memory(MemoryLog);

    impl Reopen for Memory {
        fn log(&self) -> &dyn CommitLog {
            &self.0
        }
        fn reopen(&mut self) {
            self.0 = self.0.reopen();
        }
    }

    #[test]
    fn memory_log_keeps_the_contract() {
        contract(&|| Box::new(Memory(MemoryLog::new())));
    }
}
