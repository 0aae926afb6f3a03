//! `cargo run -p talaria-log-rocksdb --example log_figures [DIR]`: what lists by recency and pages of history cost on
//! RocksDB, as medians. Makes 10,000 conversations of one user and one of 1,000,000 entries in a new directory under DIR.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{env, path::PathBuf, time::Instant};

use talaria_core::log::{LogOp, Outcome, PageQuery, ReadAnswer, ReadOp};
use talaria_log::{CommitLog, GroupCommit, OpenSeeds, open, read, testing::Scenario, testing::user_id};
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::{
    ids::{BootId, ConversationId},
    message::{Direction, Durability},
};

const CONVERSATIONS: u32 = 10_000;
const ENTRIES: u64 = 1_000_000;
/// Of a page of conversations.
const ROWS: usize = 200;
const REPEATS: u64 = 101;

fn main() {
    let within = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(within).unwrap();
    let options = Options { durability: Durability::Os, ..Options::default() };
    let log = RocksLog::open(dir.path(), &options).unwrap();
    let seeds = OpenSeeds { boot_id: BootId::new([1; 16]), id_key_if_new: [2; 32], now_ms: 3 };
    let mut group = GroupCommit::new(open(&log, seeds).unwrap().commit);
    recency(&log, &mut group);
    history(&log, &mut group);
}

fn push(log: &dyn CommitLog, group: &mut GroupCommit, op: LogOp) {
    group.push(op);
    if group.is_full() {
        commit(log, group);
    }
}

fn commit(log: &dyn CommitLog, group: &mut GroupCommit) {
    assert!(group.commit(log).iter().all(|outcome| matches!(outcome, Outcome::Committed { .. })));
}

fn median(count: u64, mut what: impl FnMut(u64)) -> f64 {
    let mut times: Vec<f64> = (0..count)
        .map(|n| {
            let start = Instant::now();
            what(n);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Peak memory of the process, MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn recency(log: &RocksLog, group: &mut GroupCommit) {
    let mut chats: Vec<Scenario> = (0..CONVERSATIONS)
        .map(|n| {
            let mut chat = if n % 2 == 0 { Scenario::new(1) } else { Scenario::group(1, 3) };
            let spread = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
            chat.conversation =
                ConversationId::new([spread, n.to_be_bytes(), [0; 4], [0; 4]].concat().try_into().unwrap());
            chat
        })
        .collect();
    for round in 0..5u32 {
        for n in 0..CONVERSATIONS {
            let chat = &mut chats[(n * 7 % CONVERSATIONS) as usize];
            let op = match round {
                0 => chat.create(),
                // User 0 left one in twenty, which went on without them.
                3 if chat.heads.title.is_empty() || n % 20 != 0 => chat.message(1, "a message of some words"),
                3 => chat.remove(0),
                _ => chat.message((n % 2) as u8, "a message of some words"),
            };
            push(log, group, op);
        }
    }
    commit(log, group);
    log.flush().unwrap();
    for user in [0, 1] {
        let page = |before| {
            let op = ReadOp::RecentConversations { user: user_id(user), before, rows_max: ROWS };
            match read(log, &op).unwrap() {
                ReadAnswer::RecentConversations { rows, next } => (rows.len(), next),
                other => panic!("{other:?}"),
            }
        };
        let first = median(21, |_| assert_eq!(page(None).0, ROWS));
        let (mut pages, mut rows, mut before, mut slowest, start) = (0, 0, None, 0.0, Instant::now());
        loop {
            let began = Instant::now();
            let (found, next) = page(before);
            slowest = f64::max(slowest, began.elapsed().as_secs_f64() * 1e3);
            (pages, rows, before) = (pages + 1, rows + found, next);
            if next.is_none() {
                break;
            }
        }
        assert_eq!(rows, CONVERSATIONS as usize);
        let all = start.elapsed().as_secs_f64() * 1e3;
        println!(
            "recency, {CONVERSATIONS} conversations of user {user}: first page of {ROWS} {first:.1} ms; all {pages} pages \
             {all:.0} ms, {:.1} ms each, the slowest {slowest:.1} ms",
            all / f64::from(pages)
        );
    }
}

fn history(log: &RocksLog, group: &mut GroupCommit) {
    let mut chat = Scenario::new(7);
    let start = Instant::now();
    push(log, group, chat.create());
    for n in 1..ENTRIES {
        if n % 1_000 == 0 {
            chat.new_epoch(n);
        }
        push(log, group, chat.message((n % 2) as u8, "a message of some words, as people write them"));
    }
    commit(log, group);
    log.flush().unwrap();
    println!("history: {ENTRIES} entries of 1,000 epochs written in {:.1} s", start.elapsed().as_secs_f64());
    let conversation = chat.conversation;
    let page = |from: u64, direction| {
        let query = PageQuery { conversation, from, direction, entries_max: 50, bytes_max: 1 << 20 };
        match read(log, &ReadOp::Page(query)).unwrap() {
            ReadAnswer::Page { entries, .. } => entries.len(),
            other => panic!("{other:?}"),
        }
    };
    let table = |first: u64| {
        for percent in [100, 75, 50, 25, 3] {
            // 101 places around it, so that most blocks are not in the cache.
            let at = |n: u64| first + (ENTRIES - first) * percent / 100 - n * 97;
            let backward = median(REPEATS, |n| assert_eq!(page(at(n), Direction::Backward), 50));
            let forward = median(REPEATS, |n| assert_eq!(page(at(n) - 50, Direction::Forward), 50));
            println!("  page of 50 at {percent} %: backward {backward:.3} ms, forward {forward:.3} ms");
        }
    };
    table(1);
    let (before, start) = (peak_mib(), Instant::now());
    let mut from = ENTRIES;
    while from > 0 {
        from -= page(from, Direction::Backward) as u64;
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "  all {} pages backward: {took:.1} s; peak memory {before} MiB before, {} MiB after",
        ENTRIES / 50,
        peak_mib()
    );
    let last = chat.cut(ENTRIES / 2, 1);
    push(log, group, last);
    let cut = median(1, |_| commit(log, group));
    println!("  cut of {} entries: {cut:.2} ms", ENTRIES / 2 - 1);
    let oldest = |from| page(from, Direction::Forward);
    let read = median(REPEATS, |_| assert_eq!(oldest(0), 50));
    println!("  first page after it: {read:.3} ms; at the same places, of what is left:");
    table(ENTRIES / 2);
    log.compact();
    println!("  the same after compaction:");
    table(ENTRIES / 2);
}
