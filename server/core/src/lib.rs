//! The server's domain as pure machines: what a conversation is, who gets what, how a session catches up. Inputs
//! are requests, completions and read results; outputs are [`effect::Effect`]s, performed by the node. Nothing
//! here does I/O, reads a clock, draws randomness or waits: `now` and the seed of the salts are arguments, and
//! whatever depends on durability is released by `on_durable` only.

mod answer;
pub mod conversation;
mod cursors;
mod directory;
pub mod effect;
mod fan_out;
mod gap;
pub mod limits;
pub mod log;
pub mod peer;
pub mod placement;
mod question;
mod salt;
mod session;
pub mod session_directory;
pub mod shard;
