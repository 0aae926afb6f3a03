//! One clock for all clients of this process.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use talaria_protocol::session::Millis;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since the process' first look at the clock.
pub(crate) fn since_start() -> Duration {
    START.elapsed()
}

/// The same for session machines.
pub(crate) fn millis() -> Millis {
    Millis::default().after(since_start())
}

/// When a session machine's deadline is.
pub(crate) fn instant_of(at: Millis) -> Instant {
    *START + at.since(Millis::default())
}

/// When this time since the start is.
pub(crate) fn instant_at(at: Duration) -> Instant {
    *START + at
}
