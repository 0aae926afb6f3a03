//! What the system says of a process: memory and processor time, from /proc. And what it lets this one do.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks of /proc/PID/stat a second, on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A running process.
#[derive(Clone, Debug)]
pub(crate) struct Process(PathBuf);

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    /// User and system time of all its threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(self.0.join("stat")).context("the process is gone")?;
        // The name, in brackets, may hold anything; fields 14 and 15 are counted after it.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let mut ticks = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
        let (user, system) = (ticks.next().context("utime")??, ticks.next().context("stime")??);
        Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
    }

    /// Memory of its own, bytes: no files, nothing shared.
    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(self.0.join("status")).context("the process is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

/// As many open files as the system lets.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        tracing::warn!(?limit, "the limit of open files stays");
    }
}

/// Others go first from now on.
pub(crate) fn lower_priority() {
    if let Err(error) = rustix::process::nice(15) {
        tracing::warn!(%error, "the priority stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_spends_time() {
        let this = Process::of(std::process::id());
        assert!(this.memory_bytes().unwrap() > 100_000);
        let before = this.cpu().unwrap();
        while this.cpu().unwrap() == before {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
    }
}
