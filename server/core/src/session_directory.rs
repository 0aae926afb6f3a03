//! Which shards hold sessions of whom, for all shards of a node, read without locks. A slot stands for all users who hash
//! into it, so what is read may name a shard too many, never one too few: a shard enters its session here first, and only
//! then asks for what changed.

use std::sync::atomic::{AtomicU64, Ordering};

use talaria_protocol::ids::UserId;

use crate::{limits::SESSION_DIRECTORY_SLOTS, peer::ShardId};

/// See the module. One for a node.
#[derive(Debug)]
pub struct SessionDirectory {
    /// A bit for each shard.
    slots: Box<[AtomicU64]>,
}

impl Default for SessionDirectory {
    fn default() -> Self {
        Self { slots: (0..SESSION_DIRECTORY_SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl SessionDirectory {
    /// A bit for each shard that may hold a session of the user.
    pub fn shards_of(&self, user: UserId) -> u64 {
        self.slots[slot_of(user)].load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, slot: usize, shard: ShardId, present: bool) {
        let bit = 1 << shard.0;
        if present {
            self.slots[slot].fetch_or(bit, Ordering::SeqCst);
        } else {
            self.slots[slot].fetch_and(!bit, Ordering::SeqCst);
        }
    }
}

/// A user's place. Ids are hashes: their first bytes are as good as any.
pub(crate) fn slot_of(user: UserId) -> usize {
    let bytes = user.as_bytes();
    let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    number as usize % SESSION_DIRECTORY_SLOTS
}

/// What one shard has entered.
#[derive(Debug)]
pub(crate) struct Presence {
    directory: std::sync::Arc<SessionDirectory>,
    shard: ShardId,
    counts: Vec<u32>,
}

impl Presence {
    /// Of a shard that holds no session: what an earlier incarnation of it entered is taken out.
    pub(crate) fn new(directory: std::sync::Arc<SessionDirectory>, shard: ShardId) -> Self {
        for slot in 0..SESSION_DIRECTORY_SLOTS {
            if directory.slots[slot].load(Ordering::Relaxed) & (1 << shard.0) != 0 {
                directory.set(slot, shard, false);
            }
        }
        Self { directory, shard, counts: vec![0; SESSION_DIRECTORY_SLOTS] }
    }

    /// One more session of the user.
    pub(crate) fn enter(&mut self, user: UserId) {
        let slot = slot_of(user);
        self.counts[slot] += 1;
        if self.counts[slot] == 1 {
            self.directory.set(slot, self.shard, true);
        }
    }

    /// One less.
    pub(crate) fn leave(&mut self, user: UserId) {
        let slot = slot_of(user);
        self.counts[slot] -= 1;
        if self.counts[slot] == 0 {
            self.directory.set(slot, self.shard, false);
        }
    }

    /// All shards' view.
    pub(crate) fn directory(&self) -> &SessionDirectory {
        &self.directory
    }
}
