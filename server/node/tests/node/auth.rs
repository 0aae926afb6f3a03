//! Tokens without a socket: every claim, algorithm and key, at times of our choosing.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use ring::{hmac, signature::Ed25519KeyPair};
use talaria_protocol::{error_code::ErrorCode, message::client::Token};
use talaria_server::{
    auth::{KeyError, Keyring, TokenError},
    config::{AuthConfig, AuthKey, KeyAlgorithm, KeySource},
};

/// Seconds since 1970 of these tests.
const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn eddsa(kid: &str, pair: &KeyPair) -> AuthKey {
    let source = KeySource::Pem(pair.public_key_pem());
    AuthKey { kid: kid.to_owned(), algorithm: KeyAlgorithm::EdDsa, source }
}

fn hs256(kid: &str, dir: &tempfile::TempDir, secret: &[u8]) -> AuthKey {
    let path = dir.path().join(kid);
    std::fs::write(&path, secret).unwrap();
    AuthKey { kid: kid.to_owned(), algorithm: KeyAlgorithm::Hs256, source: KeySource::Path(path) }
}

fn keyring(keys: Vec<AuthKey>) -> Keyring {
    Keyring::read(&AuthConfig { keys, ..AuthConfig::default() }).unwrap()
}

fn signed(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Token {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    Token(format!("{message}.{signature}"))
}

fn by_eddsa(pair: &KeyPair, header: &str, claims: &str) -> Token {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pair.serialized_der()).unwrap();
    signed(header, claims, |message| pair.sign(message).as_ref().to_vec())
}

fn by_hmac(algorithm: hmac::Algorithm, secret: &[u8], header: &str, claims: &str) -> Token {
    signed(header, claims, |message| {
        hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
    })
}

fn verify(keyring: &Keyring, token: &Token) -> Result<u64, TokenError> {
    let verified = keyring.verify(token, "", NOW * 1000)?;
    assert_eq!(verified.subject, "alice");
    Ok(verified.expires_ms)
}

const PLAIN: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;
const GOOD: &str = r#"{"sub":"alice","exp":1800000600}"#;

