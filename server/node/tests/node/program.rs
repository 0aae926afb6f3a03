//! The real program on its real log: signals, kill -9, and what the tools say of what it left.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use talaria_log::{Batch, CommitLog, CommitResult, Family, keys::EntryKey};
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::{
    error_code::ErrorCode,
    message::{Cursor, client::ClientFrame, content::Content, server::ServerFrame},
};

use crate::support::{
    client::{Client, Received, new_message_id, send_with},
    http,
    process::{Process, run},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_first_line_says_where_it_is_and_tokens_open_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), &[]);
    assert_eq!(node.first_line["ca"], dir.path().join("dev/ca.pem").to_str().unwrap());
    let said = run(&["token", "--data-dir", arg(dir.path()), "--subject", "alice", "--ttl", "90s"]);
    let welcome = node.connect().hello(said.stdout.trim(), 1);
    assert_eq!(welcome.subject, "alice");
    let said = run(&["token", "--data-dir", arg(dir.path()), "--subject", "alice", "--tenant", "acme"]);
    let mut client = node.connect();
    let mut hello = Client::hello_frame(said.stdout.trim(), 1);
    hello.tenant = "acme".to_owned();
    client.send(&ClientFrame::Hello(Box::new(hello)));
    match client.frame() {
        ServerFrame::Welcome(of_acme) => assert_ne!(of_acme.user, welcome.user, "another tenant's alice"),
        other => panic!("{other:?}"),
    }
    let said = run(&["token", "--data-dir", arg(dir.path()), "--subject", ""]);
    assert!(said.stderr.contains("--subject alice"), "{}", said.stderr);
}

#[test]
fn term_and_int_drain_and_exit_0() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Process::start(dir.path(), &[]);
        let mut client = node.session("alice");
        let conversation = client.direct_with("bob");
        client.say(conversation, "hello");
        node.signal(signal);
        assert_eq!(client.end(), ErrorCode::Draining, "{signal}");
        drop(client);
        assert_eq!(node.wait(PATIENCE).code(), Some(0), "{signal}: {}", node.stderr());
        let said = run(&["log", "verify", "--data-dir", arg(dir.path())]);
        assert_eq!(said.status.code(), Some(0), "{} {}", said.stdout, said.stderr);
        assert!(said.stdout.starts_with("ok: 1 conversations, 2 entries"), "{}", said.stdout);
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::start(dir.path(), &[]);
    // This one never closes its side.
    let client = node.session("alice");
    let started = Instant::now();
    node.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    node.signal("TERM");
    node.wait(PATIENCE);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(client);
}

/// Sends texts until the node dies; gives seqs and texts of those that were acknowledged.
fn send_until_killed(client: &mut Client, node: &Process, kill_after: usize) -> Vec<(u64, String)> {
    let conversation = client.direct_with("bob");
    let mut acknowledged = Vec::new();
    let mut asked = std::collections::HashMap::new();
    for number in 0..kill_after + 64 {
        if number == kill_after {
            node.signal("KILL");
        }
        let text = format!("message {number}");
        let request = send_with(conversation, new_message_id(), Content::text(text.as_str()).encode());
        let Some(id) = client.try_ask(request) else { break };
        asked.insert(id, text);
        if number < 32 {
            continue;
        }
        match client.receive() {
            Received::Closed => break,
            Received::Frame(frame) => match *frame {
                ServerFrame::Sent(sent) => {
                    let text = asked.remove(&sent.request_id).unwrap();
                    acknowledged.push((sent.seq, text));
                }
                ServerFrame::Error { code, .. } => panic!("{:?}", ErrorCode::from_wire(code)),
                _ => {}
            },
        }
    }
    acknowledged
}

