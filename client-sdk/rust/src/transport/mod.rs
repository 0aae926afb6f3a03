//! Connections to a server: TCP with TLS, or QUIC, raced where both may be used. A [`Link`] takes bytes of whole frames
//! and gives decoders of frames; what they say is not looked at here. Frames to the server all go one way, in order;
//! frames from it come in one stream on TCP and in three on QUIC, each with a decoder of its own.
//!
//! | file | what |
//! |---|---|
//! | `tls.rs` | whose certificates are trusted |
//! | `tcp.rs`, `quic.rs` | a link of each kind, and how it is dialled |
//! | `race.rs` | which of both is used, and what is remembered of that |

mod quic;
mod race;
mod tcp;
mod tls;

use std::{future::Future, future::pending, io, pin::Pin};

use bytes::BytesMut;
use quinn::Endpoint;
use talaria_client_core::timeline::Streams;
use talaria_protocol::frame::FrameDecoder;

use self::{quic::QuicLink, tcp::TcpLink};
pub(crate) use self::{
    race::{Dialer, Race},
    tls::Roots,
};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One that goes on when the device changes its network, with a stream of its own for live messages.
    Quic,
    /// TLS over TCP: works where UDP does not.
    Tcp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        })
    }
}

/// What may carry a connection, see [`ClientConfig::transport`](crate::ClientConfig::transport).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransportChoice {
    /// Whichever of both works first, QUIC with a head start. What won is remembered per network.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

/// What came of waiting for a link.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Bytes came into a decoder.
    Read,
    /// Bytes of the output left.
    Wrote,
    /// The server is there: the handshake of a connection that was used before its end is complete.
    Confirmed,
    /// The same, and what was sent before is lost: it is to be sent again, in a new session.
    BeginAgain,
    /// The connection is gone.
    Lost(Lost),
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Lost {
    /// For a person.
    pub(crate) why: String,
    /// The server's word where it could say no frame: a number of spec/errors.md ([QUI-15]).
    pub(crate) code: Option<u32>,
}

/// A connection.
pub(crate) enum Link {
    Tcp(Box<TcpLink>),
    Quic(Box<QuicLink>),
}

impl Link {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Quic(_) => Transport::Quic,
        }
    }

    pub(crate) fn streams(&self) -> Streams {
        match self {
            Self::Tcp(_) => Streams::One,
            Self::Quic(_) => Streams::Many,
        }
    }

    /// Nothing was heard of the server yet: another link may still be the better one.
    pub(crate) fn is_provisional(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Quic(link) => link.is_provisional(),
        }
    }

    /// The server was heard of on it.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Quic(link) => link.is_answered(),
        }
    }

    /// Bytes that wait to be written, to be appended to.
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        match self {
            Self::Tcp(link) => link.output(),
            Self::Quic(link) => link.output(),
        }
    }

    /// One for each stream of frames, the most urgent first; `None` beyond the last.
    pub(crate) fn decoder(&mut self, index: usize) -> Option<&mut FrameDecoder> {
        match self {
            Self::Tcp(link) => (index == 0).then(|| link.decoder()),
            Self::Quic(link) => link.decoder(index),
        }
    }

    /// Reads and writes until something came of it. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Progress {
        match self {
            Self::Tcp(link) => link.next().await,
            Self::Quic(link) => link.next().await,
        }
    }

    /// Leaves a network that is gone by a new socket. Does nothing on TCP.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub(crate) fn rebind(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Quic(link) => link.rebind(),
        }
    }

    /// Ends it. On QUIC a last packet says so; it is gone when the endpoint is idle.
    pub(crate) fn close(self) -> Option<Endpoint> {
        match self {
            Self::Tcp(_) => None,
            Self::Quic(link) => Some(link.close()),
        }
    }
}

/// A future that may not be there.
async fn optional<T>(future: &mut Option<impl Future<Output = T> + Unpin>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
