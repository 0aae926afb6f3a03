//! Cases of the domain: what operations write, reads answer.

use talaria_core::log::{
    DeviceRow, LogOp, Outcome, PageQuery, ReadAnswer, ReadOp, StoredEntry, UserRow, UserWrite,
};
use talaria_protocol::{
    chain::Chain,
    ids::{BootId, ConversationId},
    message::Direction,
};

use super::{Make, commit};
use crate::{
    Batch, CommitLog, Family, GroupCommit, OpenSeeds, ReadError,
    keys::EntryKey,
    open, read,
    testing::{Scenario, conversation_id, device_id, message_id, user_id},
    verify,
};

pub(super) fn seeds(number: u8) -> OpenSeeds {
    OpenSeeds { boot_id: BootId::new([number; 16]), id_key_if_new: [number; 32], now_ms: u64::from(number) }
}

/// Opens a new log and commits each operation on its own.
pub(super) fn write(log: &dyn CommitLog, ops: impl IntoIterator<Item = LogOp>) {
    let info = open(log, seeds(1)).unwrap();
    let mut group = GroupCommit::new(info.commit);
    for op in ops {
        group.push(op);
        assert!(matches!(group.commit(log)[..], [Outcome::Committed { .. }]));
    }
}

/// A direct conversation of so many entries, and all of them.
pub(super) fn chat(log: &dyn CommitLog, entries: u64) -> (Scenario, Vec<StoredEntry>) {
    let mut chat = Scenario::new(1);
    let mut ops = vec![chat.create()];
    for n in 1..entries {
        if n == entries / 2 {
            chat.new_epoch(200);
        }
        ops.push(chat.message((n % 2) as u8, &"m".repeat(n as usize)));
    }
    let stored = ops.iter().flat_map(|op| match op {
        LogOp::Append(append) => append.entries.clone(),
        _ => Vec::new(),
    });
    let stored = stored.collect();
    write(log, ops);
    (chat, stored)
}

pub(super) fn page(log: &dyn CommitLog, query: PageQuery) -> Result<(Chain, Vec<StoredEntry>), ReadError> {
    match read(log, &ReadOp::Page(query))? {
        ReadAnswer::Page { chain_before, entries } => Ok((chain_before, entries)),
        other => panic!("{other:?}"),
    }
}

pub(super) fn query(from: u64, direction: Direction, entries_max: usize) -> PageQuery {
    PageQuery { conversation: conversation_id(1), from, direction, entries_max, bytes_max: usize::MAX }
}

pub(super) fn boots_run_on(make: Make<'_>) {
    let mut log = make();
    let mut chat = Scenario::new(1);
    let info = open(log.log(), seeds(1)).unwrap();
    assert_eq!((info.commit, info.boots.len(), info.boots[0].first_commit), (0, 1, 1));
    let mut group = GroupCommit::new(info.commit);
    group.push(chat.create());
    assert_eq!(group.commit(log.log()), [Outcome::Committed { commit: 1 }]);
    group.push(chat.message(0, "a"));
    assert_eq!(group.commit(log.log()), [Outcome::Committed { commit: 2 }]);
    log.reopen();
    let info = open(log.log(), seeds(2)).unwrap();
    assert_eq!(info.id_key.as_bytes(), &[1; 32], "the deployment's key stays");
    assert_eq!((info.commit, info.boots.len(), info.boots[1].first_commit), (2, 2, 3));
    log.reopen();
    let info = open(log.log(), seeds(3)).unwrap();
    let firsts: Vec<_> = info.boots.iter().map(|boot| (boot.boot_id, boot.first_commit)).collect();
    assert_eq!(firsts, [1, 2, 3].map(|n| (BootId::new([n; 16]), if n == 1 { 1 } else { 3 })));
    let mut group = GroupCommit::new(info.commit);
    group.push(chat.message(0, "b"));
    assert_eq!(group.commit(log.log()), [Outcome::Committed { commit: 3 }]);
    let ReadAnswer::Conversation(Some((row, _))) =
        read(log.log(), &ReadOp::Conversation(chat.conversation)).unwrap()
    else {
        panic!("the conversation is there")
    };
    assert_eq!(row.commit, 3);
}

pub(super) fn operations_round_trip(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let mut group = Scenario::group(1, 3);
    let row = UserRow { tenant: "t".to_owned(), subject: "user0".to_owned(), last_device_number: 2 };
    let device = DeviceRow { number: 2, first_seen_ms: 5 };
    let user = UserWrite { user: user_id(0), row: row.clone(), device: Some((device_id(0), device)) };
    write(log, [LogOp::User(user), group.create(), group.message(0, "hello"), group.remove(2)]);
    let answer = read(log, &ReadOp::User { user: user_id(0), device: Some(device_id(0)) }).unwrap();
    assert_eq!(answer, ReadAnswer::User { row: Some(row), device: Some(device) });
    let answer = read(log, &ReadOp::User { user: user_id(1), device: Some(device_id(0)) }).unwrap();
    assert_eq!(answer, ReadAnswer::User { row: None, device: None });

    let answer = read(log, &ReadOp::Conversation(group.conversation)).unwrap();
    let ReadAnswer::Conversation(Some((row, members))) = answer else { panic!("{answer:?}") };
    assert_eq!((row.heads, row.commit), (group.heads.clone(), 4));
    let users: Vec<_> = members.iter().map(|(user, row)| (*user, row.is_member())).collect();
    assert_eq!(users, [(user_id(0), true), (user_id(1), true), (user_id(2), false)]);
    assert_eq!(members[2].1.head(99), 3, "the removed member sees the entry that removes them");
    let answer = read(log, &ReadOp::Conversation(conversation_id(9))).unwrap();
    assert_eq!(answer, ReadAnswer::Conversation(None));
}

