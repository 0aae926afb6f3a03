//! A node in one piece: started on a log, with threads for the log's writer, its readers, the shard and the admin port;
//! stopped in the order in which they depend on each other, so that nothing that was accepted is left unanswered.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use talaria_core::log::LogInfo;
use talaria_log::{CommitLog, OpenError, OpenSeeds};
use talaria_protocol::ids::BootId;
use tokio::sync::{mpsc, oneshot};

use crate::{
    admin::{Admin, Probe},
    auth::{KeyError, Keyring},
    clock::{Clock, unix_ms},
    config::Config,
    dev::{DevError, DevFiles},
    lifecycle::Lifecycle,
    limits::PROBES_MAX,
    log_thread::LogWriter,
    mailbox::Mailbox,
    metrics::Metrics,
    readers::Readers,
    shard_host::Ports,
    shard_thread::{ShardError, ShardThread},
    tls::{self, TlsError},
    transport::{
        quic::{Endpoints, NoInitialCipherSuite},
        steering::{Steering, group::SocketGroup, keys::QuicKeys, net::NetCounters},
        tcp,
    },
};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Dev mode's credentials.
    #[error(transparent)]
    Dev(#[from] DevError),
    /// Neither configured nor dev mode: `Config::load` refuses that.
    #[error(
        "tls is not configured; for example: tls = {{ cert = \"cert.pem\", key = \"key.pem\" }}, or --dev"
    )]
    NoTls,
    /// A port is taken, or an address not ours.
    #[error(
        "{field} = \"{address}\": {source}: stop what listens there, or choose another, for example: {field} = \
         \"127.0.0.1:{example_port}\""
    )]
    Listen {
        /// Of the configuration.
        field: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Another port.
        example_port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The system has no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The system gives no thread.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The certificate's crypto lacks what QUIC needs.
    #[error("tls has no cipher suite for QUIC: {0}")]
    Quic(#[from] NoInitialCipherSuite),
    /// The metrics' buckets.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Starts nodes.
pub struct Node;

/// A running node. Dropped without [`NodeHandle::shutdown`] it drains by itself and its threads end.
pub struct NodeHandle {
    /// Where clients connect, by TCP and by QUIC.
    pub tcp_addr: SocketAddr,
    /// Health and metrics.
    pub admin_addr: SocketAddr,
    /// What clients must trust in dev mode.
    pub ca: Option<PathBuf>,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    drain: Duration,
    shard: Option<JoinHandle<Result<(), ShardError>>>,
    others: Vec<JoinHandle<()>>,
    admin: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Node {
    /// Starts a node on a log that nothing else writes. Returns once both ports are open.
    ///
    /// # Errors
    /// What is wrong with the configuration, the credentials, the ports or the log.
    #[allow(clippy::needless_pass_by_value, reason = "the node owns its log")]
    pub fn start(config: Config, log: Arc<dyn CommitLog>) -> Result<NodeHandle, StartError> {
        let Credentials { keyring, tls, ca } = credentials(&config)?;
        let (listener, quic_sockets) = bind_clients(config.listen, 1)?;
        let admin_listener = bind("admin_listen", config.admin_listen, 17480)?;
        let (tcp_addr, admin_addr) = (listener.local_addr()?, admin_listener.local_addr()?);

        let log_info = open(&*log)?;
        let metrics = Arc::new(Metrics::new()?);
        let lifecycle = Arc::new(Lifecycle::default());
        let quic = quic(&config, quic_sockets, &log_info, &tls, &metrics)?;
        let (log_thread, reader_threads, ports) =
            log_threads(&config, &log, &log_info, &lifecycle, &metrics)?;
        let (probe, probes) = mpsc::channel::<Probe>(PROBES_MAX);
        let shard = ShardThread {
            listener,
            tls,
            quic,
            quic_seed: random()?,
            keyring,
            log_info,
            durability: log.durability(),
            ports,
            lifecycle: lifecycle.clone(),
            probes,
            node: config.node,
            keepalive: Duration::from_secs(config.keepalive_seconds.into()),
            connections_max: config.connections_max as usize,
            salt_seed: random()?,
            session_seed: u64::from_be_bytes(random()?),
        };
        let admin = Admin { lifecycle: lifecycle.clone(), metrics: metrics.clone(), shards: vec![probe] };
        let (stop_admin, admin_stopped) = oneshot::channel();
        let admin = admin.start(admin_listener, admin_stopped)?;
        Ok(NodeHandle {
            tcp_addr,
            admin_addr,
            ca,
            lifecycle,
            metrics,
            drain: Duration::from_secs(config.drain_seconds.into()),
            shard: Some(shard.start()?),
            others: std::iter::once(log_thread).chain(reader_threads).collect(),
            admin: Some((stop_admin, admin)),
        })
    }
}

struct Credentials {
    keyring: Arc<Keyring>,
    tls: Arc<rustls::ServerConfig>,
    ca: Option<PathBuf>,
}

fn credentials(config: &Config) -> Result<Credentials, StartError> {
    let mut keyring = Keyring::read(&config.auth)?;
    let mut ca = None;
    let dev = DevFiles::of(&config.data_dir);
    if config.dev {
        keyring.add_dev(&dev.ensure()?);
    }
    let tls = match (&config.tls, config.dev) {
        (Some(tls), _) => tls::server_config(tls)?,
        (None, true) => {
            ca = Some(dev.ca());
            tls::server_config(&dev.tls())?
        }
        (None, false) => return Err(StartError::NoTls),
    };
    Ok(Credentials { keyring: Arc::new(keyring), tls, ca })
}

fn bind(
    field: &'static str,
    address: SocketAddr,
    example_port: u16,
) -> Result<std::net::TcpListener, StartError> {
    tcp::bind(address).map_err(|source| StartError::Listen { field, address, example_port, source })
}

/// Pairs of ports that are tried where the configuration leaves the number open.
const PORT_TRIES: usize = 16;

/// The TCP listener and the UDP sockets of all shards, on the same number.
fn bind_clients(
    address: SocketAddr,
    shards: u16,
) -> Result<(std::net::TcpListener, SocketGroup), StartError> {
    let tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    for left in (0..tries).rev() {
        let listener = bind("listen", address, 17443)?;
        match SocketGroup::bind(listener.local_addr()?, shards) {
            Err(error) if left > 0 && error.kind() == std::io::ErrorKind::AddrInUse => {}
            Ok(sockets) => return Ok((listener, sockets)),
            Err(error) => {
                let source = std::io::Error::new(error.kind(), format!("UDP: {error}"));
                return Err(StartError::Listen { field: "listen", address, example_port: 17443, source });
            }
        }
    }
    unreachable!("the last try returns")
}

fn quic(
    config: &Config,
    sockets: SocketGroup,
    log_info: &LogInfo,
    tls: &rustls::ServerConfig,
    metrics: &Metrics,
) -> Result<Arc<Endpoints>, StartError> {
    let keys = QuicKeys::derive(log_info.id_key.as_bytes());
    let steering = Steering::new(keys.steering, 1);
    if let Err(error) = sockets.steer(steering) {
        tracing::warn!(%error, "the kernel cannot steer QUIC packets: shards hand them to each other");
    }
    let counters = NetCounters {
        misrouted: metrics.quic_misrouted.clone(),
        dropped: metrics.quic_misrouted_dropped.clone(),
    };
    let keepalive = Duration::from_secs(config.keepalive_seconds.into());
    Ok(Arc::new(Endpoints::new(sockets, steering, keys, tls, keepalive, counters)?))
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn open(log: &dyn CommitLog) -> Result<LogInfo, StartError> {
    let seeds = OpenSeeds { boot_id: BootId::new(random()?), id_key_if_new: random()?, now_ms: unix_ms() };
    Ok(talaria_log::open(log, seeds)?)
}

type LogThreads = (JoinHandle<()>, Vec<JoinHandle<()>>, Ports);

fn log_threads(
    config: &Config,
    log: &Arc<dyn CommitLog>,
    log_info: &LogInfo,
    lifecycle: &Arc<Lifecycle>,
    metrics: &Arc<Metrics>,
) -> Result<LogThreads, StartError> {
    let mailbox = Arc::new(Mailbox::default());
    let mailboxes = vec![mailbox.clone()];
    let writer = LogWriter {
        log: log.clone(),
        last_commit: log_info.commit,
        mailboxes: mailboxes.clone(),
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
    };
    let readers = Readers { log: log.clone(), mailboxes, metrics: metrics.clone() };
    let (log_queues, log_thread) = writer.start()?;
    let (read_queues, reader_threads) = readers.start(config.reader_threads as usize)?;
    let [log_queue] = <[_; 1]>::try_from(log_queues).unwrap_or_else(|_| unreachable!("one shard, one queue"));
    let [read_queue] =
        <[_; 1]>::try_from(read_queues).unwrap_or_else(|_| unreachable!("one shard, one queue"));
    let ports = Ports {
        log: log_queue,
        readers: read_queue,
        mailbox,
        metrics: metrics.clone(),
        clock: Clock::start(),
    };
    Ok((log_thread, reader_threads, ports))
}

impl NodeHandle {
    /// Begins to drain: no new connections, sessions are told to go, the rest is closed at the deadline.
    pub fn begin_shutdown(&self) {
        self.metrics.draining.set(1.0);
        self.lifecycle.drain(Instant::now() + self.drain);
    }

    /// Ends when no connection is left: after a shutdown, or because the shard failed.
    pub async fn stopped(&self) {
        let mut phase = self.lifecycle.watch();
        let _gone = phase.wait_for(|phase| *phase == crate::lifecycle::Phase::Stopped).await;
    }

    /// The node's metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    /// Drains, waits until the log has taken all that was accepted, and ends all threads.
    ///
    /// # Errors
    /// The shard had failed before.
    pub fn shutdown(mut self) -> Result<(), ShardError> {
        self.begin_shutdown();
        self.join()
    }

    fn join(&mut self) -> Result<(), ShardError> {
        let shard =
            self.shard.take().map_or(Ok(()), |shard| shard.join().unwrap_or(Err(ShardError::Panicked)));
        // The shard's queues are gone now: writer and readers end when they have done all that was in them.
        for thread in self.others.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a log thread panicked");
            }
        }
        if let Some((stop, thread)) = self.admin.take() {
            drop(stop);
            let _panicked = thread.join();
        }
        shard
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.begin_shutdown();
    }
}
