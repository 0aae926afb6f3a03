//! From an address to an open, authenticated connection: TCP, TLS 1.3, ALPN `talaria/1`. Nothing else is spoken.

use std::{io, sync::Arc};

use rustls::{ClientConfig as TlsConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use talaria_protocol::limits::{ALPN, HANDSHAKE_TIMEOUT};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::ConfigError;

/// Whose certificates are trusted.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    WebPki,
    Own(Arc<RootCertStore>),
}

impl Roots {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| ConfigError::Ca(error.to_string()))?;
            roots.add(certificate).map_err(|error| ConfigError::Ca(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(ConfigError::Ca("no PEM certificate".into()));
        }
        Ok(Self::Own(Arc::new(roots)))
    }
}

/// Dials one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Dialer {
    pub(crate) fn new(address: &str, name: Option<&str>, roots: &Roots) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::Server(address.to_string());
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        port.parse::<u16>().map_err(|_| invalid())?;
        let name = name.unwrap_or_else(|| host.trim_matches(['[', ']']));
        let server_name =
            ServerName::try_from(name.to_string()).map_err(|_| ConfigError::ServerName(name.to_string()))?;
        let roots = match roots {
            Roots::Own(roots) => Arc::clone(roots),
            Roots::WebPki => {
                Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>())
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = TlsConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| ConfigError::Ca(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { address: address.to_string(), name: server_name, connector })
    }

    pub(crate) async fn dial(self) -> io::Result<TlsStream<TcpStream>> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let tcp = timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(&self.address)).await.map_err(late)??;
        tcp.set_nodelay(true)?;
        let stream =
            timeout(HANDSHAKE_TIMEOUT, self.connector.connect(self.name, tcp)).await.map_err(late)??;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak talaria/1"));
        }
        Ok(stream)
    }
}
