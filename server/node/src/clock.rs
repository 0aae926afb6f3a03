//! The clocks that the pure parts are told of: a monotonic one from the node's start, and the wall clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use talaria_core::effect::Now;

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts the monotonic one.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Now {
        Now { mono_ms: self.start.elapsed().as_millis() as u64, unix_ms: unix_ms() }
    }

    /// The instant of a monotonic time; a timer for it never fires early.
    pub fn instant(&self, mono_ms: u64) -> Instant {
        // One ms more: `now` rounds down.
        self.start + Duration::from_millis(mono_ms.saturating_add(1).min(u64::from(u32::MAX) * 1000))
    }
}

/// Ms since 1970; 0 where the wall clock is before it.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
