//! Which shard of a node a slot belongs to: the home of its conversations and users.

use talaria_protocol::ids::Slot;

/// The shard of a slot, of `shards` ones: slot mod shards.
pub fn shard_of(slot: Slot, shards: u16) -> u16 {
    slot.get() % shards.max(1)
}
