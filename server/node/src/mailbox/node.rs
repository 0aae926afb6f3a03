//! The mailboxes of all shards of a node, and what must reach every shard whatever its queues hold: that a shard has begun
//! anew. That is a number per shard, which each looks at in every turn and at every message; it is never lost and never full.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use talaria_core::peer::{PeerMessage, ShardId};

use super::{Envelope, Mailbox};

/// See the module.
pub struct Mailboxes {
    boxes: Vec<Mailbox>,
    /// Which incarnation each shard is in.
    incarnations: Vec<AtomicU32>,
    /// A bit for each shard that drains and has nothing left to do.
    quiet: AtomicU64,
}

impl Mailboxes {
    /// Of this many shards.
    pub fn new(shards: u16) -> Self {
        Self {
            boxes: (0..shards).map(|_| Mailbox::default()).collect(),
            incarnations: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            quiet: AtomicU64::new(0),
        }
    }

    /// How many there are.
    pub fn shards(&self) -> u16 {
        self.boxes.len() as u16
    }

    /// A shard's.
    pub fn of(&self, shard: ShardId) -> &Mailbox {
        &self.boxes[usize::from(shard.0)]
    }

    /// Which incarnation a shard is in. A message that it posted in one is taken out only where this shows it already.
    pub fn incarnation(&self, shard: ShardId) -> u32 {
        self.incarnations[usize::from(shard.0)].load(Ordering::Acquire)
    }

    /// Tells all shards that this one has begun anew. Before it posts anything.
    pub fn begin_incarnation(&self, shard: ShardId, incarnation: u32) {
        self.incarnations[usize::from(shard.0)].store(incarnation, Ordering::Release);
        self.boxes.iter().for_each(Mailbox::wake);
    }

    /// Puts a message into a shard's mailbox.
    ///
    /// # Errors
    /// The message, when there is no place.
    pub fn post(
        &self,
        to: ShardId,
        envelope: Envelope<PeerMessage>,
    ) -> Result<(), Box<Envelope<PeerMessage>>> {
        let class = envelope.message.class();
        self.of(to).post(class, envelope)?;
        self.set_quiet(to, false);
        Ok(())
    }

    /// Tells these shards, a bit for each, that there is room in the mailbox of `at`.
    pub fn give_room(&self, at: ShardId, to: u64) {
        let told = (0..self.shards()).filter(|shard| to & (1 << shard) != 0);
        told.for_each(|shard| self.of(ShardId(shard)).give_room(at));
    }

    /// A draining shard has nothing left to do, or has again. It says so first and looks into its mailbox then, and a
    /// sender posts first and takes it back then: while all say so, nothing is on its way.
    pub fn set_quiet(&self, shard: ShardId, quiet: bool) {
        let bit = 1 << shard.0;
        if quiet {
            self.quiet.fetch_or(bit, Ordering::SeqCst);
        } else if self.quiet.load(Ordering::SeqCst) & bit != 0 {
            self.quiet.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// All shards have nothing left to do.
    pub fn all_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst).count_ones() == u32::from(self.shards())
    }
}
