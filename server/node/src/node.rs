//! A node in one piece: started on a log, with threads for the log's writer, its readers, the shards and the admin port;
//! stopped in the order in which they depend on each other, so that nothing that was accepted is left unanswered.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use core_affinity::CoreId;
use talaria_core::{log::LogInfo, peer::ShardId, session_directory::SessionDirectory, shard::ShardConfig};
use talaria_log::{CommitLog, OpenError, OpenSeeds};
use talaria_protocol::{ids::BootId, message::Durability};
use tokio::sync::{mpsc, oneshot};

use crate::{
    admin::{Admin, Probe},
    auth::{KeyError, Keyring},
    clock::{Clock, unix_ms},
    config::Config,
    dev::{DevError, DevFiles},
    faults::Faults,
    lifecycle::Lifecycle,
    limits::PROBES_MAX,
    log_thread::{LogQueue, LogWriter},
    mailbox::Mailboxes,
    metrics::Metrics,
    readers::{ReadQueue, Readers},
    retention::{Sweeper, Sweeping, policy_of},
    shard_host::Ports,
    shard_thread::{Common, ShardError, ShardThread},
    tls::{self, TlsError},
    transport::{
        AddressLimits, NodeAdmission,
        quic::{Endpoints, NoInitialCipherSuite, start},
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
    mailboxes: Arc<Mailboxes>,
    faults: Arc<Faults>,
    shards: Vec<JoinHandle<Result<(), ShardError>>>,
    others: Vec<JoinHandle<()>>,
    sweeping: Option<Sweeping>,
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
        let shards = config.shards as u16;
        let (listeners, quic_sockets) =
            listening("listen", config.listen, 17443, start::bind(config.listen, shards))?;
        let admin_listener =
            listening("admin_listen", config.admin_listen, 17480, tcp::bind(config.admin_listen))?;
        let (tcp_addr, admin_addr) = (listeners[0].local_addr()?, admin_listener.local_addr()?);

        let log_info = open(&*log)?;
        let metrics = Arc::new(Metrics::new()?);
        metrics.shards.set(f64::from(shards));
        let lifecycle = Arc::new(Lifecycle::default());
        let mailboxes = Arc::new(Mailboxes::new(shards));
        let faults = Arc::new(Faults::default());
        let log_threads = LogThreads::start(&config, &log, &log_info, &lifecycle, &metrics, &mailboxes)?;
        let keepalive = Duration::from_secs(config.keepalive_seconds.into());
        let quic = start::endpoints(quic_sockets, &log_info.id_key, &tls, keepalive, &metrics)?;
        let common = Arc::new(common(&config, tls, quic, keyring, &lifecycle, &metrics));
        let ports = log_threads.queues.into_iter().enumerate().map(|(shard, (log, readers))| Ports {
            shard: ShardId(shard as u16),
            log,
            readers,
            mailboxes: mailboxes.clone(),
            faults: faults.clone(),
            metrics: metrics.clone(),
            clock: log_threads.clock,
        });
        let maker = ShardMaker { common, log_info, durability: log.durability(), pins: pins(&config) };
        let (shards, probes) = maker.start_all(listeners, ports, &lifecycle)?;
        let admin = Admin { lifecycle: lifecycle.clone(), metrics: metrics.clone(), shards: probes };
        let (stop_admin, admin_stopped) = oneshot::channel();
        let admin = admin.start(admin_listener, admin_stopped)?;
        Ok(NodeHandle {
            tcp_addr,
            admin_addr,
            ca,
            lifecycle,
            sweeping: sweeper(&config, &log, &mailboxes, &metrics).start()?,
            metrics,
            mailboxes,
            faults,
            drain: Duration::from_secs(config.drain_seconds.into()),
            shards,
            others: log_threads.threads,
            admin: Some((stop_admin, admin)),
        })
    }
}

/// What makes shards: the same for all.
struct ShardMaker {
    common: Arc<Common>,
    log_info: LogInfo,
    durability: Durability,
    pins: Vec<CoreId>,
}

type Shards = (Vec<JoinHandle<Result<(), ShardError>>>, Vec<mpsc::Sender<Probe>>);

impl ShardMaker {
    /// Starts all shards, or none.
    fn start_all(
        self,
        listeners: Vec<TcpListener>,
        ports: impl Iterator<Item = Ports>,
        lifecycle: &Lifecycle,
    ) -> Result<Shards, StartError> {
        let shards = listeners.len() as u16;
        let sessions = Arc::new(SessionDirectory::default());
        let (mut threads, mut probes) = (Vec::new(), Vec::new());
        for (listener, ports) in listeners.into_iter().zip(ports) {
            let (probe, probed) = mpsc::channel::<Probe>(PROBES_MAX);
            let core = ShardConfig {
                log: self.log_info.clone(),
                durability: self.durability,
                seed: random()?,
                shard: ports.shard,
                shards,
                incarnation: 0,
                is_in_doubt: false,
                sessions: sessions.clone(),
            };
            let thread = ShardThread {
                common: self.common.clone(),
                listener,
                core,
                pin: self.pins.get(usize::from(ports.shard.0)).copied(),
                ports,
                probes: probed,
                session_seed: u64::from_be_bytes(random()?),
                quic_seed: random()?,
            };
            threads.push(thread.start().inspect_err(|_| lifecycle.stop())?);
            probes.push(probe);
        }
        Ok((threads, probes))
    }
}

