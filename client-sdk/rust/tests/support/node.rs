//! A node to talk to: finds the `talaria` binary, starts it in dev mode in a fresh directory, and ends it when dropped.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub struct Node {
    child: Child,
    directory: tempfile::TempDir,
    address: String,
    ca: PathBuf,
}

/// `TALARIA_BIN`, else what `cargo build -p talaria-server` makes.
fn binary() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let found = std::env::var_os("TALARIA_BIN").map_or_else(|| target.join("debug/talaria"), PathBuf::from);
    assert!(
        found.is_file(),
        "no node at {}: build it by `cargo build -p talaria-server`, or name it in TALARIA_BIN",
        found.display()
    );
    found
}

/// Starts `talaria serve` and reads what it says first: its address and its certificate authority.
fn serve(directory: &Path, listen: &str) -> (Child, String, PathBuf) {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("node.log")).unwrap();
    let mut child = Command::new(binary())
        .args(["serve", "--dev", "--listen", listen, "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the node starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| {
        let log = std::fs::read_to_string(directory.join("node.log")).unwrap();
        panic!("the node's first line is no JSON: {line:?}\n{log}")
    });
    let field = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}")).to_string();
    (child, field("listening"), field("ca").into())
}

impl Node {
    /// Starts one and waits until it listens.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (child, address, ca) = serve(directory.path(), "127.0.0.1:0");
        Self { child, directory, address, ca }
    }

    /// kill -9, and up again at the same address with the same log.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = serve(self.directory.path(), &self.address).0;
    }

    pub fn server(&self) -> &str {
        &self.address
    }

    pub fn ca(&self) -> &Path {
        &self.ca
    }

    pub fn token(&self, subject: &str) -> String {
        let output = Command::new(binary())
            .args(["token", "--subject", subject, "--data-dir"])
            .arg(self.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
