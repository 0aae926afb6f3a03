//! A node that is broken on purpose, by a wrapper around its log, to show that the demo notices; or one whose shards
//! panic, to show that nobody loses anything. Never shipped: an example is built for tests only.
#![allow(clippy::print_stdout, reason = "the first line on stdout tells where the node listens")]

use std::sync::Arc;

use clap::{Parser, ValueEnum};
use talaria_log::{Batch, CommitLog, CommitResult, Family, View, batch::Write};
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::message::Durability;
use talaria_server::{
    Node,
    config::{Config, Overlay},
};
use tokio::signal::unix::{SignalKind, signal};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Break {
    /// Acknowledges before the sync.
    EarlyAck,
    /// Does not write the dedup index.
    NoDedup,
    /// Nothing: the log is whole. At SIGUSR1 the core of the next shard panics, one after the other.
    ShardPanics,
}

#[derive(Parser)]
struct Args {
    #[arg(long = "break")]
    how: Break,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Serve {
        #[command(flatten)]
        overlay: Box<Overlay>,
    },
}

struct BrokenLog {
    inner: RocksLog,
    how: Break,
}

impl CommitLog for BrokenLog {
    fn commit(&self, batch: &Batch) -> CommitResult {
        if self.how != Break::NoDedup {
            return self.inner.commit(batch);
        }
        let mut kept = Batch::default();
        for write in batch.writes() {
            match write {
                Write::Put { family: Family::ClientIds, .. } => {}
                Write::Put { family, key, value } => kept.put(*family, key, value.clone()),
                Write::Delete { family, key } => kept.delete(*family, key),
                Write::DeleteRange { family, start, end } => kept.delete_range(*family, start, end),
            }
        }
        self.inner.commit(&kept)
    }

    fn view(&self) -> Box<dyn View + '_> {
        self.inner.view()
    }

    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    fn read_only(&self) -> Option<String> {
        self.inner.read_only()
    }
}

fn main() -> anyhow::Result<()> {
    let Args { how, command: Command::Serve { overlay } } = Args::parse();
    let config = Config::load(&overlay)?;
    std::fs::create_dir_all(&config.data_dir)?;
    let durability = if how == Break::EarlyAck { Durability::Os } else { Durability::Fsync };
    let inner = RocksLog::open(config.data_dir.join("log"), &Options { durability, ..Options::default() })?;
    let shards = config.shards as u16;
    let node = Node::start(config, Arc::new(BrokenLog { inner, how }))?;
    println!("{}", serde_json::json!({ "listening": node.tcp_addr, "ca": node.ca }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut panic = signal(SignalKind::user_defined1())?;
        for shard in (0..shards).cycle() {
            tokio::select! {
                _ = term.recv() => break,
                _ = panic.recv(), if how == Break::ShardPanics => node.panic_shard(shard),
            }
        }
        std::io::Result::Ok(())
    })?;
    node.shutdown()?;
    Ok(())
}
