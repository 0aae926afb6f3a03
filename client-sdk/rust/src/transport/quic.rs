//! QUIC: frames to the server on the control stream, frames from it on three: control, live, bulk. Each begins with a
//! byte that says which it is. A resumed connection is used before its handshake is complete; until then it is
//! provisional, and what it sent may have to be sent again.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt, WriteError,
    ZeroRttAccepted,
    crypto::rustls::{HandshakeData, QuicClientConfig},
};
use talaria_protocol::{
    frame::FrameDecoder,
    limits::{ALPN, FRAME_BYTES_MAX_BEFORE_WELCOME, HANDSHAKE_TIMEOUT},
};
use tokio::{
    io::AsyncReadExt,
    net::lookup_host,
    time::{Instant, timeout, timeout_at},
};

use super::{Lost, Progress, optional, tls::Roots};
use crate::error::ConfigError;

/// The first byte of a stream ([QUI-5]).
const CONTROL: u8 = 1;
const LIVE: u8 = 2;
const BULK: u8 = 3;
/// Says that a stream's type is not known ([QUI-8]).
const UNKNOWN_STREAM: u32 = 0x10;
/// How a connection ends that nothing is wrong with ([QUI-14]).
const CLOSE_NORMAL: u32 = 0;

/// Streams that the server may have open: its two, and some of newer types until they are refused.
const STREAMS_MAX: u32 = 8;
/// Bytes of one stream that may be on their way: what a phone's line holds, and no more, for live entries queue behind
/// a backfill that is on its way.
const STREAM_BYTES_MAX: u32 = 1024 * 1024;
/// Bytes of all streams: more than one can take ([QUI-26]).
const CONNECTION_BYTES_MAX: u32 = 3 * STREAM_BYTES_MAX;
/// Bytes of datagrams that nobody reads yet; the oldest make room.
const DATAGRAM_BYTES_MAX: usize = 16 * 1024;
/// Addresses of a server that are tried, one after another.
const ADDRESSES_MAX: usize = 4;

/// Dials one server.
#[derive(Clone)]
pub(super) struct QuicDialer {
    address: String,
    name: String,
    config: quinn::ClientConfig,
}

impl QuicDialer {
    pub(super) fn new(
        address: &str,
        name: String,
        roots: &Roots,
        early_data: bool,
    ) -> Result<Self, ConfigError> {
        let mut tls = roots.tls()?;
        tls.enable_early_data = early_data;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| ConfigError::Ca(error.to_string()))?;
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
            .stream_receive_window(VarInt::from_u32(STREAM_BYTES_MAX))
            .receive_window(VarInt::from_u32(CONNECTION_BYTES_MAX))
            .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
            // The protocol's pings say when a connection is dead.
            .max_idle_timeout(None);
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        Ok(Self { address: address.to_string(), name, config })
    }

    /// A link that the server has answered, or one that it knows from before and may be used at once.
    pub(super) async fn dial(self) -> io::Result<Box<QuicLink>> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let found = timeout_at(deadline, lookup_host(&self.address)).await.map_err(late)??;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut addresses = found.take(ADDRESSES_MAX).peekable();
        while let Some(address) = addresses.next() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if addresses.peek().is_some() { left / 2 } else { left };
            match timeout(share, self.dial_at(address)).await.map_err(late).flatten() {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_at(&self, address: SocketAddr) -> io::Result<Box<QuicLink>> {
        // An endpoint each: what one connection's network does is no matter of another's.
        let local: IpAddr =
            if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let local = SocketAddr::new(local, 0);
        let endpoint = Endpoint::client(local)?;
        let connecting =
            endpoint.connect_with(self.config.clone(), address, &self.name).map_err(io::Error::other)?;
        let (connection, accepted) = match connecting.into_0rtt() {
            Ok((connection, accepted)) => (connection, Some(accepted)),
            Err(connecting) => {
                let connection = connecting.await?;
                check_alpn(&connection)?;
                (connection, None)
            }
        };
        let control = connection.open_bi().await?;
        let mut link = QuicLink {
            endpoint,
            local,
            connection,
            accepted,
            reopening: false,
            control: None,
            output: BytesMut::new(),
            streams: Vec::new(),
            lost: None,
        };
        link.begin(control);
        Ok(Box::new(link))
    }
}