pub(super) fn dedup_lookup(make: Make<'_>) {
    let log = make();
    let log = log.log();
    chat(log, 10);
    let dedup = |conversation, user, ids: &[u64]| {
        let ids = ids.iter().map(|&id| message_id(id)).collect();
        read(log, &ReadOp::Dedup { conversation, user: user_id(user), ids }).unwrap()
    };
    let ReadAnswer::Dedup { highest, found } = dedup(conversation_id(1), 0, &[8, 3, 99, 0]) else { panic!() };
    assert_eq!(
        highest,
        Some(message_id(8)),
        "user 0 sent entries 1, 3, 5, 7 and 9, their ids are 0, 2, 4, 6 and 8"
    );
    let found: Vec<_> = found.iter().map(|(id, accepted)| (*id, accepted.seq, accepted.digest[0])).collect();
    assert_eq!(found, [(message_id(8), 9, 9), (message_id(0), 1, 1)], "id 3 is another user's");
    let nothing = ReadAnswer::Dedup { highest: None, found: vec![] };
    assert_eq!(dedup(conversation_id(1), 2, &[0]), nothing);
    assert_eq!(dedup(conversation_id(0), 0, &[0]), nothing);
    assert_eq!(dedup(conversation_id(2), 0, &[0]), nothing);
}

pub(super) fn pages(make: Make<'_>) {
    const HEAD: u64 = 25;
    let log = make();
    let log = log.log();
    // Neighbours that a scan must not run into.
    let mut others = [Scenario::new(0), Scenario::new(2)];
    let (_, all) = chat(log, HEAD);
    let ops: Vec<_> = others.iter_mut().flat_map(|other| [other.create(), other.message(0, "x")]).collect();
    let mut group = GroupCommit::new(HEAD);
    ops.into_iter().for_each(|op| group.push(op));
    group.commit(log);
    let chain = |seq: u64| if seq == 0 { Chain::ZERO } else { all[seq as usize - 1].chain };
    for entries_max in [1, 2, 7, 24, 25, 26, 1_000] {
        for from in (0..=HEAD + 2).chain([u64::MAX]) {
            let (before, entries) = page(log, query(from, Direction::Forward, entries_max)).unwrap();
            let first = from.clamp(1, HEAD + 1);
            let expected: Vec<_> = all.iter().skip(first as usize - 1).take(entries_max).cloned().collect();
            assert_eq!((before, entries), (chain(first - 1), expected), "forward from {from}, {entries_max}");

            let (before, entries) = page(log, query(from, Direction::Backward, entries_max)).unwrap();
            let last = from.min(HEAD) as usize;
            let low = last.saturating_sub(entries_max);
            assert_eq!((before, &entries[..]), (chain(low as u64), &all[low..last]), "backward from {from}");
        }
    }
    let elsewhere = PageQuery { conversation: conversation_id(9), ..query(1, Direction::Forward, 5) };
    assert_eq!(page(log, elsewhere).unwrap(), (Chain::ZERO, vec![]));
}

pub(super) fn page_bytes(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let (_, all) = chat(log, 6);
    let size = |entry: &StoredEntry| match &entry.body {
        talaria_core::log::StoredBody::Kept { content, .. } => entry.header.len() + content.len(),
        talaria_core::log::StoredBody::Erased { .. } => entry.header.len(),
    };
    let two = size(&all[0]) + size(&all[1]);
    for (bytes_max, count) in [(1, 1), (size(&all[0]), 1), (size(&all[0]) + 1, 2), (two, 2), (two + 1, 3)] {
        let query = PageQuery { bytes_max, ..query(1, Direction::Forward, 100) };
        assert_eq!(page(log, query).unwrap().1.len(), count, "{bytes_max} bytes");
    }
    let query = PageQuery { bytes_max: size(&all[5]) + 1, ..query(6, Direction::Backward, 100) };
    assert_eq!(page(log, query).unwrap().1, all[4..]);
}

