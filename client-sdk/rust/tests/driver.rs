//! The client over real sockets and TLS, against the model server: what an app sees.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../core/tests/model/mod.rs"]
mod model;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use server::Server;
use talaria_client::{
    Client, ClientConfig, ConnectError, Connection, ConversationId, Direction, ErrorCode, Event, Events,
    MemoryStore, Outgoing, QueueError, RequestError, SendError, Shown, StopReason, TokenError, TokenProvider,
    new_device_id,
};
use tokio::time::timeout;

fn config(server: &Server, subject: &str) -> ClientConfig {
    let tokens = TokenProvider::fixed(subject);
    ClientConfig::new(&server.address, new_device_id(), tokens).ca_pem(server.ca.as_bytes()).unwrap()
}

async fn connect(server: &Server, subject: &str) -> Client {
    Client::connect(config(server, subject)).await.unwrap()
}

/// The next texts of a conversation; panics when one comes twice or out of order.
async fn texts(events: &mut Events, conversation: ConversationId, count: usize) -> Vec<String> {
    let (mut found, mut last) = (Vec::new(), 0);
    while found.len() < count {
        let event = timeout(Duration::from_secs(20), events.next()).await.expect("an event in time");
        if let Some(Event::Entry(entry)) = event
            && entry.conversation == conversation
        {
            assert!(entry.seq > last, "{} after {last}", entry.seq);
            last = entry.seq;
            found.extend(entry.text().map(str::to_string));
        }
    }
    found
}

async fn reach(client: &Client, wanted: impl FnMut(&Connection) -> bool) -> Connection {
    let mut connection = client.connection();
    timeout(Duration::from_secs(20), connection.wait_for(wanted)).await.expect("in time").unwrap().clone()
}

#[tokio::test]
async fn two_users_talk_and_read_history() {
    let server = Server::start().await;
    let (alice, bob) = (connect(&server, "alice").await, connect(&server, "bob").await);
    let mut at_bob = bob.events();
    let conversation = alice.direct_with("bob").await.unwrap();
    let sent = conversation.send_text("hello").await.unwrap().acknowledged().await.unwrap();
    assert_eq!(sent.seq, 2);
    let message = Outgoing::blob("image/png", vec![1, 2, 3]).metadata("alt", "a dot");
    conversation.send(message).await.unwrap().acknowledged().await.unwrap();
    assert_eq!(texts(&mut at_bob, conversation.id(), 1).await, ["hello"]);

    let there = bob.conversation(conversation.id());
    let page = there.history(0, Direction::Backward, 2).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3]);
    assert!(page.more && page.head == 3);
    let Shown::Content(content) = &page.entries[1].shown else { panic!("{page:?}") };
    assert_eq!(content.metadata, [("alt".to_string(), "a dot".into())]);
    assert_eq!(there.members().await.unwrap().len(), 2);
    assert_eq!(bob.conversations().await.unwrap()[0].peer.as_ref().unwrap().subject, "alice");
    assert_eq!(alice.me().unwrap().subject, "alice");
    assert_eq!(there.leave().await, Err(RequestError::Forbidden("the model keeps its members".into())));
    alice.shutdown().await;
    assert_eq!(*alice.connection().borrow(), Connection::Stopped(StopReason::ShutDown));
}

