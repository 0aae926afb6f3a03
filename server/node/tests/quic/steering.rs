//! Steering on its own: N endpoints on N threads, each with a runtime of its own and an echo in place of sessions. Clients
//! change their address while what they said is still on its way.
//!
//! The bench, also as an unprivileged user:
//! `cargo test -p talaria-server --test quic -- --ignored --nocapture many_clients_move_often`

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use talaria_server::{
    dev::DevFiles,
    metrics::Metrics,
    tls,
    transport::{
        quic::Endpoints,
        steering::{Steering, group::SocketGroup, keys::QuicKeys, net::NetCounters},
    },
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    support::client::{PATIENCE, config, endpoint, soon},
    tcp_support::http::metric_in,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const SHARDS: u16 = 4;
const SECRET: [u8; 32] = [9; 32];

#[derive(Clone, Copy)]
struct Switches {
    program: bool,
    net: bool,
}

const ALL_ON: Switches = Switches { program: true, net: true };

/// See the module.
struct Shards {
    endpoints: Arc<Endpoints>,
    metrics: Arc<Metrics>,
    accepted: Arc<AtomicUsize>,
    threads: Vec<Option<(watch::Sender<bool>, JoinHandle<()>)>>,
    config: ClientConfig,
    _dir: TempDir,
}

impl Shards {
    fn start(switches: Switches) -> Self {
        Self::start_at(ANY, tempfile::tempdir().unwrap(), switches)
    }

    fn start_at(address: SocketAddr, dir: TempDir, switches: Switches) -> Self {
        let files = DevFiles::of(dir.path());
        files.ensure().unwrap();
        let tls = tls::server_config(&files.tls()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let counters = NetCounters {
            misrouted: metrics.quic_misrouted.clone(),
            dropped: metrics.quic_misrouted_dropped.clone(),
        };
        let keys = QuicKeys::derive(&SECRET);
        let steering = Steering::new(keys.steering, SHARDS);
        let group = SocketGroup::bind(address, SHARDS).unwrap();
        if switches.program {
            group.steer(steering).unwrap();
        }
        let keepalive = Duration::from_secs(30);
        let endpoints = Endpoints::new(group, steering, keys, &tls, keepalive, counters).unwrap();
        endpoints.net().set_enabled(switches.net);
        let mut shards = Self {
            endpoints: Arc::new(endpoints),
            metrics,
            accepted: Arc::default(),
            threads: Vec::new(),
            config: config(&files.ca()),
            _dir: dir,
        };
        for shard in 0..SHARDS {
            let thread = shards.thread(shard, 0);
            shards.threads.push(Some(thread));
        }
        shards
    }

    fn thread(&self, shard: u16, incarnation: u8) -> (watch::Sender<bool>, JoinHandle<()>) {
        let (endpoints, accepted) = (self.endpoints.clone(), self.accepted.clone());
        let (stop, stopped) = watch::channel(false);
        let seed = [(shard as u8) << 4 | incarnation; 32];
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(&endpoints, shard, seed, &accepted, stopped));
        });
        (stop, thread)
    }

    fn stop_shard(&mut self, shard: u16) {
        if let Some((stop, thread)) = self.threads[usize::from(shard)].take() {
            stop.send_replace(true);
            thread.join().unwrap();
        }
    }

    fn restart_shard(&mut self, shard: u16) {
        self.stop_shard(shard);
        self.threads[usize::from(shard)] = Some(self.thread(shard, 1));
    }

    fn address(&self) -> SocketAddr {
        self.endpoints.group().address()
    }

    fn misrouted(&self) -> f64 {
        metric_in(&self.metrics.render(), "talaria_quic_misrouted_total")
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for shard in 0..SHARDS {
            self.stop_shard(shard);
        }
    }
}

async fn serve(
    endpoints: &Endpoints,
    shard: u16,
    seed: [u8; 32],
    accepted: &AtomicUsize,
    mut stopped: watch::Receiver<bool>,
) {
    let endpoint = endpoints.open(shard, seed).unwrap();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let connecting = incoming.unwrap().accept().unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let connection = connecting.await?;
                    let (mut send, mut receive) = connection.accept_bi().await?;
                    while let Ok(Some(chunk)) = receive.read_chunk(1024, true).await {
                        send.write_all(&chunk.bytes).await.map_err(io::Error::other)?;
                    }
                    Ok::<(), io::Error>(())
                });
            }
            // As a process that dies: nobody is told.
            _ = stopped.changed() => return,
        }
    }
}

/// One client with one echo.
struct Walker {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    said: u32,
}

impl Walker {
    async fn connect(address: SocketAddr, config: ClientConfig) -> Self {
        let endpoint = endpoint();
        let connection = soon(endpoint.connect_with(config, address, "localhost").unwrap()).await.unwrap();
        let (send, receive) = soon(connection.open_bi()).await.unwrap();
        let mut walker = Self { endpoint, connection, send, receive, said: 0 };
        assert!(walker.moves(false, PATIENCE).await);
        walker
    }

    fn next(&mut self) -> [u8; 4] {
        self.said += 1;
        self.said.to_be_bytes()
    }

    /// Says something, moves, and says something more. Whether both echoes come in time.
    async fn moves(&mut self, to_another_address: bool, patience: Duration) -> bool {
        let (first, second) = (self.next(), self.next());
        self.send.write_all(&first).await.unwrap();
        if to_another_address {
            self.endpoint.rebind(UdpSocket::bind(ANY).unwrap()).unwrap();
        }
        self.send.write_all(&second).await.unwrap();
        let mut echo = [0; 8];
        match tokio::time::timeout(patience, self.receive.read_exact(&mut echo)).await {
            Ok(read) => {
                read.unwrap();
                assert_eq!(echo, [first, second].concat()[..]);
                true
            }
            Err(_) => false,
        }
    }
}

