//! Bounds of a node: every queue and buffer of its own, with what happens when it is full. The protocol's are in
//! `talaria_protocol::limits`, the shard's in `talaria_core::limits`.

use std::time::Duration;

/// Connections without a session. One more: the oldest of them is dropped, so that a flood of silent connections
/// cannot keep an honest client out, who needs only milliseconds.
pub const CONNECTIONS_WITHOUT_HELLO_MAX: usize = 4096;
/// Connections that the system holds until they are accepted, at each shard's listener. Full: the system drops, and clients
/// try again. In a storm the queue is here, where a connection costs least.
pub const ACCEPT_BACKLOG: i32 = 4096;
/// TLS handshakes in progress at a shard, whose peers have said something. Full: accepting waits until one ends, or until the oldest has had
/// [`HANDSHAKE_GRACE`] and makes place.
pub const HANDSHAKES_MAX: usize = 512;
/// How long a handshake may hold up others.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(2);
/// Steps of connections without a session that a shard takes before it looks at everything else.
pub const STRANGER_STEPS_PER_TURN: usize = 4;
/// Unused handshakes and openings of sessions that may come at once: those of this time.
pub const BURST: Duration = Duration::from_millis(200);
/// Addresses whose connections are counted. Full: those without a connection are forgotten.
pub const ADDRESSES_MAX: usize = 65_536;
/// What a client that must come again waits at the least, ms.
pub const RETRY_AFTER_MS_MIN: u32 = 100;
/// And over how long such clients are spread at the most, ms.
pub const RETRY_AFTER_MS_MAX: u32 = 120_000;
/// Cuts that wait at a shard. Full: the sweeper waits [`RETENTION_PAUSE`].
pub const RETENTIONS_QUEUED_MAX: usize = 64;
/// See [`RETENTIONS_QUEUED_MAX`].
pub const RETENTION_PAUSE: Duration = Duration::from_millis(100);
/// Conversations that the sweeper looks at in one view of the log.
pub const SWEPT_AT_ONCE: usize = 256;
/// Restarts of a shard within [`SHARD_RESTARTS_WITHIN`] that end the node.
pub const SHARD_RESTARTS_MAX: usize = 3;
/// See [`SHARD_RESTARTS_MAX`].
pub const SHARD_RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// What a client is told to wait whose shard begins anew.
pub const RESTART_RETRY_AFTER_MS: u32 = 500;
/// How long accepting rests after the system could not (no file descriptor left, say).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that wait to be written to one connection, above which nothing more is read from it.
pub const TRANSMIT_BYTES_HIGH: usize = 256 * 1024;
/// Bytes that the system holds of one connection before they are on their way (TCP_NOTSENT_LOWAT): what waits longer
/// waits here, where it is counted and where a live message overtakes what is read from the log.
pub const NOT_SENT_BYTES_MAX: u32 = 16 * 1024;
/// Bytes that TLS holds of one connection, encrypted.
pub const ENCRYPTED_BYTES_MAX: usize = 16 * 1024;
/// Frames handed to TLS at once, bytes; and a whole frame more.
pub const TRANSMIT_CHUNK_BYTES: usize = 16 * 1024;
/// A connection that always has something to write and took fewer bytes than this within two keepalive periods is
/// dropped as `SLOW_CONSUMER`.
pub const STALL_BYTES_MIN: usize = 8 * 1024;
/// How long a connection that ends may take to read what was still for it.
pub const LINGER: Duration = Duration::from_secs(3);
/// After `GoAway` a client comes back after a random time up to this, or up to the time that a node needs to take all of
/// them, where that is longer.
pub const RECONNECT_SPREAD_MS: u32 = 3_000;
/// The longest such time.
pub const RECONNECT_SPREAD_MS_MAX: u32 = 120_000;
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
