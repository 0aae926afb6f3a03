//! The TCP listener of a shard: accepts, finds a place, starts the connection's task. Never stops for what one
//! connection does.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Admission, connection::Connection};
use crate::{
    lifecycle::Phase,
    limits::{ACCEPT_BACKLOG, ACCEPT_PAUSE, NOT_SENT_BYTES_MAX},
    metrics::DropReason,
    session_driver::SessionContext,
};

/// Binds a listener that a runtime can take over.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

/// What accepting needs.
pub(crate) struct Acceptor {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) admission: Rc<Admission>,
    pub(crate) context: Rc<SessionContext>,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Acceptor {
    /// Accepts until the node drains; then the port is closed.
    pub(crate) async fn run(mut self) {
        while *self.phase.borrow_and_update() == Phase::Serving {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, _peer)) => self.start(tcp),
                    Err(error) => {
                        self.admission.make_place(DropReason::Accept);
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                changed = self.phase.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    fn start(&self, tcp: TcpStream) {
        self.context.metrics.accepted.increment(1);
        let Some(place) = self.admission.admit() else { return };
        let socket = socket2::SockRef::from(&tcp);
        let options =
            socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX));
        if let Err(error) = options {
            tracing::debug!(%error, "socket options");
        }
        match Connection::new(self.context.clone(), tcp, self.tls.clone(), place, self.phase.clone()) {
            Ok(connection) => {
                tokio::task::spawn_local(connection.run());
            }
            Err(error) => tracing::warn!(%error, "a connection could not be set up"),
        }
    }
}
