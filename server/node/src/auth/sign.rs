//! Signing tokens: for dev mode and tests. A production node holds public keys only.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Serialize;

use super::crypto;

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key's file cannot be read.
    #[error("token key {}: {source}; `talaria serve --dev` makes one", path.display())]
    Unreadable {
        /// It.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("token key is not a PEM Ed25519 private key (PKCS #8)")]
    NotEd25519,
    /// The library refused.
    #[error("the token could not be signed")]
    Refused,
}

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// `sub`.
    pub subject: &'a str,
    /// `tenant`; empty: left out.
    pub tenant: &'a str,
    /// `iat`, seconds since 1970.
    pub issued: u64,
    /// `exp`, seconds since 1970.
    pub expires: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant: &'a str,
}

/// A private key. Never printed.
pub struct SigningKey {
    kid: String,
    pkcs8: Vec<u8>,
    public_key: Vec<u8>,
}

impl SigningKey {
    /// Reads a PEM private key.
    ///
    /// # Errors
    /// The file is missing or holds something else.
    pub fn read(kid: &str, path: &Path) -> Result<Self, SignError> {
        let pem =
            std::fs::read(path).map_err(|source| SignError::Unreadable { path: path.to_owned(), source })?;
        Self::from_pem(kid, &pem)
    }

    /// Parses a PEM private key.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_pem(kid: &str, pem: &[u8]) -> Result<Self, SignError> {
        crypto::install();
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SignError::NotEd25519)?;
        let pkcs8 = der.secret_pkcs8_der().to_vec();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| SignError::NotEd25519)?;
        Ok(Self { kid: kid.to_owned(), public_key: pair.public_key().as_ref().to_vec(), pkcs8 })
    }

    /// Its name in tokens.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Signs a token.
    ///
    /// # Errors
    /// The library refused.
    pub fn sign(&self, request: &TokenRequest<'_>) -> Result<String, SignError> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = Claims {
            sub: request.subject,
            iat: request.issued,
            exp: request.expires,
            tenant: request.tenant,
        };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&self.pkcs8))
            .map_err(|_| SignError::Refused)
    }
}
