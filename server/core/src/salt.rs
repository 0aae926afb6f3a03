//! Salts from a seed: keyed BLAKE3 over a counter. The seed is the randomness; a seed gives one run.

use talaria_protocol::chain::Salt;

/// A source of salts.
#[derive(Debug)]
pub(crate) struct Salts {
    seed: [u8; 32],
    drawn: u64,
}

impl Salts {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    pub(crate) fn draw(&mut self) -> Salt {
        self.drawn += 1;
        let mut salt = [0; 16];
        salt.copy_from_slice(&blake3::keyed_hash(&self.seed, &self.drawn.to_be_bytes()).as_bytes()[..16]);
        salt
    }
}
