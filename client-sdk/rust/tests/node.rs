//! The client against a real node that is killed: needs the `talaria` binary, see `support/node.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/node.rs"]
mod node;

use std::time::Duration;

use node::Node;
use talaria_client::{
    Client, ClientConfig, ConversationId, Direction, Event, Events, TokenProvider, new_device_id,
};

const LINES: usize = 400;

async fn connect(node: &Node, subject: &str) -> Client {
    let tokens = TokenProvider::fixed(node.token(subject));
    let config = ClientConfig::new(node.server(), new_device_id(), tokens).ca_file(node.ca()).unwrap();
    Client::connect(config).await.unwrap()
}

async fn texts(events: &mut Events, conversation: ConversationId) -> Vec<String> {
    let (mut found, mut last) = (Vec::new(), 0);
    while found.len() < LINES {
        let event =
            tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("an event in time");
        if let Some(Event::Entry(entry)) = event
            && entry.conversation == conversation
        {
            assert_eq!(entry.seq, last + 1);
            last = entry.seq;
            found.extend(entry.text().map(str::to_string));
        }
    }
    found
}

#[tokio::test]
async fn a_node_that_is_killed_in_full_flight_loses_and_doubles_nothing() {
    let mut node = Node::start();
    let (alice, bob, other) =
        (connect(&node, "alice").await, connect(&node, "bob").await, connect(&node, "alice").await);
    let group = alice.create_group("the watch", ["bob"]).await.unwrap();
    let (mut at_bob, mut at_alice, mut at_other) = (bob.events(), alice.events(), other.events());
    let (sender, id) = (group.clone(), group.id());
    let sending = tokio::spawn(async move {
        let mut handles = Vec::new();
        for n in 0..LINES {
            handles.push(sender.send_text(format!("line {n}")).await.unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for handle in handles {
            handle.acknowledged().await.unwrap();
        }
    });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        node.kill_and_restart();
        other.drop_connection().await;
    }
    let (bobs, alices, others) =
        tokio::join!(texts(&mut at_bob, id), texts(&mut at_alice, id), texts(&mut at_other, id));
    sending.await.unwrap();
    let expected: Vec<_> = (0..LINES).map(|n| format!("line {n}")).collect();
    for found in [bobs, alices, others] {
        assert_eq!(found, expected);
    }
    let head = bob.conversation(id).history(0, Direction::Backward, 1).await.unwrap().head;
    assert_eq!(head, LINES as u64 + 1, "each is in the log once");
    for client in [&alice, &bob, &other] {
        let stats = client.stats();
        assert!(stats.disconnects >= 2, "{stats:?}");
        assert_eq!(stats.chain_mismatches + stats.rewinds + stats.failed, 0, "{stats:?}");
    }
}
