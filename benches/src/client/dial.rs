//! Who connects, from where, and how. Clients spread over many loopback addresses, as if they were many machines: a
//! node bounds what one address may do.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use quinn::{Endpoint, TransportConfig, crypto::rustls::QuicClientConfig};
use rustls::{ClientConfig, RootCertStore, client::Resumption, version::TLS13};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use talaria_protocol::{
    ids::DeviceId,
    limits::{ALPN, CREDIT_BYTES_MAX, CREDIT_ENTRIES_MAX, HANDSHAKE_TIMEOUT, PROTOCOL_VERSION},
    message::{
        Credit, Role,
        client::{ClientInfo, Hello, Token},
    },
};
use tokio::time::timeout;

use super::{link::Link, quic::QuicLink, tcp::TcpLink};
use crate::tokens::TokenKey;

/// Sockets that QUIC clients share, unless each has its own.
pub(crate) const ENDPOINTS: u64 = 64;
/// Clients of one loopback address.
const CLIENTS_PER_ADDRESS: u64 = 16;
/// Addresses used: 127.1.0.0 and on.
const ADDRESSES: u64 = 60_000;
/// TLS sessions that a client keeps to resume: it has one server.
const TLS_SESSIONS: usize = 4;
/// Longer than any keepalive: the session machine judges a silent peer.
const IDLE: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        })
    }
}

/// A device of a user, with a memory for TLS sessions of its own.
#[derive(Clone)]
pub(crate) struct Account {
    number: u64,
    token: Token,
    device: DeviceId,
    tls: Arc<ClientConfig>,
    quic: quinn::ClientConfig,
    /// Its own socket, for one that changes networks.
    endpoint: Option<Endpoint>,
}

/// Knows a server.
pub(crate) struct Dialer {
    server: SocketAddr,
    transport: Transport,
    tls: ClientConfig,
    key: TokenKey,
    endpoints: Vec<Endpoint>,
    /// From addresses of their own; a proxy knows one only.
    spread: bool,
}

impl Dialer {
    /// `endpoint_count`: sockets that QUIC clients share.
    pub(crate) fn new(
        server: SocketAddr,
        transport: Transport,
        ca: &Path,
        key: TokenKey,
        endpoint_count: u64,
    ) -> anyhow::Result<Self> {
        let mut endpoints = Vec::new();
        if transport == Transport::Quic {
            for number in 0..endpoint_count {
                let address = SocketAddr::from((loopback(number), 0));
                endpoints.push(Endpoint::client(address)?);
            }
        }
        Ok(Self { server, transport, tls: tls(ca)?, key, endpoints, spread: true })
    }

    /// The same server by another address: a proxy's.
    pub(crate) fn by_way_of(&self, server: SocketAddr) -> anyhow::Result<Self> {
        let endpoints = match self.transport {
            Transport::Tcp => Vec::new(),
            Transport::Quic => vec![Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?],
        };
        let (transport, tls, key) = (self.transport, self.tls.clone(), self.key.clone());
        Ok(Self { server, transport, tls, key, endpoints, spread: false })
    }

    /// A user's device; equal numbers of a prefix are the same user, on another device each time.
    pub(crate) fn account(&self, prefix: &str, number: u64) -> anyhow::Result<Account> {
        let mut tls = self.tls.clone();
        tls.resumption = Resumption::in_memory_sessions(TLS_SESSIONS);
        let tls = Arc::new(tls);
        let mut quic = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.clone())?));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(IDLE.try_into()?));
        quic.transport_config(Arc::new(transport));
        let token = self.key.sign(&format!("{prefix}{number}"))?;
        let device = DeviceId::from_parts(1_700_000_000_000, random());
        Ok(Account { number, token, device, tls, quic, endpoint: None })
    }

    /// The same with a socket of its own, whose address [`Account::rebind`] changes.
    pub(crate) fn roaming_account(&self, prefix: &str, number: u64) -> anyhow::Result<Account> {
        let endpoint = Endpoint::client(SocketAddr::from((loopback(number), 0)))?;
        Ok(Account { endpoint: Some(endpoint), ..self.account(prefix, number)? })
    }

    /// An encrypted connection, within the protocol's time; and whether TLS was resumed.
    pub(super) async fn dial(&self, account: &Account) -> io::Result<(Link, bool)> {
        let dialled = async {
            match self.transport {
                Transport::Tcp => {
                    let source = SocketAddr::from((loopback(account.number / CLIENTS_PER_ADDRESS), 0));
                    let source = self.spread.then_some(source);
                    let (link, resumed) = TcpLink::dial(self.server, source, account.tls.clone()).await?;
                    Ok((Link::Tcp(Box::new(link)), resumed))
                }
                Transport::Quic => self.dial_quic(account).await,
            }
        };
        timeout(HANDSHAKE_TIMEOUT, dialled).await?
    }

    async fn dial_quic(&self, account: &Account) -> io::Result<(Link, bool)> {
        let shared = self.endpoints.get(account.number as usize % self.endpoints.len().max(1));
        let endpoint = account.endpoint.as_ref().or(shared);
        let endpoint = endpoint.ok_or_else(|| io::Error::other("no endpoint"))?;
        let connecting = endpoint.connect_with(account.quic.clone(), self.server, "localhost");
        let connection = connecting.map_err(io::Error::other)?.await?;
        let link = QuicLink::open(connection).await?;
        // quinn does not tell whether TLS was resumed.
        Ok((Link::Quic(Box::new(link)), false))
    }
}

impl Account {
    pub(super) fn hello(&self) -> Hello {
        Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            tenant: String::new(),
            token: self.token.clone(),
            device: self.device,
            role: Role::Main,
            client: ClientInfo { name: "talaria-bench".to_owned(), ..ClientInfo::default() },
            capabilities: Vec::new(),
            credit: Credit { entries: CREDIT_ENTRIES_MAX, bytes: CREDIT_BYTES_MAX },
            background: false,
        }
    }

    /// Another local port from now on, as when a phone changes networks.
    pub(crate) fn rebind(&self) -> io::Result<()> {
        let endpoint = self.endpoint.as_ref().ok_or_else(|| io::Error::other("its socket is shared"))?;
        let socket = UdpSocket::bind(SocketAddr::from((loopback(self.number), 0)))?;
        endpoint.rebind(socket)
    }
}

/// Ten random bytes.
pub(super) fn random() -> [u8; 10] {
    let mut bytes = [0; 10];
    // Without randomness there is no TLS either.
    let _unlikely = getrandom::fill(&mut bytes);
    bytes
}

/// A random number below `bound`, which is not 0.
pub(crate) fn random_below(bound: u64) -> u64 {
    let bytes = random();
    bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) % bound
}

fn loopback(number: u64) -> Ipv4Addr {
    let number = (number % ADDRESSES) as u16;
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

fn tls(ca: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
