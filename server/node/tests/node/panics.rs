//! Panics are contained: of a session's task, of a shard's core, and of one that does not stop.

use std::{sync::Arc, time::Duration};

use talaria_log::MemoryLog;
use talaria_protocol::{
    entry::EntryForm,
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId},
    message::{Cursor, client::ClientFrame, content::Content, server::ServerFrame},
};

use crate::support::{
    client::{Client, Received, new_message_id, send_with},
    node::TestNode,
};

const RESTARTS: &str = "talaria_shard_restarts_total";

/// All texts of a conversation, as a new device of this user gets them.
fn texts(node: &TestNode, subject: &str, conversation: ConversationId) -> Vec<Content> {
    let mut client = node.session_of(subject, 99);
    client.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    let mut texts = Vec::new();
    loop {
        match client.frame() {
            ServerFrame::Deliver { entry, .. } => {
                if let EntryForm::Full { content: Some(content), .. } = entry.form {
                    texts.push(Content::parse(&content).unwrap());
                }
            }
            ServerFrame::CaughtUp { .. } => {
                // The entry that began it.
                texts.remove(0);
                return texts;
            }
            _ => {}
        }
    }
}

/// The next session of this user's device 1: one that is refused because its shard begins anew comes again.
fn session_again(node: &TestNode, subject: &str) -> Client {
    loop {
        let mut client = node.connect();
        client.send(&ClientFrame::Hello(Box::new(Client::hello_frame(&node.token(subject), 1))));
        match client.receive() {
            Received::Frame(frame) => match *frame {
                ServerFrame::Welcome(_) => return client,
                ServerFrame::Refused(refused) => {
                    assert_eq!(ErrorCode::from_wire(refused.code), Some(ErrorCode::Busy));
                    assert!(refused.retry_after_ms > 0);
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => panic!("{other:?}"),
            },
            Received::Closed => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[test]
fn a_session_that_panics_ends_alone() {
    let node = TestNode::start();
    let (mut alice, mut bob) = (node.session("alice"), node.session("bob"));
    let conversation = alice.direct_with("bob");
    node.handle().panic_session(0);
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

/// Sends texts, each until it is acknowledged, while the shard's core panics between them.
#[test]
fn a_core_that_panics_begins_anew_and_loses_nothing() {
    for shards in [1, 2, 4] {
        let node = TestNode::start_on(Arc::new(MemoryLog::new()), |config| config.shards = shards);
        let mut alice = node.session("alice");
        let conversation = alice.direct_with("bob");
        let mut acknowledged = Vec::new();
        for number in 0..60 {
            // Two at most: a third within a minute ends the node.
            if number == 20 || number == 40 {
                for shard in 0..shards {
                    node.handle().panic_shard(shard as u16);
                }
            }
            let (id, content) = (new_message_id(), Content::text(format!("message {number}")));
            let seq = say_until_sent(&node, &mut alice, conversation, id, &content);
            acknowledged.push((seq, content));
        }
        node.assert_metric(RESTARTS, f64::from(shards) * 2.0);
        acknowledged.sort_by_key(|(seq, _)| *seq);
        let sent: Vec<Content> = acknowledged.into_iter().map(|(_, content)| content).collect();
        assert_eq!(texts(&node, "bob", conversation), sent, "each once, in the order of its seq");
        node.assert_metric("talaria_mailbox_full_total{queue=\"answers\"}", 0.0);
        node.shutdown();
    }
}

/// As an honest client does: the same id again until the answer comes, on a new session where the old one has ended.
fn say_until_sent(
    node: &TestNode,
    client: &mut Client,
    conversation: ConversationId,
    id: ClientMessageId,
    content: &Content,
) -> u64 {
    loop {
        let Some(asked) = client.try_ask(send_with(conversation, id, content.encode())) else {
            *client = session_again(node, "alice");
            continue;
        };
        loop {
            match client.receive() {
                Received::Closed => {
                    *client = session_again(node, "alice");
                    break;
                }
                Received::Frame(frame) => match *frame {
                    ServerFrame::Sent(sent) if sent.request_id == asked => return sent.seq,
                    ServerFrame::Error { request_id, code, .. } if request_id == Some(asked) => {
                        let code = ErrorCode::from_wire(code).unwrap();
                        assert!(code.retryable(), "{code:?}");
                        std::thread::sleep(Duration::from_millis(10));
                        break;
                    }
                    ServerFrame::GoAway(go_away) => {
                        assert_eq!(ErrorCode::from_wire(go_away.code), Some(ErrorCode::Internal));
                        assert!(go_away.reconnect_after_ms > 0);
                    }
                    _ => {}
                },
            }
        }
    }
}

#[test]
fn a_core_that_goes_on_panicking_ends_the_node() {
    let node = TestNode::start();
    let mut alice = node.session("alice");
    let conversation = alice.direct_with("bob");
    let mut sent = vec![Content::text("one")];
    alice.say(conversation, "one");
    for restarts in 1..=2 {
        node.handle().panic_shard(0);
        node.assert_metric(RESTARTS, f64::from(restarts));
        alice = session_again(&node, "alice");
        alice.say(conversation, "more");
        sent.push(Content::text("more"));
    }
    assert_eq!(texts(&node, "bob", conversation), sent);
    node.handle().panic_shard(0);
    alice.wait_for_close();
    let error = node.shutdown_result().expect_err("it has failed");
    assert!(error.to_string().contains("panicked"), "{error}");
}
