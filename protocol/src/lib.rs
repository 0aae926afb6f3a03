//! Talaria's protocol, without any I/O: limits, ids, frames, parsed messages, the hash chain, and the session
//! machines of both ends. Normative text: spec/. Bytes come in, bytes and events go out; clocks and randomness
//! are arguments. Nothing in here may block, allocate by a peer's claim before its cap is checked, or print a
//! message's text.

pub mod chain;
pub mod entry;
pub mod error_code;
pub mod frame;
pub mod hlc;
pub mod ids;
pub mod limits;
pub mod message;
pub mod session;
pub mod wire;
