//! Tokens signed by a dev node's key, in this process: a JWT (EdDSA) for each user.

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use rustls::{SignatureScheme, crypto::ring::sign::any_eddsa_type, sign::Signer};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use talaria_protocol::message::client::Token;

/// How long a token holds, seconds.
const TTL_S: u64 = 24 * 3600;
/// `{"alg":"EdDSA","kid":"dev","typ":"JWT"}`: the key's name in dev mode.
const HEADER: &str = r#"{"alg":"EdDSA","kid":"dev","typ":"JWT"}"#;
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The key of a dev node.
#[derive(Clone)]
pub(crate) struct TokenKey(Arc<dyn Signer>);

impl TokenKey {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_file(path).with_context(|| path.display().to_string())?;
        let key = any_eddsa_type(&der)?;
        let signer = key.choose_scheme(&[SignatureScheme::ED25519]).context("not an Ed25519 key")?;
        Ok(Self(signer.into()))
    }

    /// For this user. Subjects here are plain words.
    pub(crate) fn sign(&self, subject: &str) -> anyhow::Result<Token> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = serde_json::json!({ "sub": subject, "iat": now, "exp": now + TTL_S });
        let mut token = base64_url(HEADER.as_bytes());
        token.push('.');
        token.push_str(&base64_url(claims.to_string().as_bytes()));
        let signature = self.0.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&base64_url(&signature));
        Ok(Token(token))
    }
}

fn base64_url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let bits = part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        for place in 0..=part.len() {
            let six = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(char::from(BASE64_URL[six as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64_url;

    #[test]
    fn base64_has_no_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("\u{ff}?>", "w78_Pg"),
        ] {
            assert_eq!(base64_url(bytes.as_bytes()), text);
        }
    }
}
