//! The real program in a process of its own, killed at the latest when the test ends.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use talaria_server::{
    auth::{SigningKey, TokenRequest},
    clock::unix_ms,
    dev::{DEV_KID, DevFiles},
};

use super::{
    client::{Client, Tls},
    node::shards,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_talaria");

/// What a finished command said.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end, without our environment's settings.
pub(crate) fn run(args: &[&str]) -> Said {
    run_with(args, &[])
}

pub(crate) fn run_with(args: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = Command::new(PROGRAM).args(args).envs(environment.iter().copied()).output().unwrap();
    Said {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running node.
pub(crate) struct Process {
    child: Guard,
    pub(crate) tcp_addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) first_line: serde_json::Value,
    data_dir: PathBuf,
}

impl Process {
    /// `talaria serve --dev` in this directory, on free ports.
    pub(crate) fn start(data_dir: &Path, more_args: &[&str]) -> Self {
        Self::start_by(Command::new(PROGRAM), data_dir, more_args)
    }

    /// The same, in a process that may open only so many files.
    pub(crate) fn start_with_files(data_dir: &Path, files: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), PROGRAM]);
        Self::start_by(shell, data_dir, &[])
    }

    fn start_by(mut command: Command, data_dir: &Path, more_args: &[&str]) -> Self {
        let errors =
            std::fs::File::options().create(true).append(true).open(data_dir.join("stderr")).unwrap();
        let child = command
            .args([
                "serve",
                "--dev",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data_dir)
            .args(["--pin", "false"])
            .envs(shards().map(|shards| ("TALARIA_SHARDS", shards)))
            .args(more_args)
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut child = Guard(child);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stderr = || std::fs::read_to_string(data_dir.join("stderr")).unwrap_or_default();
        let first_line: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}; {}", stderr()));
        let address = |field: &str| first_line[field].as_str().unwrap().parse().unwrap();
        Self {
            tcp_addr: address("listening"),
            admin_addr: address("admin"),
            data_dir: data_dir.to_owned(),
            first_line,
            child,
        }
    }

    pub(crate) fn token(&self, subject: &str) -> String {
        let key = SigningKey::read(DEV_KID, &DevFiles::of(&self.data_dir).token_key()).unwrap();
        let now = unix_ms() / 1000;
        key.sign(&TokenRequest { subject, tenant: "", issued: now, expires: now + 3600 }).unwrap()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.tcp_addr, &Tls::trusting(&DevFiles::of(&self.data_dir).ca()))
    }

    pub(crate) fn session(&self, subject: &str) -> Client {
        let mut client = self.connect();
        client.hello(&self.token(subject), 1);
        client
    }

    /// Sends it a signal: "TERM", "INT", "KILL".
    pub(crate) fn signal(&self, name: &str) {
        let done =
            Command::new("kill").args([format!("-{name}"), self.child.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not end: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory, bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// What it has logged.
    pub(crate) fn stderr(&self) -> String {
        let mut text = String::new();
        let mut file = std::fs::File::open(self.data_dir.join("stderr")).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }
}

/// Kills the node when its test is over, however that ended.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
