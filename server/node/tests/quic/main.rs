//! The node over QUIC: quinn as a raw client, real sockets on ephemeral ports.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod bad;
mod early;
mod flow;
mod load;
mod machine;
mod migration;
mod sessions;
mod steering;
mod streams;
mod support;

#[path = "../node/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests over TCP")]
mod tcp_support;
