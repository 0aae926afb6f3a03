//! TLS over one TCP connection, as a pair of buffers without a future of its own: waiting is [`TlsSocket::ready`],
//! which may be dropped at any time without losing a byte; reading and writing never wait.

use std::{
    io::{self, BufRead, IoSlice, Read, Write},
    sync::Arc,
};

use rustls::{ServerConfig, ServerConnection};
use tokio::{io::Interest, net::TcpStream};

use super::transmit::TransmitBuffer;
use crate::limits::ENCRYPTED_BYTES_MAX;

/// Records that one call of [`TlsSocket::read`] takes from the system, so that a busy peer does not starve others.
const READS_PER_CALL_MAX: usize = 4;

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadStatus {
    /// Nothing more for now.
    Drained,
    /// There may be more: read again after others had their turn.
    More,
    /// The peer closed, cleanly or not.
    Closed,
}

/// Why a connection is broken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The peer breaks TLS; an alert for it is queued.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// See the module.
pub(crate) struct TlsSocket {
    tcp: TcpStream,
    tls: ServerConnection,
    has_begun: bool,
    /// The peer broke TLS: what it sends is thrown away.
    broken: bool,
}

impl TlsSocket {
    /// Of a connection just accepted.
    pub(crate) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, SocketError> {
        let mut tls = ServerConnection::new(config)?;
        tls.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        Ok(Self { tcp, tls, has_begun: false, broken: false })
    }

    /// Waits until something can be read, or written if something waits. Cancel-safe.
    pub(crate) async fn ready(&self, read: bool) -> io::Result<()> {
        let interest = match (read, self.tls.wants_write()) {
            (true, true) => Interest::READABLE.add(Interest::WRITABLE),
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        self.tcp.ready(interest).await.map(drop)
    }

    /// The handshake goes on.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The peer has said something.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes wait to be written.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Reads what there is, up to a bound; `take` gets the plaintext. Handshake messages are answered into the
    /// write buffer.
    pub(crate) fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<ReadStatus, SocketError> {
        if self.broken {
            return self.discard();
        }
        for _ in 0..READS_PER_CALL_MAX {
            match self.tls.read_tls(&mut TryRead(&self.tcp)) {
                Ok(0) => return Ok(ReadStatus::Closed),
                Ok(_) => self.has_begun = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadStatus::Drained),
                Err(error) if is_reset(&error) => return Ok(ReadStatus::Closed),
                Err(error) => return Err(error.into()),
            }
            let state = self.tls.process_new_packets().inspect_err(|_| self.broken = true)?;
            let closed = state.peer_has_closed();
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let mut reader = self.tls.reader();
                let chunk = reader.fill_buf()?;
                let taken = chunk.len();
                take(chunk);
                reader.consume(taken);
                left = left.saturating_sub(taken.max(1));
            }
            if closed {
                return Ok(ReadStatus::Closed);
            }
        }
        Ok(ReadStatus::More)
    }

    /// Reads so that the system does not reset the connection under the alert that is on its way.
    fn discard(&self) -> Result<ReadStatus, SocketError> {
        let mut nobody = [0; 4096];
        for _ in 0..READS_PER_CALL_MAX {
            match self.tcp.try_read(&mut nobody) {
                Ok(0) => return Ok(ReadStatus::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadStatus::Drained),
                Err(error) if is_reset(&error) => return Ok(ReadStatus::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ReadStatus::More)
    }

    /// Encrypts and writes until all is written or the system takes no more. Gives the bytes that the system took.
    pub(crate) fn write(&mut self, transmit: &mut TransmitBuffer) -> io::Result<usize> {
        let mut written = 0;
        loop {
            while !self.tls.is_handshaking() {
                let taken = transmit.with_slices(|slices| self.tls.writer().write_vectored(slices))?;
                if taken == 0 {
                    break;
                }
                transmit.advance(taken);
            }
            if !self.tls.wants_write() {
                return Ok(written);
            }
            match self.tls.write_tls(&mut TryWrite(&self.tcp)) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues the alert that says that nothing follows.
    pub(crate) fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// Says by TCP that nothing follows.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.tcp).shutdown(std::net::Shutdown::Write)
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

struct TryRead<'a>(&'a TcpStream);

impl Read for TryRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

struct TryWrite<'a>(&'a TcpStream);

impl Write for TryWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
