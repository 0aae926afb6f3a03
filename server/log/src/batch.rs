//! What one commit writes: rows to set or delete, all or none of them. [`encode_op`] turns an operation of the domain
//! into rows; [`seal`] adds the commit's number and must come last, once.

use talaria_core::log::{Append, CursorWrite, Cut, LogOp, UserWrite};

use crate::{
    keys::{
        ClientIdKey, ConversationKey, CursorKey, DeviceKey, EntryKey, Family, MemberByUserKey, MemberKey,
        MetaKey, UserKey,
    },
    record,
};

/// One step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a row.
    Put {
        /// Where.
        family: Family,
        /// Its key.
        key: Vec<u8>,
        /// What it holds from now on.
        value: Vec<u8>,
    },
    /// Deletes a row, if it is there.
    Delete {
        /// Where.
        family: Family,
        /// Its key.
        key: Vec<u8>,
    },
    /// Deletes all rows whose keys are in `start..end`.
    DeleteRange {
        /// Where.
        family: Family,
        /// The least key, included.
        start: Vec<u8>,
        /// The end, excluded; not below `start`.
        end: Vec<u8>,
    },
}

/// Rows that are written together, one step after the other: the last one that concerns a key wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.writes.push(Write::Put { family, key: key.to_vec(), value });
    }
    /// Deletes a row, if it is there.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.bytes += key.len();
        self.writes.push(Write::Delete { family, key: key.to_vec() });
    }
    /// Deletes all rows with keys in `start..end`, at a cost that does not depend on their number.
    ///
    /// # Panics
    /// The end is below the start.
    pub fn delete_range(&mut self, family: Family, start: &[u8], end: &[u8]) {
        assert!(start <= end, "a range ends after it begins");
        self.bytes += start.len() + end.len();
        self.writes.push(Write::DeleteRange { family, start: start.to_vec(), end: end.to_vec() });
    }
    /// In the order they were added.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }
    /// Keys and values together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Adds the rows of an operation that will be part of commit `commit`.
///
/// # Panics
/// An append whose entries are not dense or do not end at its head: the domain guarantees both.
pub fn encode_op(op: &LogOp, commit: u64, batch: &mut Batch) {
    match op {
        LogOp::Append(append) => encode_append(append, commit, batch),
        LogOp::User(write) => encode_user(write, batch),
        LogOp::Cut(cut) => encode_cut(cut, batch),
        LogOp::Cursors(cursors) => cursors.iter().for_each(|cursor| encode_cursor(cursor, batch)),
    }
}

/// Adds the number of the commit.
pub fn seal(commit: u64, batch: &mut Batch) {
    batch.put(Family::Meta, MetaKey::Commit.encode(), record::meta::encode_commit(commit));
}

fn encode_append(append: &Append, commit: u64, batch: &mut Batch) {
    let conversation = append.conversation;
    let last = append.entries.last().map(|entry| entry.seq);
    assert_eq!(last, Some(append.heads.head), "an append ends at its head");
    assert!(append.entries.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "an append is dense");
    for entry in &append.entries {
        let key = EntryKey { conversation, seq: entry.seq };
        batch.put(Family::Entries, &key.encode(), record::entry::encode(entry));
    }
    let heads = record::conversation::encode(&append.heads, commit);
    batch.put(Family::Conversations, &ConversationKey { conversation }.encode(), heads);
    for (user, id, accepted) in &append.accepted {
        let key = ClientIdKey { conversation, user: *user, id: *id };
        batch.put(Family::ClientIds, &key.encode(), record::client_id::encode(accepted));
    }
    for (user, row) in &append.members {
        let key = MemberKey { conversation, user: *user };
        batch.put(Family::Members, &key.encode(), record::member::encode(row));
        let derived = MemberByUserKey { user: *user, conversation };
        batch.put(Family::MembersByUser, &derived.encode(), Vec::new());
    }
}

/// The row and its entries go together; rows of ids stay, so that a retry of what was cut is still recognised. The
/// number of this commit is not in the row: a cut is no news for anyone who synchronises.
fn encode_cut(cut: &Cut, batch: &mut Batch) {
    let conversation = cut.conversation;
    let key = |seq| EntryKey { conversation, seq }.encode();
    let row = record::conversation::encode(&cut.row.heads, cut.row.commit);
    batch.put(Family::Conversations, &ConversationKey { conversation }.encode(), row);
    batch.delete_range(Family::Entries, &key(0), &key(cut.row.heads.first_seq));
}

fn encode_user(write: &UserWrite, batch: &mut Batch) {
    let user = write.user;
    batch.put(Family::Users, &UserKey { user }.encode(), record::user::encode(&write.row));
    if let Some((device, row)) = &write.device {
        let key = DeviceKey { user, device: *device };
        batch.put(Family::Devices, &key.encode(), record::user::encode_device(row));
    }
}

fn encode_cursor(cursor: &CursorWrite, batch: &mut Batch) {
    let key = CursorKey { conversation: cursor.conversation, user: cursor.user, device: cursor.device };
    batch.put(Family::Cursors, &key.encode(), record::cursor::encode(cursor.epoch, cursor.seq));
}
