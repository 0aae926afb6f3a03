//! A shard's thread: one runtime, one core, its listeners and all tasks of its connections. This loop brings in what
//! other threads post, the core's time-outs and probes, and has a core that panicked begin anew. It ends when all shards
//! have drained, or when the core failed for good.

use std::{
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use core_affinity::CoreId;
use talaria_core::shard::ShardConfig;
use tokio::{
    sync::{mpsc, watch},
    task::LocalSet,
};

use crate::{
    admin::Probe,
    auth::Keyring,
    lifecycle::{Lifecycle, Phase},
    limits::{BURST, FLUSH, LINGER},
    pace::{Openings, Turns},
    session_driver::SessionContext,
    shard_host::{Ports, ShardHost},
    transport::{
        Admission, NodeAdmission,
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
    /// Its core panicked, too often to begin anew.
    #[error("a shard's core panicked again and again; what was acknowledged is in the log")]
    Panicked,
}

/// What all shards of a node share, and what they do alike.
pub(crate) struct Common {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) quic: Arc<Endpoints>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) admission: Arc<NodeAdmission>,
    pub(crate) node: String,
    pub(crate) keepalive: Duration,
    /// Of each shard.
    pub(crate) handshakes_per_second: u32,
    /// Of each shard.
    pub(crate) hellos_per_second: u32,
}

/// All that a shard is made of.
pub(crate) struct ShardThread {
    pub(crate) common: Arc<Common>,
    pub(crate) listener: TcpListener,
    pub(crate) core: ShardConfig,
    pub(crate) ports: Ports,
    pub(crate) probes: mpsc::Receiver<Probe>,
    /// Of session ids and jitter.
    pub(crate) session_seed: u64,
    /// Of its QUIC endpoint, fresh.
    pub(crate) quic_seed: [u8; 32],
    /// The processor that the thread is to keep to.
    pub(crate) pin: Option<CoreId>,
}

/// Tells the lifecycle that a shard has ended, however that was: no shard goes on without another.
struct StopAll(Arc<Lifecycle>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl ShardThread {
    /// Starts the thread.
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<Result<(), ShardError>>> {
        let name = format!("shard-{}", self.ports.shard.0);
        std::thread::Builder::new().name(name).spawn(move || {
            let _stop_all = StopAll(self.common.lifecycle.clone());
            self.run()
        })
    }

    fn run(self) -> Result<(), ShardError> {
        if self.pin.is_some_and(|core| !core_affinity::set_for_current(core)) {
            tracing::warn!(
                shard = self.ports.shard.0,
                "the shard's thread cannot be kept to one processor; to be silent about it: pin = false"
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, self.serve())
    }

    async fn serve(self) -> Result<(), ShardError> {
        let clock = self.ports.clock;
        let phase = self.common.lifecycle.watch();
        let context = self.context();
        let (host, admission) = (context.host.clone(), context.admission.clone());
        let turns = context.clone();
        tokio::task::spawn_local(async move { turns.turns.run().await });

        // Here begins each transport of the shard: a task beside the loop below, with the shard's own socket.
        let acceptor = Acceptor {
            listener: tokio::net::TcpListener::from_std(self.listener)?,
            tls: self.common.tls.clone(),
            admission: admission.clone(),
            context: context.clone(),
            phase: phase.clone(),
        };
        tokio::task::spawn_local(acceptor.run());
        let acceptor = QuicAcceptor {
            endpoints: self.common.quic.clone(),
            shard: self.ports.shard.0,
            seed: self.quic_seed,
            admission: admission.clone(),
            context,
            phase: phase.clone(),
        };
        tokio::task::spawn_local(acceptor.run());

        let mut shard = ShardLoop { host, admission, probes: self.probes, phase };
        loop {
            let due = shard.host.take_timeout().map(|due| clock.instant(due));
            shard.wait(due).await;
            shard.host.handle_timeout();
            if shard.host.drain_mailbox() {
                // There is more: after the sessions' tasks, time-outs and probes had their turn.
                shard.host.mailbox().wake();
                tokio::task::yield_now().await;
            }
            shard.host.restart_if_due();
            if shard.host.has_failed() {
                return Err(ShardError::Panicked);
            }
            if shard.is_done() {
                return Ok(());
            }
        }
    }

    /// What the sessions of this shard share.
    fn context(&self) -> Rc<SessionContext> {
        let Self { common, core, ports, .. } = self;
        let now = Instant::now();
        let shards = u32::from(core.shards);
        Rc::new(SessionContext {
            host: ShardHost::new(core.clone(), ports.clone()),
            keyring: common.keyring.clone(),
            id_key: core.log.id_key.clone(),
            metrics: ports.metrics.clone(),
            clock: ports.clock,
            node: common.node.clone(),
            keepalive: common.keepalive,
            durability: core.durability,
            seed: self.session_seed,
            openings: Openings::new(common.hellos_per_second, BURST, now),
            turns: Turns::new(),
            admission: Admission::new(common.admission.clone(), common.handshakes_per_second),
            node_handshakes_per_second: common.handshakes_per_second.saturating_mul(shards),
        })
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
    async fn wait(&mut self, due: Option<Instant>) {
        let far = || Instant::now() + Duration::from_secs(3600);
        let check = (*self.phase.borrow_and_update() != Phase::Serving).then(|| Instant::now() + DRAIN_CHECK);
        let wake = [due, check].into_iter().flatten().min().unwrap_or_else(far);
        tokio::select! {
            () = self.host.mailbox().rung() => {}
            () = tokio::time::sleep_until(wake.into()) => {}
            Some(probe) = self.probes.recv() => {
                let _asker_gone = probe.send(());
            }
            _ = self.phase.changed() => {}
        }
    }

    /// The node drains, no shard has a connection left, and nothing is on its way between them or to the log; or it took
    /// too long.
    fn is_done(&self) -> bool {
        let until = match *self.phase.borrow() {
            Phase::Serving => return false,
            Phase::Stopped => return true,
            Phase::Draining { until } => until,
        };
        let (mailboxes, shard) = (self.host.mailboxes(), self.host.shard());
        mailboxes.set_quiet(shard, true);
        let is_quiet = self.admission.connections() == 0 && self.host.is_idle();
        if !is_quiet {
            mailboxes.set_quiet(shard, false);
        }
        (is_quiet && mailboxes.all_quiet()) || Instant::now() > until + LINGER + FLUSH
    }
}
