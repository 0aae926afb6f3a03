//! `cargo xtask demo`: builds everything and becomes `talaria-demo`, the project's main job (xtask/demo).

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    packages,
    workspace::{Workspace, become_it},
};

/// `cargo xtask demo`
#[derive(clap::Args)]
#[command(after_help = "\
Arguments of talaria-demo:
  --messages N   how many messages to play [20000]
  --kills N      how often the node loses power while sends are in flight [5]
  --shards N     shards of the node [one per core]
  --seed S       what decides everything random
  --json FILE    write the final table there too
  --keep         keep the node's directory
  --plain-kill   kill -9 only: un-synced writes survive in the page cache")]
pub(crate) struct Args {
    /// Passed on to talaria-demo as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

/// `cargo xtask demo`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    packages::ensure()?;
    workspace.build_all()?;
    // A path among the arguments is relative to where the user is, not to the workspace.
    let mut demo = workspace.command(workspace.program("talaria-demo"));
    demo.args(&args.args).current_dir(std::env::current_dir()?);
    Err(become_it(&mut demo))
}
