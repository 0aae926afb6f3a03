//! One kind of damage a test: what is found, and where.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use talaria_core::log::{DeviceRow, LogOp, StoredBody, StoredEntry, UserRow, UserWrite};
use talaria_protocol::ids::BootId;

use super::*;
use crate::{
    Batch, Family, GroupCommit, MemoryLog, OpenSeeds,
    keys::{
        ClientIdKey, ConversationKey, CursorKey, DeviceKey, EntryKey, MemberByUserKey, MemberKey, UserKey,
    },
    open, record,
    testing::{FaultyLog, Scenario, conversation_id, device_id, message_id, user_id},
};

const ID: u8 = 3;

fn id() -> ConversationId {
    conversation_id(ID)
}

/// Three conversations of eight entries, with cursors, users and devices; the one in the middle is to be damaged.
fn log() -> MemoryLog {
    let log = MemoryLog::new();
    let seeds = OpenSeeds { boot_id: BootId::new([1; 16]), id_key_if_new: [2; 32], now_ms: 0 };
    let mut group = GroupCommit::new(open(&log, seeds).unwrap().commit);
    for number in [ID, 1, 2] {
        let mut chat = Scenario::new(number);
        group.push(chat.create());
        for n in 0..7u8 {
            if n == 4 {
                chat.new_epoch(200);
            }
            group.push(chat.message(n % 2, "hello"));
        }
        group.push(LogOp::Cursors(vec![chat.cursor(0)]));
        group.commit(&log);
    }
    let row = UserRow { tenant: String::new(), subject: "user0".to_owned(), last_device_number: 1 };
    let device = Some((device_id(0), DeviceRow { number: 1, first_seen_ms: 1 }));
    group.push(LogOp::User(UserWrite { user: user_id(0), row, device }));
    group.commit(&log);
    log
}

fn entry_key(seq: u64) -> EntryKey {
    EntryKey { conversation: id(), seq }
}

fn stored(log: &MemoryLog, seq: u64) -> StoredEntry {
    let value = log.view().get(Family::Entries, &entry_key(seq).encode()).unwrap().unwrap();
    record::entry::decode(&entry_key(seq), value).unwrap()
}

fn put_entry(batch: &mut Batch, seq: u64, entry: &StoredEntry) {
    batch.put(Family::Entries, &entry_key(seq).encode(), record::entry::encode(entry));
}

/// Verifies a log that was damaged, and returns the findings as lines.
fn findings(damage: impl FnOnce(&MemoryLog, &mut Batch)) -> Vec<String> {
    let log = log();
    assert!(verify(&log).unwrap().is_good(), "it is whole before: {}", verify(&log).unwrap());
    let mut batch = Batch::default();
    damage(&log, &mut batch);
    log.commit(&batch);
    let report = verify(&log).unwrap();
    assert_eq!((report.conversations, report.is_good()), (3, report.findings.is_empty()));
    assert!(report.findings.iter().all(|finding| finding.conversation.is_none_or(|found| found == id())));
    report.findings.iter().map(ToString::to_string).collect()
}

/// Exactly one finding, which says this of conversation and seq.
#[track_caller]
fn finds(seq: Option<u64>, what: &str, damage: impl FnOnce(&MemoryLog, &mut Batch)) {
    let found = findings(damage);
    let place =
        seq.map_or(format!("conversation {} ", id()), |seq| format!("conversation {} seq {seq} ", id()));
    assert!(found.len() == 1 && found[0].starts_with(&place) && found[0].contains(what), "{found:#?}");
}

#[test]
fn a_report_counts_and_prints() {
    let report = verify(&log()).unwrap();
    assert_eq!(report.to_string(), "ok: 3 conversations, 24 entries, 0 duplicates, 0 findings");
    let found = verify(&MemoryLog::new()).unwrap();
    assert!(
        found.to_string().contains("an empty log") && found.to_string().contains("DAMAGED: 0 conversations")
    );
}

#[test]
fn changed_entries() {
    finds(Some(4), "header, content or salt were changed", |log, batch| {
        let mut entry = stored(log, 4);
        let StoredBody::Kept { content, .. } = &mut entry.body else { panic!() };
        *content = Bytes::from_static(b"hellO");
        put_entry(batch, 4, &entry);
    });
    finds(Some(4), "header, content or salt were changed", |log, batch| {
        let mut entry = stored(log, 4);
        let StoredBody::Kept { salt, .. } = &mut entry.body else { panic!() };
        salt[0] ^= 1;
        put_entry(batch, 4, &entry);
    });
    finds(Some(8), "chain is not this entry's", |log, batch| {
        // A last entry replaced together with its own chain: only the heads still tell.
        let (mut entry, before) = (stored(log, 8), stored(log, 7).chain);
        let StoredBody::Kept { content, .. } = &mut entry.body else { panic!() };
        *content = Bytes::from_static(b"other");
        entry.chain = before.next(id(), 8, &entry.leaf());
        put_entry(batch, 8, &entry);
    });
    finds(Some(5), "not a record", |_, batch| {
        batch.put(Family::Entries, &entry_key(5).encode(), vec![0xff]);
    });
}

