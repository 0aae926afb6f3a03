//! The connection ids that a shard gives out: random, but drawn until they steer to the shard itself. Five random bytes and
//! a tag of three, which only this node can make: a packet for no connection is answered by a stateless reset only if the
//! tag is right, so garbage draws none. The ids of other shards are not ours either: all shards share the reset key,
//! and a reset for a packet that came to the wrong shard would end a connection that lives.

use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;

use super::Steering;

/// Length of an id.
pub const ID_BYTES: usize = 8;
/// Of it, the tag.
const TAG_BYTES: usize = 3;
const RANDOM_BYTES: usize = ID_BYTES - TAG_BYTES;

/// See the module. One for each endpoint.
pub struct SteeredIds {
    steering: Steering,
    shard: u16,
    tag_key: [u8; 32],
    random: blake3::OutputReader,
}

impl SteeredIds {
    /// Of one shard. `seed` is fresh for each endpoint.
    pub fn new(steering: Steering, shard: u16, tag_key: [u8; 32], seed: &[u8; 32]) -> Self {
        let random = blake3::Hasher::new_keyed(seed).finalize_xof();
        Self { steering, shard, tag_key, random }
    }

    fn tag(&self, random: &[u8]) -> [u8; TAG_BYTES] {
        let hash = blake3::keyed_hash(&self.tag_key, random);
        let [a, b, c, ..] = *hash.as_bytes();
        [a, b, c]
    }
}

impl ConnectionIdGenerator for SteeredIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        loop {
            self.random.fill(&mut id[..RANDOM_BYTES]);
            if self.steering.shard_of_id(&id) == self.shard {
                break;
            }
        }
        let tag = self.tag(&id[..RANDOM_BYTES]);
        id[RANDOM_BYTES..].copy_from_slice(&tag);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let ours = id.len() == ID_BYTES
            && self.steering.shard_of_id(id) == self.shard
            && id[RANDOM_BYTES..] == self.tag(&id[..RANDOM_BYTES]);
        if ours { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_steer_to_their_shard_and_only_it_takes_them() {
        let steering = Steering::new(0xdead_beef, 4);
        let ids = |shard: u16| SteeredIds::new(steering, shard, [7; 32], &[shard as u8; 32]);
        for shard in 0..4 {
            let mut own = ids(shard);
            for _ in 0..200 {
                let id = own.generate_cid();
                assert_eq!((id.len(), steering.shard_of_id(&id)), (own.cid_len(), shard));
                for other in 0..4 {
                    assert_eq!(ids(other).validate(&id).is_ok(), other == shard, "one shard answers for it");
                }
                let mut forged = [0; ID_BYTES];
                forged.copy_from_slice(&id);
                forged[ID_BYTES - 1] ^= 1;
                assert!(own.validate(&ConnectionId::new(&forged)).is_err(), "garbage draws no reset");
            }
        }
        let short = ConnectionId::new(&[1, 2, 3]);
        assert!(ids(0).validate(&short).is_err());
    }

    #[test]
    fn another_seed_gives_other_ids_and_the_key_outlives_it() {
        let steering = Steering::new(1, 2);
        let mut before = SteeredIds::new(steering, 1, [7; 32], &[1; 32]);
        let mut after = SteeredIds::new(steering, 1, [7; 32], &[2; 32]);
        let id = before.generate_cid();
        assert_ne!(id, after.generate_cid());
        assert!(after.validate(&id).is_ok(), "a restarted node knows the ids that it gave out");
    }
}
