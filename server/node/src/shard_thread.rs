//! A shard's thread: one runtime, one core, its listener and all tasks of its connections. This loop brings in what
//! other threads post, the core's time-outs and probes; it ends when the node has drained, or when the core failed.

use std::{
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use talaria_core::{
    log::LogInfo,
    shard::{Shard, ShardConfig},
};
use talaria_protocol::message::Durability;
use tokio::{
    sync::{mpsc, watch},
    task::LocalSet,
};

use crate::{
    admin::Probe,
    auth::Keyring,
    lifecycle::{Lifecycle, Phase},
    limits::{FLUSH, LINGER},
    session_driver::SessionContext,
    shard_host::{Ports, ShardHost},
    transport::{
        Admission,
        quic::{Endpoints, QuicAcceptor},
        tcp::Acceptor,
    },
};

/// While the node drains, the loop looks this often whether all is done.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// Why a shard ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Its runtime or listener could not be made.
    #[error("the shard's thread: {0}")]
    Io(#[from] std::io::Error),
    /// Its core panicked.
    #[error("the shard's core panicked; what was acknowledged is in the log")]
    Panicked,
}

/// All that a shard is made of.
pub(crate) struct ShardThread {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) quic: Arc<Endpoints>,
    /// Of the shard's QUIC endpoint, fresh.
    pub(crate) quic_seed: [u8; 32],
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) log_info: LogInfo,
    pub(crate) durability: Durability,
    pub(crate) ports: Ports,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) probes: mpsc::Receiver<Probe>,
    pub(crate) node: String,
    pub(crate) keepalive: Duration,
    pub(crate) connections_max: usize,
    /// Of the core's salts.
    pub(crate) salt_seed: [u8; 32],
    /// Of session ids and jitter.
    pub(crate) session_seed: u64,
}

impl ShardThread {
    /// Starts the thread. It tells the lifecycle when it has stopped.
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<Result<(), ShardError>>> {
        let lifecycle = self.lifecycle.clone();
        std::thread::Builder::new().name("shard-0".to_owned()).spawn(move || {
            let ended = self.run();
            lifecycle.stop();
            ended
        })
    }

    fn run(self) -> Result<(), ShardError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, self.serve())
    }

    async fn serve(self) -> Result<(), ShardError> {
        let (mailbox, clock, metrics) =
            (self.ports.mailbox.clone(), self.ports.clock, self.ports.metrics.clone());
        let id_key = self.log_info.id_key.clone();
        let config = ShardConfig {
            log: self.log_info,
            durability: self.durability,
            seed: self.salt_seed,
            shard: talaria_core::peer::ShardId(0),
            shards: 1,
            incarnation: 0,
            sessions: Arc::default(),
        };
        let host = ShardHost::new(Shard::new(config, clock.now()), self.ports);
        let admission = Admission::new(self.connections_max, metrics.clone());
        let phase = self.lifecycle.watch();
        let context = Rc::new(SessionContext {
            host: host.clone(),
            keyring: self.keyring,
            id_key,
            metrics,
            clock,
            node: self.node,
            keepalive: self.keepalive,
            durability: self.durability,
            seed: self.session_seed,
        });
        let acceptor = Acceptor {
            listener: tokio::net::TcpListener::from_std(self.listener)?,
            tls: self.tls,
            admission: admission.clone(),
            context: context.clone(),
            phase: phase.clone(),
        };
        tokio::task::spawn_local(acceptor.run());
        let acceptor = QuicAcceptor {
            endpoints: self.quic,
            shard: 0,
            seed: self.quic_seed,
            admission: admission.clone(),
            context,
            phase: phase.clone(),
        };
        tokio::task::spawn_local(acceptor.run());
        let mut shard = ShardLoop { host, admission, probes: self.probes, phase };
        loop {
            let due = shard.host.take_timeout().map(|due| clock.instant(due));
            shard.wait(&mailbox, due).await;
            shard.host.handle_timeout();
            while shard.host.drain_mailbox() {
                tokio::task::yield_now().await;
            }
            if shard.host.has_failed() {
                return Err(ShardError::Panicked);
            }
            if shard.is_done() {
                return Ok(());
            }
        }
    }
}

struct ShardLoop {
    host: Rc<ShardHost>,
    admission: Rc<Admission>,
    probes: mpsc::Receiver<Probe>,
    phase: watch::Receiver<Phase>,
}

impl ShardLoop {
    /// Until there is something to do, at the latest at `due`.
    async fn wait(&mut self, mailbox: &crate::mailbox::Mailbox, due: Option<Instant>) {
        let far = || Instant::now() + Duration::from_secs(3600);
        let check = (*self.phase.borrow_and_update() != Phase::Serving).then(|| Instant::now() + DRAIN_CHECK);
        let wake = [due, check].into_iter().flatten().min().unwrap_or_else(far);
        tokio::select! {
            () = mailbox.posted() => {}
            () = tokio::time::sleep_until(wake.into()) => {}
            Some(probe) = self.probes.recv() => {
                let _asker_gone = probe.send(());
            }
            _ = self.phase.changed() => {}
        }
    }

    /// The node drains, no connection is left, and the log has answered; or it took too long.
    fn is_done(&self) -> bool {
        let until = match *self.phase.borrow() {
            Phase::Serving => return false,
            Phase::Stopped => return true,
            Phase::Draining { until } => until,
        };
        let gone = self.admission.connections() == 0;
        (gone && self.host.is_idle()) || Instant::now() > until + LINGER + FLUSH
    }
}
