//! A client that takes nothing: something has waited to be written to it for a whole period, in which it took next to
//! nothing. Pure.

use std::time::{Duration, Instant};

use crate::limits::STALL_BYTES_MIN;

/// See the module.
pub(crate) struct Stall {
    period: Duration,
    since: Option<Since>,
}

#[derive(Clone, Copy)]
struct Since {
    at: Instant,
    written: u64,
}

impl Stall {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, since: None }
    }

    /// Whether it has taken too little for too long: `waits` says that something waits now, `written` what it ever took.
    pub(crate) fn is_over(&mut self, now: Instant, waits: bool, written: u64) -> bool {
        if !waits {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(Since { at: now, written });
        if now < since.at + self.period {
            return false;
        }
        self.since = Some(Since { at: now, written });
        written - since.written < STALL_BYTES_MIN as u64
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since.at + self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_period_of_waiting_with_next_to_nothing_taken_is_a_stall() {
        let (mut now, period) = (Instant::now(), Duration::from_secs(60));
        let mut stall = Stall::new(period);
        assert!(!stall.is_over(now, true, 0));
        assert_eq!(stall.due(), Some(now + period));
        now += period;
        assert!(!stall.is_over(now, true, STALL_BYTES_MIN as u64), "it takes something");
        now += period - Duration::from_millis(1);
        assert!(!stall.is_over(now, false, STALL_BYTES_MIN as u64), "all is taken");
        now += period;
        assert!(!stall.is_over(now, true, STALL_BYTES_MIN as u64), "a new period");
        now += period;
        assert!(stall.is_over(now, true, STALL_BYTES_MIN as u64 + 1));
    }
}
