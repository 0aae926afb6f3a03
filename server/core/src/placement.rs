//! Which shard of a node a slot belongs to. One shard today; every place that will have to ask is here already.

use talaria_protocol::ids::Slot;

/// The shard of a slot, of `shards` ones: slot mod shards.
pub fn shard_of(slot: Slot, shards: u16) -> u16 {
    slot.get() % shards.max(1)
}