/// The server is of another protocol.
pub(super) fn no_talaria() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server does not speak talaria/1")
}

fn check_alpn(connection: &Connection) -> io::Result<()> {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    match data.and_then(|data| data.protocol) {
        Some(protocol) if protocol == ALPN => Ok(()),
        _ => Err(no_talaria()),
    }
}

/// What a stream of the server carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Control,
    Live,
    Bulk,
    /// Its first byte has not come.
    Opening,
}

/// Frames on one stream.
struct InStream {
    kind: Kind,
    receive: RecvStream,
    decoder: FrameDecoder,
}

impl InStream {
    fn new(kind: Kind, receive: RecvStream) -> Self {
        Self { kind, receive, decoder: FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_WELCOME) }
    }
}

/// What reading a stream gave.
enum Came {
    Bytes,
    /// A stream said what it is, or was refused.
    Nothing,
    /// The server will say nothing more on this connection.
    End,
}

/// One connection.
pub(crate) struct QuicLink {
    endpoint: Endpoint,
    /// What sockets are bound to.
    local: SocketAddr,
    connection: Connection,
    /// Says at the handshake's end whether the early data counts; taken then.
    accepted: Option<ZeroRttAccepted>,
    /// It does not: the control stream is being opened anew.
    reopening: bool,
    /// Gone when nothing more can be written.
    control: Option<SendStream>,
    output: BytesMut,
    /// In the order of their kinds; at most [`STREAMS_MAX`] and the control stream.
    streams: Vec<InStream>,
    /// Why it cannot go on, once everything that came is read.
    lost: Option<Lost>,
}

impl QuicLink {
    /// The control stream is open.
    fn begin(&mut self, (send, receive): (SendStream, RecvStream)) {
        self.control = Some(send);
        self.output.clear();
        self.output.extend_from_slice(&[CONTROL]);
        self.streams = vec![InStream::new(Kind::Control, receive)];
    }

    pub(super) fn is_provisional(&self) -> bool {
        self.accepted.is_some() || self.reopening
    }

    /// The server's part of the handshake has come.
    pub(super) fn is_answered(&self) -> bool {
        self.connection.handshake_data().is_some() && self.connection.close_reason().is_none()
    }

    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Those that have not said what they are come last, without bytes.
    pub(super) fn decoder(&mut self, index: usize) -> Option<&mut FrameDecoder> {
        self.streams.get_mut(index).map(|stream| &mut stream.decoder)
    }

    pub(super) fn rebind(&self) -> io::Result<()> {
        self.endpoint.rebind(UdpSocket::bind(self.local)?)
    }

    pub(super) fn close(self) -> Endpoint {
        self.connection.close(VarInt::from_u32(CLOSE_NORMAL), b"");
        self.endpoint
    }

    /// What is awaited here is in `self`, or is taken from the connection whole: a step is done or not begun.
    pub(super) async fn next(&mut self) -> Progress {
        loop {
            if let Some(lost) = self.lost.take() {
                return Progress::Lost(lost);
            }
            // Before the handshake's end nothing can have come.
            let reads = !self.is_provisional();
            let Self { connection, accepted, reopening, control, output, streams, .. } = self;
            tokio::select! {
                // In this order: what came before the end is read before the end is told.
                biased;
                was_accepted = optional(accepted) => {
                    self.accepted = None;
                    match self.on_handshake(was_accepted) {
                        Some(progress) => return progress,
                        None => continue,
                    }
                }
                opened = connection.open_bi(), if *reopening => match opened {
                    Ok(control) => {
                        self.reopening = false;
                        self.begin(control);
                        return Progress::BeginAgain;
                    }
                    Err(error) => return Progress::Lost(lost(&error)),
                },
                wrote = write(control, output) => match wrote {
                    Ok(()) => return Progress::Wrote,
                    // The server may have said why before it closed: that is still to be read.
                    Err(_) => {
                        self.control = None;
                        self.output.clear();
                    }
                },
                came = poll_fn(|cx| poll_read(streams, cx)), if reads => match came {
                    Ok(Came::Bytes) => return Progress::Read,
                    Ok(Came::Nothing) => {}
                    Ok(Came::End) => self.lost = Some(self.reason()),
                    Err(why) => self.lost = Some(Lost { why, code: None }),
                },
                stream = connection.accept_uni() => match stream {
                    Ok(receive) => self.streams.push(InStream::new(Kind::Opening, receive)),
                    Err(_) => self.lost = Some(self.reason()),
                },
            }
        }
    }

