//! Panics are contained: of a session's task, of a shard's core, and of one that does not stop.

use std::{sync::Arc, time::Duration};

use talaria_protocol::message::client::ClientFrame;

use crate::support::{
    client::Client,
    node::TestNode,
    persistent::{Reader, Sender},
    slow_log::SlowLog,
};

const RESTARTS: &str = "talaria_shard_restarts_total";

#[test]
fn a_session_that_panics_ends_alone() {
    let node = TestNode::start();
    let (mut alice, mut bob) = (node.session("alice"), node.session("bob"));
    let conversation = alice.direct_with("bob");
    node.handle().panic_session(bob.shard);
    bob.send(&ClientFrame::Ping(1));
    bob.wait_for_close();
    assert_eq!(alice.say(conversation, "still here"), 2);
    node.assert_metric("talaria_panics_total", 1.0);
    node.assert_metric("talaria_connections_dropped_total{reason=\"panic\"}", 1.0);
    node.assert_metric("talaria_sessions", 1.0);
    node.assert_metric("talaria_connections", 1.0);
    node.assert_metric(RESTARTS, 0.0);
    let mut bob = node.session("bob");
    bob.say(conversation, "and back");
    node.shutdown();
}

/// Of the log beneath.
const COMMIT: Duration = Duration::from_millis(60);

/// Two write, while one core after the other panics in the midst of it; then one reads it all.
#[test]
fn a_core_that_panics_begins_anew_and_loses_nothing() {
    for shards in [1, 2, 4] {
        // A second panic of a shard within a minute is the last that it survives.
        let panics = if shards == 1 { 2 } else { shards };
        // What a core has handed over when it panics is still on its way when it begins anew.
        let log = Arc::new(SlowLog::new(COMMIT));
        let node = TestNode::start_on(log.clone(), |config| config.shards = shards);
        let conversation = node.session("alice").direct_with("bob");
        let sent = std::thread::scope(|scope| {
            let write = |subject: &'static str| {
                let node = &node;
                move || {
                    let mut sender = Sender::new(node, subject);
                    if subject == "bob" {
                        // What he asked last is in the log when he asks again.
                        sender.pause = COMMIT * 3 / 4;
                    }
                    for n in 0..6 * panics {
                        sender.say(conversation, &format!("{subject} {n}"));
                        // Only one of them breaks things.
                        if subject == "alice" && n % 6 == 3 {
                            // The other's is half way into the log.
                            std::thread::sleep(COMMIT / 2);
                            node.handle().panic_shard((n / 6 % shards) as u16);
                        }
                    }
                    sender.sent
                }
            };
            let writers = ["alice", "bob"].map(|subject| scope.spawn(write(subject)));
            let mut sent: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
            sent.sort();
            sent
        });
        node.assert_metric(RESTARTS, f64::from(panics));
        let mut last = Sender::new(&node, "alice");
        last.say(conversation, "the end");
        let sent = [sent, last.sent.clone()].concat();
        let mut reader = Reader::new(&node, "bob", conversation);
        reader.read_until("the end");
        assert_eq!(reader.read, sent, "{shards} shards: each once, under its seq");
        node.assert_metric("talaria_mailbox_full_total{queue=\"answers\"}", 0.0);
        drop(last);
        node.shutdown();
        let report = talaria_log::verify(&*log).unwrap();
        assert!(report.findings.is_empty(), "{report:?}");
    }
}

/// A reader whose own core and whose conversation's panic gets everything, in order, by resuming.
#[test]
fn a_reader_resumes_over_panics_of_either_end() {
    let node = TestNode::start_with(|config| config.shards = 4);
    let conversation = node.session("alice").direct_with("bob");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = Reader::new(&node, "bob", conversation);
            reader.read_until("the end");
            reader
        });
        let mut sender = Sender::new(&node, "alice");
        for n in 0..200u16 {
            sender.say(conversation, &format!("{n}"));
            if n % 50 == 25 {
                node.handle().panic_shard(n / 50);
            }
        }
        sender.say(conversation, "the end");
        let reader = reader.join().unwrap();
        assert_eq!(reader.read, sender.sent);
        assert!(reader.sessions > 1, "its own shard was among them");
    });
    node.assert_metric(RESTARTS, 4.0);
    node.shutdown();
}

#[test]
fn a_core_that_goes_on_panicking_ends_the_node() {
    let node = TestNode::start_with(|config| config.shards = 2);
    let conversation = node.session("alice").direct_with("bob");
    let mut sender = Sender::new(&node, "alice");
    sender.say(conversation, "one");
    for restarts in 1..=2 {
        node.handle().panic_shard(1);
        node.assert_metric(RESTARTS, f64::from(restarts));
        sender.say(conversation, "more");
    }
    sender.say(conversation, "the end");
    let mut reader = Reader::new(&node, "bob", conversation);
    reader.read_until("the end");
    assert_eq!(reader.read, sender.sent);
    let mut others = [node.session_on(0, "carol", 1), node.session_on(1, "dave", 1)];
    node.handle().panic_shard(1);
    others.iter_mut().for_each(Client::wait_for_close);
    let error = node.shutdown_result().expect_err("it has failed");
    assert!(error.to_string().contains("panicked"), "{error}");
}
