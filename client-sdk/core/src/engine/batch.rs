//! What goes to the store next, and what may happen once it is there. One batch is with the store at a time; the
//! next grows meanwhile, so a slow store makes larger batches, not longer queues.

use std::collections::BTreeMap;

use talaria_protocol::{ids::ConversationId, message::Cursor};

use super::{Effect, Told};
use crate::store::{ConversationWrite, LocalId, OutboxItem, StoreBatch, StoredEntry};

/// Released by a commit.
#[derive(Debug)]
pub(super) enum After {
    Tell(Told),
    Do(Effect),
}

#[derive(Debug, Default)]
struct Building {
    batch: StoreBatch,
    writes: BTreeMap<ConversationId, ConversationWrite>,
    after: Vec<After>,
}

#[derive(Debug)]
struct WithStore {
    number: u64,
    cursors: Vec<(ConversationId, Cursor)>,
    after: Vec<After>,
}

/// A batch that the store has committed.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) number: u64,
    pub(super) cursors: Vec<(ConversationId, Cursor)>,
    pub(super) after: Vec<After>,
}

/// The batch being built, and the one with the store.
#[derive(Debug)]
pub(super) struct Batches {
    number: u64,
    building: Building,
    with_store: Option<WithStore>,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self { number: 1, building: Building::default(), with_store: None }
    }

    /// Number of the batch being built.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The parts of the batch being built that are single values.
    pub(super) fn batch(&mut self) -> &mut StoreBatch {
        &mut self.building.batch
    }

    fn write(&mut self, conversation: ConversationId, cursor: Cursor) -> &mut ConversationWrite {
        self.building.writes.entry(conversation).or_insert_with(|| ConversationWrite {
            conversation,
            drop_from: None,
            entries: Vec::new(),
            cursor,
        })
    }

    pub(super) fn append(&mut self, conversation: ConversationId, entry: StoredEntry, cursor: Cursor) {
        let write = self.write(conversation, cursor);
        write.entries.push(entry);
        write.cursor = cursor;
    }

    pub(super) fn advance(&mut self, conversation: ConversationId, cursor: Cursor) {
        self.write(conversation, cursor).cursor = cursor;
    }

    /// The conversation has nothing in the batch being built.
    pub(super) fn rewind(&mut self, conversation: ConversationId, first_seq: u64, cursor: Cursor) {
        let write = self.write(conversation, cursor);
        write.drop_from = Some(first_seq);
        write.cursor = cursor;
    }

    pub(super) fn put(&mut self, items: impl IntoIterator<Item = OutboxItem>) {
        for item in items {
            let puts = &mut self.building.batch.outbox_put;
            match puts.iter_mut().find(|put| put.local_id == item.local_id) {
                Some(put) => *put = item,
                None => puts.push(item),
            }
        }
    }

    pub(super) fn remove(&mut self, local_id: LocalId) {
        self.building.batch.outbox_put.retain(|put| put.local_id != local_id);
        self.building.batch.outbox_remove.push(local_id);
    }

    /// Once the batch being built is committed.
    pub(super) fn after(&mut self, after: After) {
        self.building.after.push(after);
    }

    /// After everything that waits for the store; given back when nothing does.
    pub(super) fn behind(&mut self, after: After) -> Option<After> {
        if !self.is_building_empty() {
            self.building.after.push(after);
        } else if let Some(with_store) = &mut self.with_store {
            with_store.after.push(after);
        } else {
            return Some(after);
        }
        None
    }

    fn is_building_empty(&self) -> bool {
        self.building.batch.is_empty() && self.building.writes.is_empty() && self.building.after.is_empty()
    }

    /// Nothing is with the store, nor to be.
    pub(super) fn is_idle(&self) -> bool {
        self.with_store.is_none() && self.is_building_empty()
    }

    /// The batch for the store, if it is its turn.
    pub(super) fn start(&mut self) -> Option<StoreBatch> {
        if self.with_store.is_some() || self.is_building_empty() {
            return None;
        }
        let Building { mut batch, writes, after } = std::mem::take(&mut self.building);
        batch.number = self.number;
        batch.conversations = writes.into_values().collect();
        let cursors = batch.conversations.iter().map(|write| (write.conversation, write.cursor)).collect();
        self.with_store = Some(WithStore { number: self.number, cursors, after });
        self.number += 1;
        Some(batch)
    }

    /// The store has it.
    pub(super) fn on_committed(&mut self) -> Option<Committed> {
        let WithStore { number, cursors, after } = self.with_store.take()?;
        Some(Committed { number, cursors, after })
    }
}
