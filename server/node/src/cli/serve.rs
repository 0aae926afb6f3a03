//! `talaria serve`: a node on the embedded log, until SIGTERM or SIGINT. A second signal does not wait for the drain.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::message::Durability as Durable;
use talaria_server::{
    Node, NodeHandle,
    config::{Config, Durability, LogLevel, Overlay},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::print_line;

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    overlay: Overlay,
}

/// The first line on stdout, for whoever started the node.
#[derive(serde::Serialize)]
struct Started {
    listening: SocketAddr,
    admin: SocketAddr,
    ca: Option<PathBuf>,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut config = Config::load(&self.overlay)?;
        log_to_stderr(config.log_level);
        fit_connections_to_files(&mut config);
        let (data_dir, dev) = (config.data_dir.clone(), config.dev);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Before anybody can know that the node is there.
        let signals = runtime.block_on(async { Signals::new() })?;
        let log = open_log(&config)?;
        let node = Node::start(config, Arc::new(log))?;
        let started = Started { listening: node.tcp_addr, admin: node.admin_addr, ca: node.ca.clone() };
        print_line(&serde_json::to_string(&started)?).context("stdout")?;
        if dev {
            tracing::warn!(
                "dev mode: anyone who reads {dir}/dev can be any user. To connect: trust {dir}/dev/ca.pem, and take a \
                 token from `talaria token --data-dir {dir} --subject alice`",
                dir = data_dir.display()
            );
        }
        runtime.block_on(signals.wait(&node));
        node.shutdown()?;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

fn open_log(config: &Config) -> anyhow::Result<RocksLog> {
    let durability = match config.durability {
        Durability::Fsync => Durable::Fsync,
        Durability::Os => Durable::Os,
    };
    std::fs::create_dir_all(&config.data_dir).with_context(|| {
        format!(
            "data_dir = {:?} cannot be made: give the node's user a directory that it may write, for example: data_dir = \
             \"/var/lib/talaria\" or --data-dir ./data",
            config.data_dir
        )
    })?;
    let path = config.data_dir.join("log");
    let log = RocksLog::open(&path, &Options { durability, ..Options::default() })
        .with_context(|| format!("the log in {}", path.display()))?;
    for torn in log.torn_tails() {
        tracing::warn!(
            file = torn.file,
            at = torn.at,
            bytes = torn.bytes,
            garbled = torn.is_garbled,
            "a last write that was never completed was cut off; it is kept beside the file"
        );
    }
    Ok(log)
}

/// What tells the node to go.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Until the first signal, then until the node has drained; the second signal ends the program.
    async fn wait(mut self, node: &NodeHandle) {
        tokio::select! {
            () = self.next() => {}
            () = node.stopped() => return,
        }
        tracing::info!("draining: sessions are told to go");
        node.begin_shutdown();
        tokio::select! {
            () = node.stopped() => {}
            () = self.next() => leave(),
        }
    }
}

/// What was acknowledged is in the log; the rest was not acknowledged.
fn leave() -> ! {
    tracing::warn!("a second signal: leaving without waiting");
    std::process::exit(1);
}

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false).init();
}

/// Files that are not connections: the log's tables and write-ahead logs, the rest.
const OTHER_FILES: u64 = 640;
/// Those of a shard: its sockets and what its runtime waits with.
const FILES_PER_SHARD: u64 = 8;

/// As many open files as the system lets, and no more connections than leave the log its own: a flood of connections
/// must never be what makes a write fail.
fn fit_connections_to_files(config: &mut Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    let Some(files) = (if raised.is_ok() { before.maximum } else { before.current }) else { return };
    let others = OTHER_FILES + FILES_PER_SHARD * u64::from(config.shards);
    let fit = u32::try_from(files.saturating_sub(others)).unwrap_or(u32::MAX).max(16);
    if fit < config.connections_max {
        tracing::warn!(
            "connections_max = {}: the system lets this process open only {files} files, so it takes {fit} connections; \
             to allow more, raise `ulimit -Hn`",
            config.connections_max
        );
        config.connections_max = fit;
    }
}
