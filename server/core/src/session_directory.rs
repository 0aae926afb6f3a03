//! Which shards hold sessions of whom, for all shards of a node, read without locks. A slot stands for all users who hash
//! into it, so what is read may name a shard too many, never one too few: a shard enters its session here first, and only
//! then asks for what changed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use talaria_protocol::ids::UserId;

use crate::{
    limits::{SESSION_DIRECTORY_SLOTS, SHARDS_MAX},
    peer::ShardId,
};

/// See the module. One for a node. It also tells a shard that begins which incarnations the others have.
#[derive(Debug)]
pub struct SessionDirectory {
    /// A bit for each shard.
    slots: Box<[AtomicU64]>,
    incarnations: [AtomicU32; SHARDS_MAX as usize],
}

impl Default for SessionDirectory {
    fn default() -> Self {
        Self::with_slots(SESSION_DIRECTORY_SLOTS)
    }
}

impl SessionDirectory {
    /// With fewer slots than [`SESSION_DIRECTORY_SLOTS`], for a node of few users.
    pub fn with_slots(slots: usize) -> Self {
        Self {
            slots: (0..slots.max(1)).map(|_| AtomicU64::new(0)).collect(),
            incarnations: [const { AtomicU32::new(0) }; SHARDS_MAX as usize],
        }
    }

    /// A bit for each shard that may hold a session of the user.
    pub fn shards_of(&self, user: UserId) -> u64 {
        self.slots[self.slot_of(user)].load(Ordering::SeqCst)
    }

    /// A user's place. Ids are hashes: their first bytes are as good as any.
    fn slot_of(&self, user: UserId) -> usize {
        let bytes = user.as_bytes();
        let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        number as usize % self.slots.len()
    }

    /// How often a shard has begun, as far as it has said so.
    pub(crate) fn incarnation(&self, shard: ShardId) -> u32 {
        self.incarnations[usize::from(shard.0)].load(Ordering::SeqCst)
    }

    fn set(&self, slot: usize, shard: ShardId, present: bool) {
        let bit = 1 << shard.0;
        if present {
            self.slots[slot].fetch_or(bit, Ordering::SeqCst);
        } else {
            self.slots[slot].fetch_and(!bit, Ordering::SeqCst);
        }
    }
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
    pub(crate) fn new(directory: std::sync::Arc<SessionDirectory>, shard: ShardId, incarnation: u32) -> Self {
        directory.incarnations[usize::from(shard.0)].store(incarnation, Ordering::SeqCst);
        let slots = directory.slots.len();
        for slot in 0..slots {
            if directory.slots[slot].load(Ordering::Relaxed) & (1 << shard.0) != 0 {
                directory.set(slot, shard, false);
            }
        }
        Self { directory, shard, counts: vec![0; slots] }
    }

    /// One more session of the user.
    pub(crate) fn enter(&mut self, user: UserId) {
        let slot = self.directory.slot_of(user);
        self.counts[slot] += 1;
        if self.counts[slot] == 1 {
            self.directory.set(slot, self.shard, true);
        }
    }

    /// One less.
    pub(crate) fn leave(&mut self, user: UserId) {
        let slot = self.directory.slot_of(user);
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
