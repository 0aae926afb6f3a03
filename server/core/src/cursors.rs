//! Delivered cursors that are not in the log yet. The newest of each device stands for all before it; they are
//! committed together, a little late, since losing one costs a redelivery and nothing else.

use std::collections::BTreeMap;

use talaria_protocol::ids::{ConversationId, DeviceId, UserId};

use crate::{
    limits::{CURSOR_DELAY_MS_MAX, CURSORS_PER_OP_MAX},
    log::CursorWrite,
};

type Key = (ConversationId, UserId, DeviceId);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    dirty: BTreeMap<Key, (u64, u64)>,
    /// On their way to the log: seqs.
    writing: BTreeMap<Key, u64>,
    due_ms: Option<u64>,
}

impl Cursors {
    /// A device holds everything up to (epoch, seq): more than it is known to hold.
    pub(crate) fn set(&mut self, write: &CursorWrite, now_ms: u64) {
        self.dirty.insert((write.conversation, write.user, write.device), (write.epoch, write.seq));
        self.due_ms.get_or_insert(now_ms + CURSOR_DELAY_MS_MAX);
    }

    /// The seq that is not in the log yet, or that a read begun now may not see; 0: none.
    pub(crate) fn newest(&self, key: &Key) -> u64 {
        let dirty = self.dirty.get(key).map(|(_, seq)| *seq);
        dirty.or_else(|| self.writing.get(key).copied()).unwrap_or(0)
    }

    /// How many are not in the log yet.
    pub(crate) fn len(&self) -> usize {
        self.dirty.len() + self.writing.len()
    }

    /// When they are to be committed, mono ms.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// What is to be committed now; nothing before its time.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<CursorWrite> {
        if self.due_ms.is_none_or(|due| now_ms < due) {
            return Vec::new();
        }
        let mut writes = Vec::new();
        while writes.len() < CURSORS_PER_OP_MAX
            && let Some((key, (epoch, seq))) = self.dirty.pop_first()
        {
            self.writing.insert(key, seq);
            let (conversation, user, device) = key;
            writes.push(CursorWrite { conversation, user, device, epoch, seq });
        }
        self.due_ms = (!self.dirty.is_empty()).then_some(now_ms);
        writes
    }

    /// A commit of these has ended, well or not.
    pub(crate) fn on_settled(&mut self, writes: &[CursorWrite]) {
        for write in writes {
            let key = (write.conversation, write.user, write.device);
            if self.writing.get(&key) == Some(&write.seq) {
                self.writing.remove(&key);
            }
        }
    }

    /// The log has no room: try again a little later.
    pub(crate) fn postpone(&mut self, now_ms: u64) {
        self.due_ms = (!self.dirty.is_empty()).then_some(now_ms + CURSOR_DELAY_MS_MAX);
    }
}
