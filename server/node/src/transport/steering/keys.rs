//! The secrets that the shards of a node share, derived from the log's key: so they stay when the node is restarted, and a
//! client whose connection the restart ended is told at once by a stateless reset, in place of waiting out its idle time.

use std::sync::Arc;

use quinn::crypto::{HandshakeTokenKey, HmacKey};

/// See the module.
#[derive(Clone)]
pub struct QuicKeys {
    /// Of [`super::Steering`].
    pub steering: u32,
    /// Of the tags in connection ids.
    pub(crate) ids: [u8; 32],
    /// Of stateless resets.
    pub(crate) reset: Arc<dyn HmacKey>,
    /// Of tokens in Retry packets.
    pub(crate) token: Arc<dyn HandshakeTokenKey>,
}

impl std::fmt::Debug for QuicKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuicKeys(..)")
    }
}

impl QuicKeys {
    /// Those of this secret.
    pub fn derive(secret: &[u8; 32]) -> Self {
        let key = |context| blake3::derive_key(context, secret);
        let [a, b, c, d, ..] = key("talaria/1 quic steering");
        let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key("talaria/1 quic reset"));
        let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]);
        Self {
            steering: u32::from_be_bytes([a, b, c, d]),
            ids: key("talaria/1 quic connection ids"),
            reset: Arc::new(reset),
            token: Arc::new(salt.extract(&key("talaria/1 quic tokens"))),
        }
    }
}
