//! Bounds of a node: every queue and buffer of its own, with what happens when it is full. The protocol's are in
//! `talaria_protocol::limits`, the shard's in `talaria_core::limits`.

use std::time::Duration;

/// Connections without a session. One more: the oldest of them is dropped, so that a flood of silent connections
/// cannot keep an honest client out, who needs only milliseconds.
pub const CONNECTIONS_WITHOUT_HELLO_MAX: usize = 4096;
/// Connections that the system holds until they are accepted. Full: the system refuses.
pub const ACCEPT_BACKLOG: i32 = 1024;
/// How long accepting rests after the system could not (no file descriptor left, say).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that wait to be written to one connection, above which nothing more is read from it.
pub const TRANSMIT_BYTES_HIGH: usize = 256 * 1024;
/// Bytes that the system holds of one connection before they are on their way (TCP_NOTSENT_LOWAT): what waits longer
/// waits here, where it is counted.
pub const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;
/// Frames handed to TLS at once, bytes.
pub const TRANSMIT_CHUNK_BYTES: usize = 64 * 1024;
/// A connection that always has something to write and took fewer bytes than this within two keepalive periods is
/// dropped as `SLOW_CONSUMER`.
pub const STALL_BYTES_MIN: usize = 8 * 1024;
/// How long a connection that ends may take to read what was still for it.
pub const LINGER: Duration = Duration::from_secs(3);
/// After `GoAway { DRAINING }` a client comes back after a random time up to this.
pub const RECONNECT_SPREAD_MS: u32 = 3_000;
/// How long the last log operations may take once all connections are gone.
pub const FLUSH: Duration = Duration::from_secs(5);
/// Questions of the admin port to a shard at once. Full: the shard counts as stuck.
pub const PROBES_MAX: usize = 16;
/// How long a shard may take to answer one.
pub const PROBE: Duration = Duration::from_secs(2);

const _: () = {
    assert!(TRANSMIT_CHUNK_BYTES <= TRANSMIT_BYTES_HIGH);
    assert!(STALL_BYTES_MIN < TRANSMIT_CHUNK_BYTES);
};
