//! One node, several shards: who is where makes no difference.

use std::time::Duration;

use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    message::{
        Cursor, UserRef,
        client::{ClientFrame, Request},
        server::ServerFrame,
    },
};

use crate::support::{
    client::{Client, new_message_id},
    node::TestNode,
    process::Process,
};

const COUNTS: [u32; 3] = [1, 2, 4];

fn node_of(shards: u32) -> TestNode {
    TestNode::start_with(|config| config.shards = shards)
}

/// A session of each of these users, on shards that differ as far as there are any.
fn spread(node: &TestNode, shards: u32, subjects: &[&str]) -> Vec<Client> {
    let on = |(n, subject): (usize, &&str)| node.session_on((n as u32 % shards) as u16, subject, 1);
    subjects.iter().enumerate().map(on).collect()
}

/// Waits for the entry with this seq.
fn receives(client: &mut Client, conversation: ConversationId, seq: u64) {
    client.wait_for(|frame| match frame {
        ServerFrame::Deliver { conversation: of, entry } if (*of, entry.seq) == (conversation, seq) => {
            Some(())
        }
        _ => None,
    });
}

#[test]
fn pairs_on_different_shards_talk() {
    for shards in COUNTS {
        let node = node_of(shards);
        node.assert_metric("talaria_shards", f64::from(shards));
        // Several pairs, so that conversations and users have their homes on all shards.
        for pair in 0..6 {
            let (one, two) = (format!("one-{pair}"), format!("two-{pair}"));
            let mut clients = spread(&node, shards, &[&one, &two]);
            let conversation = clients[0].direct_with(&two);
            for client in &mut clients {
                client.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
            }
            for turn in 0..10 {
                let seq = clients[turn % 2].say(conversation, "hello");
                assert_eq!(seq, turn as u64 + 2);
                for client in &mut clients {
                    receives(client, conversation, seq);
                    client.send(&ClientFrame::Ack { conversation, up_to: seq });
                }
            }
        }
        node.assert_metric("talaria_messages_sent_total", 60.0);
        node.shutdown();
    }
}

#[test]
fn a_group_has_members_on_all_shards() {
    for shards in COUNTS {
        let node = node_of(shards);
        let subjects = ["alice", "bob", "carol", "dave", "erin", "frank"];
        let mut clients = spread(&node, shards, &subjects);
        let members = subjects[1..].iter().map(|subject| UserRef::Subject((*subject).to_owned())).collect();
        let request =
            Request::CreateGroup { client_message_id: new_message_id(), title: "all".to_owned(), members };
        let conversation = match clients[0].request(request) {
            ServerFrame::ConversationResult { conversation, .. } => conversation.conversation,
            other => panic!("{other:?}"),
        };
        for client in &mut clients {
            client.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
        }
        for n in 0..12 {
            let seq = clients[n % subjects.len()].say(conversation, "to all");
            clients.iter_mut().for_each(|client| receives(client, conversation, seq));
        }
        node.shutdown();
    }
}

#[test]
fn a_session_is_taken_over_from_any_shard() {
    for shards in COUNTS {
        let node = node_of(shards);
        let mut old = node.session_on(0, "alice", 1);
        let conversation = old.direct_with("bob");
        for n in 1..6 {
            let mut new = node.session_on((n % shards) as u16, "alice", 1);
            assert_eq!(old.end(), ErrorCode::TakenOver, "{shards} shards");
            assert!(new.say(conversation, "from the new one") >= 2);
            node.assert_metric("talaria_sessions", 1.0);
            old = new;
        }
        drop(old);
        node.assert_metric("talaria_sessions", 0.0);
        node.shutdown();
    }
}

#[test]
fn a_drain_of_all_shards_answers_what_was_asked() {
    for shards in COUNTS {
        let node = node_of(shards);
        let subjects: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
        let mut clients: Vec<Client> = subjects.iter().map(|subject| node.session(subject)).collect();
        let asked: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let conversation = client.direct_with("alice");
                client.ask(crate::support::client::text_to(conversation, "the last"))
            })
            .collect();
        // All are in: what a draining node has not read, it does not answer.
        node.assert_metric("talaria_requests_total", 40.0);
        node.begin_shutdown();
        for (client, asked) in clients.iter_mut().zip(asked) {
            assert!(matches!(client.answer(asked), ServerFrame::Sent(_)));
            assert_eq!(client.end(), ErrorCode::Draining);
        }
        drop(clients);
        let begun = std::time::Instant::now();
        node.shutdown();
        assert!(begun.elapsed() < Duration::from_secs(4), "the shards agree that nothing is left");
    }
}

/// The number of shards is no property of the log.
#[test]
fn a_killed_node_goes_on_with_another_number_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for shards in ["--shards=4", "--shards=1", "--shards=2"] {
        let mut node = Process::start(dir.path(), &[shards]);
        let (mut alice, mut bob) = (node.session("alice"), node.session("bob"));
        let conversation = alice.direct_with("bob");
        for client in [&mut alice, &mut bob] {
            said.push(client.say(conversation, shards));
        }
        node.signal("KILL");
        node.wait(Duration::from_secs(20));
    }
    assert_eq!(said, (2..8).collect::<Vec<_>>(), "one order");
    let node = Process::start(dir.path(), &["--shards=3"]);
    let mut bob = node.session("bob");
    let conversation = bob.direct_with("alice");
    bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    (1..8).for_each(|seq| receives(&mut bob, conversation, seq));
}
