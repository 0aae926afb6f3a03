//! A store in memory: for tests, bots and apps that keep nothing over a restart.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use talaria_protocol::{
    ids::{ClientMessageId, ConversationId},
    message::{Cursor, SyncToken},
};

use super::{ConversationWrite, Loaded, LocalId, OutboxItem, Store, StoreBatch, StoreError, StoredEntry};

#[derive(Debug)]
struct Held {
    cursor: Cursor,
    entries: BTreeMap<u64, StoredEntry>,
}

#[derive(Debug, Default)]
struct State {
    conversations: HashMap<ConversationId, Held>,
    outbox: BTreeMap<LocalId, OutboxItem>,
    sync_token: Option<SyncToken>,
    last_minted: Option<ClientMessageId>,
    next_local_id: Option<u64>,
}

/// Keeps everything in memory, as long as it lives: a client that is restarted with the same one resumes.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave a batch half applied: nothing below can panic between two changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(state: &mut State, write: &ConversationWrite) {
    let held = state
        .conversations
        .entry(write.conversation)
        .or_insert_with(|| Held { cursor: Cursor::START, entries: BTreeMap::new() });
    if let Some(from) = write.drop_from {
        held.entries.split_off(&from);
    }
    for entry in &write.entries {
        held.entries.insert(entry.entry.seq, entry.clone());
    }
    held.cursor = write.cursor;
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let state = self.state();
        let mut outbox: Vec<_> = state.outbox.values().cloned().collect();
        outbox.sort_by_key(|item| item.order);
        Ok(Loaded {
            cursors: state.conversations.iter().map(|(id, held)| (*id, held.cursor)).collect(),
            outbox,
            sync_token: state.sync_token,
            last_minted: state.last_minted,
            next_local_id: state.next_local_id,
        })
    }

    fn commit(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        let mut state = self.state();
        for conversation in &batch.conversations {
            write(&mut state, conversation);
        }
        for item in &batch.outbox_put {
            state.outbox.insert(item.local_id, item.clone());
        }
        for id in &batch.outbox_remove {
            state.outbox.remove(id);
        }
        state.sync_token = batch.sync_token.or(state.sync_token);
        state.last_minted = batch.last_minted.or(state.last_minted);
        state.next_local_id = batch.next_local_id.or(state.next_local_id);
        Ok(())
    }

    fn entries(
        &self,
        conversation: ConversationId,
        from: u64,
        entries_max: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let state = self.state();
        let held = state.conversations.get(&conversation);
        Ok(held
            .map(|held| {
                held.entries.range(from..).take(entries_max).map(|(_, entry)| entry.clone()).collect()
            })
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        super::super::contract::check(MemoryStore::new);
    }
}
