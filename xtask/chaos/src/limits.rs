//! Bounds of the proxy, with what happens when each is reached.

use std::time::Duration;

/// Clients' UDP addresses at once. Full: a new client's packets are dropped, `TableFull`.
pub(crate) const MAPPINGS_MAX: usize = 16_384;
/// A UDP mapping that carried nothing for so long goes.
pub(crate) const MAPPING_IDLE_MAX: Duration = Duration::from_secs(300);
/// UDP packets that wait for their time, all mappings. Full: a new one is dropped, `ScheduleFull`.
pub(crate) const SCHEDULED_MAX: usize = 65_536;
/// Packets taken from one socket before others have their turn.
pub(crate) const BATCH: usize = 64;
/// The largest UDP datagram.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_536;
/// TCP connections at once. Full: a new one is reset, `TableFull`.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Bytes taken from a TCP socket at once.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes that the system may hold for us of one TCP socket. What it took, the sender believes sent, so it is little:
/// what is under way is to wait in our own queue, where the window bounds it.
pub(crate) const RECEIVE_BUFFER_BYTES: u32 = 8 * 1024;
/// How long the server may take to accept a TCP connection.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Tries to find a port that is free for UDP and TCP.
pub(crate) const PORT_TRIES: u32 = 32;
/// TCP connections that the system holds until they are accepted. Full: the system refuses.
pub(crate) const ACCEPT_BACKLOG: u32 = 1024;
