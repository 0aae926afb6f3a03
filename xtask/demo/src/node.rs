//! The node as a process of its own, on files that lose what is not synced when it is killed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use talaria_powercut::{PowerCut, Stats};

/// A program of this workspace, built beside the one that runs.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().skip(1).take(3).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not beside {}: run `cargo build --workspace` first", exe.display())
    })
}

/// A sync takes up to so long on the disk that the shim plays.
const SYNC_US_MAX: u64 = 2_000;
/// A power cut waits so long at most for a sync to hit.
const SYNCING_WITHIN: Duration = Duration::from_millis(200);

/// How nodes are started.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The `talaria` binary, or one that is broken on purpose.
    pub program: PathBuf,
    /// Arguments before the usual ones.
    pub args: Vec<String>,
    /// Shards; `None`: as many as the node chooses.
    pub shards: Option<u16>,
    /// Where the log is.
    pub data_dir: PathBuf,
    /// Kills are power cuts; without it, they leave the page cache.
    pub power_cut: Option<u64>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Where it listens.
    pub address: String,
    admin: String,
    stats: Option<PathBuf>,
}

impl NodeConfig {
    /// Where a node of this kind leaves its CA.
    pub fn ca(&self) -> PathBuf {
        self.data_dir.join("dev/ca.pem")
    }

    /// A token for a user of the dev node.
    pub fn token(&self, talaria: &Path, subject: &str) -> anyhow::Result<String> {
        let output = Command::new(talaria)
            .args(["token", "--subject", subject, "--data-dir"])
            .arg(&self.data_dir)
            .output()
            .with_context(|| format!("cannot run {}", talaria.display()))?;
        if !output.status.success() {
            bail!("talaria token failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts a node and waits until it listens. `round` counts the starts: each power cut tears in its own way.
    pub fn start(&self, listen: &str, round: u64) -> anyhow::Result<Node> {
        std::fs::create_dir_all(&self.data_dir)?;
        let log = std::fs::File::options().create(true).append(true).open(self.data_dir.join("node.log"))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).args([
            "serve",
            "--dev",
            "--listen",
            listen,
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        command.arg("--data-dir").arg(&self.data_dir);
        if let Some(shards) = self.shards {
            command.args(["--shards", &shards.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let stats = self.power_cut.map(|seed| -> anyhow::Result<PathBuf> {
            let stats = self.data_dir.join("powercut.stats");
            let cut = PowerCut {
                seed: Some(seed.wrapping_mul(1_000).wrapping_add(round)),
                sync_us_max: Some(SYNC_US_MAX),
                stats: Some(stats.clone()),
                ..PowerCut::new(self.data_dir.join("log"))
            };
            cut.apply(&mut command)?;
            Ok(stats)
        });
        let stats = stats.transpose()?;
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let stdout = child.stdout.take().context("the node has no stdout")?;
        let mut first = String::new();
        BufReader::new(stdout).read_line(&mut first)?;
        let addresses = serde_json::from_str::<serde_json::Value>(&first).ok().and_then(|line| {
            let of = |field: &str| Some(line.get(field)?.as_str()?.to_owned());
            Some((of("listening")?, of("admin")?))
        });
        let Some((address, admin)) = addresses else {
            let status = child.wait()?;
            let log = std::fs::read_to_string(self.data_dir.join("node.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            bail!(
                "the node did not start ({status}): {}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        };
        Ok(Node { child, address, admin, stats })
    }
}

impl Node {
    /// Kills it with SIGKILL; where that is a power cut, while something is being synced, if that happens soon. Returns
    /// how many bytes that were written were lost.
    pub fn kill(mut self) -> anyhow::Result<u64> {
        let until = Instant::now() + SYNCING_WITHIN;
        while let Some(stats) = &self.stats
            && Instant::now() < until
            && Stats::read(stats).context("the power-cut shim was not loaded")?.held_bytes == 0
        {
            std::thread::sleep(Duration::from_micros(50));
        }
        self.child.kill()?;
        self.child.wait()?;
        match &self.stats {
            Some(stats) => Ok(Stats::read(stats).context("the power-cut shim was not loaded")?.held_bytes),
            None => Ok(0),
        }
    }

    /// One of its metrics; all of that name together, whatever their labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(&self.admin).context("the node's admin port")?;
        write!(stream, "GET /metrics HTTP/1.0\r\nhost: {}\r\n\r\n", self.admin)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(of_name).map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<Option<f64>>().with_context(|| format!("the node's {name}"))
    }

    /// Ends it with SIGTERM, and waits.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: a signal to a child that was not waited for yet, so its pid is still its own.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
        if sent != 0 {
            bail!("cannot signal the node: {}", std::io::Error::last_os_error());
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the node ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Node {
    /// No node outlives its run.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