    /// The server is there. Without the early data, everything begins again on a new control stream ([QUI-19]).
    fn on_handshake(&mut self, was_accepted: bool) -> Option<Progress> {
        if self.connection.close_reason().is_some() {
            return Some(Progress::Lost(self.reason()));
        }
        if let Err(error) = check_alpn(&self.connection) {
            return Some(Progress::Lost(Lost { why: error.to_string(), code: None }));
        }
        if was_accepted {
            return Some(Progress::Confirmed);
        }
        self.control = None;
        self.streams.clear();
        self.output.clear();
        self.reopening = true;
        None
    }

    fn reason(&self) -> Lost {
        match self.connection.close_reason() {
            Some(error) => lost(&error),
            None => Lost { why: "the server ended the session's stream".into(), code: None },
        }
    }
}

fn lost(error: &ConnectionError) -> Lost {
    let code = match error {
        ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
        _ => None,
    };
    Lost { why: error.to_string(), code: code.filter(|code| *code != CLOSE_NORMAL) }
}

/// Bytes out of the buffer: `write` is cancel-safe, it has written or it has not.
async fn write(control: &mut Option<SendStream>, output: &mut BytesMut) -> Result<(), WriteError> {
    match control {
        Some(stream) if !output.is_empty() => {
            let written = stream.write(output).await?;
            output.advance(written);
            Ok(())
        }
        _ => std::future::pending().await,
    }
}

/// Reads from the first stream that has something. All that have nothing wake the task when they do.
fn poll_read(streams: &mut Vec<InStream>, cx: &mut Context<'_>) -> Poll<Result<Came, String>> {
    for index in 0..streams.len() {
        let Some(stream) = streams.get_mut(index) else { break };
        let came = match stream.kind {
            Kind::Opening => poll_kind(streams, index, cx),
            _ => poll_frames(streams, index, cx),
        };
        if came.is_ready() {
            return came;
        }
    }
    Poll::Pending
}

/// The first byte of a stream.
fn poll_kind(streams: &mut Vec<InStream>, index: usize, cx: &mut Context<'_>) -> Poll<Result<Came, String>> {
    let Some(stream) = streams.get_mut(index) else { return Poll::Pending };
    let mut first = [0];
    let kind = match stream.receive.poll_read(cx, &mut first) {
        Poll::Pending => return Poll::Pending,
        Poll::Ready(Ok(1)) => match first {
            [LIVE] => Kind::Live,
            [BULK] => Kind::Bulk,
            _ => {
                let _ = stream.receive.stop(VarInt::from_u32(UNKNOWN_STREAM));
                streams.remove(index);
                return Poll::Ready(Ok(Came::Nothing));
            }
        },
        // Ended before it began; with the connection, `accept_uni` says so.
        Poll::Ready(_) => {
            streams.remove(index);
            return Poll::Ready(Ok(Came::Nothing));
        }
    };
    stream.kind = kind;
    if streams.iter().filter(|stream| stream.kind == kind).count() > 1 {
        return Poll::Ready(Err("the server opened a stream a second time".into()));
    }
    streams.sort_by_key(|stream| stream.kind);
    Poll::Ready(Ok(Came::Nothing))
}

fn poll_frames(
    streams: &mut Vec<InStream>,
    index: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<Came, String>> {
    let Some(InStream { kind, receive, decoder }) = streams.get_mut(index) else { return Poll::Pending };
    // Dropped after each poll: `read_buf` is cancel-safe, what it has read is in the decoder.
    let read = pin!(receive.read_buf(decoder.read_buf())).poll(cx);
    match read {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(1..)) => Poll::Ready(Ok(Came::Bytes)),
        Poll::Ready(_) if *kind == Kind::Control => {
            streams.remove(index);
            Poll::Ready(Ok(Came::End))
        }
        // Ended by the server, at the session's end.
        Poll::Ready(_) => {
            streams.remove(index);
            Poll::Ready(Ok(Came::Nothing))
        }
    }
}
