//! QUIC packets to the thread that has their connection. Every shard has a UDP socket of its own on one address; which of
//! them gets a datagram is decided by the connection id in it, not by the client's address, so that a phone that changes
//! its network keeps its connection. One rule, [`Steering`], is applied three times: by a program in the kernel
//! ([`program`]), by the ids that a shard gives out ([`ids`]), and by the safety net ([`net`]) for what the kernel put
//! elsewhere. Why so: spec/adr/0011-steering.md.
//!
//! Never here: what is inside a packet beyond its first ten bytes.

pub mod group;
pub mod ids;
pub mod keys;
pub mod net;
pub mod program;

/// Where the first four bytes of the connection id are in a packet with a long header: after the first byte, the version
/// and the id's length.
const LONG_ID_OFFSET: usize = 6;
/// The same with a short header: after the first byte.
const SHORT_ID_OFFSET: usize = 1;
/// In the first byte of a long header.
const LONG_HEADER: u8 = 0x80;
/// What a multiplication mixes best is in its upper half.
const SHIFT: u32 = 16;

/// Which shard a datagram is for: the first four bytes of its connection id, times a secret odd number, the upper half,
/// modulo the number of shards. A secret, so that nobody can choose ids that all go to one shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    multiplier: u32,
    shards: u16,
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl Steering {
    /// Among so many shards, at least one.
    pub fn new(secret: u32, shards: u16) -> Self {
        Self { multiplier: secret | 1, shards: shards.max(1) }
    }

    /// Of how many.
    pub fn shards(self) -> u16 {
        self.shards
    }

    /// The shard of a datagram. One that is too short to have an id goes to shard 0, as in the kernel.
    pub fn shard_of(self, datagram: &[u8]) -> u16 {
        let Some(first) = datagram.first() else { return 0 };
        let offset = if first & LONG_HEADER != 0 { LONG_ID_OFFSET } else { SHORT_ID_OFFSET };
        datagram.get(offset..).map_or(0, |rest| self.shard_of_id(rest))
    }

    /// The shard of a connection id.
    pub fn shard_of_id(self, id: &[u8]) -> u16 {
        let Some(word) = id.first_chunk::<4>() else { return 0 };
        let mixed = u32::from_be_bytes(*word).wrapping_mul(self.multiplier) >> SHIFT;
        (mixed % u32::from(self.shards)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_spread_over_the_shards_and_both_headers_agree() {
        let steering = Steering::new(0x9e37_79b9, 4);
        let mut counts = [0u32; 4];
        for number in 0..40_000u32 {
            let id = blake3::hash(&number.to_be_bytes());
            let id = &id.as_bytes()[..8];
            let shard = steering.shard_of_id(id);
            counts[usize::from(shard)] += 1;
            let short: Vec<u8> = [&[0x40][..], id, &[0; 20]].concat();
            let long: Vec<u8> = [&[0xc0, 0, 0, 0, 1, 8][..], id, &[0; 20]].concat();
            assert_eq!((steering.shard_of(&short), steering.shard_of(&long)), (shard, shard));
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn what_is_too_short_goes_to_the_first() {
        let steering = Steering::new(u32::MAX, 7);
        for datagram in [&[][..], &[0x40], &[0x40, 1, 2, 3], &[0xc0, 0, 0, 0, 1, 8, 1, 2, 3]] {
            assert_eq!(steering.shard_of(datagram), 0);
        }
    }
}