#[test]
fn a_good_token_of_each_algorithm() {
    let (pair, dir) = (KeyPair::generate_for(&PKCS_ED25519).unwrap(), tempfile::tempdir().unwrap());
    let ring = keyring(vec![eddsa("ed", &pair), hs256("hs", &dir, SECRET)]);
    let expires_ms = (NOW + 600 + 30) * 1000;
    let token = by_eddsa(&pair, r#"{"alg":"EdDSA","kid":"ed"}"#, GOOD);
    assert_eq!(verify(&ring, &token), Ok(expires_ms));
    let token = by_hmac(hmac::HMAC_SHA256, SECRET, r#"{"alg":"HS256","kid":"hs"}"#, GOOD);
    assert_eq!(verify(&ring, &token), Ok(expires_ms));
}

#[test]
fn the_secret_is_the_file_less_one_newline() {
    let dir = tempfile::tempdir().unwrap();
    let token = by_hmac(hmac::HMAC_SHA256, SECRET, r#"{"alg":"HS256"}"#, GOOD);
    for end in [b"".as_slice(), b"\n", b"\r\n"] {
        let ring = keyring(vec![hs256("hs", &dir, &[SECRET, end].concat())]);
        assert!(verify(&ring, &token).is_ok(), "{end:?}");
    }
    let ring = keyring(vec![hs256("hs", &dir, &[SECRET, b"\n\n"].concat())]);
    assert_eq!(verify(&ring, &token), Err(TokenError::Signature));
}

#[test]
fn the_algorithm_is_the_keys_not_the_tokens() {
    let (pair, dir) = (KeyPair::generate_for(&PKCS_ED25519).unwrap(), tempfile::tempdir().unwrap());
    let ring = keyring(vec![eddsa("ed", &pair), hs256("hs", &dir, SECRET)]);
    let public = pair.der_bytes();
    let table = [
        (
            "HS256 with the public key",
            by_hmac(hmac::HMAC_SHA256, public, r#"{"alg":"HS256","kid":"ed"}"#, GOOD),
        ),
        ("EdDSA for an HS256 key", by_eddsa(&pair, r#"{"alg":"EdDSA","kid":"hs"}"#, GOOD)),
        ("HS384", by_hmac(hmac::HMAC_SHA384, SECRET, r#"{"alg":"HS384","kid":"hs"}"#, GOOD)),
        ("HS512", by_hmac(hmac::HMAC_SHA512, SECRET, r#"{"alg":"HS512","kid":"hs"}"#, GOOD)),
        ("RS256", by_hmac(hmac::HMAC_SHA256, SECRET, r#"{"alg":"RS256","kid":"hs"}"#, GOOD)),
        ("ES256", by_eddsa(&pair, r#"{"alg":"ES256","kid":"ed"}"#, GOOD)),
    ];
    for (name, token) in table {
        assert_eq!(verify(&ring, &token), Err(TokenError::WrongAlgorithm), "{name}");
    }
    for none in ["none", "None", "NONE", "", "eddsa"] {
        let header = format!(r#"{{"alg":"{none}","kid":"ed"}}"#);
        assert_eq!(
            verify(&ring, &by_eddsa(&pair, &header, GOOD)),
            Err(TokenError::Malformed),
            "alg {none:?}"
        );
        let unsigned = signed(&header, GOOD, |_| Vec::new());
        assert_eq!(verify(&ring, &unsigned), Err(TokenError::Malformed), "alg {none:?} without signature");
    }
}

#[test]
fn keys_rotate_by_kid() {
    let (old, new) =
        (KeyPair::generate_for(&PKCS_ED25519).unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let with_kid = |pair, kid| by_eddsa(pair, &format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), GOOD);
    let both = keyring(vec![eddsa("old", &old), eddsa("new", &new)]);
    assert!(verify(&both, &with_kid(&old, "old")).is_ok());
    assert!(verify(&both, &with_kid(&new, "new")).is_ok());
    assert_eq!(verify(&both, &with_kid(&old, "new")), Err(TokenError::Signature));
    assert_eq!(verify(&both, &with_kid(&old, "older")), Err(TokenError::UnknownKey));
    assert_eq!(verify(&both, &by_eddsa(&old, PLAIN, GOOD)), Err(TokenError::UnknownKey), "no kid, two keys");
    let rotated = keyring(vec![eddsa("new", &new)]);
    assert_eq!(verify(&rotated, &with_kid(&old, "old")), Err(TokenError::UnknownKey));
    assert!(verify(&rotated, &by_eddsa(&new, PLAIN, GOOD)).is_ok(), "no kid, one key");
}

#[test]
fn claims() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ring = keyring(vec![eddsa("ed", &pair)]);
    let long = "x".repeat(256);
    let table = [
        (r#"{"sub":"alice"}"#.to_owned(), TokenError::NoExpiry),
        (format!(r#"{{"sub":"alice","exp":{}}}"#, NOW - 30), TokenError::Expired),
        (r#"{"sub":"alice","exp":0}"#.to_owned(), TokenError::Expired),
        (r#"{"sub":"alice","exp":-5}"#.to_owned(), TokenError::Expired),
        (r#"{"sub":"alice","exp":"1800000600"}"#.to_owned(), TokenError::Malformed),
        (r#"{"sub":"alice","exp":null}"#.to_owned(), TokenError::NoExpiry),
        (format!(r#"{{"sub":"alice","exp":1800000600,"nbf":{}}}"#, NOW + 31), TokenError::NotYet),
        (r#"{"exp":1800000600}"#.to_owned(), TokenError::Subject),
        (r#"{"sub":"","exp":1800000600}"#.to_owned(), TokenError::Subject),
        (format!(r#"{{"sub":"{long}","exp":1800000600}}"#), TokenError::Subject),
        (r#"{"sub":7,"exp":1800000600}"#.to_owned(), TokenError::Malformed),
        (r#"{"sub":"mallory","sub":"alice","exp":1800000600}"#.to_owned(), TokenError::Malformed),
        (r#"{"sub":"alice","exp":1800000600,"tenant":"acme"}"#.to_owned(), TokenError::Tenant),
        (r#"{"sub":"alice","exp":1800000600,"aud":"shop"}"#.to_owned(), TokenError::Audience),
        ("[]".to_owned(), TokenError::Malformed),
        ("no JSON".to_owned(), TokenError::Malformed),
    ];
    for (claims, error) in table {
        assert_eq!(verify(&ring, &by_eddsa(&pair, PLAIN, &claims)), Err(error), "{claims}");
    }
    for claims in [
        format!(r#"{{"sub":"alice","exp":{}}}"#, NOW - 29),
        r#"{"sub":"alice","exp":1800000600.5}"#.to_owned(),
        format!(r#"{{"sub":"alice","exp":1800000600,"nbf":{}}}"#, NOW + 30),
        r#"{"sub":"alice","exp":1e300,"more":{"of":["this"]}}"#.to_owned(),
    ] {
        assert!(verify(&ring, &by_eddsa(&pair, PLAIN, &claims)).is_ok(), "{claims}");
    }
    let critical = r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#;
    assert_eq!(verify(&ring, &by_eddsa(&pair, critical, GOOD)), Err(TokenError::Critical));
}

#[test]
fn issuer_audience_and_tenant() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ring = Keyring::read(&AuthConfig {
        issuer: Some("https://id.example.org".to_owned()),
        audience: Some("talaria".to_owned()),
        keys: vec![eddsa("ed", &pair)],
    })
    .unwrap();
    let claims = |more: &str| format!(r#"{{"sub":"alice","exp":1800000600{more}}}"#);
    let issuer = r#","iss":"https://id.example.org""#;
    let table = [
        (format!(r#"{issuer},"aud":"talaria""#), None),
        (format!(r#"{issuer},"aud":["shop","talaria"]"#), None),
        (format!(r#"{issuer},"aud":"shop""#), Some(TokenError::Audience)),
        (format!(r#"{issuer},"aud":[]"#), Some(TokenError::Audience)),
        (issuer.to_owned(), Some(TokenError::Audience)),
        (r#","aud":"talaria""#.to_owned(), Some(TokenError::Issuer)),
        (r#","aud":"talaria","iss":"https://id.example.com""#.to_owned(), Some(TokenError::Issuer)),
        (r#","aud":"talaria","iss":7"#.to_owned(), Some(TokenError::Issuer)),
    ];
    for (more, error) in table {
        let token = by_eddsa(&pair, PLAIN, &claims(&more));
        assert_eq!(verify(&ring, &token).err(), error, "{more}");
    }
    let ring = keyring(vec![eddsa("ed", &pair)]);
    let token = by_eddsa(&pair, PLAIN, &claims(r#","tenant":"acme""#));
    assert!(ring.verify(&token, "acme", NOW * 1000).is_ok());
    assert_eq!(ring.verify(&token, "acme2", NOW * 1000), Err(TokenError::Tenant));
}

#[test]
fn no_bytes_at_all_make_it_panic() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ring = keyring(vec![eddsa("ed", &pair)]);
    for text in ["", ".", "..", "...", "a.b.c", "é.é.é", "eyJhbGciOiJFZERTQSJ9..", "=.=.="] {
        assert!(verify(&ring, &Token(text.to_owned())).is_err(), "{text:?}");
    }
    let whole = by_eddsa(&pair, PLAIN, GOOD).0;
    for end in 0..whole.len() {
        assert!(verify(&ring, &Token(whole[..end].to_owned())).is_err(), "cut at {end}");
    }
}

#[test]
fn codes_say_expired_or_invalid() {
    assert_eq!(TokenError::Expired.code(), ErrorCode::TokenExpired);
    for error in [TokenError::Malformed, TokenError::UnknownKey, TokenError::Signature, TokenError::Tenant] {
        assert_eq!(error.code(), ErrorCode::TokenInvalid);
    }
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let read = |key: AuthKey| {
        let config = AuthConfig { keys: vec![key], ..AuthConfig::default() };
        Keyring::read(&config).err().unwrap().to_string()
    };
    let message = read(hs256("short", &dir, b"secret\n"));
    assert!(
        message.contains("\"short\"") && message.contains("6 bytes") && !message.contains("secret"),
        "{message}"
    );
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let message = read(eddsa("p256", &p256));
    assert!(message.contains("\"p256\"") && message.contains("Ed25519"), "{message}");
    let private = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
    let source = KeySource::Pem(private);
    let message = read(AuthKey { kid: "private".to_owned(), algorithm: KeyAlgorithm::EdDsa, source });
    assert!(message.contains("\"private\"") && !message.contains("BEGIN"), "{message}");
    let source = KeySource::Path(dir.path().join("nowhere.pem"));
    let error = Keyring::read(&AuthConfig {
        keys: vec![AuthKey { kid: "gone".to_owned(), algorithm: KeyAlgorithm::EdDsa, source }],
        ..AuthConfig::default()
    });
    assert!(matches!(error.err(), Some(KeyError::Unreadable { .. })));
}
