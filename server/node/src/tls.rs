//! TLS for clients: 1.3 only, on ring, ALPN `talaria/1` required. A client that offers no ALPN is refused by a TLS
//! alert before anything is signed for it; one that offers only others, too.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use talaria_protocol::limits::ALPN;

use crate::config::TlsConfig;

/// TLS sessions that may be resumed, kept in memory.
const RESUMABLE_SESSIONS_MAX: usize = 10_000;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has no PEM of this kind.
    #[error("{field} = {:?}: {source}; for example: {field} = \"/etc/talaria/{example}\"", path.display().to_string())]
    Pem {
        /// Of the configuration.
        field: &'static str,
        /// Its file.
        path: PathBuf,
        /// A file name.
        example: &'static str,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate's file has none.
    #[error("tls.cert = {:?} holds no certificate; for example: tls.cert = \"/etc/talaria/cert.pem\"", path.display().to_string())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not fit, or are of a kind that ring does not know.
    #[error("tls.cert and tls.key: {0}")]
    Pair(rustls::Error),
}

/// Reads certificate and key.
///
/// # Errors
/// A file that is missing or wrong, by its field.
pub fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |field, path: &PathBuf, example| {
        let path = path.clone();
        move |source| TlsError::Pem { field, path, example, source }
    };
    let certs = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem("tls.cert", &config.cert, "cert.pem"))?;
    if certs.is_empty() {
        return Err(TlsError::NoCertificate { path: config.cert.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(pem("tls.key", &config.key, "key.pem"))?;
    build(certs, key).map_err(TlsError::Pair)
}

fn build(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let certified = CertifiedKey::from_der(certs, key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OnlyWithAlpn(Arc::new(certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(RESUMABLE_SESSIONS_MAX);
    Ok(Arc::new(config))
}

/// One certificate, for those who offer some ALPN; whether it is ours, rustls checks.
#[derive(Debug)]
struct OnlyWithAlpn(Arc<CertifiedKey>);

impl ResolvesServerCert for OnlyWithAlpn {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.alpn().is_some().then(|| self.0.clone())
    }
}
