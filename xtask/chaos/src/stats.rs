//! What the proxy did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a UDP packet went nowhere, or a TCP connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The dice.
    Loss,
    /// A cut.
    Cut,
    /// The line's queue was full.
    QueueFull,
    /// Too many packets wait for their time.
    ScheduleFull,
    /// Too many clients.
    TableFull,
    /// The system did not take it, or the server could not be reached.
    Socket,
    /// Its mapping was gone when its time came.
    Gone,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Loss,
        Self::Cut,
        Self::QueueFull,
        Self::ScheduleFull,
        Self::TableFull,
        Self::Socket,
        Self::Gone,
    ];
}

/// Figures of one moment. Up and down together, unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// UDP packets that came, up.
    pub udp_up: u64,
    /// UDP packets that came, down.
    pub udp_down: u64,
    /// UDP packets sent on.
    pub udp_forwarded: u64,
    /// Of them, second copies.
    pub duplicated: u64,
    /// UDP packets held back.
    pub reordered: u64,
    /// UDP packets dropped, TCP connections refused, by [`DropReason::ALL`].
    pub dropped: [u64; 7],
    /// UDP mappings made.
    pub mappings: u64,
    /// New ports of UDP mappings.
    pub rebinds: u64,
    /// TCP connections accepted.
    pub tcp_connections: u64,
    /// TCP connections reset by a cut.
    pub tcp_resets: u64,
    /// TCP bytes passed on.
    pub tcp_bytes: u64,
    /// TCP segments that counted as lost: stalls of a stream.
    pub tcp_losses: u64,
    /// Of them, those that nothing followed, which take a timeout to notice.
    pub tcp_timeouts: u64,
}

impl Stats {
    /// Of one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}

macro_rules! counters {
    ($($name:ident)*) => {
        /// The same while it runs.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            dropped: [Counter; 7],
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats {
                    $($name: self.$name.get(),)*
                    dropped: std::array::from_fn(|index| self.dropped[index].get()),
                }
            }
        }
    };
}

counters! {
    udp_up udp_down udp_forwarded duplicated reordered mappings rebinds
    tcp_connections tcp_resets tcp_bytes tcp_losses tcp_timeouts
}

impl Counters {
    pub(crate) fn drop_one(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }
}

/// Written by the proxy's thread, read by any.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
