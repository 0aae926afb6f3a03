//! Tokens: a JWT comes in, who it names and until when comes out. EdDSA and HS256 only, the algorithm pinned to the
//! key and the key chosen by `kid`; whatever else a token's header says is ignored or refused. The time is an
//! argument. Nothing here prints a token or a key.

mod crypto;
mod keys;
mod sign;

use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind};
use serde::Deserialize;
use talaria_protocol::{error_code::ErrorCode, limits::SUBJECT_BYTES_MAX, message::client::Token};

pub use keys::KeyError;
pub use sign::{SignError, SigningKey, TokenRequest};

use crate::config::{AuthConfig, KeyAlgorithm};
use keys::VerifyKey;

/// Clocks of issuers may be this wrong, seconds: `exp` and `nbf` are taken as that much later and earlier.
pub const LEEWAY_SECONDS: u64 = 30;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT of a known algorithm, or one with claims of wrong types.
    #[error("the token is not a JWT with alg EdDSA or HS256, sub and exp")]
    Malformed,
    /// Its header lists extensions that must be understood, and none is.
    #[error("the token's header has `crit`, which this server does not support")]
    Critical,
    /// No key has its `kid`, or it has none while there are several keys.
    #[error("the token's `kid` names no key of this server")]
    UnknownKey,
    /// Its `alg` is not its key's.
    #[error("the token's `alg` is not the one of its key")]
    WrongAlgorithm,
    /// It was not signed with the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// Of another issuer.
    #[error("the token's `iss` is not the one that this server expects")]
    Issuer,
    /// For another audience, or for one while this server is configured for none.
    #[error("the token's `aud` is not the one that this server expects")]
    Audience,
    /// It names nobody.
    #[error("the token's `sub` is missing, empty or longer than 255 bytes")]
    Subject,
    /// It would hold for ever.
    #[error("the token has no `exp`")]
    NoExpiry,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token's `nbf` has not come yet")]
    NotYet,
    /// Of another tenant than the session asks for.
    #[error("the token's `tenant` is not the one of the session")]
    Tenant,
}

impl TokenError {
    /// What the client is told.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            _ => ErrorCode::TokenInvalid,
        }
    }
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who, 1 to 255 bytes.
    pub subject: String,
    /// When it ends the session, ms since 1970: `exp` and the leeway.
    pub expires_ms: u64,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(default)]
    tenant: String,
}

/// All keys, and what a token must say besides.
pub struct Keyring {
    keys: Vec<VerifyKey>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Keyring {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn read(config: &AuthConfig) -> Result<Self, KeyError> {
        crypto::install();
        let keys = config.keys.iter().map(VerifyKey::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { keys, issuer: config.issuer.clone(), audience: config.audience.clone() })
    }

    /// Adds the key of dev mode.
    pub fn add_dev(&mut self, key: &SigningKey) {
        self.keys.push(VerifyKey::of_ed25519(key.kid(), key.public_key()));
    }

    /// Verifies a token for a session of `tenant`, at this time.
    ///
    /// # Errors
    /// Why it is refused; nothing of the token is in it.
    pub fn verify(&self, token: &Token, tenant: &str, unix_ms: u64) -> Result<Verified, TokenError> {
        let header = jsonwebtoken::decode_header(token.0.as_bytes()).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let key = self.key_of(&header)?;
        let validation = self.validation(key.algorithm);
        let claims = jsonwebtoken::decode::<Claims>(token.0.as_bytes(), &key.key, &validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        check(claims, tenant, unix_ms)
    }

    fn key_of(&self, header: &Header) -> Result<&VerifyKey, TokenError> {
        match (&header.kid, self.keys.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(TokenError::UnknownKey),
            (Some(kid), keys) => keys.iter().find(|key| key.kid == *kid).ok_or(TokenError::UnknownKey),
        }
    }

    /// What the library checks: algorithm, signature, `iss`, `aud`. Times are ours, since they are arguments.
    fn validation(&self, algorithm: KeyAlgorithm) -> Validation {
        let mut validation = Validation::new(match algorithm {
            KeyAlgorithm::EdDsa => Algorithm::EdDSA,
            KeyAlgorithm::Hs256 => Algorithm::HS256,
        });
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        validation
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidAlgorithm => TokenError::WrongAlgorithm,
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => TokenError::Issuer,
        ErrorKind::MissingRequiredClaim(_) => TokenError::Audience,
        _ => TokenError::Malformed,
    }
}

fn check(claims: Claims, tenant: &str, unix_ms: u64) -> Result<Verified, TokenError> {
    let subject = claims.sub.unwrap_or_default();
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
        return Err(TokenError::Subject);
    }
    let leeway_ms = LEEWAY_SECONDS * 1000;
    // A float turns into the nearest value that fits: a token of the year 600 million expires late.
    let expires_ms = ((claims.exp.ok_or(TokenError::NoExpiry)? * 1000.0) as u64).saturating_add(leeway_ms);
    if unix_ms >= expires_ms {
        return Err(TokenError::Expired);
    }
    let not_before_ms = (claims.nbf.unwrap_or(0.0) * 1000.0) as u64;
    if unix_ms.saturating_add(leeway_ms) < not_before_ms {
        return Err(TokenError::NotYet);
    }
    if claims.tenant != tenant {
        return Err(TokenError::Tenant);
    }
    Ok(Verified { subject, expires_ms })
}
