//! TLS over TCP.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use talaria_protocol::session::client::ClientSession;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::link::{Incoming, Outgoing};

pub(super) struct TcpLink {
    stream: TlsStream<TcpStream>,
    out: Outgoing,
    incoming: Option<Incoming>,
}

impl TcpLink {
    /// From this local address; and whether TLS was resumed.
    pub(super) async fn dial(
        server: SocketAddr,
        source: Option<SocketAddr>,
        tls: Arc<ClientConfig>,
    ) -> io::Result<(Self, bool)> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.set_reuseaddr(true)?;
            socket.bind(source)?;
        }
        let tcp = socket.connect(server).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Self { stream, out: Outgoing::default(), incoming: None }, resumed))
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, session: &mut ClientSession) -> io::Result<()> {
        self.out.poll_write(cx, &mut self.stream, session)
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut ClientSession,
    ) -> Poll<io::Result<usize>> {
        let incoming = self.incoming.get_or_insert_with(|| Incoming::new(session, false));
        match ready!(incoming.poll_read(cx, &mut self.stream, session))? {
            0 => Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server"))),
            frames => Poll::Ready(Ok(frames)),
        }
    }
}
