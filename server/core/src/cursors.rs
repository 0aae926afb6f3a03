//! Delivered cursors that are not in the log yet. The newest of each device stands for all before it; they are
//! committed together, a little late, since losing one costs a redelivery and nothing else.

use std::collections::BTreeMap;

use talaria_protocol::ids::{ConversationId, DeviceId, UserId};

use crate::{
    limits::{CURSOR_DELAY_MS_MAX, CURSORS_PER_OP_MAX},
    log::CursorWrite,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    dirty: BTreeMap<(ConversationId, UserId, DeviceId), (u64, u64)>,
    due_ms: Option<u64>,
}

impl Cursors {
    /// A device holds everything up to (epoch, seq).
    pub(crate) fn set(&mut self, write: &CursorWrite, now_ms: u64) {
        self.dirty.insert((write.conversation, write.user, write.device), (write.epoch, write.seq));
        self.due_ms.get_or_insert(now_ms + CURSOR_DELAY_MS_MAX);
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
            && let Some(((conversation, user, device), (epoch, seq))) = self.dirty.pop_first()
        {
            writes.push(CursorWrite { conversation, user, device, epoch, seq });
        }
        self.due_ms = (!self.dirty.is_empty()).then_some(now_ms);
        writes
    }

    /// The log has no room: try again a little later.
    pub(crate) fn postpone(&mut self, now_ms: u64) {
        self.due_ms = (!self.dirty.is_empty()).then_some(now_ms + CURSOR_DELAY_MS_MAX);
    }
}
