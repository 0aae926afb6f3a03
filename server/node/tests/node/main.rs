//! The node over real sockets: ephemeral ports, own temporary directories, all in parallel, no process left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod admin;
mod auth;
mod bad_flow;
mod bad_frames;
mod bad_requests;
mod bad_tls;
mod bad_tokens;
mod config;
mod failing_log;
mod lanes;
mod panics;
mod program;
mod retention;
mod sessions;
mod shards;
mod smoke;
mod storms;
mod support;