#[test]
fn an_entry_of_another_place() {
    let found = findings(|log, batch| put_entry(batch, 4, &stored(log, 5)));
    assert!(found.iter().any(|line| line.contains("seq 4 the header's seq is not the key's")), "{found:#?}");
}

#[test]
fn missing_entries_and_entries_beyond() {
    let found = findings(|_, batch| {
        batch.delete(Family::Entries, &entry_key(3).encode());
        batch.delete(Family::Entries, &entry_key(4).encode());
        batch.delete(Family::Entries, &entry_key(8).encode());
    });
    assert!(found.iter().any(|line| line.ends_with("seq 3 to 4 are missing")), "{found:#?}");
    assert!(found.iter().any(|line| line.ends_with("seq 8 is missing")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("seq 8 is what client_ids points to")), "{found:#?}");
    let found = findings(|log, batch| put_entry(batch, 9, &stored(log, 8)));
    assert!(found.len() == 1 && found[0].ends_with("seq 9 is beyond the head"), "{found:#?}");
}

#[test]
fn heads_that_are_not_the_last_entrys() {
    let change = |change: fn(&mut talaria_core::log::ConversationRow)| {
        findings(move |log, batch| {
            let mut row = crate::read::conversation(&*log.view(), id()).unwrap().unwrap();
            change(&mut row);
            let key = ConversationKey { conversation: id() }.encode();
            batch.put(Family::Conversations, &key, record::conversation::encode(&row.heads, row.commit));
        })
    };
    let all = |found: Vec<String>, what: &str| {
        assert!(!found.is_empty() && found.iter().any(|line| line.contains(what)), "{what}: {found:#?}");
    };
    all(change(|row| row.heads.ordinal -= 1), "head's ordinal 6 is not this entry's");
    all(change(|row| row.heads.hlc.0 += 1), "head's hlc is not this entry's");
    all(
        change(|row| row.heads.chain = talaria_protocol::chain::Chain::ZERO),
        "head's chain is not this entry's",
    );
    all(change(|row| row.heads.head = 9), "seq 9 is missing");
    all(change(|row| row.heads.head = 7), "seq 8 is beyond the head");
    all(
        change(|row| row.heads.epochs[1].first_seq = 7),
        "seq 6 has epoch 200, the conversation's list says Some(100)",
    );
    all(
        change(|row| row.heads.epochs[0].chain_before = row.heads.chain),
        "chain_before is not the chain before it",
    );
    all(change(|row| row.commit = 99), "was appended to in commit 99, after the last one");
}

#[test]
fn what_a_cut_left() {
    let cut = |change: fn(&mut talaria_core::log::Heads), rest: fn(&MemoryLog, &mut Batch)| {
        findings(move |log, batch| {
            let mut row = crate::read::conversation(&*log.view(), id()).unwrap().unwrap();
            let heads = &mut row.heads;
            (heads.first_seq, heads.first_chain) = (4, stored(log, 3).chain);
            change(heads);
            let key = ConversationKey { conversation: id() }.encode();
            batch.put(Family::Conversations, &key, record::conversation::encode(&row.heads, row.commit));
            batch.delete_range(Family::Entries, &entry_key(0).encode(), &entry_key(4).encode());
            rest(log, batch);
        })
    };
    assert_eq!(cut(|_| {}, |_, _| {}), [] as [String; 0]);
    let found = cut(|heads| heads.first_chain = heads.chain, |_, _| {});
    assert!(found.len() == 1 && found[0].contains("seq 4 is not what its chain was made of"), "{found:#?}");
    let found = cut(|_| {}, |log, batch| put_entry(batch, 3, &stored(log, 3)));
    assert!(found.len() == 1 && found[0].ends_with("seq 3 is below first_seq"), "{found:#?}");
    let found = cut(|_| {}, |_, batch| batch.delete(Family::Entries, &entry_key(4).encode()));
    assert!(found.iter().any(|line| line.ends_with("seq 4 is missing")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("seq 4 is what client_ids points to")), "{found:#?}");
}

#[test]
fn a_report_says_what_retention_took() {
    let log = log();
    let mut group = GroupCommit::new(4);
    let mut chat = Scenario::new(9);
    group.push(chat.create());
    (0..4).for_each(|_| group.push(chat.message(0, "hello")));
    group.push(chat.cut(4, 5));
    group.commit(&log);
    let report = verify(&log).unwrap().to_string();
    let expected = "ok: 4 conversations, 26 entries, 0 duplicates, 0 findings; retention took 3 entries of 1 conversations";
    assert_eq!(report, expected);
}

#[test]
fn stamps_that_go_back() {
    let log = log();
    let mut group = GroupCommit::new(4);
    let mut chat = Scenario::new(9);
    chat.now(1_900_000_000_000);
    group.push(chat.create());
    chat.heads.hlc = talaria_protocol::hlc::Hlc::default();
    group.push(chat.message(0, "hello"));
    group.commit(&log);
    let report = verify(&log).unwrap();
    assert!(report.findings.len() == 1 && report.to_string().contains("seq 2 has hlc"), "{report}");
}

