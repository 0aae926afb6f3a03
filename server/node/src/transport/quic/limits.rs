//! Bounds of QUIC connections, with what happens when they are full. An idle connection holds none of these buffers.

use std::time::Duration;

use talaria_protocol::limits::FRAME_BYTES_MAX;

use super::super::steering::net::HANDED_OVER_MAX;
use crate::limits::TRANSMIT_BYTES_HIGH;

/// Bidirectional streams that a client may have open: its control stream, and one of a type that we do not know, which is
/// refused. More: QUIC ends the connection.
pub const STREAMS_BIDI_MAX: u32 = 2;
/// Unidirectional ones. We know no type that a client opens: each is refused.
pub const STREAMS_UNI_MAX: u32 = 4;
/// Bytes of a stream that we have not taken yet. Full: the client may not send more. What we take goes into the frame decoder,
/// which holds one frame at most, so this bounds the pace of a client, not the length of its frames.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same of all streams of a connection together.
pub const CONNECTION_WINDOW_BYTES: u32 = 96 * 1024;
/// Bytes that were handed to QUIC and not acknowledged yet, all streams of a connection. Full: what waits longer waits in
/// the session's lanes, the most urgent first. Greater than what spec/quic.md has clients let one stream carry, so that bulk
/// alone cannot fill it.
pub const SEND_WINDOW_BYTES: u64 = 512 * 1024;
/// Bytes of one lane that were taken from the session for a stream that does not take them yet, or one frame if that is
/// longer.
pub const LANE_CHUNK_BYTES: usize = 16 * 1024;
/// Bytes that one read takes from the control stream.
pub const READ_BYTES_MAX: usize = 32 * 1024;
/// Datagrams of a client, bytes. No frame goes by datagram yet: full, the oldest is dropped. It must hold one packet.
pub const DATAGRAM_BYTES_MAX: usize = 2 * 1024;
/// TLS messages of a handshake out of order, bytes. More: QUIC ends the connection.
pub const CRYPTO_BUFFER_BYTES: usize = 16 * 1024;
/// TLS sessions that may be resumed, all shards. Full: the oldest is forgotten, and its client makes a full handshake.
pub const RESUMABLE_SESSIONS_MAX: usize = 40_000;

/// What a handshake counts as in the pace that both transports share: it takes about twice the processor time of TCP's.
pub const HANDSHAKE_COST: u32 = 2;
/// QUIC handshakes in progress at a shard, above which a client must first prove that its address is its own.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 128;
/// The same, above which new ones are turned away.
pub const HANDSHAKES_MAX: usize = 1024;
/// New connections that a shard takes in a second. More are turned away: they would wait longer than clients do.
pub const HANDSHAKES_PER_SECOND: u32 = 1_000;
/// Of them, those that may come at once.
pub const HANDSHAKES_AT_ONCE: u32 = 500;
/// First packets that wait to be looked at. Full: QUIC refuses.
pub const INCOMING_MAX: usize = 512;
/// Further packets of each of them, bytes: early data. Full: dropped, and sent again.
pub const INCOMING_BYTES_MAX: u64 = 32 * 1024;
/// And of all together.
pub const INCOMING_BYTES_TOTAL_MAX: u64 = 4 * 1024 * 1024;
/// After an endpoint was lost, until it is opened again.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Between two stateless resets of a shard. Only packets with a tag of ours draw one.
pub const RESET_INTERVAL: Duration = Duration::from_millis(1);

const _: () = {
    assert!(STREAM_WINDOW_BYTES < CONNECTION_WINDOW_BYTES);
    assert!((CONNECTION_WINDOW_BYTES as usize) < FRAME_BYTES_MAX);
    assert!(READ_BYTES_MAX <= STREAM_WINDOW_BYTES as usize);
    assert!(3 * LANE_CHUNK_BYTES <= TRANSMIT_BYTES_HIGH && DATAGRAM_BYTES_MAX >= 1500);
    assert!(HANDSHAKES_UNPROVEN_MAX < HANDSHAKES_MAX && HANDSHAKES_AT_ONCE <= HANDSHAKES_PER_SECOND);
    assert!(HANDED_OVER_MAX >= 512);
};
