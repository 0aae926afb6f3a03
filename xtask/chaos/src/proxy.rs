//! The proxy as its owner sees it, and what its parts share. It runs on a thread of its own.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, UdpSocket},
    sync::watch,
    task::LocalSet,
    time::sleep,
};

use crate::{
    faults::{Config, Cut, CutStyle, Direction, Faults, Transport},
    limits::{ACCEPT_BACKLOG, PORT_TRIES, RECEIVE_BUFFER_BYTES},
    stats::{Counters, Stats},
    tcp::TcpProxy,
    udp::UdpProxy,
};

/// A running proxy; it stops when this is dropped.
#[derive(Debug)]
pub struct Chaos {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the parts share with the owner.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) upstream: SocketAddr,
    pub(crate) seed: u64,
    pub(crate) counters: Counters,
    /// Counts the resets of all TCP connections.
    pub(crate) resets: watch::Sender<u64>,
    /// Counts the rebinds of all UDP mappings.
    pub(crate) rebinds: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
    settings: Mutex<Settings>,
    started: Instant,
}

#[derive(Debug)]
struct Settings {
    up: Faults,
    down: Faults,
    cut: Option<(Cut, Duration)>,
}

impl Chaos {
    /// Binds both ports and begins.
    ///
    /// # Errors
    /// No port is free for both, or there is no thread.
    pub fn start(config: Config) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tcp, udp) = {
            let _entered = runtime.enter();
            bind(config.listen)?
        };
        let address = tcp.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: config.upstream,
            seed: config.seed,
            counters: Counters::default(),
            resets: watch::Sender::new(0),
            rebinds: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
            settings: Mutex::new(Settings { up: config.up, down: config.down, cut: None }),
            started: Instant::now(),
        });
        let parts = shared.clone();
        let thread = std::thread::Builder::new().name("chaos".to_owned()).spawn(move || {
            let run = async {
                let mut stopped = parts.stopped.subscribe();
                tokio::select! {
                    () = TcpProxy::new(parts.clone(), tcp).run() => {}
                    () = UdpProxy::new(parts.clone(), udp).run() => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    () = sleep(config.life_max) => tracing::info!("the proxy has lived its time"),
                }
            };
            LocalSet::new().block_on(&runtime, run);
        })?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where clients connect, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Other faults, for what comes from now on.
    pub fn set(&self, direction: Direction, faults: Faults) {
        let mut settings = self.shared.settings();
        match direction {
            Direction::Up => settings.up = faults,
            Direction::Down => settings.down = faults,
        }
    }

    /// Cuts, from now on; a cut under way ends.
    pub fn cut(&self, cut: Cut) {
        let until = self.shared.now() + cut.duration;
        self.shared.settings().cut = Some((cut, until));
        if cut.style == CutStyle::Reset && cut.transport.covers(Transport::Tcp) {
            self.shared.resets.send_modify(|resets| *resets += 1);
        }
    }

    /// Ends a cut before its time.
    pub fn heal(&self) {
        self.shared.settings().cut = None;
    }

    /// Gives every UDP mapping a new port towards the server, soon. The old ones stay open, and deaf.
    pub fn rebind_all(&self) {
        self.shared.rebinds.send_modify(|rebinds| *rebinds += 1);
    }

    /// What it did so far.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// It has ended by itself.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.shared.stopped.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends at this time since the start.
    pub(crate) async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until((self.started + at).into()).await;
    }

    pub(crate) fn faults(&self, direction: Direction) -> Faults {
        let settings = self.settings();
        match direction {
            Direction::Up => settings.up,
            Direction::Down => settings.down,
        }
    }

    /// There and back, without jitter.
    pub(crate) fn round_trip(&self) -> Duration {
        let settings = self.settings();
        settings.up.delay + settings.down.delay
    }

    /// The cut of this transport: how, and until when.
    pub(crate) fn cut_of(&self, transport: Transport) -> Option<(CutStyle, Duration)> {
        let (cut, until) = self.settings().cut?;
        (cut.transport.covers(transport) && self.now() < until).then_some((cut.style, until))
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One port for both.
fn bind(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit it.
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(address)?;
        let tcp = socket.listen(ACCEPT_BACKLOG)?;
        match std::net::UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => {
                udp.set_nonblocking(true)?;
                return Ok((tcp, UdpSocket::from_std(udp)?));
            }
            Err(error) if address.port() != 0 || tries == PORT_TRIES => return Err(error),
            Err(_) => {}
        }
    }
}
