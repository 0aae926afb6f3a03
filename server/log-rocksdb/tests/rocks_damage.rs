//! What a disk can do to a log, and what the log must do then: refuse and name the file, never serve other rows.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use support::{Growing, Rows, copy, flip, name, of_kind, open_log, refused_or_same, rows, truncate};
use talaria_log::{Batch, CommitLog, Family, keys::EntryKey, record, verify};
use talaria_log_rocksdb::{LogFileKind, OpenError, Options, RocksLog, files};

const THREADS: usize = 24;

/// Some bytes of a file: all of its beginning and its end, and in between every `step`-th.
fn positions(len: usize, edge: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |at| *at < edge || at + edge >= len || at % step == 0)
}

/// Flips bits of a file in copies of a log. Many at a time: RocksDB's threads wait a second after an error.
fn flips(pristine: &Path, file: &Path, at: impl Iterator<Item = usize>, check: impl Fn(usize, &Path) + Sync) {
    let all: Vec<usize> = at.collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(&at) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let damaged = copy(pristine);
                    flip(&damaged.path().join(file.file_name().unwrap()), at, (at % 8) as u8);
                    check(at, damaged.path());
                }
            });
        }
    });
}

fn tables_with_all_rows() -> (tempfile::TempDir, Rows) {
    let mut growing = Growing::new();
    growing.messages(60).flush();
    let rows = growing.rows();
    (growing.closed(), rows)
}

#[test]
fn a_flip_in_a_table_is_refused_and_named_or_changes_nothing() {
    let (pristine, whole) = tables_with_all_rows();
    let tables = of_kind(pristine.path(), LogFileKind::Table);
    assert!(tables.len() >= 6, "each family that has rows has a table");
    let largest = tables.iter().max_by_key(|table| fs::metadata(table).unwrap().len()).unwrap();
    for table in &tables {
        let len = fs::metadata(table).unwrap().len() as usize;
        let step = if table == largest { 131 } else { 397 };
        let (refused, tried) = (AtomicUsize::new(0), AtomicUsize::new(0));
        flips(
            pristine.path(),
            table,
            positions(len, 0, step).chain((len - 64..len).step_by(17)),
            |at, dir| {
                tried.fetch_add(1, Ordering::Relaxed);
                if let Some(error) = refused_or_same(dir, &whole) {
                    let named = error.contains(&name(table)) || error.contains("a table that it lists");
                    assert!(named, "flip at {at} of {len}: {error}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            },
        );
        let (refused, tried) = (refused.into_inner(), tried.into_inner());
        assert!(refused * 10 > tried, "{}: {refused} of {tried} refused", name(table));
    }
}

#[test]
fn a_flip_in_a_data_block_is_refused_with_file_and_keys() {
    let (pristine, whole) = tables_with_all_rows();
    let tables = of_kind(pristine.path(), LogFileKind::Table);
    let entries = tables.iter().max_by_key(|table| fs::metadata(table).unwrap().len()).unwrap();
    flips(pristine.path(), entries, (0..2_000).step_by(211), |at, dir| {
        let error = refused_or_same(dir, &whole).unwrap_or_else(|| panic!("flip at {at} was not seen"));
        assert!(error.contains(&name(entries)) && error.contains("keys"), "{error}");
        if let Ok(log) = open_log(dir) {
            let report = verify(&log).unwrap();
            assert!(!report.is_good() && report.to_string().contains(&name(entries)), "{report}");
        }
    });
}

#[test]
fn a_missing_or_short_table_is_refused() {
    let (pristine, _) = tables_with_all_rows();
    for table in of_kind(pristine.path(), LogFileKind::Table) {
        let damaged = copy(pristine.path());
        let file = damaged.path().join(table.file_name().unwrap());
        truncate(&file, fs::metadata(&file).unwrap().len() - 1);
        let error = open_log(damaged.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }) && error.to_string().contains(&name(&table)),
            "{error}"
        );
        fs::remove_file(&file).unwrap();
        let error = open_log(damaged.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }) && error.to_string().contains(&name(&table)),
            "{error}"
        );
    }
}

/// Offsets at which writes begin in a small write-ahead log.
fn writes(wal: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut begins = Vec::new();
    while at < wal.len() {
        begins.push(at);
        at += 7 + usize::from(u16::from_le_bytes([wal[at + 4], wal[at + 5]]));
    }
    begins
}

