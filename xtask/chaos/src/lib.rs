//! A bad network between clients and a server, on loopback: a proxy for UDP and TCP that delays, loses, reorders,
//! duplicates, throttles and cuts what passes, each direction for itself, all drawn from one seed.
//!
//! ```text
//! client ──► up: Link.decide ──► waits in the schedule ──► server
//! client ◄── waits in the schedule ◄── down: Link.decide ◄── server
//! ```
//! UDP goes packet by packet, as a NAT sees it: a socket towards the server for each client's address, which
//! [`Chaos::rebind_all`] replaces by one of another port. TCP cannot lose bytes of a stream that it has accepted, so there a loss is what
//! a loss does to the stream: everything behind it waits for the retransmission, and the sender slows down
//! (`congestion`). It is a model, kinder than some networks; reordering and duplicates do not show in a stream.
//!
//! Every table and queue is bounded, and each drop is counted by its reason. It ends by itself after
//! [`Config::life_max`]. The n-th packet of a mapping meets the same fate whenever the seed is the same.

mod congestion;
mod faults;
mod limits;
mod link;
mod proxy;
mod random;
mod schedule;
mod stats;
mod tcp;
mod udp;

pub use faults::{Config, Cut, CutStyle, Direction, Faults, Transport};
pub use link::{Fate, Link};
pub use proxy::Chaos;
pub use stats::{DropReason, Stats};
