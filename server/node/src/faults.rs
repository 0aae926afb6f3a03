//! Faults that whoever holds the [`crate::NodeHandle`] brings about, so that tests can show what a panic does. Nothing that
//! a client or a configuration says comes here.

use std::sync::atomic::{AtomicU64, Ordering};

use talaria_core::peer::ShardId;

/// Bits of shards.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    cores: AtomicU64,
    sessions: AtomicU64,
}

impl Faults {
    /// The shard's core panics at its next input, which it has taken in and whose effects are lost.
    pub(crate) fn panic_core(&self, shard: ShardId) {
        self.cores.fetch_or(1 << shard.0, Ordering::SeqCst);
    }

    /// The task of the next session of this shard that receives something panics.
    pub(crate) fn panic_session(&self, shard: ShardId) {
        self.sessions.fetch_or(1 << shard.0, Ordering::SeqCst);
    }

    /// A panic of the core is due.
    pub(crate) fn has_core(&self, shard: ShardId) -> bool {
        self.cores.load(Ordering::Relaxed) & (1 << shard.0) != 0
    }

    /// The same, and no more.
    pub(crate) fn take_core(&self, shard: ShardId) -> bool {
        self.has_core(shard) && take(&self.cores, shard)
    }

    /// A panic of a session is due, and no more.
    pub(crate) fn take_session(&self, shard: ShardId) -> bool {
        self.sessions.load(Ordering::Relaxed) & (1 << shard.0) != 0 && take(&self.sessions, shard)
    }
}

fn take(bits: &AtomicU64, shard: ShardId) -> bool {
    bits.fetch_and(!(1 << shard.0), Ordering::SeqCst) & (1 << shard.0) != 0
}
