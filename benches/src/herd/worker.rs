//! The herd's process: an order a line on stdin, what came of it in a line of JSON on stdout. Ends when stdin does.
#![allow(clippy::print_stdout, reason = "it answers its parent")]

use std::{collections::BTreeMap, io::BufRead, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::member::{Done, Member, Order, Remembered};
use crate::{
    client::{Dialer, Transport},
    process::lower_priority,
    time::since_start,
    tokens::TokenKey,
};

/// QUIC clients that share a socket: few, since one socket's buffer does not hold what a crowd is sent.
const CLIENTS_PER_ENDPOINT: u64 = 8;
/// Clients that come at once when nothing is to be shown.
const AT_ONCE: usize = 200;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    clients: u64,
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    data_dir: PathBuf,
}

pub(crate) async fn run(transport: Transport, args: &Args) -> anyhow::Result<()> {
    lower_priority();
    let key = TokenKey::read(&args.data_dir.join("dev/token-key.pem"))?;
    let endpoints = args.clients.div_ceil(CLIENTS_PER_ENDPOINT);
    let ca = args.data_dir.join("dev/ca.pem");
    let dialer = Arc::new(Dialer::new(args.address, transport, &ca, key, endpoints)?);
    let orders = watch::Sender::new(Order::Rest);
    let (done, mut all_done) = mpsc::channel(AT_ONCE);
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut members = JoinSet::new();
    for number in 0..args.clients {
        let member = Member {
            dialer: dialer.clone(),
            account: dialer.account("idle", number)?,
            orders: orders.subscribe(),
            gate: gate.clone(),
            done: done.clone(),
            remembered: Remembered::default(),
        };
        members.spawn(member.run());
    }
    let mut lines = lines_of_stdin();
    while let Some(line) = lines.recv().await {
        let order = Order::parse(&line).with_context(|| format!("no such order: {line}"))?;
        let began = since_start();
        orders.send_replace(order);
        let mut summary = Summary::default();
        for _ in 0..args.clients {
            summary.add(all_done.recv().await.context("a member is gone")?);
        }
        println!("{}", summary.take_json(since_start() - began));
    }
    Ok(())
}

/// Of a thread that ends with stdin.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[derive(Default)]
struct Summary {
    succeeded: u64,
    tls_resumed: u64,
    lost: u64,
    took: Vec<Duration>,
    failures: BTreeMap<String, u64>,
}

impl Summary {
    fn add(&mut self, done: Done) {
        self.succeeded += u64::from(done.succeeded);
        self.tls_resumed += u64::from(done.tls_resumed);
        self.lost += done.lost;
        self.took.push(done.took);
        for failure in done.failures {
            *self.failures.entry(failure).or_default() += 1;
        }
    }

    fn take_json(&mut self, took: Duration) -> Value {
        self.took.sort_unstable();
        let quantile = |of: f64| {
            let index = (self.took.len().saturating_sub(1) as f64 * of) as usize;
            self.took.get(index).map_or(0.0, Duration::as_secs_f64)
        };
        json!({
            "seconds": took.as_secs_f64(),
            "succeeded": self.succeeded,
            "tls_resumed": self.tls_resumed,
            "lost_before": self.lost,
            "p50_s": quantile(0.5), "p90_s": quantile(0.9), "p99_s": quantile(0.99), "last_s": quantile(1.0),
            "failures": self.failures,
        })
    }
}
