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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(conversation: u8, seq: u64) -> CursorWrite {
        let (user, device) = (UserId::new([1; 16]), DeviceId::from_parts(1, [1; 10]));
        CursorWrite { conversation: ConversationId::new([conversation; 16]), user, device, epoch: 1, seq }
    }

    #[test]
    fn the_newest_of_each_is_taken_when_due_and_known_until_it_settles() {
        let mut cursors = Cursors::default();
        for (conversation, seq) in [(1, 5), (2, 7), (1, 6)] {
            cursors.set(&write(conversation, seq), 1_000);
        }
        let key = (write(1, 0).conversation, write(1, 0).user, write(1, 0).device);
        assert_eq!((cursors.due_ms(), cursors.newest(&key)), (Some(1_100), 6));
        assert_eq!(cursors.take_due(1_099), []);
        let first = cursors.take_due(1_100);
        assert_eq!(first, [write(1, 6), write(2, 7)]);
        assert_eq!((cursors.due_ms(), cursors.newest(&key)), (None, 6));
        // A second write of one while the first is on its way.
        cursors.set(&write(1, 9), 1_200);
        let second = cursors.take_due(1_300);
        cursors.on_settled(&first);
        assert_eq!((cursors.newest(&key), cursors.len()), (9, 1));
        cursors.on_settled(&second);
        assert_eq!((cursors.newest(&key), cursors.len()), (0, 0));
    }

    #[test]
    fn many_are_taken_in_parts() {
        let mut cursors = Cursors::default();
        for number in 0..=CURSORS_PER_OP_MAX {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            cursors.set(&CursorWrite { conversation: ConversationId::new(id), ..write(0, 1) }, 0);
        }
        assert_eq!(cursors.take_due(100).len(), CURSORS_PER_OP_MAX);
        assert_eq!(cursors.due_ms(), Some(100));
        assert_eq!(cursors.take_due(100).len(), 1);
        assert_eq!(cursors.due_ms(), None);
    }
}
