//! Whose certificates are trusted, and TLS 1.3 with ALPN `talaria/1` of that. Nothing else is spoken.

use std::sync::Arc;

use rustls::{ClientConfig as TlsConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use talaria_protocol::limits::ALPN;

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

    /// A configuration with a session cache of its own. Each transport has one: a session that QUIC resumes carries
    /// QUIC's parameters.
    pub(super) fn tls(&self) -> Result<TlsConfig, ConfigError> {
        let roots = match self {
            Self::Own(roots) => Arc::clone(roots),
            Self::WebPki => {
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
        Ok(config)
    }
}
