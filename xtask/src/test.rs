//! `cargo xtask test`: all tests, doc tests included. The programs and the power cut shim are built first, because
//! tests of real processes start them.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    packages,
    workspace::{Workspace, run},
};

/// The crates whose tests need no RocksDB, so that they may be built by name.
const FAST: [&str; 5] = ["talaria-protocol", "talaria-core", "talaria-log", "talaria-client-core", "xtask"];

/// `cargo xtask test`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the pure crates and xtask: no RocksDB, no packages, seconds
    #[arg(long)]
    fast: bool,
    /// Passed on to `cargo test`, such as a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// `cargo xtask test`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.fast {
        let mut test = workspace.cargo(["test"]);
        test.args(FAST.iter().flat_map(|name| ["-p", name]));
        return run(test.args(&args.args));
    }
    packages::ensure()?;
    workspace.build_all()?;
    run(workspace.cargo(["test", "--workspace"]).args(&args.args))
}
