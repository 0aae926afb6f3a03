//! Openings: one process at a time, other versions, crashes, and what a failed write does.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use support::{Growing, SEEDS, open_log, rows};
use talaria_core::log::Outcome;
use talaria_log::{
    Batch, CommitLog, CommitResult, Family, GroupCommit, OpenSeeds, open, testing::Scenario, verify,
};
use talaria_log_rocksdb::{OpenError, Options, RocksLog, files};
use talaria_protocol::{ids::BootId, message::Durability};

#[test]
fn a_log_is_open_once() {
    let growing = Growing::new();
    let error = open_log(growing.dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    let dir = growing.closed();
    open_log(dir.path()).unwrap();
}

#[test]
fn an_unknown_family_is_of_a_newer_version() {
    let dir = Growing::new().closed();
    let options = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&options, dir.path()).unwrap();
    let mut db = rocksdb::DB::open_cf(&options, dir.path(), names).unwrap();
    db.create_cf("reactions", &options).unwrap();
    drop(db);
    // What an opening by another program changed is not marked; it is a newer version's business.
    std::fs::remove_file(dir.path().join("MARK")).unwrap();
    let error = open_log(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Newer { detail } if detail.contains("reactions")), "{error}");
}

#[test]
fn os_durability_survives_the_process() {
    let dir = support::temp();
    let options = Options { durability: Durability::Os, ..Options::default() };
    let log = RocksLog::open(dir.path().join("made/for/it"), &options).unwrap();
    assert_eq!(log.durability(), Durability::Os);
    open(&log, SEEDS).unwrap();
    let whole = rows(&log).unwrap();
    let killed = support::copy(log.dir());
    assert!(rows(&open_log(killed.path()).unwrap()).unwrap() == whole);
}

#[test]
fn a_failed_write_makes_the_log_read_only() {
    let dir = support::temp();
    let log_dir = dir.path().join("log");
    let options = Options { memtable_bytes: 256 * 1024, ..Options::default() };
    let log = RocksLog::open(&log_dir, &options).unwrap();
    open(&log, SEEDS).unwrap();
    // New files cannot be made any more: the write that needs one fails.
    std::fs::remove_dir_all(&log_dir).unwrap();
    let mut batch = Batch::default();
    batch.put(Family::Entries, b"key", vec![7; 64 * 1024]);
    let failed = (0..200).map(|_| log.commit(&batch)).find(|result| *result != CommitResult::Committed);
    assert!(matches!(failed, Some(CommitResult::Unknown { .. })), "{failed:?}");
    assert!(log.is_read_only());
    let why = log.read_only().unwrap();
    assert!(why.contains("until reopened"), "{why}");
    assert_eq!(log.commit(&batch), CommitResult::NotCommitted { why });
}

#[test]
fn rocksdb_is_told_to_check() {
    let growing = Growing::new();
    let options =
        files(growing.dir.path()).unwrap().into_iter().rfind(|file| file.name.starts_with("OPTIONS-"));
    let text = std::fs::read_to_string(options.unwrap().path).unwrap();
    for line in [
        "wal_recovery_mode=kTolerateCorruptedTailRecords",
        "track_and_verify_wals_in_manifest=true",
        "verify_sst_unique_id_in_manifest=true",
        "paranoid_checks=true",
        "recycle_log_file_num=0",
        "wal_compression=kNoCompression",
    ] {
        assert!(text.lines().any(|found| found.trim() == line), "{line}");
    }
}

/// Set for the child process that writes until it is killed.
const CHILD_DIR: &str = "TALARIA_TEST_CHILD_DIR";

/// Not a test by itself: the child of [`killed_processes_lose_nothing`].
#[test]
fn child_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let options = Options { memtable_bytes: 128 * 1024, ..Options::default() };
    let log = RocksLog::open(Path::new(&dir), &options).unwrap();
    let before = verify(&log).unwrap();
    let boot = std::process::id().to_be_bytes().repeat(4);
    let seeds = OpenSeeds { boot_id: BootId::try_from(&boot[..]).unwrap(), ..SEEDS };
    let info = open(&log, seeds).unwrap();
    let number = info.boots.len() as u8;
    let mut group = GroupCommit::new(info.commit);
    let mut chat = Scenario::new(number);
    let mut out = std::io::stdout();
    writeln!(out, "\nopened {} {}", before.entries, before.findings.len()).unwrap();
    group.push(chat.create());
    for n in 0u64.. {
        assert!(matches!(group.commit(&log)[..], [Outcome::Committed { .. }]));
        writeln!(out, "acknowledged {number} {}", n + 1).unwrap();
        group.push(chat.message((n % 2) as u8, &"x".repeat((n % 5_000) as usize)));
    }
}

#[test]
fn killed_processes_lose_nothing() {
    let dir = support::temp();
    let mut acknowledged = 0u64;
    for round in 1..=6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.filter(|line| line.starts_with("acknowledged")).count() as u64
        });
        std::thread::sleep(Duration::from_millis(200 + 130 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged += reader.join().unwrap();
        let log = RocksLog::open_read_only(dir.path(), &Options::default()).unwrap();
        let report = verify(&log).unwrap();
        assert!(report.is_good(), "{report}");
        assert!(report.entries >= acknowledged, "{} entries, {acknowledged} acknowledged", report.entries);
        assert!(report.entries <= acknowledged + round, "at most one write of each process is unanswered");
    }
    assert!(acknowledged > 50, "{acknowledged}");
    let log = open_log(dir.path()).unwrap();
    assert!(log.torn_tails().is_empty());
}
