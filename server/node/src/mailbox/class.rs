//! One queue of a mailbox: bounded, and it remembers who found it full. A shard that did is *starved* here until it is told
//! that there is room; no one waits.

use talaria_core::peer::ShardId;

use super::primitives::{Primitives, Queue, Word};

/// Something on its way from a shard.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<M> {
    /// Whose.
    pub from: ShardId,
    /// Which incarnation of it: an older one than the last known is stale.
    pub incarnation: u32,
    /// What.
    pub message: M,
}

/// See the module.
pub(super) struct Class<P: Primitives, M: Send> {
    queue: P::Queue<Box<Envelope<M>>>,
    /// A bit for each shard that found the queue full.
    starved: P::Word,
}

impl<P: Primitives, M: Send> Class<P, M> {
    /// With so many places.
    pub(super) fn new(places: usize) -> Self {
        Self { queue: P::Queue::new(places), starved: P::Word::default() }
    }

    /// Puts it in; full: gives it back, and its sender is starved.
    pub(super) fn push(&self, envelope: Envelope<M>) -> Result<(), Box<Envelope<M>>> {
        let Err(envelope) = self.queue.push(Box::new(envelope)) else { return Ok(()) };
        self.starved.set(1 << envelope.from.0);
        // The consumer may have taken all and looked for the starved before the bit was there. Then there is room now.
        self.queue.push(envelope)
    }

    /// The oldest.
    pub(super) fn pop(&self) -> Option<Envelope<M>> {
        self.queue.pop().map(|envelope| *envelope)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The shards that are to be told that there is room. To be called after taking something out.
    pub(super) fn take_starved(&self) -> u64 {
        // Nearly always none: a read leaves the line shared.
        if self.starved.load() == 0 { 0 } else { self.starved.swap(0) }
    }
}
