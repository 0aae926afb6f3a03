//! A node that counts what it asks of the allocator, for `talaria-bench group`: the number stands in `allocations` of the
//! data directory, renewed all the time. On the system's allocator; the binary's is mimalloc. Never shipped.
#![allow(clippy::print_stdout, reason = "the first line on stdout tells where the node listens")]
#![allow(unsafe_code, reason = "an allocator is unsafe by its interface")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::message::Durability;
use talaria_server::{
    Node,
    config::{Config, Overlay},
};
use tokio::signal::unix::{SignalKind, signal};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is the system allocator's, with the arguments that it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Parser)]
enum Command {
    Serve {
        #[command(flatten)]
        overlay: Box<Overlay>,
    },
}

fn main() -> anyhow::Result<()> {
    let Command::Serve { overlay } = Command::parse();
    let config = Config::load(&overlay)?;
    std::fs::create_dir_all(&config.data_dir)?;
    let (file, log) = (config.data_dir.join("allocations"), config.data_dir.join("log"));
    let log = RocksLog::open(log, &Options { durability: Durability::Fsync, ..Options::default() })?;
    let node = Node::start(config, Arc::new(log))?;
    println!(
        "{}",
        serde_json::json!({ "listening": node.tcp_addr, "admin": node.admin_addr, "ca": node.ca })
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = term.recv() => return std::io::Result::Ok(()),
                _ = tick.tick() => std::fs::write(&file, ALLOCATIONS.load(Ordering::Relaxed).to_string())?,
            }
        }
    })?;
    node.shutdown()?;
    Ok(())
}
