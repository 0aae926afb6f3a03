//! Load on a node, from outside its process: latency as clients see it, memory and processor time as the system counts
//! them, and the node's own metrics. It starts the node itself (`--serve`), or finds one that runs in dev mode.

mod client;
mod herd;
mod latency;
mod metrics;
mod node;
mod process;
mod report;
mod scenarios;
mod time;
mod tokens;
mod traffic;
mod udp;

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use client::Transport;
use node::Node;
use report::Report;
use scenarios::{backfill, group, idle, pairs, rebind};

/// No scenario takes longer.
const SCENARIO_MAX: Duration = Duration::from_secs(1_200);

/// Loads a node and says what it costs.
#[derive(Parser)]
#[command(name = "talaria-bench")]
struct Args {
    /// Starts this `talaria` for the scenario, in a temporary directory.
    #[arg(long, value_name = "PATH", global = true)]
    serve: Option<PathBuf>,
    /// An argument of `talaria serve`, such as --node-arg=--durability=os; may be repeated.
    #[arg(
        long = "node-arg",
        value_name = "ARG",
        global = true,
        requires = "serve",
        allow_hyphen_values = true
    )]
    node_args: Vec<String>,
    /// A node that runs, in dev mode.
    #[arg(long, value_name = "IP:PORT", global = true, conflicts_with = "serve", requires_all = ["admin", "pid", "node_dir"])]
    server: Option<SocketAddr>,
    /// Its admin port.
    #[arg(long, value_name = "IP:PORT", global = true)]
    admin: Option<SocketAddr>,
    /// Its process.
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Its data directory, for dev/ca.pem and dev/token-key.pem.
    #[arg(long, value_name = "DIR", global = true)]
    node_dir: Option<PathBuf>,
    /// What carries the frames.
    #[arg(long, default_value = "tcp", global = true)]
    transport: Transport,
    /// Writes the figures there, too.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Pairs of users talk: throughput and latency
    Pairs(pairs::Args),
    /// Many clients that are only there: memory of a connection; and all of them reconnecting at once
    Idle(idle::Args),
    /// A large group online: the cost of a delivery
    Group(group::Args),
    /// Live messages on a bad line, without and with a backfill beside them
    Backfill(backfill::Args),
    /// QUIC clients whose addresses change while they talk
    Rebind(rebind::Args),
    /// The process of the idle clients; `idle` starts it
    #[command(hide = true)]
    Herd(herd::worker::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    process::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Scenario::Herd(herd) = &args.scenario {
        // Its clients would take a while to say goodbye, one by one.
        runtime.block_on(herd::worker::run(args.transport, herd))?;
        runtime.shutdown_background();
        return Ok(ExitCode::SUCCESS);
    }
    let mut node = find_node(&args)?;
    let run = async {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let scenario = tokio::time::timeout(SCENARIO_MAX, run(&mut node, args.transport, &args.scenario));
        // A signal ends it as an error does: its node and its herd go with it.
        tokio::select! {
            report = scenario => report.context("the scenario takes too long")?,
            _ = term.recv() => bail!("told to end"),
            _ = int.recv() => bail!("told to end"),
        }
    };
    let report = runtime.block_on(run);
    for warning in node.warnings() {
        eprintln!("node: {warning}");
    }
    let report = report?;
    std::io::stdout().write_all(report.to_string().as_bytes())?;
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))?;
    }
    Ok(if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find_node(args: &Args) -> anyhow::Result<Node> {
    match (&args.serve, args.server, args.admin, args.pid, &args.node_dir) {
        (Some(program), ..) => Node::start(program, &args.node_args),
        (None, Some(server), Some(admin), Some(pid), Some(dir)) => Ok(Node::running(server, admin, pid, dir)),
        _ => bail!("no node: give --serve PATH_TO_talaria, or --server with --admin, --pid and --node-dir"),
    }
}

async fn run(node: &mut Node, transport: Transport, scenario: &Scenario) -> anyhow::Result<Report> {
    match scenario {
        Scenario::Pairs(args) => pairs::run(node, transport, args).await,
        Scenario::Idle(args) => idle::run(node, transport, args).await,
        Scenario::Group(args) => group::run(node, transport, args).await,
        Scenario::Backfill(args) => backfill::run(node, transport, args).await,
        Scenario::Rebind(args) => rebind::run(node, transport, args).await,
        Scenario::Herd(_) => bail!("the herd has no node"),
    }
}
