//! What the tests of a shard share. [`world`] is the shards of a node over a log in memory, with everything between them in
//! the hands of the test; it checks what must hold of every effect. [`device`] is a client, [`sim`] lets many of
//! them loose under faults, [`book`] keeps what happened, [`truth`] says what each should have seen, by brute force
//! from the log.

pub(crate) mod book;
pub(crate) mod cuts;
pub(crate) mod device;
pub(crate) mod mail;
pub(crate) mod requests;
pub(crate) mod sim;
pub(crate) mod truth;
pub(crate) mod world;

/// Randomness of a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In `0..n`; 0 when there is nothing to choose from.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.draw() % (n.max(1) as u64)) as usize
    }
    /// True `percent` times of 100.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.draw() as u8)
    }
}
