//! Pairs in a closed loop: whether all is well, and about what the node does.

use std::time::Duration;

use super::{dialer, report_tally, seconds};
use crate::{
    client::Transport,
    node::Node,
    report::Report,
    traffic::{Pace, Pairs, Tally},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Pairs that talk.
    #[arg(long, default_value_t = 100)]
    pairs: u64,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Messages a second of each pair, open loop; 0: the next one when the last one is acknowledged.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
}

pub(crate) async fn run(node: &mut Node, transport: Transport, args: &Args) -> anyhow::Result<Report> {
    let dialer = dialer(node, transport)?;
    let pairs = Pairs::meet(&dialer, args.pairs, false).await?;
    let pace =
        if args.rate > 0.0 { Pace::Open(Duration::from_secs_f64(1.0 / args.rate)) } else { Pace::Closed };
    let (cpu, metrics) = (node.process.cpu()?, node.metrics().await?);
    pairs.begin("talk", pace);
    tokio::time::sleep(seconds(args.seconds)).await;
    pairs.settle().await;
    let cpu = node.process.cpu()?.saturating_sub(cpu);
    let after = node.metrics().await?;
    let mut report = Report::new(format!("{} pairs over {transport}", args.pairs));
    let acknowledged = Tally::get(&pairs.tally.acknowledged);
    report.latency("send→deliver", pairs.recorder.summary("talk"));
    report.figure("acknowledged", acknowledged as f64 / args.seconds, "a second");
    report.figure("server CPU a message", cpu.as_micros() as f64 / acknowledged.max(1) as f64, "µs");
    let commits = after.growth(&metrics, "talaria_log_sync_seconds_count").filter(|commits| *commits > 0.0);
    report.maybe("messages a commit", commits.map(|commits| acknowledged as f64 / commits), "");
    report_tally(&mut report, &pairs);
    report.fail_if(acknowledged == 0, "nothing was acknowledged");
    Ok(report)
}
