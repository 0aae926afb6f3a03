//! UDP through the proxy: a NAT's mapping for each client's address, with a socket of its own towards the server. All packets
//! wait in one schedule; one task sends what is due.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, sync::Notify, task::AbortHandle};

use crate::{
    faults::{Direction, Transport},
    limits::{BATCH, DATAGRAM_BYTES_MAX, MAPPING_IDLE_MAX, MAPPINGS_MAX, SCHEDULED_MAX},
    link::{Fate, Link},
    proxy::Shared,
    schedule::Schedule,
    stats::DropReason,
};

/// See the module.
pub(crate) struct UdpProxy {
    shared: Arc<Shared>,
    /// Towards clients.
    socket: UdpSocket,
    mappings: RefCell<HashMap<SocketAddr, Rc<Mapping>>>,
    schedule: RefCell<Schedule<Packet>>,
    /// Something leaves earlier than the sender thinks.
    earlier: Notify,
    /// Packets of servers are read into it.
    buffer: RefCell<Vec<u8>>,
}

/// One client's line.
struct Mapping {
    client: SocketAddr,
    /// Towards the server.
    socket: RefCell<Rc<UdpSocket>>,
    /// Of before the last rebind: open so that its port is not another's, and that nobody is told; not read.
    old_socket: RefCell<Option<Rc<UdpSocket>>>,
    up: RefCell<Link>,
    down: RefCell<Link>,
    reader: RefCell<Option<AbortHandle>>,
    used_at: Cell<Duration>,
}

struct Packet {
    direction: Direction,
    mapping: Weak<Mapping>,
    bytes: Rc<[u8]>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.abort();
        }
    }
}

impl UdpProxy {
    pub(crate) fn new(shared: Arc<Shared>, socket: UdpSocket) -> Rc<Self> {
        Rc::new(Self {
            shared,
            socket,
            mappings: RefCell::default(),
            schedule: RefCell::new(Schedule::new(SCHEDULED_MAX)),
            earlier: Notify::new(),
            buffer: RefCell::new(vec![0; DATAGRAM_BYTES_MAX]),
        })
    }

    /// Until it is dropped.
    pub(crate) async fn run(self: Rc<Self>) {
        tokio::join!(self.receive(), self.send_what_is_due(), self.rebind_on_command());
    }

