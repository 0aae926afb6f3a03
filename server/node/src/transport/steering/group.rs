//! The UDP sockets of a node, one for each shard, all on one address. The kernel counts them by the order in which they were
//! bound, and when one closes, the last one moves into its place: all later indices would be wrong. So they close
//! together: whoever holds the group holds them all open, and a shard works on a duplicate of its own, which a
//! shard that begins anew takes again.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Steering, program};

/// What the system is asked to hold of datagrams that a shard has not read yet. Full: it drops them, and QUIC sends again.
const RECEIVE_BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Likewise of those that are on their way out.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub struct SocketGroup {
    address: SocketAddr,
    sockets: Vec<UdpSocket>,
}

impl SocketGroup {
    /// Binds a socket for each shard. Port 0: any free one.
    ///
    /// # Errors
    /// The address is taken, even by sockets that would share it, or not ours.
    pub fn bind(mut address: SocketAddr, shards: u16) -> io::Result<Self> {
        // Not shared: fails where another process has the port, which sharing sockets would quietly divide with it.
        let probe = bind_one(address, false)?;
        address.set_port(probe.local_addr()?.port());
        drop(probe);
        let shared = shards > 1;
        let sockets = (0..shards).map(|_| bind_one(address, shared)).collect::<io::Result<_>>()?;
        Ok(Self { address, sockets })
    }

    /// Has the kernel steer among the sockets; until then it goes by the client's address.
    ///
    /// # Errors
    /// It cannot. The safety net has the work then.
    pub fn steer(&self, steering: Steering) -> io::Result<()> {
        match self.sockets.as_slice() {
            [first, _, ..] => program::attach(first, steering),
            _ => Ok(()),
        }
    }

    /// How many there are.
    pub fn shards(&self) -> u16 {
        // As many as were asked for.
        self.sockets.len() as u16
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A shard's socket, for its endpoint.
    ///
    /// # Errors
    /// No such shard, or the system has no file descriptor left.
    pub fn socket(&self, shard: u16) -> io::Result<UdpSocket> {
        let socket = self.sockets.get(usize::from(shard));
        socket.ok_or(io::ErrorKind::NotFound)?.try_clone()
    }
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    let buffers = socket
        .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER_BYTES));
    if let Err(error) = buffers {
        tracing::debug!(%error, "socket buffers");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_taken_port_is_an_error_even_if_it_is_taken_to_be_shared() {
        let group = SocketGroup::bind(ANY, 4).unwrap();
        let error = SocketGroup::bind(group.address(), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let address = group.address();
        drop(group);
        SocketGroup::bind(address, 4).unwrap();
    }

    #[test]
    fn the_kernel_steers_as_the_rule_says() {
        let steering = Steering::new(0x1234_5679, 4);
        let group = SocketGroup::bind(ANY, 4).unwrap();
        group.steer(steering).unwrap();
        let sockets: Vec<_> = (0..4).map(|shard| group.socket(shard).unwrap()).collect();
        let mut random = blake3::Hasher::new().update(b"packets").finalize_xof();
        for number in 0..400u32 {
            let client = UdpSocket::bind(ANY).unwrap();
            let mut datagram = vec![0; 1 + number as usize % 30];
            random.fill(&mut datagram);
            client.send_to(&datagram, group.address()).unwrap();
            let socket = &sockets[usize::from(steering.shard_of(&datagram))];
            let mut received = [0; 64];
            // On loopback the datagram is there when the send returns.
            let (bytes, from) = socket.recv_from(&mut received).unwrap();
            assert_eq!((&received[..bytes], from), (datagram.as_slice(), client.local_addr().unwrap()));
        }
    }
}