#[tokio::test]
async fn cuts_in_full_flight_lose_and_double_nothing() {
    let server = Server::start().await;
    server.with(|model| model.faults.busy = 50);
    let (alice, bob) = (connect(&server, "alice").await, connect(&server, "bob").await);
    let group = alice.create_group("all", ["bob"]).await.unwrap();
    let mut at_bob = bob.events();
    let mut handles = Vec::new();
    for n in 0..300 {
        handles.push(group.send_text(format!("line {n}")).await.unwrap());
        match n % 60 {
            20 => alice.drop_connection().await,
            40 => bob.drop_connection().await,
            59 => {
                while alice.stats().sessions < 2 + n / 60 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            _ => {}
        }
    }
    let mut last = 0;
    for handle in handles {
        let sent = handle.acknowledged().await.unwrap();
        assert!(sent.seq > last);
        last = sent.seq;
    }
    let expected: Vec<_> = (0..300).map(|n| format!("line {n}")).collect();
    assert_eq!(texts(&mut at_bob, group.id(), 300).await, expected);
    assert_eq!(server.with(|model| model.conversations[&group.id()].head()), 301);
    assert_eq!(alice.stats().disconnects, 5);
}

#[tokio::test]
async fn a_listener_that_does_not_read_costs_bounded_memory_and_loses_nothing() {
    let server = Server::start().await;
    let (alice, bob) = (connect(&server, "alice").await, connect(&server, "bob").await);
    let conversation = alice.direct_with("bob").await.unwrap();
    let mut at_bob = bob.events();
    let body = "x".repeat(20_000);
    for n in 0..200 {
        conversation.send_text(format!("{n} {body}")).await.unwrap().acknowledged().await.unwrap();
    }
    // 4 MB were sent; 1 MiB of credit and 64 events is what bob's side holds.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stored = bob.stats().entries_stored;
    assert!((10..130).contains(&stored), "{stored}");
    let all = texts(&mut at_bob, conversation.id(), 200).await;
    assert!(all.iter().enumerate().all(|(n, text)| text.starts_with(&format!("{n} "))));
}

#[tokio::test]
async fn an_app_that_never_listens_still_receives_and_a_late_listener_learns_what_it_missed() {
    let server = Server::start().await;
    let (alice, bob) = (connect(&server, "alice").await, connect(&server, "bob").await);
    let conversation = alice.direct_with("bob").await.unwrap();
    let body = "x".repeat(20_000);
    for _ in 0..100 {
        conversation.send_text(&body).await.unwrap().acknowledged().await.unwrap();
    }
    while bob.stats().entries_stored < 101 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = timeout(Duration::from_secs(1), bob.events().next()).await.expect("at once");
    assert!(matches!(first, Some(Event::Missed { events: 50.. })), "{first:?}");
    assert_eq!(bob.conversation(conversation.id()).stored(1, 1_000).await.unwrap().len(), 101);
}

#[tokio::test]
async fn what_was_queued_goes_out_with_the_next_start() {
    let server = Server::start().await;
    let store = Arc::new(MemoryStore::new());
    let config = config(&server, "alice").store(store);
    let alice = Client::connect(config.clone()).await.unwrap();
    let conversation = alice.direct_with("bob").await.unwrap();
    server.with(|model| model.faults.busy = 1_000);
    let handle = conversation.send_text("kept").await.unwrap();
    alice.shutdown().await;
    assert_eq!(handle.acknowledged().await, Err(SendError::Stopped));
    assert!(matches!(conversation.send_text("too late").await, Err(QueueError::Stopped)));

    server.with(|model| model.faults.busy = 0);
    let again = Client::connect(config).await.unwrap();
    let mut events = again.events();
    assert_eq!(texts(&mut events, conversation.id(), 1).await, ["kept"]);
    let stored = again.conversation(conversation.id()).stored(1, 10).await.unwrap();
    assert_eq!(stored.len(), 2, "the first run's entry and the new one");
}

#[tokio::test]
async fn tokens_are_asked_for_again_and_a_log_in_is_waited_for() {
    let server = Server::start().await;
    server.with(|model| model.accepts_token = |token| token == "alice#2");
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let tokens = TokenProvider::new(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move { if n == 1 { Err(TokenError::Unavailable) } else { Ok(format!("alice#{n}")) } }
    });
    let config =
        ClientConfig::new(&server.address, new_device_id(), tokens).ca_pem(server.ca.as_bytes()).unwrap();
    let client = Client::start(config.clone()).await.unwrap();
    reach(&client, |state| *state == Connection::AuthRequired).await;
    client.retry().await;
    assert!(client.online().await, "unavailable was asked again, and then was good");
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert!(matches!(Client::connect(config).await, Err(ConnectError::AuthRequired)));
}

#[tokio::test]
async fn a_second_client_of_the_device_takes_over() {
    let server = Server::start().await;
    let config = config(&server, "alice");
    let first = Client::connect(config.clone()).await.unwrap();
    let mut events = first.events();
    let second = Client::connect(config).await.unwrap();
    let state = reach(&first, |state| matches!(state, Connection::Stopped(_))).await;
    assert_eq!(state, Connection::Stopped(StopReason::TakenOver));
    while timeout(Duration::from_secs(5), events.next()).await.unwrap().is_some() {}
    assert!(matches!(first.direct_with("bob").await, Err(RequestError::Stopped)));
    assert!(second.direct_with("bob").await.is_ok());
}

#[tokio::test]
async fn an_untrusted_certificate_is_no_connection() {
    let (server, other) = (Server::start().await, Server::start().await);
    let client = Client::start(config(&server, "alice").ca_pem(other.ca.as_bytes()).unwrap()).await.unwrap();
    reach(&client, |state| matches!(state, Connection::Backoff { .. })).await;
    assert_eq!(server.with(|model| model.dedup_hits), 0);
    assert_eq!(client.stats().sessions, 0);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let server = Server::start().await;
    let alice = connect(&server, "alice").await;
    let conversation = alice.direct_with("bob").await.unwrap();
    assert!(matches!(conversation.send_text("x".repeat(65_537)).await, Err(QueueError::Content(_))));
    server.with(|model| model.refuse_next.push_back(ErrorCode::Forbidden));
    let error = conversation.send_text("no").await.unwrap().acknowledged().await.unwrap_err();
    assert!(error.to_string().contains("FORBIDDEN"), "{error}");
    assert_eq!(alice.stats().failed, 1);
}

#[tokio::test]
async fn dropping_every_handle_ends_the_session() {
    let server = Server::start().await;
    let alice = connect(&server, "alice").await;
    let mut events = alice.events();
    let conversation = alice.direct_with("bob").await.unwrap();
    drop((alice, conversation));
    while timeout(Duration::from_secs(5), events.next()).await.unwrap().is_some() {}
}
