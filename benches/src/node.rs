//! The node under load: one that this program starts and stops, or one that runs already.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{metrics::Metrics, process::Process, tokens::TokenKey};

/// How long a node may take to end before it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Where the load goes.
pub(crate) struct Node {
    /// For clients, TCP and UDP.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) process: Process,
    pub(crate) data_dir: PathBuf,
    own: Option<Own>,
}

/// A node of ours.
struct Own {
    child: Killed,
    program: PathBuf,
    args: Vec<String>,
    _dir: TempDir,
}

/// Ended at the latest when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Node {
    /// One that runs, in dev mode.
    pub(crate) fn running(address: SocketAddr, admin: SocketAddr, pid: u32, data_dir: &Path) -> Self {
        Self { address, admin, process: Process::of(pid), data_dir: data_dir.to_owned(), own: None }
    }

    /// A fresh one in a temporary directory.
    pub(crate) fn start(program: &Path, args: &[String]) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("talaria-bench-").tempdir()?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, address, admin) = spawn(program, args, dir.path(), any)?;
        let process = Process::of(child.0.id());
        let data_dir = dir.path().to_owned();
        let own = Own { child, program: program.to_owned(), args: args.to_vec(), _dir: dir };
        Ok(Self { address, admin, process, data_dir, own: Some(own) })
    }

    /// Ends it in peace and starts it again on the same log and port: its memory is what it needs now, not what it
    /// once needed. A node that is not ours stays as it is.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        let Some(own) = &mut self.own else { return Ok(()) };
        stop(&mut own.child)?;
        let (child, address, admin) = spawn(&own.program, &own.args, &self.data_dir, self.address)?;
        self.process = Process::of(child.0.id());
        own.child = child;
        (self.address, self.admin) = (address, admin);
        Ok(())
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.data_dir.join("dev/ca.pem")
    }

    pub(crate) fn token_key(&self) -> anyhow::Result<TokenKey> {
        TokenKey::read(&self.data_dir.join("dev/token-key.pem"))
    }

    pub(crate) async fn metrics(&self) -> anyhow::Result<Metrics> {
        let mut metrics = Metrics::read(self.admin).await?;
        // The example node that counts them leaves the number there.
        if let Ok(count) = std::fs::read_to_string(self.data_dir.join("allocations"))
            && let Ok(count) = count.parse()
        {
            metrics.add("allocations_total", count);
        }
        Ok(metrics)
    }

    /// The last lines of its log that warn, for a report of what went wrong.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.data_dir.join("node.log")).unwrap_or_default();
        let warns = |line: &&str| {
            (line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked"))
                && !["dev mode", "connections_max"].iter().any(|known| line.contains(known))
        };
        let mut lines: Vec<_> = log.lines().rev().filter(warns).take(5).map(str::to_owned).collect();
        lines.reverse();
        lines
    }
}

fn spawn(
    program: &Path,
    args: &[String],
    data_dir: &Path,
    listen: SocketAddr,
) -> anyhow::Result<(Killed, SocketAddr, SocketAddr)> {
    let log = std::fs::File::options().create(true).append(true).open(data_dir.join("node.log"))?;
    let mut command = Command::new(program);
    command.args(["serve", "--dev", "--admin-listen", "127.0.0.1:0", "--listen"]).arg(listen.to_string());
    command.arg("--data-dir").arg(data_dir).args(args).env("NO_COLOR", "1");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = Killed(child.with_context(|| format!("cannot run {}", program.display()))?);
    let stdout = child.0.stdout.take().context("stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let said: serde_json::Value = serde_json::from_str(&line).with_context(|| {
        let log = std::fs::read_to_string(data_dir.join("node.log")).unwrap_or_default();
        format!("the node did not start: {log}")
    })?;
    let address = |field: &str| {
        let text = said[field].as_str().with_context(|| format!("no {field} in {line}"))?;
        Ok::<SocketAddr, anyhow::Error>(text.parse()?)
    };
    let (listening, admin) = (address("listening")?, address("admin")?);
    Ok((child, listening, admin))
}

fn stop(child: &mut Killed) -> anyhow::Result<()> {
    let pid = i32::try_from(child.0.id()).ok().and_then(rustix::process::Pid::from_raw).context("pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let deadline = Instant::now() + STOP_MAX;
    while child.0.try_wait()?.is_none() {
        if Instant::now() > deadline {
            bail!("the node does not end within {STOP_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
