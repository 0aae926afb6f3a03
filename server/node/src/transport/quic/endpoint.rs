//! What the QUIC endpoints of a node share, and how a shard makes its own: quinn's configuration, and the steering under
//! it. Endpoints of one node answer for each other's resets, tokens and resumable TLS sessions.

use std::{io, sync::Arc, time::Duration};

use quinn::{
    Endpoint, EndpointConfig, MtuDiscoveryConfig, NoneTokenLog, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use rustls::server::ServerSessionMemoryCache;

use super::limits::{
    CONNECTION_WINDOW_BYTES, CRYPTO_BUFFER_BYTES, DATAGRAM_BYTES_MAX, INCOMING_BYTES_MAX,
    INCOMING_BYTES_TOTAL_MAX, INCOMING_MAX, RESET_INTERVAL, RESUMABLE_SESSIONS_MAX, SEND_WINDOW_BYTES,
    STREAM_WINDOW_BYTES, STREAMS_BIDI_MAX, STREAMS_UNI_MAX,
};
use crate::transport::steering::{
    Steering,
    group::SocketGroup,
    ids::SteeredIds,
    keys::QuicKeys,
    net::{Net, NetCounters, NetSocket},
};

/// RFC 9000.
const QUIC_VERSION: u32 = 1;

/// See the module. While it lives, the sockets of all shards are open.
#[derive(Debug)]
pub struct Endpoints {
    group: SocketGroup,
    steering: Steering,
    net: Arc<Net>,
    keys: QuicKeys,
    server: ServerConfig,
}

impl Endpoints {
    /// On these sockets.
    ///
    /// # Errors
    /// TLS without a cipher suite that QUIC needs.
    pub fn new(
        group: SocketGroup,
        steering: Steering,
        keys: QuicKeys,
        tls: &rustls::ServerConfig,
        keepalive: Duration,
        counters: NetCounters,
    ) -> Result<Self, NoInitialCipherSuite> {
        let server = server_config(tls, &keys, keepalive)?;
        let net = Arc::new(Net::new(steering, counters));
        Ok(Self { group, steering, net, keys, server })
    }

    /// The sockets.
    pub fn group(&self) -> &SocketGroup {
        &self.group
    }

    /// The safety net under them.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// A shard's endpoint, to be made within its runtime. `seed` is fresh for each.
    ///
    /// # Errors
    /// The system's.
    pub fn open(&self, shard: u16, seed: [u8; 32]) -> io::Result<Endpoint> {
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(self.group.socket(shard)?)?;
        let socket = Arc::new(NetSocket::new(socket, self.net.clone(), shard));
        let mut config = EndpointConfig::new(self.keys.reset.clone());
        let (steering, tag_key) = (self.steering, self.keys.ids);
        config.cid_generator(move || Box::new(SteeredIds::new(steering, shard, tag_key, &seed)));
        config.min_reset_interval(RESET_INTERVAL).supported_versions(vec![QUIC_VERSION]);
        Endpoint::new_with_abstract_socket(config, Some(self.server.clone()), socket, runtime)
    }
}

fn server_config(
    tls: &rustls::ServerConfig,
    keys: &QuicKeys,
    keepalive: Duration,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut tls = tls.clone();
    // QUIC bounds early data by its own windows. A ticketer would make rustls refuse it: sessions are kept here, and each
    // can be resumed once.
    tls.max_early_data_size = u32::MAX;
    tls.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS_MAX);
    let crypto = QuicServerConfig::try_from(Arc::new(tls))?;
    let mut config = ServerConfig::new(Arc::new(crypto), keys.token.clone());
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0).log(Arc::new(NoneTokenLog));
    config
        .transport_config(Arc::new(transport_config(keepalive)))
        .validation_token_config(tokens)
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(config)
}

fn transport_config(keepalive: Duration) -> TransportConfig {
    // The session ends a silent client after two keepalive periods, and can say so; this is for connections that cannot.
    let idle_ms = u32::try_from(keepalive.as_millis() * 5 / 2).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(STREAMS_BIDI_MAX.into())
        .max_concurrent_uni_streams(STREAMS_UNI_MAX.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX)
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()));
    config
}
