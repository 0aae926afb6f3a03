//! Thousands of clients that do nothing, in a process of their own at low priority, so that they cost the node what
//! clients elsewhere would, and take no processor time from it or from those who are measured. [`member`] is one of them,
//! [`worker`] the process, and this the handle that a scenario has.

pub(crate) mod member;
pub(crate) mod worker;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::timeout;

use crate::{client::Transport, node::Node};

/// How long one command may take.
const COMMAND_MAX: Duration = Duration::from_secs(400);

/// A herd's process; it ends when this is dropped.
pub(crate) struct Herd {
    child: Killed,
    stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Herd {
    pub(crate) fn start(node: &Node, transport: Transport, clients: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--transport", &transport.to_string(), "herd"]);
        command.args(["--clients", &clients.to_string(), "--address", &node.address.to_string()]);
        command.arg("--data-dir").arg(&node.data_dir);
        let mut child = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let stdin = child.0.stdin.take().context("stdin")?;
        let stdout = child.0.stdout.take().context("stdout")?;
        Ok(Self { child, stdin, stdout: Some(BufReader::new(stdout)) })
    }

    /// Has all of them do it, and waits for what they say of it.
    pub(crate) async fn order(&mut self, order: member::Order) -> anyhow::Result<Value> {
        writeln!(self.stdin, "{order}")?;
        let mut stdout = self.stdout.take().context("the last order was not answered")?;
        let answer = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| (line, stdout))
        });
        let answer = match timeout(COMMAND_MAX, answer).await {
            Ok(answer) => answer,
            Err(late) => {
                // Ends the reading thread, too.
                let _ended = self.child.0.kill();
                return Err(late).context("the herd does not answer");
            }
        };
        let (line, stdout) = answer??;
        self.stdout = Some(stdout);
        ensure!(!line.is_empty(), "the herd's process is gone");
        Ok(serde_json::from_str(&line)?)
    }
}