pub(super) fn missing_entry(make: Make<'_>) {
    for gap in [1, 4, 8] {
        let log = make();
        let log = log.log();
        let (chat, _) = chat(log, 8);
        let mut batch = Batch::default();
        batch.delete(Family::Entries, &EntryKey { conversation: chat.conversation, seq: gap }.encode());
        commit(log, &batch);
        let missing = ReadError::MissingEntry { conversation: chat.conversation, seq: gap, head: 8 };
        for (from, direction) in [(1, Direction::Forward), (8, Direction::Backward)] {
            assert_eq!(page(log, query(from, direction, 100)).unwrap_err(), missing);
        }
        let point = ReadOp::ResumePoint {
            conversation: chat.conversation,
            seq: gap,
            user: user_id(0),
            device: device_id(0),
        };
        assert_eq!(read(log, &point).unwrap_err(), missing);
        let report = verify(log).unwrap();
        assert!(
            !report.is_good() && report.findings.iter().any(|finding| finding.seq == Some(gap)),
            "{report}"
        );
    }
}

pub(super) fn bad_value(make: Make<'_>) {
    let log = make();
    let log = log.log();
    chat(log, 4);
    let mut batch = Batch::default();
    let key = EntryKey { conversation: conversation_id(1), seq: 3 }.encode();
    batch.put(Family::Entries, &key, b"\x0a\x01x".to_vec());
    commit(log, &batch);
    let error = page(log, query(1, Direction::Forward, 10)).unwrap_err();
    assert!(matches!(error, ReadError::Record(_)), "{error}");
    assert!(error.to_string().contains("in entries at key"), "{error}");
    assert_eq!(page(log, query(1, Direction::Forward, 2)).unwrap().1.len(), 2, "what is good is served");
}

pub(super) fn resume_points(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let (chat, all) = chat(log, 8);
    let mut group = GroupCommit::new(8);
    group.push(LogOp::Cursors(vec![chat.cursor(1)]));
    group.commit(log);
    let point = |seq, user, device| {
        let op = ReadOp::ResumePoint { conversation: conversation_id(1), seq, user, device };
        match read(log, &op).unwrap() {
            ReadAnswer::ResumePoint { at, delivered } => (at, delivered),
            other => panic!("{other:?}"),
        }
    };
    for seq in 1..=8u64 {
        let epoch = if seq < 5 { 100 } else { 200 };
        let at = Some((all[seq as usize - 1].chain, epoch));
        assert_eq!(point(seq, user_id(1), device_id(1)), (at, Some((200, 8))));
    }
    assert_eq!(point(0, user_id(0), device_id(0)), (None, None));
    assert_eq!(point(9, user_id(1), device_id(0)), (None, None));
}

pub(super) fn user_conversations(make: Make<'_>) {
    const COUNT: u8 = 40;
    let log = make();
    let log = log.log();
    let mut chats: Vec<_> = (0..COUNT).map(Scenario::new).collect();
    // Commit n + 1 creates conversation n; every fourth one changes later.
    let mut ops: Vec<_> = chats.iter_mut().map(Scenario::create).collect();
    ops.extend(chats.iter_mut().step_by(4).map(|chat| chat.message(0, "x")));
    write(log, ops);
    let all_pages = |user, since_commit, rows_max| {
        let (mut found, mut after, mut pages): (Vec<ConversationId>, _, usize) = (Vec::new(), None, 0);
        loop {
            let op = ReadOp::UserConversations { user: user_id(user), after, since_commit, rows_max };
            let answer = read(log, &op).unwrap();
            let ReadAnswer::UserConversations { commit, rows, next } = answer else { panic!("{answer:?}") };
            assert_eq!(commit, 50);
            assert!(rows.len() <= rows_max);
            for row in rows {
                assert!(row.row.commit > since_commit && row.member.is_member());
                let peer = 1 - user;
                assert_eq!(row.peer, Some((user_id(peer), format!("user{peer}"))));
                found.push(row.conversation);
            }
            pages += 1;
            if next.is_none() {
                return (found, pages);
            }
            after = next;
        }
    };
    for rows_max in [1, 3, 40, 41, 1_000] {
        for (since, count) in [(0, 40), (20, 25), (40, 10), (49, 1), (50, 0)] {
            let (mut found, pages) = all_pages(0, since, rows_max);
            assert_eq!(found.len(), count, "since {since}");
            assert!(found.is_sorted_by_key(|id| (id.slot(), *id)), "in the order of keys");
            found.dedup();
            assert_eq!(found.len(), count, "each once");
            assert!(pages <= 40 / rows_max + 40 / (rows_max * 8) + 2, "{pages} pages of {rows_max}");
        }
    }
    assert_eq!(all_pages(1, 49, 10).0, [conversation_id(36)]);
    assert_eq!(all_pages(2, 0, 10).0, []);
}

pub(super) fn verifies(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let (mut chat, mut group) = (Scenario::new(1), Scenario::group(2, 3));
    let mut ops = vec![chat.create(), group.create(), chat.message(0, "a"), group.remove(1)];
    chat.new_epoch(300);
    ops.extend([chat.message(1, "b"), LogOp::Cursors(vec![chat.cursor(0)])]);
    write(log, ops);
    let report = verify(log).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.conversations, report.entries, report.duplicates), (2, 5, 0));
}