struct Outcome {
    broken: usize,
    moves: usize,
    misrouted: f64,
    slowest: Duration,
}

/// So many clients move so often, all at once.
async fn walk(shards: &Shards, clients: usize, rebinds: usize, patience: Duration) -> Outcome {
    let mut walkers = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (address, config) = (shards.address(), shards.config.clone());
        walkers.spawn(async move {
            let mut walker = Walker::connect(address, config).await;
            let id = walker.connection.stable_id();
            let (mut moves, mut slowest) = (0, Duration::ZERO);
            for _ in 0..rebinds {
                let began = Instant::now();
                if !walker.moves(true, patience).await {
                    return (false, moves, slowest);
                }
                (moves, slowest) = (moves + 1, slowest.max(began.elapsed()));
                assert_eq!(walker.connection.stable_id(), id);
            }
            (true, moves, slowest)
        });
    }
    let ended = walkers.join_all().await;
    assert_eq!(shards.accepted(), clients, "no client needed another handshake");
    Outcome {
        broken: ended.iter().filter(|(alive, ..)| !alive).count(),
        moves: ended.iter().map(|(_, moves, _)| moves).sum(),
        misrouted: shards.misrouted(),
        slowest: ended.iter().map(|(.., slowest)| *slowest).max().unwrap_or_default(),
    }
}

#[tokio::test]
async fn with_the_program_no_datagram_goes_astray() {
    let shards = Shards::start(ALL_ON);
    let outcome = walk(&shards, 40, 10, PATIENCE).await;
    assert_eq!((outcome.broken, outcome.moves, outcome.misrouted), (0, 400, 0.0));
}

/// The control: without program and net, a client that moves comes to another shard three times in four.
#[tokio::test]
async fn without_program_and_net_most_clients_that_move_are_lost() {
    let shards = Shards::start(Switches { program: false, net: false });
    let outcome = walk(&shards, 40, 10, Duration::from_millis(1_500)).await;
    assert!(outcome.broken > 30, "{} of 40 broken", outcome.broken);
    assert_eq!(outcome.misrouted, 0.0, "nobody looks");
}

#[tokio::test]
async fn the_net_alone_catches_all() {
    let shards = Shards::start(Switches { program: false, net: true });
    let outcome = walk(&shards, 40, 10, PATIENCE).await;
    assert_eq!((outcome.broken, outcome.moves), (0, 400));
    assert!(outcome.misrouted > 400.0, "{} were caught", outcome.misrouted);
}

/// The sockets of a group stay open when a shard's endpoint goes: indices do not shift.
#[tokio::test]
async fn a_shard_that_begins_anew_leaves_the_others_connections_alone() {
    let mut shards = Shards::start(ALL_ON);
    let mut walkers = Vec::new();
    for _ in 0..24 {
        walkers.push(Walker::connect(shards.address(), shards.config.clone()).await);
    }
    shards.restart_shard(0);
    let mut lost = 0;
    for walker in &mut walkers {
        let _told_already = walker.send.write_all(&[0; 4]).await;
        let mut echo = [0; 4];
        match soon(walker.receive.read_exact(&mut echo)).await {
            Ok(()) => {}
            Err(_) => {
                lost += 1;
                assert_eq!(walker.connection.close_reason(), Some(ConnectionError::Reset), "told at once");
            }
        }
    }
    assert!((1..=14).contains(&lost), "only those of the shard: {lost} of 24");
    Walker::connect(shards.address(), shards.config.clone()).await;
}

/// The keys outlive a restart.
#[tokio::test]
async fn after_a_restart_of_the_node_clients_are_told_that_their_connections_are_gone() {
    let mut shards = Shards::start(ALL_ON);
    let (address, config) = (shards.address(), shards.config.clone());
    let mut walkers = Vec::new();
    for _ in 0..12 {
        walkers.push(Walker::connect(address, config.clone()).await);
    }
    let dir = std::mem::replace(&mut shards._dir, tempfile::tempdir().unwrap());
    drop(shards);
    let _shards = Shards::start_at(address, dir, ALL_ON);
    for walker in &mut walkers {
        let _told_already = walker.send.write_all(&[0; 4]).await;
        assert_eq!(soon(walker.connection.closed()).await, ConnectionError::Reset);
    }
}

#[tokio::test]
#[ignore = "half a minute, to be read by a person: benches/README.md"]
#[allow(clippy::print_stdout, reason = "it is read by a person")]
async fn many_clients_move_often() {
    println!("200 clients x 20 rebinds, {SHARDS} shards");
    for (name, switches, patience) in [
        ("program on, net on", ALL_ON, PATIENCE),
        ("program off, net on", Switches { program: false, net: true }, PATIENCE),
        ("program off, net off", Switches { program: false, net: false }, Duration::from_secs(3)),
    ] {
        let shards = Shards::start(switches);
        let began = Instant::now();
        let outcome = walk(&shards, 200, 20, patience).await;
        println!(
            "{name}: {} broken, {} moves, {} misrouted, {} handshakes, slowest move {:?}, {:?} in all",
            outcome.broken,
            outcome.moves,
            outcome.misrouted,
            shards.accepted(),
            outcome.slowest,
            began.elapsed()
        );
        if switches.program {
            assert_eq!((outcome.broken, outcome.misrouted), (0, 0.0));
        } else if switches.net {
            assert_eq!(outcome.broken, 0);
            assert!(outcome.misrouted > 0.0);
        } else {
            assert!(outcome.broken > 150);
        }
    }
}
