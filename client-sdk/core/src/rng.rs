//! Randomness from a seed: for jitter and the random part of ids, neither of which is a secret.

use std::time::Duration;

/// xoshiro256**. Equal seeds give equal runs.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// From a seed that the driver draws from the system.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        if state == [0; 4] {
            state = [1, 2, 3, 4];
        }
        let mut rng = Self(state);
        // Let a seed of few bits spread.
        for _ in 0..16 {
            rng.next_u64();
        }
        rng
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let Self(s) = self;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Ten bytes, for an id.
    pub fn id_bytes(&mut self) -> [u8; 10] {
        let (a, b) = (self.next_u64().to_be_bytes(), self.next_u64().to_be_bytes());
        [a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1]]
    }

    /// Anywhere from nothing to `max`.
    pub fn below(&mut self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.next_u64() % (micros + 1))
    }
}
