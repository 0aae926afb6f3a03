//! Tests of the shard, from the outside: inputs in, effects out.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod conversation;
mod delivery;
mod groups;
mod random;
mod reading;
mod sending;
mod sessions;
mod shards;
mod truncation;
