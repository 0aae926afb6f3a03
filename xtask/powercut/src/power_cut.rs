//! Prepares a command so that its process runs under the shim.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{io, path};

use crate::{env, shim_path};

/// What the shim shall do to a program; [`PowerCut::apply`] tells it to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerCut {
    /// The folder whose files lose what was not synced. It may not exist yet.
    pub dir: PathBuf,
    /// Seeds the torn writes; `None` tears nothing, so a kill loses whole writes only.
    pub seed: Option<u64>,
    /// One write in how many is torn, with a seed; `None` is [`env::TEAR_DEFAULT`].
    pub tear: Option<u64>,
    /// One write in how many puts one sector out of order, with a seed; `None` is never.
    pub scramble: Option<u64>,
    /// With a seed: a sync takes up to so many microseconds; `None` is no longer than the kernel's.
    pub sync_us_max: Option<u64>,
    /// Where the shim keeps the counters for [`crate::Stats::read`].
    pub stats: Option<PathBuf>,
    /// The library; `None` looks for it with [`shim_path`].
    pub shim: Option<PathBuf>,
}

impl PowerCut {
    /// A power cut without torn writes and without counters.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..Self::default() }
    }

    /// Sets LD_PRELOAD and the variables of [`mod@env`] on the command, absolute paths in each.
    ///
    /// Variables of the shim that are not asked for are removed, so that one test does not
    /// inherit another's. For tokio, pass `command.as_std_mut()`.
    ///
    /// # Errors
    /// The library was not found, or the working directory is gone.
    pub fn apply(&self, command: &mut Command) -> io::Result<()> {
        let shim = match &self.shim {
            Some(shim) => path::absolute(shim)?,
            None => shim_path()?,
        };
        command.env("LD_PRELOAD", preload_list(&shim));
        command.env(env::DIR, path::absolute(&self.dir)?);
        set_or_remove(command, env::SEED, self.seed.map(decimal));
        set_or_remove(command, env::TEAR, self.tear.map(decimal));
        set_or_remove(command, env::SCRAMBLE, self.scramble.map(decimal));
        set_or_remove(command, env::SYNC_US_MAX, self.sync_us_max.map(decimal));
        let stats = self.stats.as_deref().map(path::absolute).transpose()?;
        set_or_remove(command, env::STATS, stats.map(OsString::from));
        Ok(())
    }
}

/// The shim first, then what the caller's own environment preloads.
fn preload_list(shim: &Path) -> OsString {
    let mut list = OsString::from(shim);
    if let Some(inherited) = std::env::var_os("LD_PRELOAD").filter(|list| !list.is_empty()) {
        list.push(":");
        list.push(inherited);
    }
    list
}

fn decimal(number: u64) -> OsString {
    OsString::from(number.to_string())
}

fn set_or_remove(command: &mut Command, name: &str, value: Option<OsString>) {
    match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    };
}
