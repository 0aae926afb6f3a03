//! Retention on disk: the space of what was cut comes back, what is kept stays readable and proven, and a kill at any
//! point leaves a log from before the cut or after it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use support::{copy, of_kind, open_log, temp, truncate};
use talaria_core::log::{ConversationRow, LogOp, Outcome, PageQuery, ReadAnswer, ReadOp};
use talaria_log::{GroupCommit, OpenSeeds, open, read, testing::Scenario, verify};
use talaria_log_rocksdb::{LogFileKind, Options, RocksLog, files};
use talaria_protocol::{
    ids::{BootId, ConversationId},
    message::Direction,
};

fn opened(dir: &Path, boot: u8) -> (RocksLog, GroupCommit) {
    let log = open_log(dir).unwrap();
    let seeds = OpenSeeds { boot_id: BootId::new([boot; 16]), id_key_if_new: [2; 32], now_ms: 3 };
    let commit = open(&log, seeds).unwrap().commit;
    (log, GroupCommit::new(commit))
}

fn commit(group: &mut GroupCommit, log: &RocksLog, op: LogOp) -> u64 {
    group.push(op);
    match group.commit(log)[..] {
        [Outcome::Committed { commit }] => commit,
        ref other => panic!("{other:?}"),
    }
}

/// Text that does not compress to nothing.
fn text(n: u64, bytes: usize) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    };
    (0..bytes).map(letter).collect()
}

/// A chat of so many entries, flushed, and the commit of the last.
fn filled(log: &RocksLog, group: &mut GroupCommit, entries: u64, bytes: usize) -> (Scenario, u64) {
    let mut chat = Scenario::new(1);
    group.push(chat.create());
    for n in 1..entries {
        let op = chat.message((n % 2) as u8, &text(n, bytes));
        group.push(op);
    }
    let Some(Outcome::Committed { commit }) = group.commit(log).last().copied() else { panic!() };
    log.flush().unwrap();
    (chat, commit)
}

fn row(log: &RocksLog, conversation: ConversationId) -> ConversationRow {
    match read(log, &ReadOp::Conversation(conversation)).unwrap() {
        ReadAnswer::Conversation(Some((row, _))) => row,
        other => panic!("{other:?}"),
    }
}

fn table_bytes(dir: &Path) -> u64 {
    files(dir).unwrap().iter().filter(|file| file.kind == LogFileKind::Table).map(|file| file.len).sum()
}

/// The log is good, begins at `first_seq` and can be read from there.
fn check(log: &RocksLog, chat: &Scenario, first_seq: u64) {
    let conversation = chat.conversation;
    let heads = row(log, conversation).heads;
    assert_eq!((heads.first_seq, heads.first_chain), (first_seq, chat.heads.first_chain));
    let query = PageQuery {
        conversation,
        from: 0,
        direction: Direction::Forward,
        entries_max: 10,
        bytes_max: usize::MAX,
    };
    let ReadAnswer::Page { chain_before, entries } = read(log, &ReadOp::Page(query)).unwrap() else {
        panic!()
    };
    assert_eq!((chain_before, entries[0].seq, entries.len()), (heads.first_chain, first_seq, 10));
    let report = verify(log).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.entries, report.cut), (heads.head + 1 - first_seq, first_seq - 1));
}

#[test]
fn the_space_of_cut_entries_comes_back_in_compaction() {
    const ENTRIES: u64 = 8_000;
    const FIRST: u64 = ENTRIES - 799;
    let dir = temp();
    let (log, mut group) = opened(dir.path(), 1);
    let (mut chat, last) = filled(&log, &mut group, ENTRIES, 1_000);
    log.compact();
    // An opening removes files that a compaction has left behind.
    drop(log);
    let log = open_log(dir.path()).unwrap();
    let before = table_bytes(dir.path());
    assert!(before > ENTRIES * 500, "{before} bytes");
    commit(&mut group, &log, chat.cut(FIRST, last));
    check(&log, &chat, FIRST);
    // From here on RocksDB may give the space back by itself, at any time.
    log.flush().unwrap();
    check(&log, &chat, FIRST);
    log.compact();
    check(&log, &chat, FIRST);
    drop(log);
    let log = open_log(dir.path()).unwrap();
    let after = table_bytes(dir.path());
    assert!(after < before / 5, "{before} bytes before, {after} after");
    check(&log, &chat, FIRST);
    drop(log);
    let read_only = RocksLog::open_read_only(dir.path(), &Options::default()).unwrap();
    check(&read_only, &chat, FIRST);
}

#[test]
fn a_write_ahead_log_that_ends_anywhere_in_a_cut_has_it_whole_or_not() {
    let dir = temp();
    let (log, mut group) = opened(dir.path(), 1);
    let (mut chat, last) = filled(&log, &mut group, 40, 50);
    let wal_len = |dir: &Path| {
        let path = of_kind(dir, LogFileKind::Wal).pop();
        path.map_or(0, |path| fs::metadata(path).unwrap().len())
    };
    let uncut = chat.clone();
    let last = commit(&mut group, &log, chat.message(0, "last")).max(last);
    let (mut whole, before) = (uncut, wal_len(dir.path()));
    whole.message(0, "last");
    commit(&mut group, &log, chat.cut(20, last));
    let after = wal_len(dir.path());
    assert!(after > before && before > 0);
    for len in before..=after {
        let killed = copy(dir.path());
        truncate(&of_kind(killed.path(), LogFileKind::Wal).pop().unwrap(), len);
        let log = open_log(killed.path()).unwrap();
        if len == after { check(&log, &chat, 20) } else { check(&log, &whole, 1) }
    }
}

/// What the killed process says after each commit: `head first_seq`.
const CHILD_DIR: &str = "TALARIA_ROCKS_CUT_CHILD";

/// Writes and cuts without an end, while another thread compacts; not a test by itself.
#[test]
#[ignore = "run by kills_while_cutting_and_compacting"]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let (log, mut group) = opened(Path::new(&dir), 1);
    let mut chat = Scenario::new(1);
    commit(&mut group, &log, chat.create());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                log.flush().unwrap();
                log.compact();
            }
        });
        for n in 1.. {
            let op = chat.message(0, &text(n, 2_000));
            let last = commit(&mut group, &log, op);
            if n % 50 == 49 {
                commit(&mut group, &log, chat.cut(chat.heads.head - 19, last));
            }
            println!("acked {} {}", chat.heads.head, chat.heads.first_seq);
            std::io::stdout().flush().unwrap();
        }
    });
}

#[test]
fn kills_while_cutting_and_compacting() {
    for acks in [60, 149, 150, 333, 800] {
        let dir = temp();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut acked = lines.filter_map(|line| line.find("acked ").map(|at| line[at + 6..].to_owned()));
        let last = acked.nth(acks).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said is acknowledged too.
        let last = acked.last().unwrap_or(last);
        let (head, first_seq) = last.split_once(' ').unwrap();
        let log = open_log(dir.path()).unwrap();
        let report = verify(&log).unwrap();
        assert!(report.is_good(), "{report}");
        let heads = row(&log, Scenario::new(1).conversation).heads;
        assert!(heads.head >= head.parse().unwrap() && heads.first_seq >= first_seq.parse().unwrap());
        assert!(report.cut > 0 && report.entries == heads.head + 1 - heads.first_seq);
        log.compact();
        assert!(verify(&log).unwrap().is_good());
    }
}
