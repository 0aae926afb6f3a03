//! A connection's bytes, either transport: frames of the session out, payloads in.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use talaria_protocol::{frame::FrameDecoder, session::client::ClientSession};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{quic::QuicLink, tcp::TcpLink};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Bytes of frames taken from the session before they are written.
const WRITE_BYTES: usize = 64 * 1024;

pub(super) enum Link {
    Tcp(Box<TcpLink>),
    Quic(Box<QuicLink>),
}

impl Link {
    /// Writes what the session has, as far as the transport takes it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, session: &mut ClientSession) -> io::Result<()> {
        match self {
            Self::Tcp(link) => link.poll_write(cx, session),
            Self::Quic(link) => link.poll_write(cx, session),
        }
    }

    /// Reads until at least one frame went into the session: how many did.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut ClientSession,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(link) => link.poll_read(cx, session),
            Self::Quic(link) => link.poll_read(cx, session),
        }
    }
}

/// What waits to be written to one stream.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: BytesMut,
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn beginning_with(bytes: &[u8]) -> Self {
        Self { bytes: BytesMut::from(bytes), unflushed: false }
    }

    /// Takes from the session and writes until nothing waits, or the stream takes no more.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        session: &mut ClientSession,
    ) -> io::Result<()> {
        loop {
            while self.bytes.len() < WRITE_BYTES {
                let Some(frame) = session.poll_transmit() else { break };
                self.bytes.extend_from_slice(&frame);
            }
            if self.bytes.is_empty() {
                if self.unflushed && Pin::new(stream).poll_flush(cx)?.is_ready() {
                    self.unflushed = false;
                    // An idle client holds no buffer.
                    self.bytes = BytesMut::new();
                }
                return Ok(());
            }
            match Pin::new(&mut *stream).poll_write(cx, &self.bytes) {
                Poll::Ready(written) => self.bytes.advance(written?),
                Poll::Pending => return Ok(()),
            }
            self.unflushed = true;
        }
    }
}

/// What came of one stream.
pub(super) struct Incoming {
    decoder: FrameDecoder,
    /// The stream's type comes first, and is still to come.
    expects_type: bool,
}

impl Incoming {
    pub(super) fn new(session: &ClientSession, expects_type: bool) -> Self {
        Self { decoder: FrameDecoder::new(session.frame_bytes_max()), expects_type }
    }

    /// Reads until at least one frame went into the session: how many did; 0 at the stream's end.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        session: &mut ClientSession,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        loop {
            let mut read = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            let mut bytes = read.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(0));
            }
            if std::mem::take(&mut self.expects_type) {
                bytes = &bytes[1..];
            }
            self.decoder.extend(bytes);
            let frames = self.feed(session);
            if frames > 0 {
                return Poll::Ready(Ok(frames));
            }
        }
    }

    fn feed(&mut self, session: &mut ClientSession) -> usize {
        let mut frames = 0;
        loop {
            self.decoder.set_frame_bytes_max(session.frame_bytes_max());
            match self.decoder.poll_frame() {
                Ok(Some(payload)) => session.handle_frame(crate::time::millis(), payload),
                Ok(None) => return frames,
                Err(error) => {
                    session.handle_frame_error(error);
                    return frames + 1;
                }
            }
            frames += 1;
        }
    }
}
