//! The TCP listener of a shard: accepts at its pace, finds a place, starts the connection's task. Never stops for what one
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
    let socket = new_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

/// Binds a listener for each shard to one address; the system spreads connections over them. The first is bound alone, so
/// that an address that another program has is refused, and shares it only then.
pub(crate) fn bind_all(address: SocketAddr, shards: u16) -> io::Result<Vec<std::net::TcpListener>> {
    let first = bind(address)?;
    socket2::SockRef::from(&first).set_reuse_port(true)?;
    // Where the port was 0, all get the one that the first got.
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        let socket = new_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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
    pub(crate) async fn run(self) {
        let mut phase = self.phase.clone();
        while *phase.borrow_and_update() == Phase::Serving {
            tokio::select! {
                accepted = self.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        self.start(tcp, peer);
                        // Those who are connected have their turn before the next one.
                        tokio::task::yield_now().await;
                    }
                    Err(error) => {
                        self.admission.make_place(DropReason::Accept);
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                changed = phase.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// The next connection, when it is its turn. Cancel-safe.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.admission.turn().await;
        self.listener.accept().await
    }

    fn start(&self, tcp: TcpStream, peer: SocketAddr) {
        self.context.metrics.accepted.increment(1);
        let Some(place) = self.admission.admit(Some(peer.ip())) else { return };
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_have_one_port_and_nobody_else_gets_it() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = bind_all(any, 4).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert!(address.port() != 0 && bind_all(address, 4).is_err() && bind(address).is_err());
        // Connections are spread.
        let clients: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let accepted = listeners.iter().map(|listener| std::iter::from_fn(|| listener.accept().ok()).count());
        let accepted: Vec<usize> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
        drop(listeners);
        bind(address).unwrap();
    }
}
