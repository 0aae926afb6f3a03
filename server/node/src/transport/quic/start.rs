//! What a node does once for its transports: both ports under one number, and the endpoints of all shards.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use talaria_protocol::ids::IdKey;

use super::{Endpoints, NoInitialCipherSuite};
use crate::{
    metrics::Metrics,
    transport::{
        steering::{Steering, group::SocketGroup, keys::QuicKeys, net::NetCounters},
        tcp,
    },
};

/// Pairs of ports that are tried where the configuration leaves the number open.
const PORT_TRIES: usize = 16;

/// A TCP listener and a UDP socket for each shard, all on the same number.
///
/// # Errors
/// One of the two is taken, or the address not ours.
pub(crate) fn bind(address: SocketAddr, shards: u16) -> io::Result<(Vec<TcpListener>, SocketGroup)> {
    let tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    for _ in 1..tries {
        match bind_once(address, shards) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    bind_once(address, shards)
}

fn bind_once(address: SocketAddr, shards: u16) -> io::Result<(Vec<TcpListener>, SocketGroup)> {
    let listeners = tcp::bind_all(address, shards)?;
    let address = listeners.first().map_or(Ok(address), TcpListener::local_addr)?;
    match SocketGroup::bind(address, shards) {
        Ok(sockets) => Ok((listeners, sockets)),
        Err(error) => Err(io::Error::new(error.kind(), format!("UDP: {error}"))),
    }
}

/// The endpoints on these sockets, with secrets that come from the log's key.
///
/// # Errors
/// TLS without a cipher suite that QUIC needs.
pub(crate) fn endpoints(
    sockets: SocketGroup,
    key: &IdKey,
    tls: &rustls::ServerConfig,
    keepalive: Duration,
    metrics: &Metrics,
) -> Result<Endpoints, NoInitialCipherSuite> {
    let keys = QuicKeys::derive(key.as_bytes());
    let steering = Steering::new(keys.steering, sockets.shards());
    if let Err(error) = sockets.steer(steering) {
        tracing::warn!(%error, "the kernel cannot steer QUIC packets: shards hand them to each other");
    }
    let counters = NetCounters {
        misrouted: metrics.quic_misrouted.clone(),
        dropped: metrics.quic_misrouted_dropped.clone(),
    };
    Endpoints::new(sockets, steering, keys, tls, keepalive, counters)
}
