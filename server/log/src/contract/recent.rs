//! Cases of the list by recency.

use std::cmp::Reverse;

use talaria_core::log::{LogOp, ReadAnswer, ReadOp};
use talaria_protocol::{hlc::Hlc, ids::ConversationId};

use super::{Make, domain::write};
use crate::{
    CommitLog, read,
    testing::{Scenario, user_id},
};

type Place = (Hlc, ConversationId);

/// One page: the places of its rows, and where the next begins.
fn page(
    log: &dyn CommitLog,
    user: u8,
    before: Option<Place>,
    rows_max: usize,
) -> (Vec<Place>, Option<Place>) {
    let op = ReadOp::RecentConversations { user: user_id(user), before, rows_max };
    match read(log, &op).unwrap() {
        ReadAnswer::RecentConversations { rows, next } => {
            (rows.iter().map(|row| (row.row.heads.hlc, row.conversation)).collect(), next)
        }
        other => panic!("{other:?}"),
    }
}

fn all_pages(log: &dyn CommitLog, user: u8, rows_max: usize) -> Vec<Place> {
    let (mut places, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let (rows, next) = page(log, user, before, rows_max);
        assert!(rows.len() == rows_max || next.is_none(), "a page is full, or the last");
        places.extend(rows);
        pages += 1;
        assert!(pages <= 100, "pages of {rows_max} come to an end");
        before = next;
        if next.is_none() {
            assert_eq!(pages, places.len().div_ceil(rows_max).max(1), "pages of {rows_max}");
            return places;
        }
    }
}

fn by_recency_of(chats: &[Scenario]) -> Vec<Place> {
    let mut places: Vec<Place> = chats.iter().map(|chat| (chat.heads.hlc, chat.conversation)).collect();
    places.sort_by_key(|(hlc, id)| (Reverse(*hlc), *id));
    places
}

pub(super) fn by_recency(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let mut chats: Vec<_> = (0..30).map(Scenario::new).collect();
    let mut ops: Vec<LogOp> = chats.iter_mut().map(Scenario::create).collect();
    // Entries in another order than ids, many with equal stamps.
    for n in 0..30usize {
        ops.push(chats[(n * 7) % 30].message(0, "x"));
    }
    chats.iter_mut().step_by(4).for_each(|chat| ops.push(chat.message(1, "y")));
    chats.iter_mut().step_by(5).for_each(|chat| ops.push(chat.message(1, "z")));
    write(log, ops);
    let expected = by_recency_of(&chats);
    assert!(expected.windows(2).any(|pair| pair[0].0 == pair[1].0), "there are equal stamps");
    for rows_max in [1, 2, 7, 29, 30, 31, 1_000] {
        assert_eq!(all_pages(log, 0, rows_max), expected, "pages of {rows_max}");
    }
    assert_eq!(all_pages(log, 2, 10), [], "of someone in none");
    let behind_all = (Hlc::default(), expected[0].1);
    assert_eq!(page(log, 0, Some(behind_all), 5), (vec![], None));
}

/// User 1 leaves some groups that go on without them.
pub(super) fn former_members(make: Make<'_>) {
    let log = make();
    let log = log.log();
    let mut groups: Vec<_> = (0..12).map(|number| Scenario::group(number, 3)).collect();
    let mut ops = Vec::new();
    let mut seen = Vec::new();
    for (n, group) in groups.iter_mut().enumerate() {
        ops.extend([group.create(), group.message(0, "a")]);
        (0..n).for_each(|_| ops.push(group.message(0, "b")));
        if n % 3 == 0 {
            ops.push(group.remove(1));
        }
        seen.push(group.clone());
        ops.extend([group.message(0, "c"), group.message(2, "d")]);
        if n % 3 != 0 {
            seen[n] = group.clone();
        }
        // Retention has taken all that user 1 saw of one of them.
        if n == 9 {
            let commit = ops.len() as u64;
            ops.push(group.cut(group.heads.head, commit));
            seen[n].heads.hlc = Hlc::default();
        }
    }
    write(log, ops);
    for rows_max in [1, 3, 12, 100] {
        assert_eq!(all_pages(log, 0, rows_max), by_recency_of(&groups));
        assert_eq!(all_pages(log, 1, rows_max), by_recency_of(&seen), "pages of {rows_max}");
    }
}