#[test]
fn a_flip_in_the_wal_before_its_last_write_is_refused() {
    let mut growing = Growing::new();
    growing.messages(8).flush().messages(12);
    let killed = growing.killed();
    let wals = of_kind(killed.path(), LogFileKind::Wal);
    let wal = wals.last().unwrap();
    let bytes = fs::read(wal).unwrap();
    let begins = writes(&bytes);
    let last = *begins.last().unwrap();
    assert!(begins.len() == 12 && bytes.len() < 32_000);
    let near = begins.iter().flat_map(|&begin| begin..begin + 12);
    let at = near.chain((0..last).step_by(37)).filter(|&at| at < last);
    flips(killed.path(), wal, at, |at, dir| {
        let before = fs::read(dir.join(wal.file_name().unwrap())).unwrap();
        let error = open_log(dir).expect_err(&format!("flip at {at}"));
        assert!(matches!(&error, OpenError::Damaged { file, .. } if *file == name(wal)), "{error}");
        assert!(error.to_string().contains("offset") && error.to_string().contains("backup"), "{error}");
        assert!(fs::read(dir.join(wal.file_name().unwrap())).unwrap() == before, "nothing is changed");
    });
}

#[test]
fn a_flip_in_the_last_write_is_a_torn_tail_after_a_kill_and_damage_after_a_close() {
    let mut growing = Growing::new();
    growing.messages(10);
    let without = growing.rows();
    growing.messages(1);
    let killed = growing.killed();
    let closed = growing.closed();
    let wal = of_kind(killed.path(), LogFileKind::Wal).pop().unwrap();
    let bytes = fs::read(&wal).unwrap();
    let last = *writes(&bytes).last().unwrap();
    let at = || (last..last + 8).chain((last + 8..bytes.len()).step_by(67));
    flips(killed.path(), &wal, at(), |at, dir| {
        let log = open_log(dir).unwrap();
        assert_eq!(log.torn_tails().len(), 1, "flip at {at}");
        assert_eq!((log.torn_tails()[0].file.as_str(), log.torn_tails()[0].at), (&*name(&wal), last as u64));
        assert!(rows(&log).unwrap() == without, "flip at {at}");
        drop(log);
        let kept = fs::read(dir.join(format!("{}.torn", name(&wal)))).unwrap();
        assert_eq!(kept.len(), bytes.len() - last, "the torn bytes are kept");
        assert!(rows(&open_log(dir).unwrap()).unwrap() == without);
    });
    flips(closed.path(), &wal, at(), |at, dir| {
        let error = open_log(dir).expect_err(&format!("flip at {at}"));
        assert!(error.to_string().contains(&name(&wal)), "{error}");
    });
}

#[test]
fn a_wal_cut_short_loses_no_whole_write_and_after_a_close_is_refused() {
    let mut growing = Growing::new();
    growing.messages(2);
    let mut after = vec![growing.rows()];
    for _ in 0..3 {
        growing.messages(1);
        after.push(growing.rows());
    }
    let killed = growing.killed();
    let closed = growing.closed();
    let wal = of_kind(killed.path(), LogFileKind::Wal).pop().unwrap();
    let bytes = fs::read(&wal).unwrap();
    let begins = writes(&bytes);
    let first = begins[begins.len() - 3];
    for len in (first..bytes.len()).step_by(71).chain(begins[begins.len() - 2..].iter().copied()) {
        let damaged = copy(killed.path());
        truncate(&damaged.path().join(name(&wal)), len as u64);
        let read_only = RocksLog::open_read_only(damaged.path(), &Options::default()).unwrap();
        let whole = begins[begins.len() - 2..].iter().filter(|&&begin| begin <= len).count();
        assert!(rows(&read_only).unwrap() == after[whole], "read only, cut to {len}");
        drop(read_only);
        assert!(rows(&open_log(damaged.path()).unwrap()).unwrap() == after[whole], "cut to {len}");

        let damaged = copy(closed.path());
        truncate(&damaged.path().join(name(&wal)), len as u64);
        let error = open_log(damaged.path()).unwrap_err();
        assert!(error.to_string().contains(&name(&wal)), "{error}");
    }
}

#[test]
fn a_missing_wal_is_refused() {
    let mut growing = Growing::new();
    growing.messages(5).flush().messages(5);
    for dir in [growing.killed(), growing.closed()] {
        for wal in of_kind(dir.path(), LogFileKind::Wal) {
            fs::remove_file(wal).unwrap();
        }
        let error = open_log(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains(".log"), "{error}");
    }
}