fn sweeper(
    config: &Config,
    log: &Arc<dyn CommitLog>,
    mailboxes: &Arc<Mailboxes>,
    metrics: &Arc<Metrics>,
) -> Sweeper {
    Sweeper {
        log: log.clone(),
        policy: policy_of(&config.retention),
        every: Duration::from_secs(config.retention.sweep_seconds.into()),
        mailboxes: mailboxes.clone(),
        metrics: metrics.clone(),
    }
}

/// A processor for each shard, or none at all.
fn pins(config: &Config) -> Vec<CoreId> {
    let cores = if config.pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
    if cores.len() >= config.shards as usize { cores } else { Vec::new() }
}

fn common(
    config: &Config,
    tls: Arc<rustls::ServerConfig>,
    quic: Endpoints,
    keyring: Arc<Keyring>,
    lifecycle: &Arc<Lifecycle>,
    metrics: &Arc<Metrics>,
) -> Common {
    let addresses = AddressLimits {
        per_second: config.address_connections_per_second,
        without_hello_max: config.address_without_hello_max,
        loopback: config.address_limits_loopback,
    };
    Common {
        tls,
        quic: Arc::new(quic),
        keyring,
        lifecycle: lifecycle.clone(),
        admission: NodeAdmission::new(config.connections_max as usize, addresses, metrics.clone()),
        node: config.node.clone(),
        keepalive: Duration::from_secs(config.keepalive_seconds.into()),
        handshakes_per_second: config.handshakes_per_second,
        hellos_per_second: config.hellos_per_second,
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

fn listening<T>(
    field: &'static str,
    address: SocketAddr,
    example_port: u16,
    bound: std::io::Result<T>,
) -> Result<T, StartError> {
    bound.map_err(|source| StartError::Listen { field, address, example_port, source })
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

/// The log's writer and readers.
struct LogThreads {
    threads: Vec<JoinHandle<()>>,
    /// One pair for each shard.
    queues: Vec<(LogQueue, ReadQueue)>,
    clock: Clock,
}

impl LogThreads {
    fn start(
        config: &Config,
        log: &Arc<dyn CommitLog>,
        log_info: &LogInfo,
        lifecycle: &Arc<Lifecycle>,
        metrics: &Arc<Metrics>,
        mailboxes: &Arc<Mailboxes>,
    ) -> Result<Self, StartError> {
        let writer = LogWriter {
            log: log.clone(),
            last_commit: log_info.commit,
            mailboxes: mailboxes.clone(),
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
        };
        let readers = Readers { log: log.clone(), mailboxes: mailboxes.clone(), metrics: metrics.clone() };
        let (log_queues, writer) = writer.start()?;
        let (read_queues, readers) = readers.start(config.reader_threads as usize)?;
        Ok(Self {
            threads: std::iter::once(writer).chain(readers).collect(),
            queues: log_queues.into_iter().zip(read_queues).collect(),
            clock: Clock::start(),
        })
    }
}

impl NodeHandle {
    /// Begins to drain: no new connections, sessions are told to go, the rest is closed at the deadline.
    pub fn begin_shutdown(&self) {
        self.metrics.draining.set(1.0);
        self.lifecycle.drain(Instant::now() + self.drain);
    }

    /// Ends when no connection is left: after a shutdown, or because a shard failed.
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
    /// A shard had failed before.
    pub fn shutdown(mut self) -> Result<(), ShardError> {
        self.begin_shutdown();
        self.join()
    }

    fn join(&mut self) -> Result<(), ShardError> {
        if let Some(sweeping) = self.sweeping.take() {
            sweeping.stop();
        }
        let mut ended = Ok(());
        for shard in self.shards.drain(..) {
            ended = ended.and(shard.join().unwrap_or(Err(ShardError::Panicked)));
        }
        // The shards' queues are gone now: writer and readers end when they have done all that was in them.
        for thread in self.others.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a log thread panicked");
            }
        }
        if let Some((stop, thread)) = self.admin.take() {
            drop(stop);
            let _panicked = thread.join();
        }
        ended
    }

    /// For tests: this shard's core panics at its next input, at once if there is none.
    #[doc(hidden)]
    pub fn panic_shard(&self, shard: u16) {
        self.faults.panic_core(ShardId(shard));
        self.mailboxes.of(ShardId(shard)).wake();
    }

    /// For tests: the next session of this shard that receives something panics.
    #[doc(hidden)]
    pub fn panic_session(&self, shard: u16) {
        self.faults.panic_session(ShardId(shard));
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.begin_shutdown();
    }
}
