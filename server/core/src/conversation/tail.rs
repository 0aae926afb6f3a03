//! The last durable entries of a conversation, for those who lag a little. Bounded in entries and bytes.

use std::collections::VecDeque;

use crate::{
    limits::{TAIL_BYTES_MAX, TAIL_ENTRIES_MAX},
    log::{StoredBody, StoredEntry},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<StoredEntry>,
    bytes: usize,
}

fn bytes_of(entry: &StoredEntry) -> usize {
    let content = match &entry.body {
        StoredBody::Kept { content, .. } => content.len(),
        StoredBody::Erased { .. } => 0,
    };
    content + entry.header.len()
}

impl Tail {
    /// Adds the next entry; the oldest go when it is full.
    pub(super) fn push(&mut self, entry: StoredEntry) {
        self.bytes += bytes_of(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > TAIL_ENTRIES_MAX || self.bytes > TAIL_BYTES_MAX {
            if let Some(gone) = self.entries.pop_front() {
                self.bytes -= bytes_of(&gone);
            }
        }
    }

    /// The entry of this seq, if it is still here.
    pub(super) fn get(&self, seq: u64) -> Option<&StoredEntry> {
        let first = self.entries.front()?.seq;
        self.entries.get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }
}
