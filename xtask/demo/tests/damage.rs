//! What happens to people when a disk, or a hand, changes what a node has written. A value rewritten with valid
//! checksums is served, but seen: by `talaria log verify`, and by every device that holds the original or computes the
//! chain over it. A flipped bit is never served: the node names the file, and refuses to start or to read. Only the
//! write that a crash tore is given up; who was told of it says so, and its author sends it again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use support::{App, Device, Place};
use talaria_client::{Body, Content, ConversationId, DamageKind, Direction, Event, HistoryError, Store as _};
use talaria_core::log::{StoredBody, StoredEntry};
use talaria_demo::{
    node::{Node, program},
    remains,
};
use talaria_log::{Batch, CommitLog as _, CommitResult, Family, keys::EntryKey, record};
use talaria_log_rocksdb::{LogFile, LogFileKind, Options, RocksLog, files};
use talaria_protocol::chain::Chain;

/// Messages that all devices have seen.
const FIRST: usize = 12;
/// Messages that bob's second device has not seen.
const THEN: usize = 18;
/// What the forger writes.
const FORGED: &str = "I never said so.";

/// A stopped node with a conversation of alice and bob, and bob's devices.
struct Aftermath {
    place: Place,
    conversation: ConversationId,
    /// The last seq.
    head: u64,
    /// Holds everything.
    all: Device,
    /// Holds entries up to here.
    part: Device,
    part_seq: u64,
}

impl Aftermath {
    async fn new() -> Self {
        let place = Place::new();
        let node = place.start();
        let [alice, all, part] = ["alice", "bob", "bob"].map(|user| Device::new(&place, user));
        let mut apps = (alice.open(&node).await, all.open(&node).await);
        let mut second = part.open(&node).await;
        let conversation = apps.0.client.direct_with("bob").await.unwrap().id();
        let part_seq = dialogue(&mut apps, conversation, 0..FIRST).await;
        second.has(conversation, part_seq).await;
        second.close().await;
        let head = dialogue(&mut apps, conversation, FIRST..FIRST + THEN).await;
        apps.1.has(conversation, head).await;
        apps.0.close().await;
        apps.1.close().await;
        node.stop().unwrap();
        Self { place, conversation, head, all, part, part_seq }
    }

    /// Rewrites the row of an entry, as the log itself would: all checksums are right.
    fn rewrite(&self, seq: u64, change: impl FnOnce(&mut StoredEntry)) {
        let log = RocksLog::open(self.place.log_dir(), &Options::default()).unwrap();
        let key = EntryKey { conversation: self.conversation, seq };
        let value = log.view().get(Family::Entries, &key.encode()).unwrap().unwrap();
        let mut entry = record::entry::decode(&key, value).unwrap();
        change(&mut entry);
        let mut batch = Batch::default();
        batch.put(Family::Entries, &key.encode(), record::entry::encode(&entry));
        assert_eq!(log.commit(&batch), CommitResult::Committed);
    }

    /// `talaria log verify` finds the entry.
    fn assert_verify_names(&self, seq: u64) {
        self.assert_verify_says(&format!("conversation {} seq {seq} ", self.conversation));
    }

    /// `talaria log verify` finds something.
    fn assert_verify_says(&self, what: &str) {
        let mut command = Command::new(program("talaria").unwrap());
        let output =
            command.args(["log", "verify", "--data-dir"]).arg(self.place.data_dir()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(what), "{said}");
    }

    /// A device is told of damage, and of nothing in this conversation afterwards; where it was noticed.
    async fn damage(&self, app: &mut App) -> u64 {
        let of_this = |event: &Event| matches!(event, Event::Damage { conversation, .. } if *conversation == self.conversation);
        let at = app.told("of damage", of_this).await;
        app.listen(Duration::from_millis(500)).await;
        let later =
            |event: &Event| matches!(event, Event::Entry(_) | Event::CaughtUp { .. } | Event::Rewound { .. });
        assert!(!app.seen[at..].iter().any(later), "shown after the damage: {:#?}", app.seen);
        let caught_up = |event: &Event| matches!(event, Event::CaughtUp { .. });
        assert!(!app.seen.iter().any(caught_up), "called whole: {:#?}", app.seen);
        assert_eq!(app.client.stats().chain_mismatches, 1);
        match app.seen[at] {
            Event::Damage { seq, kind: DamageKind::ChainMismatch, .. } => seq,
            ref other => panic!("another damage: {other:?}"),
        }
    }
}

/// Alice and bob speak in turn; the last seq.
async fn dialogue(
    (alice, bob): &mut (App, App),
    conversation: ConversationId,
    lines: std::ops::Range<usize>,
) -> u64 {
    let mut seq = 0;
    for line in lines {
        let (app, name) = if line % 2 == 0 { (&mut *alice, "alice") } else { (&mut *bob, "bob") };
        let conversation = app.client.conversation(conversation);
        seq = app.say(&conversation, &format!("Line {line}, by {name}.")).await;
    }
    seq
}

