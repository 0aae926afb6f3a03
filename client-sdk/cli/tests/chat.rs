//! The program against a node, as scripts use it.
#![allow(clippy::unwrap_used)]

#[path = "../../rust/tests/support/node.rs"]
mod node;

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use node::Node;

fn chat(node: &Node, user: &str, device: &Path, args: &[&str], input: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_talaria-chat"))
        .args(["--server", node.server(), "--ca"])
        .arg(node.ca())
        .arg("--device-file")
        .arg(device)
        .args(args)
        .env("TALARIA_TOKEN", node.token(user))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn two_scripts_talk() {
    let (node, devices) = (Node::start(), tempfile::tempdir().unwrap());
    let (at_alice, at_bob) = (devices.path().join("alice"), devices.path().join("bob"));
    let bob = chat(&node, "bob", &at_bob, &["--with", "alice", "--expect", "2"], "who's there?\n");
    let alice =
        chat(&node, "alice", &at_alice, &["--with", "bob", "--expect", "1"], "nay, answer me\n//unfold\n");
    let (alice, bob) = (alice.wait_with_output().unwrap(), bob.wait_with_output().unwrap());
    let (alice, bob) = (lines(&alice), lines(&bob));
    assert!(bob.iter().any(|line| line.ends_with("] alice: nay, answer me")), "{bob:?}");
    assert!(bob.iter().any(|line| line.ends_with("] alice: /unfold")), "{bob:?}");
    assert!(alice.iter().any(|line| line.ends_with("] bob: who's there?")), "{alice:?}");
    assert_eq!(alice.iter().filter(|line| line.starts_with('✓')).count(), 2, "{alice:?}");

    // By hand: a transport, and another network on the way.
    for (transport, name) in [("auto", "QUIC"), ("quic", "QUIC"), ("tcp", "TCP")] {
        let args = ["--with", "bob", "--transport", transport];
        let script = "/network wifi:home\nstill here\n/who\n/network\nand here\n";
        let output = chat(&node, "alice", &at_alice, &args, script).wait_with_output().unwrap();
        assert_eq!(lines(&output).iter().filter(|line| line.starts_with('✓')).count(), 2, "{output:?}");
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(notes.contains(&format!("you are alice over {name}, in bob")), "{transport}: {notes}");
        assert!(notes.contains("in the network wifi:home"), "{notes}");
    }

    // The same device once more, with nothing kept: all of it comes again, its own words too.
    let again = chat(&node, "alice", &at_alice, &["--with", "bob", "--for", "2"], "/members\n");
    let again = lines(&again.wait_with_output().unwrap());
    assert!(again.iter().any(|line| line.ends_with("] alice: nay, answer me")), "{again:?}");
    assert!(again.contains(&"bob".to_string()), "{again:?}");
}

#[test]
fn groups_are_made_and_listed() {
    let (node, devices) = (Node::start(), tempfile::tempdir().unwrap());
    let device = devices.path().join("alice");
    let script = "hello, all\n/group \"Second scene\" bob\nand here\n/list\n/history 1\n";
    let alice = chat(&node, "alice", &device, &["--group", "First scene", "--members", "bob,carol"], script);
    let alice = lines(&alice.wait_with_output().unwrap());
    for wanted in
        ["First scene, 2 entries", "Second scene, ", "made the group \"Second scene\" of alice, bob"]
    {
        assert!(alice.iter().any(|line| line.contains(wanted)), "{wanted}: {alice:?}");
    }
}

#[test]
fn failures_are_told_and_end_with_1() {
    let (node, devices) = (Node::start(), tempfile::tempdir().unwrap());
    let device = devices.path().join("alice");
    let run = |args: &[&str], input: &str| {
        let output = chat(&node, "alice", &device, args, input).wait_with_output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let errors = run(&["--with", "bob", "--expect", "1", "--for", "1"], "hello?\n");
    assert!(errors.contains("1 messages of others did not come in time"), "{errors}");
    let errors = run(&[], "to nobody\n");
    assert!(errors.contains("no conversation is open"), "{errors}");
    let errors = run(&["--with", "bob"], "/dance\n");
    assert!(errors.contains("/dance is not understood"), "{errors}");
    let unknown = "00000000000000000000000000000001";
    let errors = run(&["--conversation", unknown], "hello?\n");
    assert!(errors.contains("NOT_FOUND"), "{errors}");
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_talaria-chat"));
        let output = command.args(args).env_remove("TALARIA_TOKEN").stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let device = tempfile::tempdir().unwrap();
    let device = device.path().join("device");
    let with = |more: &[&str]| run(&[&["--device-file", device.to_str().unwrap()], more].concat());
    for (args, wanted) in [
        (&[][..], "no token"),
        (&["--token", "x", "--server", "nonsense"], "host:port"),
        (&["--token", "x", "--ca", "/no/such/file"], "/no/such/file"),
        (&["--token", "x", "--conversation", "12"], "32 hexadecimal digits"),
        (&["--token-file", "/no/such/token"], "/no/such/token"),
    ] {
        let errors = with(args);
        assert!(errors.contains(wanted), "{wanted}: {errors}");
    }
}
