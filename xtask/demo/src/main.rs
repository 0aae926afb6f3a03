//! The demo's program: its options, its progress bar, its table, its exit code.
#![allow(clippy::print_stdout, reason = "a table for people")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use indicatif::ProgressBar;
use talaria_demo::{
    node::{NodeConfig, program},
    play::{self, PlayConfig},
};

/// People play scenes to each other through a node whose power is cut in the middle of sends; then everything that was
/// said is compared with the log and with every device.
#[derive(Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    /// Messages to be said.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Kills of the node.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Who says what where, and the order of the trouble; when it comes is up to the machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shards of the node [default: one per core].
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Writes all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keeps the node's directory, and says where it is.
    #[arg(long)]
    keep: bool,
    /// Kills without a power cut: what was written survives, synced or not.
    #[arg(long)]
    plain_kill: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut dir = tempfile::Builder::new().prefix("talaria-demo-").tempdir()?;
    dir.disable_cleanup(args.keep);
    let talaria = program("talaria")?;
    let config = PlayConfig {
        seed: args.seed,
        messages: args.messages,
        kills: args.kills,
        node: NodeConfig {
            program: talaria.clone(),
            args: vec![],
            shards: args.shards,
            data_dir: dir.path().to_owned(),
            power_cut: (!args.plain_kill).then_some(args.seed),
        },
        talaria,
        wrap: |store| store,
    };
    let report = play::run_alone(config, ProgressBar::new(args.messages as u64))?;
    print!("{report}");
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))?;
    }
    if args.keep {
        println!("  the node's directory               {}", dir.path().display());
    }
    let failures = report.failures();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        println!("Nothing acknowledged was lost, doubled or reordered.");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
