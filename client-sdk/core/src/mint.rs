//! Client message ids: from the server's time, each greater than the one before, on this device and over restarts.

use talaria_protocol::ids::ClientMessageId;

use crate::rng::Rng;

/// Makes ids.
#[derive(Debug)]
pub struct IdMint {
    last: Option<ClientMessageId>,
}

/// The twelve bits after the version count ids of one millisecond.
const COUNTER_MAX: u16 = 0x0fff;

impl IdMint {
    /// Goes on after the last id of an earlier run.
    pub fn new(last: Option<ClientMessageId>) -> Self {
        Self { last }
    }

    /// A new id of about `unix_ms`.
    pub fn mint(&mut self, unix_ms: u64, rng: &mut Rng) -> ClientMessageId {
        let mut random = rng.id_bytes();
        let mut ms = unix_ms;
        // Room to count up in the first half.
        let mut counter = u16::from_be_bytes([random[0], random[1]]) & (COUNTER_MAX >> 1);
        if let Some(last) = self.last.filter(|last| last.unix_ms() >= unix_ms) {
            let bytes = last.as_bytes();
            ms = last.unix_ms();
            counter = (u16::from_be_bytes([bytes[6], bytes[7]]) & COUNTER_MAX) + 1;
            if counter > COUNTER_MAX {
                (ms, counter) = (ms + 1, 0);
            }
        }
        random[..2].copy_from_slice(&counter.to_be_bytes());
        let id = ClientMessageId::from_parts(ms, random);
        self.last = Some(id);
        id
    }

    /// The last id was refused as one from the future: let the next go back to the server's time.
    pub fn forget_future(&mut self, unix_ms: u64) {
        if self.last.is_some_and(|last| last.unix_ms() > unix_ms) {
            self.last = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_within_a_millisecond_and_when_time_goes_back() {
        let (mut mint, mut rng) = (IdMint::new(None), Rng::new([5; 32]));
        let mut last = mint.mint(1_000, &mut rng);
        for n in 0..20_000u64 {
            let id = mint.mint(1_000 + n % 3 - 1, &mut rng);
            assert!(id > last, "{id} after {last}");
            assert_eq!(ClientMessageId::parse(id.as_bytes()).unwrap(), id);
            last = id;
        }
        assert!(last.unix_ms() < 1_020, "and stay near the time");
        let next = IdMint::new(Some(last)).mint(10, &mut rng);
        assert!(next > last, "over a restart too");
    }

    #[test]
    fn an_id_from_the_future_does_not_bind_the_next() {
        let (mut mint, mut rng) = (IdMint::new(None), Rng::new([5; 32]));
        mint.mint(9_000_000, &mut rng);
        mint.forget_future(1_000);
        assert_eq!(mint.mint(1_000, &mut rng).unix_ms(), 1_000);
    }
}
