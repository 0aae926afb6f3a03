//! Turns `kill -9` of a program under test into a power cut.
//!
//! A killed process loses nothing that it gave to the kernel, so a test with `kill -9` alone
//! cannot tell whether a program syncs what it acknowledges. The library
//! `talaria-powercut-shim`, loaded with LD_PRELOAD, holds writes back in the memory of the
//! program until it calls fsync or fdatasync: a kill then loses what was not synced, and with a
//! seed it leaves torn tails too.
//!
//! This crate is the half that a test links: [`PowerCut`] prepares a command, [`Stats`] tells
//! after the kill how much was lost, [`build_shim`] and [`shim_path`] find the library. It must
//! never define a libc symbol itself; [`pending`] is the shim's queue, here so that it has tests.
//! What the shim does not simulate is listed at the top of `shim/src/lib.rs`.

pub mod env;
mod locate;
pub mod pending;
mod power_cut;
mod stats;

pub use locate::{SHIM_FILE, build_shim, shim_path};
pub use power_cut::PowerCut;
pub use stats::{Counter, STATS_MAGIC, STATS_WORDS, Stats, StatsError};
