//! What is to be wrong with the network, as data.

use std::{net::SocketAddr, time::Duration};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From clients to the server.
    Up,
    /// From the server to clients.
    Down,
}

/// What carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Packets.
    Udp,
    /// Streams.
    Tcp,
    /// Both of them.
    Both,
}

impl Transport {
    /// Whether `other`, which is not `Both`, is meant.
    pub(crate) fn covers(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

/// What one direction does to what passes. Percentages are of packets; on TCP, of segments of 1,460 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Of everything.
    pub delay: Duration,
    /// Beyond `delay`, uniform from 0 to this. Keeps the order.
    pub jitter: Duration,
    /// 0 to 100. On TCP: what follows waits for a retransmission.
    pub loss_percent: f64,
    /// 0 to 100: held back for `reorder_by` while later ones pass. UDP only.
    pub reorder_percent: f64,
    /// See `reorder_percent`.
    pub reorder_by: Duration,
    /// 0 to 100: comes twice. UDP only.
    pub duplicate_percent: f64,
    /// Of each client's own line; 0: no limit.
    pub rate_bytes_per_s: u64,
    /// What may wait for the line's rate. Full: the packet is lost, `QueueFull`.
    pub queue_bytes: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_percent: 0.0,
            reorder_percent: 0.0,
            reorder_by: Duration::from_millis(10),
            duplicate_percent: 0.0,
            rate_bytes_per_s: 0,
            queue_bytes: 128 * 1024,
        }
    }
}

impl Faults {
    /// Half of a round trip, and a loss.
    #[must_use]
    pub fn half_of(round_trip: Duration, loss_percent: f64) -> Self {
        Self { delay: round_trip / 2, loss_percent, ..Self::default() }
    }
}

/// How a cut looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutStyle {
    /// Nothing passes and nobody is told. TCP: what was sent waits, as if it were retransmitted.
    Silent,
    /// TCP connections are reset, and new ones, too. UDP: as `Silent`.
    Reset,
}

/// Nothing passes, for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Of what.
    pub transport: Transport,
    /// How.
    pub style: CutStyle,
    /// From now on.
    pub duration: Duration,
}

/// How a proxy begins.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// For UDP and TCP; port 0: one that is free for both.
    pub listen: SocketAddr,
    /// The server, for UDP and TCP.
    pub upstream: SocketAddr,
    /// Towards the server.
    pub up: Faults,
    /// Towards clients.
    pub down: Faults,
    /// Of all decisions.
    pub seed: u64,
    /// It ends by itself after this.
    pub life_max: Duration,
}

impl Config {
    /// In front of this server, on a free loopback port, without faults, for ten minutes.
    pub fn new(upstream: SocketAddr) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            upstream,
            up: Faults::default(),
            down: Faults::default(),
            seed: 1,
            life_max: Duration::from_secs(600),
        }
    }
}
