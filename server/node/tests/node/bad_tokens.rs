//! Tokens that must not open a session: over a real socket each, with its code. (All claims and keys: `tests/auth.rs`.)

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use talaria_protocol::{
    error_code::ErrorCode,
    message::{
        RequestId,
        client::{ClientFrame, Token},
        server::ServerFrame,
    },
};
use talaria_server::{auth::SigningKey, clock::unix_ms};

use crate::support::{client::Client, honest::Honest, node::TestNode};

fn refusal_of(node: &TestNode, token: &str) -> ErrorCode {
    let mut client = node.connect();
    client.send(&ClientFrame::Hello(Box::new(Client::hello_frame(token, 1))));
    client.end()
}

fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

fn claims() -> String {
    part(&format!(r#"{{"sub":"alice","exp":{}}}"#, unix_ms() / 1000 + 600))
}

/// HMAC with the *public* key as the secret: what a verifier that trusts `alg` falls for.
fn confused(node: &TestNode) -> String {
    let signed = format!("{}.{}", part(r#"{"alg":"HS256","kid":"dev"}"#), claims());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, node.key().public_key());
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn forged() -> String {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let key = SigningKey::from_pem("dev", pem.as_bytes()).unwrap();
    let now = unix_ms() / 1000;
    key.sign(&talaria_server::auth::TokenRequest {
        subject: "alice",
        tenant: "",
        issued: now,
        expires: now + 600,
    })
    .unwrap()
}

#[test]
fn expired_forged_none_and_wrong_algorithm() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let good = node.token("alice");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    let none = part(r#"{"alg":"none","kid":"dev"}"#);
    let table = [
        ("expired", node.token_until("alice", -31), ErrorCode::TokenExpired),
        ("forged", forged(), ErrorCode::TokenInvalid),
        ("another signature", format!("{signed}.{flipped}"), ErrorCode::TokenInvalid),
        ("no signature", format!("{signed}."), ErrorCode::TokenInvalid),
        ("alg none", format!("{none}.{}.", claims()), ErrorCode::TokenInvalid),
        ("alg none, signed", format!("{none}.{}.{signature}", claims()), ErrorCode::TokenInvalid),
        ("algorithm confusion", confused(&node), ErrorCode::TokenInvalid),
        ("no token", String::new(), ErrorCode::TokenInvalid),
        ("no JWT", "hello".to_owned(), ErrorCode::TokenInvalid),
    ];
    for (name, token, code) in table {
        assert_eq!(refusal_of(&node, &token), code, "{name}");
    }
    node.assert_metric("talaria_hello_refused_total{code=\"TOKEN_EXPIRED\"}", 1.0);
    honest.go_on();
}

#[test]
fn a_token_of_another_tenant() {
    let node = TestNode::start();
    let mut client = node.connect();
    let mut hello = Client::hello_frame(&node.token("alice"), 1);
    hello.tenant = "acme".to_owned();
    client.send(&ClientFrame::Hello(Box::new(hello)));
    assert_eq!(client.end(), ErrorCode::TokenInvalid);
}

#[test]
fn reauth_with_a_bad_token_leaves_the_session_alone() {
    let node = TestNode::start();
    let mut client = node.session("alice");
    let table = [
        (node.token("bob"), ErrorCode::TokenOfAnother),
        (node.token_until("alice", -31), ErrorCode::TokenExpired),
        (forged(), ErrorCode::TokenInvalid),
    ];
    for (number, (token, code)) in (1_000..).zip(table) {
        let request_id = RequestId::new(number).unwrap();
        client.send(&ClientFrame::Reauth { request_id, token: Token(token) });
        assert_eq!(client.error_of(request_id), code);
    }
    let request_id = RequestId::new(2_000).unwrap();
    client.send(&ClientFrame::Reauth { request_id, token: Token(node.token("alice")) });
    assert!(matches!(client.answer(request_id), ServerFrame::Reauthed { .. }));
}
