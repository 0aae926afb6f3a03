//! Tests of the shard, from the outside: inputs in, effects out.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod random;
