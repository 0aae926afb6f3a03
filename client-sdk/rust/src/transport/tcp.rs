//! TLS over TCP: one stream of bytes each way.

use std::{io, sync::Arc};

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use talaria_protocol::{
    frame::FrameDecoder,
    limits::{ALPN, FRAME_BYTES_MAX_BEFORE_WELCOME, HANDSHAKE_TIMEOUT},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Lost, Progress, tls::Roots};
use crate::error::ConfigError;

type Stream = TlsStream<TcpStream>;

/// Dials one server.
#[derive(Clone)]
pub(super) struct TcpDialer {
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl TcpDialer {
    pub(super) fn new(address: &str, name: ServerName<'static>, roots: &Roots) -> Result<Self, ConfigError> {
        let connector = TlsConnector::from(Arc::new(roots.tls()?));
        Ok(Self { address: address.to_string(), name, connector })
    }

    pub(super) async fn dial(self) -> io::Result<Box<TcpLink>> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let tcp = timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(&self.address)).await.map_err(late)??;
        tcp.set_nodelay(true)?;
        let stream =
            timeout(HANDSHAKE_TIMEOUT, self.connector.connect(self.name, tcp)).await.map_err(late)??;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(super::quic::no_talaria());
        }
        Ok(Box::new(TcpLink::new(stream)))
    }
}

/// One connection.
pub(crate) struct TcpLink {
    reader: ReadHalf<Stream>,
    decoder: FrameDecoder,
    /// Gone when nothing more can be written.
    writer: Option<WriteHalf<Stream>>,
    output: BytesMut,
    unflushed: bool,
}

impl TcpLink {
    fn new(stream: Stream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_WELCOME),
            writer: Some(writer),
            output: BytesMut::new(),
            unflushed: false,
        }
    }

    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    pub(super) fn decoder(&mut self) -> &mut FrameDecoder {
        &mut self.decoder
    }

    /// `read_buf` is cancel-safe, what it has read is in the decoder; so are the parts of `write`.
    pub(super) async fn next(&mut self) -> Progress {
        let Self { reader, decoder, writer, output, unflushed } = self;
        loop {
            tokio::select! {
                read = reader.read_buf(decoder.read_buf()) => return match read {
                    Ok(1..) => Progress::Read,
                    Ok(0) => Progress::Lost(Lost { why: "the server closed the connection".into(), code: None }),
                    Err(error) => Progress::Lost(Lost { why: error.to_string(), code: None }),
                },
                wrote = write(writer, output, unflushed) => match wrote {
                    Ok(()) => return Progress::Wrote,
                    // The server may have said why before it closed: that is still to be read.
                    Err(_) => {
                        *writer = None;
                        output.clear();
                    }
                },
            }
        }
    }
}

/// Bytes out of the buffer: `write_buf` is cancel-safe, what it has written is out of the buffer; so is `flush`.
async fn write(
    writer: &mut Option<WriteHalf<Stream>>,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    match writer {
        Some(half) if !output.is_empty() => {
            *unflushed = true;
            half.write_buf(output).await.map(drop)
        }
        Some(half) if *unflushed => {
            half.flush().await?;
            *unflushed = false;
            Ok(())
        }
        _ => std::future::pending().await,
    }
}