#[test]
fn rows_of_ids() {
    let key = |user, number| ClientIdKey { conversation: id(), user: user_id(user), id: message_id(number) };
    finds(Some(2), "which client_ids does not have", |_, batch| {
        batch.delete(Family::ClientIds, &key(0, 1).encode());
    });
    let found = findings(|log, batch| {
        let mut accepted = crate::read::client_id(&*log.view(), &key(0, 1)).unwrap().unwrap();
        accepted.seq = 4;
        batch.put(Family::ClientIds, &key(0, 1).encode(), record::client_id::encode(&accepted));
    });
    assert!(
        found.iter().any(|line| line.contains("seq 2 has id") && line.contains("gives to seq 4")),
        "{found:#?}"
    );
    assert!(found.iter().any(|line| line.contains("seq 4 is what client_ids points to")), "{found:#?}");
}

#[test]
fn duplicates_are_counted_and_name_both() {
    let log = MemoryLog::new();
    let seeds = OpenSeeds { boot_id: BootId::new([1; 16]), id_key_if_new: [2; 32], now_ms: 0 };
    let mut group = GroupCommit::new(open(&log, seeds).unwrap().commit);
    let mut chat = Scenario::new(ID);
    group.push(chat.create());
    group.push(chat.message(0, "once"));
    chat.next_message_id(1);
    group.push(chat.message(1, "another's id is no duplicate"));
    chat.next_message_id(1);
    group.push(chat.message(0, "once"));
    group.commit(&log);
    let report = verify(&log).unwrap();
    assert_eq!((report.duplicates, report.findings.len()), (1, 1), "{report}");
    let line = report.findings[0].to_string();
    assert!(line.contains("seq 2 is a duplicate: seq 4 has the same sender and id"), "{line}");
}

#[test]
fn members_both_ways() {
    let member = MemberKey { conversation: id(), user: user_id(1) };
    let derived = MemberByUserKey { conversation: id(), user: user_id(1) };
    finds(None, "is not in members_by_user", |_, batch| {
        batch.delete(Family::MembersByUser, &derived.encode());
    });
    finds(None, "members has not", |_, batch| batch.delete(Family::Members, &member.encode()));
    finds(None, "sees entries beyond the head", |log, batch| {
        let mut row = crate::read::member(&*log.view(), &member).unwrap().unwrap();
        row.spans[0].to = Some(9);
        batch.put(Family::Members, &member.encode(), record::member::encode(&row));
    });
}

#[test]
fn cursors_devices_and_orphans() {
    let cursor = CursorKey { conversation: id(), user: user_id(0), device: device_id(0) };
    finds(Some(9), "is a cursor beyond the head", |_, batch| {
        batch.put(Family::Cursors, &cursor.encode(), record::cursor::encode(200, 9));
    });
    finds(Some(2), "has another epoch than a cursor there", |_, batch| {
        batch.put(Family::Cursors, &cursor.encode(), record::cursor::encode(200, 2));
    });
    let device = DeviceKey { user: user_id(0), device: device_id(9) };
    let put_device = |number: u32| {
        move |_: &MemoryLog, batch: &mut Batch| {
            let row = DeviceRow { number, first_seen_ms: 0 };
            batch.put(Family::Devices, &device.encode(), record::user::encode_device(&row));
        }
    };
    assert!(findings(put_device(2))[0].contains("number 2, which was not given out"));
    assert!(findings(put_device(1))[0].contains("number 1, as another device has"));
    let no_user = findings(|_, batch| batch.delete(Family::Users, &UserKey { user: user_id(0) }.encode()));
    assert!(no_user[0].contains("who is not there"), "{no_user:#?}");

    let log = log();
    let mut batch = Batch::default();
    batch.delete(Family::Conversations, &ConversationKey { conversation: id() }.encode());
    log.commit(&batch);
    let report = verify(&log).unwrap();
    for family in ["entries", "client_ids", "members", "cursors"] {
        let line = format!("conversation {} has {family}, but no heads", id());
        assert_eq!(
            report.findings.iter().filter(|finding| finding.to_string() == line).count(),
            1,
            "{report}"
        );
    }
}

#[test]
fn a_failed_read_is_a_finding_and_the_list_of_findings_is_bounded() {
    let log = FaultyLog::new(log());
    log.fail_next_reads(usize::MAX);
    assert!(verify(&log).is_err(), "without meta there is nothing to say");

    let log = self::log();
    let mut batch = Batch::default();
    for n in 0..2_000u64 {
        let user = talaria_protocol::ids::UserId::new(*blake(n).first_chunk().unwrap());
        batch.put(Family::MembersByUser, &MemberByUserKey { user, conversation: id() }.encode(), vec![]);
    }
    log.commit(&batch);
    let report = verify(&log).unwrap();
    assert_eq!((report.findings.len(), report.more), (FINDINGS_MAX, 1_000));
    assert!(report.to_string().contains("and 1000 more"));
}

fn blake(n: u64) -> [u8; 32] {
    *talaria_protocol::chain::Commitment::of(&[0; 16], &n.to_be_bytes()).as_bytes()
}
