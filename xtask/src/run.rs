//! `cargo xtask run`: a node to play with. xtask becomes the node, so that Ctrl-C is the node's own; a helper process
//! (the hidden `--announce`) waits until the node listens and prints how to chat through it.
//! How node and client are called stands in [`serve`] and [`announcement`], nowhere else.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    packages, temp,
    workspace::{Workspace, become_it, own_program},
};

/// Where a node in dev mode listens.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 7443);
const STARTUP_MAX: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// `cargo xtask run`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the node keeps its data [default: a fresh directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print how to chat once the node with this data directory listens
    #[arg(long, hide = true, value_name = "DIR", requires = "node_pid")]
    announce: Option<PathBuf>,
    /// The node's process, to give up when it is gone
    #[arg(long, hide = true, value_name = "PID", requires = "announce")]
    node_pid: Option<u32>,
}

/// `cargo xtask run`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let address = SocketAddr::from(ADDRESS);
    if let (Some(data_dir), Some(node_pid)) = (&args.announce, args.node_pid) {
        return announce(workspace, data_dir, address, node_pid);
    }
    if listens(address) {
        bail!("something listens on {address} already; stop it first");
    }
    packages::ensure()?;
    workspace.build_all()?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| temp::unused_path("run"));
    fs::create_dir_all(&data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    let data_dir = std::path::absolute(&data_dir)?;
    println!("node's data: {}", data_dir.display());
    // This process becomes the node and keeps its number.
    let node_pid = std::process::id().to_string();
    let mut helper = Command::new(own_program());
    helper.args(["run", "--node-pid", &node_pid, "--announce"]).arg(&data_dir).spawn()?;
    Err(become_it(&mut serve(workspace, &data_dir)))
}

fn serve(workspace: &Workspace, data_dir: &Path) -> Command {
    let mut node = workspace.command(workspace.program("talaria"));
    node.args(["serve", "--dev", "--data-dir"]).arg(data_dir);
    node
}

/// The text that says how two people chat. The shell asks the node for a token when it runs.
fn announcement(workspace: &Workspace, data_dir: &Path, address: SocketAddr) -> String {
    let data_dir = data_dir.display();
    let chat = |me: &str, with: &str| {
        format!(
            "{chat} --server {address} --ca {data_dir}/dev/ca.pem --with {with} --token \
             \"$({talaria} token --data-dir {data_dir} --subject {me})\"",
            chat = workspace.program("talaria-chat").display(),
            talaria = workspace.program("talaria").display(),
        )
    };
    let (alice, bob) = (chat("alice", "bob"), chat("bob", "alice"));
    format!("\nThe node listens. In two more terminals:\n\n{alice}\n\n{bob}\n\nCtrl-C ends the node.\n")
}

/// Runs as the node's child, until the node listens or is gone.
fn announce(workspace: &Workspace, data_dir: &Path, address: SocketAddr, node_pid: u32) -> Result<()> {
    let deadline = Instant::now() + STARTUP_MAX;
    while !(data_dir.join("dev/ca.pem").is_file() && listens(address)) {
        if parent_id() != node_pid {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the node does not listen on {address} after {} s", STARTUP_MAX.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
    println!("{}", announcement(workspace, data_dir, address));
    Ok(())
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_commands_are_whole() {
        let workspace = Workspace { root: "/checkout".into(), target_dir: "/t".into() };
        let text = announcement(&workspace, Path::new("/data"), SocketAddr::from(ADDRESS));
        let wanted = "/t/debug/talaria-chat --server 127.0.0.1:7443 --ca /data/dev/ca.pem --with bob \
                      --token \"$(/t/debug/talaria token --data-dir /data --subject alice)\"";
        assert!(text.lines().any(|line| line == wanted), "{text}");
        assert!(text.contains("--with alice") && text.contains("--subject bob"), "{text}");
    }

    #[test]
    fn the_announcement_ends_with_the_node() {
        let workspace = Workspace { root: "/checkout".into(), target_dir: "/t".into() };
        let not_our_parent = std::process::id();
        announce(&workspace, Path::new("/no/such/data"), SocketAddr::from(ADDRESS), not_our_parent).unwrap();
    }

    #[test]
    fn a_free_port_does_not_listen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listens(address));
        drop(listener);
        assert!(!listens(address));
    }
}