fn forge(entry: &mut StoredEntry) {
    let StoredBody::Kept { content, .. } = &mut entry.body else { panic!("an erased entry") };
    let said = Content::parse(content).unwrap();
    *content = Content { body: Body::Text(FORGED.to_owned()), ..said }.encode();
}

#[tokio::test]
async fn a_rewritten_message_is_reported_by_verify_and_by_devices() {
    let after = Aftermath::new().await;
    let forged = after.part_seq + 5;
    after.rewrite(forged, forge);
    after.assert_verify_names(forged);

    let node = after.place.start();
    let mut part = after.part.open(&node).await;
    // It is shown as it comes: only the end of the page tells what the chain should be. The report follows at once.
    assert_eq!(after.damage(&mut part).await, after.head);
    assert!(part.texts().contains(&FORGED), "{:?}", part.texts());
    part.close().await;

    // Who holds the original resumes behind it, and does not take the forgery for history.
    let mut all = after.all.open(&node).await;
    let caught_up = |event: &Event| matches!(event, Event::CaughtUp { .. });
    all.told("that it is caught up", caught_up).await;
    let conversation = all.client.conversation(after.conversation);
    let page = conversation.history(forged - 2, Direction::Forward, 10).await;
    assert!(matches!(page, Err(HistoryError::Mismatch(_))), "{page:?}");
    assert!(!all.texts().contains(&FORGED));
    all.close().await;
    node.stop().unwrap();
}

#[tokio::test]
async fn a_rewritten_chain_at_a_cursor_is_reported_by_verify_and_by_the_device() {
    let after = Aftermath::new().await;
    for (device, seq) in [(&after.all, after.head), (&after.part, after.part_seq)] {
        let mut chain = None;
        after.rewrite(seq, |entry| {
            chain = Some(entry.chain);
            entry.chain = Chain::new([7; 32]);
        });
        after.assert_verify_names(seq);
        let node = after.place.start();
        let mut app = device.open(&node).await;
        assert_eq!(after.damage(&mut app).await, seq);
        assert!(app.texts().is_empty(), "{:?}", app.texts());
        app.close().await;
        node.stop().unwrap();
        after.rewrite(seq, |entry| entry.chain = chain.unwrap());
    }
}

