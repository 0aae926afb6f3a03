//! The client against a real node that is killed: needs the `talaria` binary, see `support/node.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/node.rs"]
mod node;

use std::time::Duration;

use node::Node;
use talaria_client::{
    Client, ClientConfig, ConversationId, Direction, Event, Events, TokenProvider, Transport,
    TransportChoice, new_device_id,
};

const LINES: usize = 400;

fn config(node: &Node, subject: &str, choice: TransportChoice) -> ClientConfig {
    let tokens = TokenProvider::fixed(node.token(subject));
    let config = ClientConfig::new(node.server(), new_device_id(), tokens).ca_file(node.ca()).unwrap();
    config.transport(choice)
}

async fn connect(node: &Node, subject: &str, choice: TransportChoice) -> Client {
    Client::connect(config(node, subject, choice)).await.unwrap()
}

/// Takes a listener, which is gone when all came: one that is full would hold the others up.
async fn texts(mut events: Events, conversation: ConversationId) -> Vec<String> {
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
    for choice in [TransportChoice::Tcp, TransportChoice::Auto, TransportChoice::Quic] {
        killed_in_full_flight(choice).await;
    }
}

async fn killed_in_full_flight(choice: TransportChoice) {
    let mut node = Node::start();
    let (alice, bob, other) = (
        connect(&node, "alice", choice).await,
        connect(&node, "bob", choice).await,
        connect(&node, "alice", choice).await,
    );
    let group = alice.create_group("the watch", ["bob"]).await.unwrap();
    let (at_bob, at_alice, at_other) = (bob.events(), alice.events(), other.events());
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
        bob.network_changed(Some("after a kill")).await;
    }
    let (bobs, alices, others) = tokio::join!(texts(at_bob, id), texts(at_alice, id), texts(at_other, id));
    sending.await.unwrap();
    let expected: Vec<_> = (0..LINES).map(|n| format!("line {n}")).collect();
    for found in [bobs, alices, others] {
        assert_eq!(found, expected);
    }
    let head = bob.conversation(id).history(0, Direction::Backward, 1).await.unwrap().head;
    assert_eq!(head, LINES as u64 + 1, "each is in the log once");
    eprintln!("{choice:?}: over {:?}, {:?}, {:?}", alice.transport(), bob.transport(), other.transport());
    for client in [&alice, &bob, &other] {
        let stats = client.stats();
        assert!(stats.disconnects >= 2, "{stats:?}");
        assert_eq!(stats.chain_mismatches + stats.rewinds + stats.failed, 0, "{stats:?}");
    }
}

#[tokio::test]
async fn a_phone_on_its_way_keeps_its_session() {
    let node = Node::start();
    let alice = connect(&node, "alice", TransportChoice::Auto).await;
    let bob = connect(&node, "bob", TransportChoice::Tcp).await;
    assert_eq!((alice.transport(), bob.transport()), (Some(Transport::Quic), Some(Transport::Tcp)));
    let group = alice.create_group("on the road", ["bob"]).await.unwrap();
    let (at_alice, at_bob) = (alice.events(), bob.events());
    let there = bob.conversation(group.id());
    let sending = async {
        for n in 0..LINES / 2 {
            if n % 40 == 20 {
                assert!(alice.rebind_udp().await);
            }
            if n % 40 == 39 {
                alice.network_changed(Some("cellular")).await;
            }
            let (own, others) =
                tokio::join!(group.send_text(format!("alice {n}")), there.send_text(format!("bob {n}")));
            own.unwrap().acknowledged().await.unwrap();
            others.unwrap().acknowledged().await.unwrap();
        }
    };
    let (alices, bobs, ()) = tokio::join!(texts(at_alice, group.id()), texts(at_bob, group.id()), sending);
    assert_eq!(alices, bobs);
    let stats = alice.stats();
    assert_eq!((stats.sessions, stats.disconnects, stats.gaps), (1, 0, 0), "{stats:?}");
}

/// What is backfilled on one stream is no hurdle for what is live on another: the client of a long absence gets both.
#[tokio::test]
async fn an_absence_is_made_up_for_while_life_goes_on() {
    let node = Node::start();
    let store = std::sync::Arc::new(talaria_client::MemoryStore::new());
    let of_bob = config(&node, "bob", TransportChoice::Quic).store(store);
    let bob = Client::connect(of_bob.clone()).await.unwrap();
    let alice = connect(&node, "alice", TransportChoice::Quic).await;
    let old = alice.create_group("old", ["bob"]).await.unwrap();
    bob.shutdown().await;
    let filler = "x".repeat(8_000);
    let mut handles = Vec::new();
    for n in 0..LINES {
        handles.push(old.send_text(format!("{n} {filler}")).await.unwrap());
    }
    for handle in handles {
        handle.acknowledged().await.unwrap();
    }
    let bob = Client::connect(of_bob).await.unwrap();
    let (at_bob, news) = (bob.events(), bob.events());
    let live = alice.create_group("live", ["bob"]).await.unwrap();
    let sending = async {
        for n in 0..LINES {
            live.send_text(format!("{n}")).await.unwrap().acknowledged().await.unwrap();
        }
    };
    let (olds, lives, ()) = tokio::join!(texts(at_bob, old.id()), texts(news, live.id()), sending);
    assert!(olds.iter().enumerate().all(|(n, text)| text.starts_with(&format!("{n} "))));
    assert_eq!(lives, (0..LINES).map(|n| n.to_string()).collect::<Vec<_>>());
    let stats = bob.stats();
    assert_eq!((stats.gaps, stats.chain_mismatches), (0, 0), "{stats:?}");
}

#[tokio::test]
async fn a_node_that_is_known_takes_the_hello_with_the_first_packet() {
    for early_data in [true, false] {
        let node = Node::start();
        let choice = config(&node, "alice", TransportChoice::Quic).early_data(early_data);
        let alice = Client::connect(choice).await.unwrap();
        let group = alice.create_group("notes", ["bob"]).await.unwrap();
        for n in 1..=5u64 {
            alice.drop_connection().await;
            let sent = group.send_text(format!("{n}")).await.unwrap().acknowledged().await.unwrap();
            assert_eq!(sent.seq, n + 1);
        }
        let stats = alice.stats();
        assert_eq!((stats.sessions, stats.disconnects), (6, 5), "{stats:?}");
        assert_eq!(alice.early_data(), (if early_data { 5 } else { 0 }, 0));
    }
}

/// A node that was killed says nothing on QUIC: an idle client finds out by its next ping, which the node that came
/// back answers with a reset. Prints how long that takes.
#[tokio::test]
async fn an_idle_client_comes_back_to_a_node_that_was_killed() {
    for choice in [TransportChoice::Tcp, TransportChoice::Quic] {
        let mut node = Node::start();
        let alice = connect(&node, "alice", choice).await;
        alice.direct_with("bob").await.unwrap();
        // Until nothing of it is on its way: what QUIC repeats would find out sooner.
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.kill_and_restart();
        let begun = std::time::Instant::now();
        let back = async {
            while alice.stats().sessions < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), back).await.expect("it came back");
        eprintln!("{choice:?}: an idle client was back after {:?}", begun.elapsed());
    }
}