    /// From clients.
    async fn receive(self: &Rc<Self>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut batch = 0;
        loop {
            if let Ok((count, client)) = self.socket.recv_from(&mut buffer).await {
                self.shared.counters.udp_up.add(1);
                match self.mapping_of(client).await {
                    Ok(Some(mapping)) => self.take(&mapping, Direction::Up, &buffer[..count]),
                    Ok(None) => self.shared.counters.drop_one(DropReason::TableFull),
                    Err(error) => {
                        tracing::warn!(%error, "no socket for a client");
                        self.shared.counters.drop_one(DropReason::Socket);
                    }
                }
            }
            batch = (batch + 1) % BATCH;
            if batch == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The client's mapping, made if there is room.
    async fn mapping_of(self: &Rc<Self>, client: SocketAddr) -> io::Result<Option<Rc<Mapping>>> {
        if let Some(mapping) = self.mappings.borrow().get(&client) {
            return Ok(Some(mapping.clone()));
        }
        if !self.has_room() {
            return Ok(None);
        }
        let number = self.shared.counters.mappings.get();
        self.shared.counters.mappings.add(1);
        let socket = Rc::new(self.upstream_socket().await?);
        let mapping = Rc::new(Mapping {
            client,
            socket: RefCell::new(socket),
            old_socket: RefCell::default(),
            up: RefCell::new(Link::new(self.shared.seed, 2 * number)),
            down: RefCell::new(Link::new(self.shared.seed, 2 * number + 1)),
            reader: RefCell::default(),
            used_at: Cell::new(self.shared.now()),
        });
        self.start_reader(&mapping);
        self.mappings.borrow_mut().insert(client, mapping.clone());
        Ok(Some(mapping))
    }

    fn has_room(&self) -> bool {
        let mut mappings = self.mappings.borrow_mut();
        if mappings.len() >= MAPPINGS_MAX {
            let now = self.shared.now();
            mappings.retain(|_, mapping| now - mapping.used_at.get() < MAPPING_IDLE_MAX);
        }
        mappings.len() < MAPPINGS_MAX
    }

    async fn upstream_socket(&self) -> io::Result<UdpSocket> {
        let any = match self.shared.upstream {
            SocketAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
            SocketAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.shared.upstream).await?;
        Ok(socket)
    }

    /// Reads the mapping's current socket, in place of the one before.
    fn start_reader(self: &Rc<Self>, mapping: &Rc<Mapping>) {
        let (proxy, weak, socket) =
            (Rc::downgrade(self), Rc::downgrade(mapping), mapping.socket.borrow().clone());
        let reader = tokio::task::spawn_local(async move {
            while socket.readable().await.is_ok() {
                let (Some(proxy), Some(mapping)) = (proxy.upgrade(), weak.upgrade()) else { return };
                proxy.take_batch(&mapping, &socket);
                tokio::task::yield_now().await;
            }
        });
        if let Some(before) = mapping.reader.borrow_mut().replace(reader.abort_handle()) {
            before.abort();
        }
    }

    /// What the server has sent, some of it.
    fn take_batch(&self, mapping: &Rc<Mapping>, socket: &UdpSocket) {
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..BATCH {
            match socket.try_recv(&mut buffer) {
                Ok(count) => {
                    self.shared.counters.udp_down.add(1);
                    self.take(mapping, Direction::Down, &buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The news that a packet found no server: as silent as a lost one.
                Err(_) => {}
            }
        }
    }

    /// Decides a packet's fate.
    fn take(&self, mapping: &Rc<Mapping>, direction: Direction, bytes: &[u8]) {
        let now = self.shared.now();
        mapping.used_at.set(now);
        let faults = self.shared.faults(direction);
        let link = match direction {
            Direction::Up => &mapping.up,
            Direction::Down => &mapping.down,
        };
        // Thrown in a cut, too: what comes after it does not depend on how long it was.
        let fate = link.borrow_mut().decide(now, bytes.len(), &faults);
        let counters = &self.shared.counters;
        if self.shared.cut_of(Transport::Udp).is_some() {
            return counters.drop_one(DropReason::Cut);
        }
        match fate {
            Fate::Lost => counters.drop_one(DropReason::Loss),
            Fate::QueueFull => counters.drop_one(DropReason::QueueFull),
            Fate::Delivered { at, again_at, reordered } => {
                counters.reordered.add(u64::from(reordered));
                counters.duplicated.add(u64::from(again_at.is_some()));
                let bytes: Rc<[u8]> = bytes.into();
                for at in std::iter::once(at).chain(again_at) {
                    self.schedule(
                        at,
                        Packet { direction, mapping: Rc::downgrade(mapping), bytes: bytes.clone() },
                    );
                }
            }
        }
    }

    fn schedule(&self, at: Duration, packet: Packet) {
        match self.schedule.borrow_mut().push(at, packet) {
            None => self.shared.counters.drop_one(DropReason::ScheduleFull),
            Some(true) => self.earlier.notify_one(),
            Some(false) => {}
        }
    }

    async fn send_what_is_due(&self) {
        loop {
            let due = self.schedule.borrow_mut().pop(self.shared.now());
            if let Some(packet) = due {
                self.send(packet).await;
                continue;
            }
            let next_at = self.schedule.borrow().next_at();
            let wait = async {
                match next_at {
                    Some(at) => self.shared.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    async fn send(&self, packet: Packet) {
        let Some(mapping) = packet.mapping.upgrade() else {
            return self.shared.counters.drop_one(DropReason::Gone);
        };
        let sent = match packet.direction {
            Direction::Up => {
                let socket = mapping.socket.borrow().clone();
                socket.send(&packet.bytes).await
            }
            Direction::Down => self.socket.send_to(&packet.bytes, mapping.client).await,
        };
        match sent {
            Ok(_) => self.shared.counters.udp_forwarded.add(1),
            Err(_) => self.shared.counters.drop_one(DropReason::Socket),
        }
    }

    async fn rebind_on_command(self: &Rc<Self>) {
        let mut rebinds = self.shared.rebinds.subscribe();
        while rebinds.changed().await.is_ok() {
            let mappings: Vec<_> = self.mappings.borrow().values().cloned().collect();
            for mapping in mappings {
                match self.upstream_socket().await {
                    Ok(socket) => {
                        let old = mapping.socket.replace(Rc::new(socket));
                        mapping.old_socket.replace(Some(old));
                        self.start_reader(&mapping);
                        self.shared.counters.rebinds.add(1);
                    }
                    Err(error) => tracing::warn!(%error, "no new socket for a mapping"),
                }
            }
        }
    }
}