#[test]
fn a_short_manifest_is_refused() {
    let mut growing = Growing::new();
    growing.messages(5).flush().messages(5).flush().messages(1);
    for dir in [growing.killed(), growing.closed()] {
        let manifest = of_kind(dir.path(), LogFileKind::Manifest).pop().unwrap();
        let len = fs::metadata(&manifest).unwrap().len();
        for len in (0..len).step_by(13).chain(len - 8..len) {
            let damaged = copy(dir.path());
            truncate(&damaged.path().join(name(&manifest)), len);
            let error = open_log(damaged.path()).unwrap_err();
            assert!(matches!(&error, OpenError::Damaged { file, .. } if *file == name(&manifest)), "{error}");
        }
    }
}

#[test]
fn a_flip_in_manifest_current_or_mark_is_refused_or_changes_nothing() {
    let mut growing = Growing::new();
    growing.messages(5).flush().messages(5).flush().messages(1);
    let whole = growing.rows();
    let dir = growing.killed();
    for kind in [LogFileKind::Manifest, LogFileKind::Current, LogFileKind::Mark] {
        let file = of_kind(dir.path(), kind).pop().unwrap();
        let len = fs::metadata(&file).unwrap().len() as usize;
        flips(dir.path(), &file, positions(len, 10, 11), |at, damaged| {
            let error = refused_or_same(damaged, &whole);
            assert!(error.is_some(), "{kind:?}: flip at {at} was not seen");
        });
        let damaged = copy(dir.path());
        fs::remove_file(damaged.path().join(name(&file))).unwrap();
        let error = refused_or_same(damaged.path(), &whole);
        assert_eq!(error.is_some(), kind != LogFileKind::Mark, "{kind:?} is missing: {error:?}");
    }
    truncate(&dir.path().join("CURRENT"), 5);
    let error = open_log(dir.path()).unwrap_err();
    assert!(error.to_string().contains("CURRENT"), "{error}");
}

#[test]
fn an_older_manifest_is_refused() {
    let mut growing = Growing::new();
    growing.messages(5).flush();
    let before = growing.killed();
    drop(growing.messages(5).flush().killed());
    let dir = growing.closed();
    drop(open_log(dir.path()).unwrap());
    for name in ["CURRENT", "MANIFEST-000005"] {
        let old = before.path().join(name);
        if old.exists() {
            fs::copy(old, dir.path().join(name)).unwrap();
        }
    }
    let error = open_log(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_value_rewritten_with_valid_checksums_is_found_by_verify() {
    let mut growing = Growing::new();
    growing.messages(20).flush();
    let conversation = growing.chats[2].conversation;
    let key = EntryKey { conversation, seq: 3 };
    let value = growing.log.view().get(Family::Entries, &key.encode()).unwrap().unwrap();
    let mut entry = record::entry::decode(&key, value).unwrap();
    let talaria_core::log::StoredBody::Kept { content, .. } = &mut entry.body else { panic!() };
    *content = [&content[..1], b"!", &content[2..]].concat().into();
    let mut batch = Batch::default();
    batch.put(Family::Entries, &key.encode(), record::entry::encode(&entry));
    growing.log.commit(&batch);
    growing.flush();
    let dir = growing.closed();
    let log = RocksLog::open_read_only(dir.path(), &Options::default()).unwrap();
    let report = verify(&log).unwrap();
    assert_eq!(report.findings.len(), 1, "{report}");
    assert_eq!((report.findings[0].conversation, report.findings[0].seq), (Some(conversation), Some(3)));
    assert!(report.to_string().contains(&format!("conversation {conversation} seq 3 ")), "{report}");
}

#[test]
fn read_only_changes_nothing_and_takes_no_commits() {
    let mut growing = Growing::new();
    growing.messages(10).flush().messages(10);
    let whole = growing.rows();
    let missing = support::temp();
    let error = RocksLog::open_read_only(missing.path().join("none"), &Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    let in_use = RocksLog::open_read_only(growing.dir.path(), &Options::default()).unwrap_err();
    assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
    for dir in [growing.killed(), growing.closed()] {
        let content = || -> Vec<_> {
            let kept = |name: &str| name != "talaria.lock";
            let files = files(dir.path()).unwrap().into_iter().filter(|file| kept(&file.name));
            files.map(|file| (file.name, fs::read(file.path).unwrap())).collect()
        };
        let before = content();
        let log = RocksLog::open_read_only(dir.path(), &Options::default()).unwrap();
        assert!(rows(&log).unwrap() == whole);
        assert!(verify(&log).unwrap().is_good());
        let mut batch = Batch::default();
        batch.put(Family::Meta, b"x", vec![]);
        assert!(log.is_read_only());
        assert!(matches!(log.commit(&batch), talaria_log::CommitResult::NotCommitted { .. }));
        drop(log);
        assert!(content() == before, "not a byte changes");
    }
}
