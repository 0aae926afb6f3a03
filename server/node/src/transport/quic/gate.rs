//! Which new connections may begin their handshake: a handshake costs a signature, and a first packet costs its sender
//! nothing, not even an address of its own. Pure: the time is an argument.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use metrics::Gauge;

use super::limits::{HANDSHAKES_AT_ONCE, HANDSHAKES_MAX, HANDSHAKES_PER_SECOND, HANDSHAKES_UNPROVEN_MAX};

/// What becomes of a first packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The handshake begins, and has a place.
    Accept,
    /// The client must prove its address first.
    Retry,
    /// It is told to go, and may take TCP.
    Refuse,
    /// Nothing is said: whoever is there sends again, later.
    Ignore,
}

/// See the module. Of one shard.
pub(super) struct Gate {
    open: Rc<Open>,
    /// Handshakes that may begin, in billionths.
    allowance: u64,
    counted_at: Instant,
}

struct Open {
    count: Cell<usize>,
    gauge: Gauge,
}

/// The place of a handshake, given back when it is dropped.
pub(super) struct HandshakePlace(Rc<Open>);

const BILLION: u64 = 1_000_000_000;

impl Gate {
    pub(super) fn new(now: Instant, gauge: Gauge) -> Self {
        let open = Rc::new(Open { count: Cell::new(0), gauge });
        Self { open, allowance: u64::from(HANDSHAKES_AT_ONCE) * BILLION, counted_at: now }
    }

    /// Of a packet whose sender has proved its address, or not; `has_room`: as far as the shard's other transports leave it.
    /// With [`Verdict::Accept`], [`Self::enter`] follows.
    pub(super) fn judge(&mut self, now: Instant, has_room: bool, proven: bool) -> Verdict {
        self.count(now);
        let open = self.open.count.get();
        if !has_room || open >= HANDSHAKES_MAX || self.allowance < BILLION {
            return if proven { Verdict::Refuse } else { Verdict::Ignore };
        }
        if open >= HANDSHAKES_UNPROVEN_MAX && !proven {
            return Verdict::Retry;
        }
        self.allowance -= BILLION;
        Verdict::Accept
    }

    /// A handshake begins.
    pub(super) fn enter(&self) -> HandshakePlace {
        self.open.count.set(self.open.count.get() + 1);
        self.open.gauge.increment(1.0);
        HandshakePlace(self.open.clone())
    }

    fn count(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.counted_at).min(Duration::from_secs(1));
        self.counted_at = now;
        let earned = since.as_nanos() as u64 * u64::from(HANDSHAKES_PER_SECOND);
        self.allowance = (self.allowance + earned).min(u64::from(HANDSHAKES_AT_ONCE) * BILLION);
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_must_prove_its_addresses_and_too_great_a_one_is_turned_away() {
        let mut now = Instant::now();
        let mut gate = Gate::new(now, Gauge::noop());
        let mut places = Vec::new();
        for open in 0..HANDSHAKES_MAX {
            now += Duration::from_millis(2);
            let expected = if open < HANDSHAKES_UNPROVEN_MAX { Verdict::Accept } else { Verdict::Retry };
            assert_eq!(gate.judge(now, true, false), expected, "{open} open");
            now += Duration::from_millis(2);
            assert_eq!(gate.judge(now, true, true), Verdict::Accept);
            places.push(gate.enter());
        }
        now += Duration::from_secs(1);
        assert_eq!(
            (gate.judge(now, true, true), gate.judge(now, true, false)),
            (Verdict::Refuse, Verdict::Ignore)
        );
        places.clear();
        assert_eq!(gate.judge(now, false, true), Verdict::Refuse, "others need the room");
        assert_eq!(gate.judge(now, true, false), Verdict::Accept, "places are given back");
    }

    #[test]
    fn more_than_the_pace_are_turned_away_until_time_has_passed() {
        let mut now = Instant::now();
        let mut gate = Gate::new(now, Gauge::noop());
        let accepted = |gate: &mut Gate, now| {
            (0..2_000).filter(|_| gate.judge(now, true, true) == Verdict::Accept).count()
        };
        assert_eq!(accepted(&mut gate, now), HANDSHAKES_AT_ONCE as usize);
        now += Duration::from_millis(100);
        assert_eq!(accepted(&mut gate, now), HANDSHAKES_PER_SECOND as usize / 10);
        now += Duration::from_secs(3600);
        assert_eq!(accepted(&mut gate, now), HANDSHAKES_AT_ONCE as usize);
    }
}