/// The log's files of a kind that hold something, ascending.
fn of_kind(place: &Place, kind: LogFileKind) -> Vec<LogFile> {
    let all = files(&place.log_dir()).unwrap();
    all.into_iter().filter(|file| file.kind == kind && file.len > 0).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Puts everything into tables; which of them hold entries, and the others.
fn tables(place: &Place) -> (Vec<LogFile>, Vec<LogFile>) {
    // From the properties at a table's end: the name of its family follows the end of its key.
    let has_entries =
        |file: &LogFile| std::fs::read(&file.path).is_ok_and(|bytes| find(&bytes, b"nameentries").is_some());
    let list = || of_kind(place, LogFileKind::Table).into_iter().partition::<Vec<_>, _>(has_entries);
    let log = RocksLog::open(place.log_dir(), &Options::default()).unwrap();
    log.flush().unwrap();
    // The end of a read lets RocksDB compact what it covered: once, and then not again in the node, where it would come
    // upon the damage before any reader, and end all writes.
    let before = list().0;
    drop(log.view());
    let deadline = Instant::now() + Duration::from_secs(3);
    while list().0.iter().any(|table| before.contains(table)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(log);
    list()
}

#[tokio::test]
async fn flips_in_all_tables_are_refused_with_the_file() {
    let after = Aftermath::new().await;
    let (entries, others) = tables(&after.place);
    assert!(entries.len() == 1 && others.len() >= 5, "{entries:?} {others:?}");
    entries.iter().chain(&others).for_each(|table| flip(&table.path, 8));
    let refusal = after.place.refusal();
    assert!(others.iter().any(|table| refusal.contains(&table.name)), "{refusal}");
}

#[tokio::test]
async fn a_flip_in_a_table_of_entries_is_never_served() {
    let after = Aftermath::new().await;
    let (entries, _) = tables(&after.place);
    flip(&entries[0].path, 8);
    after.assert_verify_says(&entries[0].name);

    let node = after.place.start();
    let fresh = Device::new(&after.place, "bob");
    for device in [&fresh, &after.part, &after.all] {
        let mut app = device.start(&node).await;
        let conversation = app.client.conversation(after.conversation);
        // The SDK asks again and again: the server says READ_FAILED, which may pass.
        let page = conversation.history(1, Direction::Forward, 100);
        assert!(tokio::time::timeout(Duration::from_millis(700), page).await.is_err());
        app.listen(Duration::from_millis(200)).await;
        let bad =
            |event: &Event| matches!(event, Event::Entry(_) | Event::CaughtUp { .. } | Event::Rewound { .. });
        assert!(!app.seen.iter().any(bad), "{:#?}", app.seen);
        app.close().await;
    }
    assert!(fresh.store().entries(after.conversation, 1, 100).unwrap().is_empty());
    node.stop().unwrap();
    let log = after.place.node_log();
    let met = |line: &str| line.contains("the log is damaged here") && line.contains(&entries[0].name);
    assert!(log.lines().any(met), "{log}");
}

/// The write-ahead log of a killed node, whole.
fn wal(place: &Place) -> (PathBuf, String, Vec<u8>) {
    let file = of_kind(place, LogFileKind::Wal).pop().unwrap();
    let bytes = std::fs::read(&file.path).unwrap();
    assert!(bytes.len() < 32 * 1024, "one block: each write is one record");
    (file.path, file.name, bytes)
}

/// Where the last write in it begins.
fn last_write(wal: &[u8]) -> usize {
    let (mut last, mut next) = (0, 0);
    while next < wal.len() {
        last = next;
        next += 7 + usize::from(u16::from_le_bytes([wal[next + 4], wal[next + 5]]));
    }
    last
}

#[tokio::test]
async fn a_flip_in_the_wal_is_refused_with_file_and_offset() {
    let place = Place::new();
    let node = place.start();
    let alice = Device::new(&place, "alice");
    let mut app = alice.open(&node).await;
    let bob = app.client.direct_with("bob").await.unwrap();
    for line in ["First words.", "Middle words.", "Last words."] {
        app.say(&bob, line).await;
    }
    node.kill().unwrap();
    app.close().await;

    let (path, name, bytes) = wal(&place);
    let at = find(&bytes, b"Middle words.").unwrap();
    assert!(at < last_write(&bytes));
    flip(&path, at);
    let refusal = place.refusal();
    for part in [&name, "offset", "backup"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    flip(&path, at);
    assert!(std::fs::read(&path).unwrap() == bytes, "nothing is changed by a refusal");
    drop(place.start());
}

/// Alice says something, both see it, and the node is killed; again, until that is the last thing it wrote.
async fn killed_after_last_words(
    place: &Place,
    mut node: Node,
    devices: [&Device; 2],
) -> (ConversationId, u64, String) {
    for attempt in 0..5 {
        let mut apps = (devices[0].open(&node).await, devices[1].open(&node).await);
        let bob = apps.0.client.direct_with("bob").await.unwrap();
        let before = dialogue(&mut apps, bob.id(), 0..3).await;
        apps.1.has(bob.id(), before).await;
        // Delivered cursors are written, too.
        apps.0.listen(Duration::from_millis(400)).await;
        let text = format!("Last words {attempt}.");
        let seq = apps.0.say(&bob, &text).await;
        apps.0.has(bob.id(), seq).await;
        apps.1.has(bob.id(), seq).await;
        node.kill().unwrap();
        apps.0.close().await;
        apps.1.close().await;
        let bytes = wal(place).2;
        if find(&bytes[last_write(&bytes)..], text.as_bytes()).is_some() {
            return (bob.id(), seq, text);
        }
        node = place.start();
    }
    panic!("the node always wrote something else before it was killed");
}

#[tokio::test]
async fn a_flip_in_the_last_write_after_a_kill_is_a_rewind_and_the_message_is_sent_again() {
    let place = Place::new();
    let node = place.start();
    let [alice, bob] = ["alice", "bob"].map(|user| Device::new(&place, user));
    let (id, lost, text) = killed_after_last_words(&place, node, [&alice, &bob]).await;
    let (path, _, bytes) = wal(&place);
    assert!(last_write(&bytes) < bytes.len() - 9);
    flip(&path, bytes.len() - 9);

    let node = place.start();
    let mut author = alice.open(&node).await;
    let rewound = |event: &Event| matches!(event, Event::Rewound { .. });
    let at = author.told("of the rewind", rewound).await;
    assert_eq!(author.seen[at], Event::Rewound { conversation: id, first_seq: lost, reoffered: 1 });
    author.has(id, lost).await;
    assert_eq!(author.texts(), [&text]);

    let mut reader = bob.open(&node).await;
    let at = reader.told("of the rewind", rewound).await;
    assert_eq!(reader.seen[at], Event::Rewound { conversation: id, first_seq: lost, reoffered: 0 });
    reader.has(id, lost).await;
    assert_eq!(reader.texts(), [&text]);
    author.close().await;
    reader.close().await;
    node.stop().unwrap();

    let entries = remains::read_log(&place.data_dir()).unwrap();
    let found = remains::log_verify(&program("talaria").unwrap(), &place.data_dir()).unwrap();
    assert_eq!(found, Vec::<String>::new());
    let digest = *blake3::hash(text.as_bytes()).as_bytes();
    assert_eq!(entries[&id].iter().filter(|logged| logged.digest == digest).count(), 1);
}
