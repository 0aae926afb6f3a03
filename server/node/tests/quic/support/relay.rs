//! A network between a client and a node: a UDP relay that can record, hold back, repeat and slow down. Each address of a
//! client has an address of its own on the node's side, as behind a NAT.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// A link queues this much before it drops.
const QUEUE: Duration = Duration::from_millis(300);

/// See the module. Its threads end when it is dropped.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

struct Shared {
    inside: UdpSocket,
    node: SocketAddr,
    stopped: AtomicBool,
    /// What clients sent, in its order.
    recorded: Mutex<Vec<Vec<u8>>>,
    /// Nothing of clients goes to the node: it is only recorded.
    holds: AtomicBool,
    /// Nothing of the node comes back.
    mute: AtomicBool,
    /// Bytes in a second from the node to clients; 0: as fast as it can.
    rate: AtomicU64,
    clients: Mutex<HashMap<SocketAddr, UdpSocket>>,
}

struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl Relay {
    pub(crate) fn to(node: SocketAddr) -> Self {
        let inside = UdpSocket::bind(ANY).unwrap();
        inside.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let shared = Arc::new(Shared {
            inside,
            node,
            stopped: AtomicBool::new(false),
            recorded: Mutex::default(),
            holds: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            clients: Mutex::default(),
        });
        let address = shared.inside.local_addr().unwrap();
        let thread = shared.clone();
        thread::spawn(move || thread.forward());
        Self { address, _alive: Arc::new(Alive(shared.clone())), shared }
    }

    pub(crate) fn hold(&self, holds: bool) {
        self.shared.holds.store(holds, Ordering::SeqCst);
    }

    pub(crate) fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::SeqCst);
    }

    pub(crate) fn set_rate(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::SeqCst);
    }

    /// What clients have sent since the last time.
    pub(crate) fn take_recorded(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.recorded())
    }

    pub(crate) fn recorded(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.shared.recorded.lock().unwrap()
    }

    /// Sends datagrams to the node from an address of their own. What the node answers is counted until nothing has come for
    /// a while.
    pub(crate) fn replay(&self, datagrams: &[Vec<u8>]) -> usize {
        let socket = UdpSocket::bind(ANY).unwrap();
        for datagram in datagrams {
            socket.send_to(datagram, self.shared.node).unwrap();
        }
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        std::iter::from_fn(|| socket.recv(&mut [0; 2048]).ok()).count()
    }
}

impl Shared {
    fn forward(self: Arc<Self>) {
        let mut buffer = [0; 65536];
        while !self.stopped.load(Ordering::Relaxed) {
            let Ok((bytes, client)) = self.inside.recv_from(&mut buffer) else { continue };
            self.recorded.lock().unwrap().push(buffer[..bytes].to_vec());
            if self.holds.load(Ordering::SeqCst) {
                continue;
            }
            let mut clients = self.clients.lock().unwrap();
            let outside = clients.entry(client).or_insert_with(|| self.clone().outside_of(client));
            let _full = outside.send_to(&buffer[..bytes], self.node);
        }
    }

    fn outside_of(self: Arc<Self>, client: SocketAddr) -> UdpSocket {
        let outside = UdpSocket::bind(ANY).unwrap();
        outside.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let back = outside.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            // When the link is free again.
            let mut free = Instant::now();
            while !self.stopped.load(Ordering::Relaxed) {
                let Ok(bytes) = back.recv(&mut buffer) else { continue };
                if self.mute.load(Ordering::SeqCst) {
                    continue;
                }
                let rate = self.rate.load(Ordering::SeqCst);
                if let Some(nanos) = (bytes as u64 * 1_000_000_000).checked_div(rate) {
                    let now = Instant::now();
                    let done = free.max(now) + Duration::from_nanos(nanos);
                    if done > now + QUEUE {
                        continue;
                    }
                    free = done;
                    thread::sleep(free.saturating_duration_since(now));
                }
                let _full = self.inside.send_to(&buffer[..bytes], client);
            }
        });
        outside
    }
}
