//! `cargo xtask bench`: builds everything and becomes `talaria-bench` (benches), or plays all its scenarios in small.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::{
    packages,
    workspace::{Workspace, become_it, run},
};

/// All scenarios, seconds each: whether they work, not what they would show.
const QUICK: [&str; 8] = [
    "pairs --pairs 20 --seconds 2",
    "--transport quic pairs --pairs 20 --seconds 2",
    "idle --clients 200 --reconnect --seconds 2",
    "--transport quic idle --clients 200 --reconnect --seconds 2",
    "group --members 100 --seconds 2",
    "backfill --messages 60 --bytes 500000",
    "--transport quic backfill --messages 60 --bytes 500000",
    "--transport quic rebind --clients 20 --rebinds 5",
];

/// `cargo xtask bench`
#[derive(clap::Args)]
#[command(after_help = "\
For example:
  cargo xtask bench -- idle --reconnect
  cargo xtask bench -- --transport quic --node-arg=--shards=4 rebind
The build is the one that tests use, which is not optimised: its processor times are those of a slow node.
`cargo xtask bench -- --help` lists scenarios and options.")]
pub(crate) struct Args {
    /// Play all scenarios in small
    #[arg(long)]
    quick: bool,
    /// Passed on to talaria-bench as they are, after --serve
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS",
        conflicts_with = "quick"
    )]
    args: Vec<OsString>,
}

/// `cargo xtask bench`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    packages::ensure()?;
    workspace.build_all()?;
    let bench = || {
        let mut bench = workspace.command(workspace.program("talaria-bench"));
        bench.arg("--serve").arg(workspace.program("talaria"));
        bench
    };
    if !args.quick {
        return Err(become_it(bench().args(&args.args).current_dir(std::env::current_dir()?)));
    }
    let mut failed = Vec::new();
    for scenario in QUICK {
        if let Err(error) = run(bench().args(scenario.split(' '))) {
            eprintln!("{error:#}");
            failed.push(scenario);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join("; ")) }
}
