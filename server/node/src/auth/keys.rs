//! The keys that tokens are verified with: read once at the start, by `kid`, each for one algorithm.

use std::path::PathBuf;

use jsonwebtoken::DecodingKey;
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use crate::config::{AuthKey, KeyAlgorithm, KeySource};

/// A shorter secret can be found by trying.
const SECRET_BYTES_MIN: usize = 32;
/// DER of a `SubjectPublicKeyInfo` of Ed25519, up to its 32 key bytes.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key cannot be used. Its bytes are never in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read.
    #[error("auth.keys: key {kid:?}: file {}: {source}", path.display())]
    Unreadable {
        /// Which.
        kid: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no Ed25519 public key.
    #[error(
        "auth.keys: key {kid:?} (alg = \"EdDSA\") is not a PEM Ed25519 public key; \
         for example: openssl pkey -in private.pem -pubout"
    )]
    NotEd25519 {
        /// Which.
        kid: String,
    },
    /// It is too short.
    #[error(
        "auth.keys: key {kid:?} (alg = \"HS256\") has {len} bytes, fewer than {SECRET_BYTES_MIN}; \
         for example: openssl rand -hex 32"
    )]
    ShortSecret {
        /// Which.
        kid: String,
        /// Bytes that it has.
        len: usize,
    },
}

/// A key, ready for use.
pub(super) struct VerifyKey {
    pub(super) kid: String,
    pub(super) algorithm: KeyAlgorithm,
    pub(super) key: DecodingKey,
}

impl VerifyKey {
    /// Reads a configured key.
    pub(super) fn read(config: &AuthKey) -> Result<Self, KeyError> {
        let bytes = match &config.source {
            KeySource::Pem(pem) => pem.as_bytes().to_vec(),
            KeySource::Path(path) => std::fs::read(path).map_err(|source| KeyError::Unreadable {
                kid: config.kid.clone(),
                path: path.clone(),
                source,
            })?,
        };
        let key = match config.algorithm {
            KeyAlgorithm::EdDsa => {
                ed25519(&bytes).ok_or_else(|| KeyError::NotEd25519 { kid: config.kid.clone() })?
            }
            KeyAlgorithm::Hs256 => secret(&config.kid, &bytes)?,
        };
        Ok(Self { kid: config.kid.clone(), algorithm: config.algorithm, key })
    }

    /// An Ed25519 key of these 32 bytes.
    pub(super) fn of_ed25519(kid: &str, public_key: &[u8]) -> Self {
        Self {
            kid: kid.to_owned(),
            algorithm: KeyAlgorithm::EdDsa,
            key: DecodingKey::from_ed_der(public_key),
        }
    }
}

fn ed25519(pem: &[u8]) -> Option<DecodingKey> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let key = der.as_ref().strip_prefix(&ED25519_SPKI_PREFIX)?;
    (key.len() == 32).then(|| DecodingKey::from_ed_der(key))
}

fn secret(kid: &str, bytes: &[u8]) -> Result<DecodingKey, KeyError> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(KeyError::ShortSecret { kid: kid.to_owned(), len: bytes.len() });
    }
    Ok(DecodingKey::from_secret(bytes))
}
