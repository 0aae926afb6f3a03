//! The server's log went back: what is held beyond it is dropped, and own messages among that are offered again with
//! the same ids, so that whoever else has them still recognises them.

use std::collections::BTreeMap;

use talaria_protocol::{
    entry::{EntryForm, EntryHeader, EntryKind},
    ids::{ClientMessageId, ConversationId},
    session::Millis,
};

use super::{Effect, Engine, batch::After};
use crate::{
    event::{DamageKind, Event},
    outbox::Draft,
    store::{StoreError, StoredEntry},
    timeline::{Fork, Phase, Timeline},
};

/// Held entries read at a time.
const READ_ENTRIES: usize = 256;

/// A fork being dropped.
#[derive(Debug)]
pub(super) struct Rewind {
    fork: Fork,
    next: u64,
    reading: bool,
    lost: Vec<(ClientMessageId, Draft)>,
}

/// Rewinds by conversation.
pub(super) type Rewinds = BTreeMap<ConversationId, Rewind>;

impl Engine {
    pub(super) fn on_epoch_changed(&mut self, now: Millis, conversation: ConversationId, fork: Fork) {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        match timeline.handle_fork(fork) {
            Ok(dropped) => {
                self.consume_all(now, &dropped);
                self.gaps.remove(&conversation);
                // From the entry before: its chain must be the one that the server names.
                let next = fork.cursor.seq.max(1);
                self.rewinds.insert(conversation, Rewind { fork, next, reading: false, lost: Vec::new() });
            }
            Err(kind) => self.damage(now, conversation, kind),
        }
    }

    /// Reads what is to be dropped, once all that is applied is in the store.
    pub(super) fn read_for_rewinds(&mut self) {
        for (conversation, rewind) in &mut self.rewinds {
            let settled = self.timelines.get(conversation).is_some_and(Timeline::is_settled);
            if settled && !rewind.reading {
                rewind.reading = true;
                self.effects.push_back(Effect::Read {
                    conversation: *conversation,
                    from: rewind.next,
                    entries_max: READ_ENTRIES,
                });
            }
        }
    }

    /// Answers [`Effect::Read`].
    pub fn handle_read(
        &mut self,
        now: Millis,
        conversation: ConversationId,
        entries: Result<Vec<StoredEntry>, StoreError>,
    ) {
        match entries {
            Ok(entries) => self.on_read(now, conversation, &entries),
            Err(error) => self.stop(now, super::StopReason::StoreFailed(error.to_string())),
        }
        self.pump(now);
    }

    fn on_read(&mut self, now: Millis, conversation: ConversationId, entries: &[StoredEntry]) {
        let Some((user, device)) = self.welcome().map(|welcome| (welcome.user, welcome.device_number)) else {
            return;
        };
        let Some(rewind) = self.rewinds.get_mut(&conversation).filter(|rewind| rewind.reading) else {
            return;
        };
        rewind.reading = false;
        let Fork { first_seq, cursor } = rewind.fork;
        let before = entries.iter().find(|held| held.entry.seq == cursor.seq);
        if before.is_some_and(|held| held.chain != cursor.chain) {
            self.rewinds.remove(&conversation);
            return self.damage(now, conversation, DamageKind::BadFork);
        }
        for held in entries.iter().filter(|held| held.entry.seq >= first_seq) {
            let EntryForm::Full { header, content: Some(content), .. } = &held.entry.form else { continue };
            let Ok(header) = EntryHeader::parse(header) else { continue };
            if (header.sender, header.device, header.kind) == (user, device, EntryKind::Message) {
                let draft = Draft {
                    conversation,
                    content: content.clone(),
                    urgency: header.urgency,
                    expires_ms: header.expires_ms,
                    seen: 0,
                };
                rewind.lost.push((header.client_message_id, draft));
            }
        }
        match entries.last() {
            Some(last) if entries.len() == READ_ENTRIES => rewind.next = last.entry.seq + 1,
            _ => self.drop_fork(conversation),
        }
    }

    fn drop_fork(&mut self, conversation: ConversationId) {
        let Some(Rewind { fork, lost, .. }) = self.rewinds.remove(&conversation) else { return };
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        if timeline.phase() != Phase::Rewinding(fork) {
            return;
        }
        timeline.on_rewound(fork.cursor);
        self.stats.rewinds += 1;
        self.batches.rewind(conversation, fork.first_seq, fork.cursor);
        let reoffered = lost.len();
        let batch = self.batches.number();
        let put = self.outbox.on_fork(conversation, fork.first_seq, lost, batch);
        self.batches.put(put);
        self.batches.batch().next_local_id = Some(self.outbox.next_local_id());
        let event = Event::Rewound { conversation, first_seq: fork.first_seq, reoffered };
        self.batches.after(After::Tell(super::Told { event, cost: super::Cost::default() }));
        // One that is gone altogether is not asked for again, unless something is to be sent there.
        if fork.first_seq > 1 {
            self.to_resume.insert(conversation);
        }
    }
}
