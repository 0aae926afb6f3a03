//! A user's conversations by recency. No row anywhere says the order: it would have to be written for every member of
//! every message. So each page scans all conversations of the user, and keeps no more of them than the page holds.
//! Time is linear in the user's conversations, memory is not.

use std::{cmp::Reverse, collections::BinaryHeap};

use talaria_core::log::{ConversationRow, MemberRow, ReadAnswer};
use talaria_protocol::{
    hlc::Hlc,
    ids::{ConversationId, UserId},
};

use super::{conversation, entry, member, scan, user_conversation};
use crate::{
    commit_log::{Scan, View, Visit},
    error::ReadError,
    keys::{EntryKey, Family, MemberByUserKey, MemberKey},
    record,
};

/// A conversation's place in the list: the greatest stamp first, among equal ones the least id.
type Place = (Reverse<Hlc>, ConversationId);

/// Those of the places after `before` that come first, at most `rows_max`.
struct First {
    before: Option<Place>,
    rows_max: usize,
    /// The last of them on top.
    places: BinaryHeap<Place>,
    /// Others come after them.
    more: bool,
}

impl First {
    /// A place here or later does not come into the page.
    fn ends_before(&mut self, place: Place) -> bool {
        let full = self.places.len() >= self.rows_max && self.places.peek().is_none_or(|last| *last < place);
        self.more |= full;
        full
    }

    fn add(&mut self, place: Place) {
        if self.before.is_some_and(|before| place <= before) {
            return;
        }
        self.places.push(place);
        if self.places.len() > self.rows_max {
            self.places.pop();
            self.more = true;
        }
    }
}

pub(super) fn read_recent(
    view: &dyn View,
    user: UserId,
    before: Option<(Hlc, ConversationId)>,
    rows_max: usize,
) -> Result<ReadAnswer, ReadError> {
    let before = before.map(|(hlc, id)| (Reverse(hlc), id));
    let mut first = First { before, rows_max, places: BinaryHeap::new(), more: false };
    scan(view, Family::MembersByUser, &Scan::prefix(&MemberByUserKey::prefix(user)), |key, _| {
        let id = MemberByUserKey::decode(key)?.conversation;
        let row = present(id, conversation(view, id)?)?;
        // Who left has no later stamp than who stayed: most rows of members need not be read.
        if !first.ends_before((Reverse(row.heads.hlc), id)) {
            let member = present(id, member(view, &MemberKey { conversation: id, user })?)?;
            first.add((Reverse(visible_hlc(view, id, &row, &member)?), id));
        }
        Ok::<_, ReadError>(Visit::Continue(()))
    })?;
    let more = first.more;
    let places = first.places.into_sorted_vec();
    let next = places.last().filter(|_| more).map(|(Reverse(hlc), id)| (*hlc, *id));
    let mut rows = Vec::with_capacity(places.len());
    for (_, id) in places {
        rows.extend(user_conversation(view, user, id, 0)?);
    }
    Ok(ReadAnswer::RecentConversations { rows, next })
}

fn present<T>(conversation: ConversationId, found: Option<T>) -> Result<T, ReadError> {
    let what = || "a row is missing, yet members_by_user has it".to_owned();
    found.ok_or_else(|| ReadError::Inconsistent { conversation, what: what() })
}

/// The stamp of the last entry that a user may know of: of who left, it does not show what came later. 0 when retention
/// has taken that entry.
pub(super) fn visible_hlc(
    view: &dyn View,
    id: ConversationId,
    row: &ConversationRow,
    member: &MemberRow,
) -> Result<Hlc, ReadError> {
    let heads = &row.heads;
    let seq = member.head(heads.head);
    if seq == heads.head {
        return Ok(heads.hlc);
    }
    if seq < heads.first_seq {
        return Ok(Hlc::default());
    }
    let key = EntryKey { conversation: id, seq };
    let missing = ReadError::MissingEntry { conversation: id, seq, head: heads.head };
    let entry = entry(view, &key)?.ok_or(missing)?;
    Ok(record::entry::header(&key, &entry.header)?.hlc)
}
