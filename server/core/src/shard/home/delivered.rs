//! How far each device is, as it has acknowledged. A device may have two sessions, on different shards, so its home alone
//! can see to it that the cursor never goes back ([DLV-23]). Of a device that it does not know it asks the log first.

use std::collections::HashMap;

use talaria_protocol::ids::{ConversationId, DeviceId, UserId};

use crate::{
    limits::DELIVERED_KNOWN_MAX,
    log::{CursorWrite, Heads, LogOp, ReadAnswer, ReadOp},
    peer::{Ack, AskId, Asking},
    question::Question,
    shard::{
        Shard,
        under_way::{DeliveredRead, OpTarget, ReadTarget},
    },
};

type Device = (UserId, DeviceId);

/// Delivered cursors of a conversation in memory, as far as they are known: seqs.
#[derive(Debug, Default)]
pub(super) struct Delivered(HashMap<Device, u64>);

impl Delivered {
    /// A device is known to be at least here.
    pub(super) fn learn(&mut self, device: Device, seq: u64) -> u64 {
        if self.0.len() >= DELIVERED_KNOWN_MAX && !self.0.contains_key(&device) {
            self.0.clear();
        }
        let known = self.0.entry(device).or_default();
        *known = seq.max(*known);
        *known
    }

    fn get(&self, device: Device) -> Option<u64> {
        self.0.get(&device).copied()
    }
}

/// A durable cursor counts where the log has its entry still, or had it before that was cut off.
pub(super) fn valid(heads: &Heads, delivered: Option<(u64, u64)>) -> u64 {
    delivered
        .filter(|(_, seq)| *seq <= heads.head)
        .filter(|(epoch, seq)| *seq < heads.first_seq || heads.epoch_at(*seq) == *epoch)
        .map_or(0, |(_, seq)| seq)
}

impl Shard {
    pub(in crate::shard) fn on_acks(&mut self, acks: &[Ack]) {
        for Ack { conversation, user, device, up_to } in acks.iter().copied() {
            let shard = self.config.shard;
            let asking = Asking { shard, ask: AskId(0), user, device, device_number: 0 };
            self.ask_here(asking, conversation, Question::Ack(up_to));
        }
    }

    /// Where there is no reader for it, the acknowledgement is dropped: it costs a redelivery.
    pub(super) fn run_ack(&mut self, asking: Asking, id: ConversationId, up_to: u64) {
        let Asking { user, device, .. } = asking;
        let newest = self.home.cursors.newest(&(id, user, device));
        let Some(loaded) = self.loaded(id) else { return };
        if loaded.conversation.member(user).is_none() {
            return;
        }
        if let Some(known) = loaded.delivered.get((user, device)) {
            if up_to > known {
                self.set_delivered(id, (user, device), up_to);
            }
        } else if up_to > newest && self.under_way.can_read() {
            let what = ReadOp::ResumePoint { conversation: id, seq: up_to, user, device };
            let why = DeliveredRead { conversation: id, user, device, up_to, newest };
            self.read(what, ReadTarget::Delivered(why));
        }
    }

    pub(in crate::shard) fn on_delivered_read(&mut self, read: &DeliveredRead, answer: &ReadAnswer) {
        let ReadAnswer::ResumePoint { delivered, .. } = *answer else { return };
        let DeliveredRead { conversation: id, user, device, up_to, newest } = *read;
        let Some(loaded) = self.loaded(id) else { return };
        let durable = valid(loaded.conversation.heads(), delivered);
        if up_to > loaded.delivered.learn((user, device), durable.max(newest)) {
            self.set_delivered(id, (user, device), up_to);
        }
    }

    /// Moves a device's cursor, which is known to be below.
    pub(super) fn set_delivered(&mut self, id: ConversationId, (user, device): Device, seq: u64) {
        let Some(loaded) = self.loaded(id) else { return };
        loaded.delivered.learn((user, device), seq);
        let epoch = loaded.conversation.epoch_at(seq);
        self.home.cursors.set(&CursorWrite { conversation: id, user, device, epoch, seq }, self.now.mono_ms);
    }

    pub(in crate::shard) fn commit_due_cursors(&mut self) {
        let now_ms = self.now.mono_ms;
        loop {
            if self.home.cursors.due_ms().is_some_and(|due| due <= now_ms)
                && !self.under_way.has_reserved_room()
            {
                return self.home.cursors.postpone(now_ms);
            }
            let writes = self.home.cursors.take_due(now_ms);
            if writes.is_empty() {
                return;
            }
            self.log(LogOp::Cursors(writes.clone()), OpTarget::Cursors(writes));
        }
    }
}