#[test]
fn kill_9_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut node = Process::start(dir.path(), &[]);
        let mut client = node.session("alice");
        acknowledged.extend(send_until_killed(&mut client, &node, 100 + 17 * round));
        node.wait(PATIENCE);
    }
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());

    let said = run(&["log", "verify", "--data-dir", arg(dir.path())]);
    assert_eq!(said.status.code(), Some(0), "{} {}", said.stdout, said.stderr);

    let node = Process::start(dir.path(), &[]);
    let mut bob = node.session("bob");
    let conversation = bob.direct_with("alice");
    bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    let mut delivered = std::collections::HashMap::new();
    loop {
        match bob.frame() {
            ServerFrame::Deliver { entry, .. } => {
                let talaria_protocol::entry::EntryForm::Full { content: Some(content), .. } = entry.form
                else {
                    panic!("whole entries");
                };
                delivered.insert(entry.seq, Content::parse(&content).unwrap());
            }
            ServerFrame::CaughtUp { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    for (seq, text) in acknowledged {
        assert_eq!(delivered.get(&seq), Some(&Content::text(text)), "seq {seq}");
    }
}

#[test]
fn dump_lists_entries_without_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::start(dir.path(), &[]);
    let mut client = node.session("alice");
    let conversation = client.direct_with("bob");
    let id = new_message_id();
    let content = Content::text("a secret between us").encode();
    client.request(send_with(conversation, id, content.clone()));
    client.direct_with("carol");
    let running = run(&["log", "dump", "--data-dir", arg(dir.path())]);
    assert_eq!(running.status.code(), Some(1), "a running node's log is not touched");
    drop(client);
    node.signal("TERM");
    node.wait(PATIENCE);

    let said =
        run(&["log", "dump", "--data-dir", arg(dir.path()), "--conversation", &conversation.to_string()]);
    assert_eq!(said.status.code(), Some(0), "{}", said.stderr);
    let lines: Vec<serde_json::Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["kind"], &lines[1]["kind"]), (&"membership".into(), &"message".into()));
    assert_eq!(lines[1]["seq"], 2);
    assert_eq!(lines[1]["client_message_id"], id.to_string());
    assert_eq!(lines[1]["content_blake3"], blake3::hash(&content).to_hex().as_str());
    assert!(!said.stdout.contains("secret"));
    let all = run(&["log", "dump", "--data-dir", arg(dir.path())]);
    assert_eq!(all.stdout.lines().count(), 3);
    let wrong = run(&["log", "dump", "--data-dir", arg(dir.path()), "--conversation", "xyz"]);
    assert_eq!(wrong.status.code(), Some(2));
}

/// A value rewritten with valid checksums: only the chain can tell.
#[test]
fn verify_names_the_entry_that_was_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::start(dir.path(), &[]);
    let mut client = node.session("alice");
    let conversation = client.direct_with("bob");
    let seqs: Vec<u64> = ["one", "two", "three"].map(|text| client.say(conversation, text)).to_vec();
    drop(client);
    node.signal("TERM");
    node.wait(PATIENCE);

    let log = RocksLog::open(dir.path().join("log"), &Options::default()).unwrap();
    let key = EntryKey { conversation, seq: seqs[1] }.encode();
    let value = log.view().get(Family::Entries, &key).unwrap().unwrap();
    let at = value.windows(3).position(|bytes| bytes == b"two").unwrap();
    let mut batch = Batch::default();
    batch.put(Family::Entries, &key, [&value[..at], b"TWO", &value[at + 3..]].concat());
    assert_eq!(log.commit(&batch), CommitResult::Committed);
    drop(log);

    let said = run(&["log", "verify", "--data-dir", arg(dir.path())]);
    assert_eq!(said.status.code(), Some(1));
    let finding = format!("conversation {conversation} seq {}", seqs[1]);
    assert!(said.stdout.contains(&finding) && said.stdout.contains("DAMAGED"), "{}", said.stdout);
    assert!(!said.stdout.contains("TWO"));
}

#[test]
fn the_log_on_stderr_never_has_text_tokens_or_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::start(dir.path(), &["--log-level", "trace"]);
    let token = node.token("alice");
    let mut client = node.connect();
    client.hello(&token, 1);
    let conversation = client.direct_with("bob");
    client.say(conversation, "a secret between us");
    let mut forger = node.connect();
    let forged = format!("{token}x");
    forger.send(&ClientFrame::Hello(Box::new(Client::hello_frame(&forged, 1))));
    assert_eq!(forger.end(), ErrorCode::TokenInvalid);
    assert_eq!(http::get(node.admin_addr, "/healthz").0, 200);
    drop(client);
    node.signal("TERM");
    node.wait(PATIENCE);
    let log = node.stderr();
    assert!(log.contains("hello"), "{log}");
    let key = std::fs::read_to_string(dir.path().join("dev/token-key.pem")).unwrap();
    let key_line = key.lines().nth(1).unwrap();
    for secret in ["a secret between us", token.as_str(), token.rsplit('.').next().unwrap(), key_line] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn one_data_directory_has_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let _node = Process::start(dir.path(), &[]);
    let said = run(&[
        "serve",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
        arg(dir.path()),
    ]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.contains(arg(&dir.path().join("log"))), "{}", said.stderr);
}
