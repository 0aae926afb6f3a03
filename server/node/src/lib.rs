//! The Talaria node: what turns the pure core into a process. Bytes of clients come in by `transport`, become frames
//! and requests in a session driver, go to the shard's core, whose effects are performed here: the log's writer
//! thread, the readers, frames back to clients. Beside it: configuration, tokens, TLS, health and metrics.
//!
//! [`node::Node::start`] runs a node in this process on any commit log; the binary is a thin shell around it.
//!
//! Never here: a decision about conversations or members (that is `talaria-core`), a key or record of the log
//! (`talaria-log`), a message's text in a log line.

pub mod admin;
pub mod auth;
pub mod clock;
pub mod config;
pub mod dev;
mod faults;
pub mod lifecycle;
pub mod limits;
pub mod log_thread;
pub mod mailbox;
pub mod metrics;
pub mod node;
mod outbox;
mod pace;
pub mod readers;
mod retention;
mod session_driver;
mod shard_host;
pub mod shard_thread;
pub mod tls;
pub mod transport;

pub use node::{Node, NodeHandle, StartError};
