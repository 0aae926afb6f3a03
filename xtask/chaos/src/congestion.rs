//! How a TCP sender slows down, as far as a proxy can play it: a window that halves at a loss and grows by a segment a
//! round trip (Reno), doubling before the first loss. Real senders (CUBIC, BBR) recover faster on long fat lines; at the
//! windows that a lossy line leaves they are close to this.

use std::time::Duration;

/// Bytes of a segment.
pub(crate) const SEGMENT_BYTES: usize = 1_460;
/// A loss that no later segments betray is noticed after a round trip and this: the least timeout of Linux.
pub(crate) const TIMEOUT_MIN: Duration = Duration::from_millis(200);
/// So many later segments betray a loss within a round trip.
pub(crate) const SEGMENTS_TO_NOTICE: usize = 3;
/// The window at first, segments.
const INITIAL: usize = 10;
/// It is never less, segments.
const LEAST: usize = 2;
/// It is never more, bytes: a receiver's window.
const MOST_BYTES: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: f64,
    threshold: f64,
    /// Losses until then belong to the one that was answered already.
    answered_until: Duration,
}

impl Congestion {
    pub(crate) fn new() -> Self {
        Self {
            window: (INITIAL * SEGMENT_BYTES) as f64,
            threshold: f64::INFINITY,
            answered_until: Duration::ZERO,
        }
    }

    /// Bytes that may be under way.
    pub(crate) fn window(&self) -> usize {
        self.window as usize
    }

    /// Bytes were acknowledged while the window was in use.
    pub(crate) fn on_acknowledged(&mut self, bytes: usize) {
        let segment = SEGMENT_BYTES as f64;
        let gain =
            if self.window < self.threshold { bytes as f64 } else { segment * bytes as f64 / self.window };
        self.window = (self.window + gain).min(MOST_BYTES as f64);
    }

    /// A segment was lost; `timeout`: nothing betrayed it.
    pub(crate) fn on_loss(&mut self, now: Duration, round_trip: Duration, timeout: bool) {
        if now < self.answered_until {
            return;
        }
        self.answered_until = now + round_trip;
        let least = (LEAST * SEGMENT_BYTES) as f64;
        self.threshold = (self.window / 2.0).max(least);
        self.window = if timeout { least } else { self.threshold };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_halves_once_a_round_trip_and_it_grows_again() {
        let rtt = Duration::from_millis(50);
        let mut congestion = Congestion::new();
        congestion.on_acknowledged(10 * SEGMENT_BYTES);
        assert_eq!(congestion.window(), 20 * SEGMENT_BYTES, "doubles at first");
        congestion.on_loss(rtt, rtt, false);
        congestion.on_loss(rtt, rtt, false);
        assert_eq!(congestion.window(), 10 * SEGMENT_BYTES);
        congestion.on_acknowledged(10 * SEGMENT_BYTES);
        assert_eq!(congestion.window(), 11 * SEGMENT_BYTES, "a segment a round trip");
        congestion.on_loss(3 * rtt, rtt, true);
        assert_eq!(congestion.window(), LEAST * SEGMENT_BYTES);
    }
}
