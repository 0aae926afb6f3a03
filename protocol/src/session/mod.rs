//! The session machines of both ends, without I/O: [`server`] and [`client`]. Payloads of frames and the time flow
//! in by `handle_*`; whole frames, events and the next deadline flow out by `poll_*`. spec/session.md.
//!
//! A driver, after each `handle_*` or method that sends: takes every event, writes every frame, sets its timer to
//! `poll_timeout`, and when `is_closed` ends the connection. It stops reading while `transmit_bytes` is more than
//! it wants to hold: that bounds what a peer who does not read can cost. Nothing here reads a clock.

pub mod client;
mod credit_window;
mod lanes;
pub mod server;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

pub use self::lanes::Lane;

/// Monotonic time in milliseconds since some start that the driver chose. Says nothing about dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// This much later; at the end of time, if that is past it.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }

    /// Time since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Whole frames that wait to be written, in order. Bounded by its driver, which looks at `bytes`.
#[derive(Debug, Default)]
struct TransmitQueue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl TransmitQueue {
    fn push(&mut self, frame: Bytes) {
        debug_assert!(!frame.is_empty(), "a frame that says nothing");
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates() {
        assert_eq!(Millis(u64::MAX).after(Duration::from_secs(1)), Millis(u64::MAX));
        assert_eq!(Millis(1).since(Millis(5)), Duration::ZERO);
        assert_eq!(Millis(1_000).after(Duration::from_millis(500)).since(Millis(1_000)).as_millis(), 500);
    }
}
