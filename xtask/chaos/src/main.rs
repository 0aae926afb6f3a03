//! The proxy as a program: its flags, its first line on stdout, its counters at the end.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on stdout")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use talaria_chaos::{Chaos, Config, Cut, CutStyle, DropReason, Faults, Transport};

/// A bad network on loopback, between clients and a server: for UDP and TCP on one port.
///
/// Says where it listens on its first line, and counts what it did when it ends.
#[derive(Parser)]
#[command(name = "talaria-chaos")]
struct Args {
    /// The server.
    #[arg(long, value_name = "IP:PORT")]
    upstream: SocketAddr,
    /// Where clients connect; port 0: any free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Of all dice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Round trip, ms: half of it each way.
    #[arg(long, default_value_t = 0)]
    rtt_ms: u64,
    /// Uniform, beyond the delay, each way, ms.
    #[arg(long, default_value_t = 0)]
    jitter_ms: u64,
    /// Percent lost, each way.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Percent held back for --reorder-ms, each way; UDP.
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// See --reorder.
    #[arg(long, default_value_t = 10)]
    reorder_ms: u64,
    /// Percent that come twice, each way; UDP.
    #[arg(long, default_value_t = 0.0)]
    duplicate: f64,
    /// Bytes per second of each client's line, each way; 0: no limit.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// New ports towards the server for all UDP clients, every so many seconds; 0: never.
    #[arg(long, default_value_t = 0)]
    rebind_every: u64,
    /// Cuts every so many seconds; 0: never.
    #[arg(long, default_value_t = 0)]
    cut_every: u64,
    /// How long a cut is, ms.
    #[arg(long, default_value_t = 2_000)]
    cut_ms: u64,
    /// What is cut.
    #[arg(long, default_value = "both")]
    cut: CutWhat,
    /// Cuts reset TCP connections.
    #[arg(long)]
    cut_resets: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CutWhat {
    Udp,
    Tcp,
    Both,
}

impl Args {
    fn faults(&self) -> Faults {
        Faults {
            delay: Duration::from_micros(self.rtt_ms * 500),
            jitter: Duration::from_millis(self.jitter_ms),
            loss_percent: self.loss,
            reorder_percent: self.reorder,
            reorder_by: Duration::from_millis(self.reorder_ms),
            duplicate_percent: self.duplicate,
            rate_bytes_per_s: self.rate,
            ..Faults::default()
        }
    }

    fn cut(&self) -> Cut {
        Cut {
            transport: match self.cut {
                CutWhat::Udp => Transport::Udp,
                CutWhat::Tcp => Transport::Tcp,
                CutWhat::Both => Transport::Both,
            },
            style: if self.cut_resets { CutStyle::Reset } else { CutStyle::Silent },
            duration: Duration::from_millis(self.cut_ms),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let life_max = Duration::from_secs(args.seconds);
    let chaos = Chaos::start(Config {
        listen: args.listen,
        upstream: args.upstream,
        up: args.faults(),
        down: args.faults(),
        seed: args.seed,
        life_max,
    })
    .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("{}", chaos.address());
    let start = Instant::now();
    let mut second = 0;
    while !chaos.is_over() {
        second += 1;
        let next = (start + Duration::from_secs(second)).saturating_duration_since(Instant::now());
        std::thread::sleep(next);
        if args.rebind_every > 0 && second % args.rebind_every == 0 {
            chaos.rebind_all();
        }
        if args.cut_every > 0 && second % args.cut_every == 0 {
            chaos.cut(args.cut());
        }
    }
    let stats = chaos.stats();
    println!("{stats:#?}");
    for reason in DropReason::ALL {
        println!("dropped, {reason:?}: {}", stats.dropped(reason));
    }
    Ok(())
}
