//! Phones that change networks: QUIC clients whose local address changes again and again while they talk. Nobody may
//! need a new handshake, and no message may need to be sent twice.

use std::time::Duration;

use anyhow::ensure;

use super::{dialer, report_tally};
use crate::{
    client::{Transport, random_below},
    node::Node,
    report::Report,
    traffic::{Pace, Pairs, Tally},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Clients, two and two in conversation.
    #[arg(long, default_value_t = 200)]
    clients: u64,
    /// Changes of address, each client.
    #[arg(long, default_value_t = 20)]
    rebinds: u32,
    /// Between two changes of a client, about: half to one and a half of it.
    #[arg(long, default_value_t = 1_000)]
    every_ms: u64,
    /// Messages a second of each pair.
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
}

/// Counters that say what steering and migration did.
fn of_interest(name: &str) -> bool {
    let parts = ["steer", "misrout", "forward", "migrat", "handshake", "quic", "accepted", "dropped"];
    parts.iter().any(|part| name.contains(part)) && !name.contains("_bytes")
}

pub(crate) async fn run(node: &mut Node, transport: Transport, args: &Args) -> anyhow::Result<Report> {
    ensure!(transport == Transport::Quic, "only QUIC survives a change of address: --transport quic");
    let dialer = dialer(node, transport)?;
    let pairs = Pairs::meet(&dialer, args.clients / 2, true).await?;
    let before = node.metrics().await?;
    pairs.begin("roam", Pace::Open(Duration::from_secs_f64(1.0 / args.rate)));
    let mut roaming = tokio::task::JoinSet::new();
    for account in pairs.accounts.clone() {
        let (rebinds, every_ms) = (args.rebinds, args.every_ms);
        roaming.spawn(async move {
            let mut done = 0;
            for _ in 0..rebinds {
                let wait_ms = every_ms / 2 + random_below(every_ms.max(1));
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                done += u64::from(account.rebind().is_ok());
            }
            done
        });
    }
    let mut done = 0;
    while let Some(of_one) = roaming.join_next().await {
        done += of_one?;
    }
    pairs.settle().await;
    let after = node.metrics().await?;
    let mut report = Report::new(format!("{} QUIC clients × {} rebinds", args.clients, args.rebinds));
    report.count("rebinds", done);
    report.latency("send→deliver", pairs.recorder.summary("roam"));
    report.count("acknowledged", Tally::get(&pairs.tally.acknowledged));
    let accepted = after.growth(&before, "talaria_connections_accepted_total").unwrap_or_default();
    let sessions = after.growth(&before, "talaria_sessions_opened_total").unwrap_or_default();
    report.figure("new connections, by the node's count", accepted, "");
    report.figure("new sessions, by the node's count", sessions, "");
    let misrouted = after.growth(&before, "talaria_quic_misrouted_total");
    report.maybe("misrouted", misrouted, "");
    report.maybe("shards", after.sum("talaria_shards"), "");
    report.fail_if(
        misrouted.unwrap_or_default() > 0.0,
        "packets came to another shard than their connection's",
    );
    for (name, change) in after.changes_since(&before, of_interest) {
        report.figure(&name, change, "");
    }
    report_tally(&mut report, &pairs);
    report.fail_if(accepted > 0.0 || sessions > 0.0, "somebody had to connect again");
    report
        .fail_if(done != pairs.accounts.len() as u64 * u64::from(args.rebinds), "not all rebinds were made");
    Ok(report)
}
