//! Thousands of clients that are only there: what each costs. Then, with `--reconnect`, all are dropped and come back at
//! once: how long that takes, and what others notice of it.

use std::time::Duration;

use serde_json::Value;

use super::{dialer, report_tally, seconds};
use crate::{
    client::Transport,
    herd::{Herd, member::Order},
    metrics::Metrics,
    node::Node,
    report::Report,
    traffic::{Pace, Pairs},
    udp::UdpDrops,
};

/// How long the node may take to notice that all are gone.
const GONE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Clients that are only there.
    #[arg(long, default_value_t = 10_000)]
    clients: u64,
    /// Drops them all, and lets them come back at once.
    #[arg(long)]
    reconnect: bool,
    /// Pairs that talk meanwhile.
    #[arg(long, default_value_t = 50)]
    pairs: u64,
    /// Messages a second of each pair.
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    /// How long the pairs talk before the storm, and after it; and how long the idle are watched.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
}

pub(crate) async fn run(node: &mut Node, transport: Transport, args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new(format!("{} idle clients over {transport}", args.clients));
    let mut herd = Herd::start(node, transport, args.clients)?;
    let registered = herd.order(Order::Register).await?;
    all_came(&mut report, "register", &registered, args.clients);
    node.restart()?;
    let dialer = dialer(node, transport)?;
    let pairs = Pairs::meet(&dialer, args.pairs, false).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let memory = node.process.memory_bytes()?;
    let opened = herd.order(Order::Open).await?;
    all_came(&mut report, "open", &opened, args.clients);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = node.process.memory_bytes()?.saturating_sub(memory);
    report.figure("memory before", memory as f64 / 1e6, "MB");
    report.figure("memory with all of them", (memory + grown) as f64 / 1e6, "MB");
    report.figure("memory a connection", grown as f64 / args.clients as f64 / 1024.0, "KiB");
    report.text(
        "connecting, a few at a time",
        format!("{:.1} s", opened["seconds"].as_f64().unwrap_or_default()),
    );
    let cpu = node.process.cpu()?;
    tokio::time::sleep(seconds(args.seconds)).await;
    let cpu = node.process.cpu()?.saturating_sub(cpu);
    report.figure("server CPU while all are idle", 100.0 * cpu.as_secs_f64() / args.seconds, "% of a core");
    if args.reconnect {
        reconnect(&mut report, node, &mut herd, &pairs, args).await?;
    }
    report_tally(&mut report, &pairs);
    Ok(report)
}

async fn reconnect(
    report: &mut Report,
    node: &Node,
    herd: &mut Herd,
    pairs: &Pairs,
    args: &Args,
) -> anyhow::Result<()> {
    let pace = Pace::Open(Duration::from_secs_f64(1.0 / args.rate));
    pairs.begin("quiet", pace);
    tokio::time::sleep(seconds(args.seconds)).await;
    pairs.begin("dropping", pace);
    herd.order(Order::Drop).await?;
    let left = wait_until_gone(node, 2 * args.pairs).await?;
    let before = node.metrics().await?;
    let cpu = node.process.cpu()?;
    let drops = UdpDrops::now(node.address.port())?;
    pairs.begin("storm", pace);
    let storm = herd.order(Order::Storm).await?;
    pairs.begin("after", pace);
    let cpu = node.process.cpu()?.saturating_sub(cpu);
    let drops = UdpDrops::now(node.address.port())?.since(drops);
    let after = node.metrics().await?;
    let memory = node.process.memory_bytes()?;
    tokio::time::sleep(seconds(args.seconds / 2.0)).await;
    pairs.settle().await;
    all_came(report, "storm", &storm, args.clients);
    report.count("sessions left when the storm began", left.saturating_sub(2 * args.pairs));
    report.figure("all resumed after", storm["last_s"].as_f64().unwrap_or_default(), "s");
    report.text("storm", storm.to_string());
    let recorder = &pairs.recorder;
    report.latency("send→deliver of others, quiet", recorder.summary("quiet"));
    report.latency("send→deliver of others, while all drop", recorder.summary("dropping"));
    report.latency("send→deliver of others, in the storm", recorder.summary("storm"));
    report.latency("send→deliver of others, after it", recorder.summary("after"));
    if let (Some(quiet), Some(storm)) = (recorder.summary("quiet"), recorder.summary("storm")) {
        report.figure("p99 in the storm to p99 quiet", storm.p99_ms / quiet.p99_ms, "");
    }
    report.figure("server CPU in the storm", cpu.as_secs_f64(), "s");
    report.count("UDP packets that the node's full sockets dropped", drops.node);
    report.count("and those of all others", drops.all.saturating_sub(drops.node));
    report.figure("memory after the storm", memory as f64 / 1e6, "MB");
    for (name, change) in after.changes_since(&before, of_interest) {
        report.figure(&name, change, "");
    }
    Ok(())
}

/// Counters that say what admission did.
fn of_interest(name: &str) -> bool {
    let parts = ["refused", "dropped", "accepted", "handshake", "retry", "sessions_opened", "sessions_ended"];
    parts.iter().any(|part| name.contains(part))
}

fn all_came(report: &mut Report, what: &str, said: &Value, clients: u64) {
    let came = said["succeeded"].as_u64().unwrap_or_default();
    report.fail_if(came != clients, format!("{what}: {came} of {clients} came: {said}"));
    let lost = said["lost_before"].as_u64().unwrap_or_default();
    report.fail_if(lost > 0, format!("{lost} idle connections were lost before \"{what}\""));
}

/// Sessions that the node still knows: those who stay, unless it did not notice in time.
async fn wait_until_gone(node: &Node, stay: u64) -> anyhow::Result<u64> {
    let began = std::time::Instant::now();
    loop {
        let sessions = sessions(&node.metrics().await?);
        if sessions <= stay || began.elapsed() > GONE_MAX {
            return Ok(sessions);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn sessions(metrics: &Metrics) -> u64 {
    metrics.sum("talaria_sessions").unwrap_or_default() as u64
}
