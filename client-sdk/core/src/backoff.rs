//! When to connect again: full jitter under a doubling cap, never before the server asked for.

use std::time::Duration;

use crate::rng::Rng;

/// The first cap.
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// The greatest cap.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A session that lasted this long proves that the server is well: the next wait starts over.
pub const STABLE_AFTER: Duration = Duration::from_secs(2);

/// Waits between attempts.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: anywhere under `base * 2^attempts`, plus what the server asked for (0: nothing), which is
    /// spread by up to a half so that its clients do not come back at once.
    pub fn next_delay(&mut self, at_least_ms: u32, rng: &mut Rng) -> Duration {
        let cap = BACKOFF_BASE.saturating_mul(1 << self.attempts.min(16)).min(BACKOFF_MAX);
        self.attempts = self.attempts.saturating_add(1);
        let jitter = rng.below(cap);
        let asked = Duration::from_millis(at_least_ms.into());
        asked + rng.below(asked / 2) + if asked.is_zero() { jitter } else { jitter.min(BACKOFF_BASE) }
    }

    /// A session lasted: start over.
    pub fn on_stable(&mut self) {
        self.attempts = 0;
    }
}

/// When to repeat a request that was answered with `retry_after_ms`: no earlier, and spread by up to a half.
pub fn retry_delay(retry_after_ms: u32, rng: &mut Rng) -> Duration {
    let asked =
        Duration::from_millis(u64::from(retry_after_ms)).max(Duration::from_millis(20)).min(BACKOFF_MAX);
    asked + rng.below(asked / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_spread_under_a_doubling_cap_and_start_over() {
        let (mut backoff, mut rng) = (Backoff::default(), Rng::new([1; 32]));
        let mut longest = Duration::ZERO;
        for attempt in 0..40u32 {
            let cap = BACKOFF_BASE.saturating_mul(1 << attempt.min(10)).min(BACKOFF_MAX);
            let delay = backoff.next_delay(0, &mut rng);
            assert!(delay <= cap, "attempt {attempt}: {delay:?}");
            longest = longest.max(delay);
        }
        assert!(longest > BACKOFF_MAX / 2, "the jitter is full");
        backoff.on_stable();
        assert!(backoff.next_delay(0, &mut rng) <= BACKOFF_BASE);
    }

    #[test]
    fn never_comes_back_before_it_was_asked_to() {
        let mut rng = Rng::new([2; 32]);
        for _ in 0..100 {
            for asked in [5, 600] {
                let delay = Backoff::default().next_delay(asked * 1_000, &mut rng);
                let asked = Duration::from_secs(asked.into());
                assert!((asked..asked * 8 / 5).contains(&delay), "{delay:?}");
            }
            let delay = retry_delay(100, &mut rng);
            assert!((Duration::from_millis(100)..=Duration::from_millis(150)).contains(&delay), "{delay:?}");
        }
    }
}
