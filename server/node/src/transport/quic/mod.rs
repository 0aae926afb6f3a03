//! QUIC: all of quinn that is not steering is behind this module, since its interfaces change. Datagrams come in by a
//! shard's endpoint, streams of a connection carry the same frames as TCP to the same session driver; spec/quic.md.
//!
//! Never here: a thread or a lock of our own. A connection lives and dies on the shard whose endpoint accepted it.

mod acceptor;
mod connection;
mod endpoint;
mod gate;
mod inbound;
pub mod limits;
mod outbound;
pub(crate) mod start;

pub(crate) use acceptor::QuicAcceptor;
pub use endpoint::Endpoints;
pub use quinn::crypto::rustls::NoInitialCipherSuite;
