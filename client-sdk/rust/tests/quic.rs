//! The client over real UDP, against the model server: which transport carries it, and what becomes of it when the
//! network changes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../core/tests/model/mod.rs"]
mod model;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use server::{Server, Udp};
use talaria_client::{
    Client, ClientConfig, Connection, Conversation, Direction, ErrorCode, Event, Events, StopReason,
    TimelineItem, TokenProvider, Transport, TransportChoice, new_device_id,
};
use tokio::time::{Instant, timeout};

fn config(server: &Server, subject: &str) -> ClientConfig {
    let tokens = TokenProvider::fixed(subject);
    ClientConfig::new(&server.address, new_device_id(), tokens).ca_pem(server.ca.as_bytes()).unwrap()
}

async fn connect(config: ClientConfig) -> Client {
    Client::connect(config).await.unwrap()
}

/// Sends one, and waits until it is in the log and has come back.
async fn says(conversation: &Conversation, events: &mut Events, text: &str) {
    conversation.send_text(text).await.unwrap().acknowledged().await.unwrap();
    let came = async {
        while let Some(event) = events.next().await {
            if matches!(&event, Event::Entry(entry) if entry.text() == Some(text)) {
                return true;
            }
        }
        false
    };
    assert!(timeout(Duration::from_secs(20), came).await.expect("in time"), "{text} comes back");
}

async fn reach(client: &Client, wanted: impl FnMut(&Connection) -> bool) -> Connection {
    let mut connection = client.connection();
    timeout(Duration::from_secs(20), connection.wait_for(wanted)).await.expect("in time").unwrap().clone()
}

/// Waits until so many sessions were opened, and the last one is.
async fn sessions(client: &Client, count: u64) {
    let opened = async {
        while client.stats().sessions < count || *client.connection().borrow() != Connection::Online {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(20), opened).await.expect("in time");
}

async fn counted(counter: &AtomicU32, wanted: u32) {
    let reached = async {
        while counter.load(Ordering::Relaxed) != wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let end = timeout(Duration::from_secs(20), reached).await;
    assert!(end.is_ok(), "{} instead of {wanted}", counter.load(Ordering::Relaxed));
}

// ---- the race ----

#[tokio::test]
async fn quic_wins_where_udp_passes_and_tcp_where_it_is_asked_for() {
    let server = Server::start().await;
    let choices = [
        (TransportChoice::Auto, Transport::Quic),
        (TransportChoice::Quic, Transport::Quic),
        (TransportChoice::Tcp, Transport::Tcp),
    ];
    for (choice, carries) in choices {
        let client = connect(config(&server, "alice").transport(choice)).await;
        assert_eq!(client.transport(), Some(carries));
        let mut events = client.events();
        let conversation = client.direct_with("bob").await.unwrap();
        says(&conversation, &mut events, &format!("{choice:?}")).await;
        assert!(!conversation.history(0, Direction::Backward, 10).await.unwrap().entries.is_empty());
        client.shutdown().await;
        assert_eq!(client.transport(), None);
    }
    counted(&server.counts.closed_well, 2).await;
    assert_eq!(server.counts.tcp.load(Ordering::Relaxed), 1, "no loser of the race came through");
}

#[tokio::test]
async fn no_network_without_udp_keeps_anybody_offline() {
    for udp in [Udp::Swallows, Udp::Closed] {
        let server = Server::start_with(udp).await;
        let client = connect(config(&server, "alice")).await;
        assert_eq!(client.transport(), Some(Transport::Tcp));
        let mut events = client.events();
        let conversation = client.direct_with("bob").await.unwrap();
        says(&conversation, &mut events, "hello").await;
        client.drop_connection().await;
        sessions(&client, 2).await;
        says(&conversation, &mut events, "again").await;
        assert_eq!(server.counts.quic.load(Ordering::Relaxed), 0);
    }
}

/// Prints what blocked UDP costs; asserts only that it is not another order of magnitude.
#[tokio::test]
async fn blocked_udp_costs_little() {
    let server = Server::start_with(Udp::Swallows).await;
    let mut medians = Vec::new();
    for choice in [TransportChoice::Tcp, TransportChoice::Auto] {
        let mut took = Vec::new();
        for _ in 0..15 {
            let begun = Instant::now();
            let client = connect(config(&server, "alice").transport(choice)).await;
            took.push(begun.elapsed());
            drop(client);
        }
        took.sort();
        medians.push(took[took.len() / 2]);
    }
    // Once it is known.
    let client = connect(config(&server, "alice")).await;
    let mut took = Vec::new();
    for n in 0..15 {
        let begun = Instant::now();
        client.drop_connection().await;
        client.retry().await;
        sessions(&client, n + 2).await;
        took.push(begun.elapsed());
    }
    took.sort();
    eprintln!(
        "median to online: TCP alone {:?}, UDP swallowed {:?} (+{:?}); once known, to be online again {:?}",
        medians[0],
        medians[1],
        medians[1].saturating_sub(medians[0]),
        took[took.len() / 2]
    );
    assert!(medians[1] < medians[0] + Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_is_down_is_noticed_by_both() {
    let server = Server::start_with(Udp::Closed).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = ClientConfig::new(free.to_string(), new_device_id(), TokenProvider::fixed("alice"));
    let client = Client::start(nowhere.ca_pem(server.ca.as_bytes()).unwrap()).await.unwrap();
    reach(&client, |state| matches!(state, Connection::Backoff { .. })).await;
    let failure = client.last_failure().unwrap();
    assert!(failure.contains("TCP: ") && failure.contains("QUIC: no answer"), "{failure}");
}

// ---- the network changes ----

#[tokio::test]
async fn a_new_address_keeps_the_session_of_quic() {
    let server = Server::start().await;
    let client = connect(config(&server, "alice")).await;
    let mut events = client.events();
    let conversation = client.direct_with("bob").await.unwrap();
    for n in 0..5 {
        match n {
            1 | 3 => assert!(client.rebind_udp().await),
            2 => client.network_changed(Some("cellular")).await,
            _ => {}
        }
        says(&conversation, &mut events, &format!("line {n}")).await;
    }
    assert_eq!(client.stats().sessions, 1);
    client.shutdown().await;
    counted(&server.counts.moved, 1).await;
    assert_eq!(server.counts.quic.load(Ordering::Relaxed), 1, "one connection all the time");
}

#[tokio::test]
async fn a_path_that_is_dead_after_the_change_is_left_for_one_that_is_not() {
    let server = Server::start().await;
    let client = connect(config(&server, "alice")).await;
    let mut events = client.events();
    let conversation = client.direct_with("bob").await.unwrap();
    says(&conversation, &mut events, "at home").await;
    // In the new network UDP does not pass.
    server.udp.as_ref().unwrap().go_deaf();
    let handle = conversation.send_text("on the way").await.unwrap();
    client.network_changed(Some("cellular")).await;
    sessions(&client, 2).await;
    assert_eq!(client.transport(), Some(Transport::Tcp));
    handle.acknowledged().await.unwrap();
    says(&conversation, &mut events, "there").await;
    let stats = client.stats();
    assert_eq!((stats.sessions, stats.chain_mismatches, stats.failed), (2, 0, 0), "{stats:?}");
    assert_eq!(server.with(|model| model.conversations[&conversation.id()].head()), 4);
    assert!(!client.rebind_udp().await, "there is no QUIC connection");
}

#[tokio::test]
async fn tcp_that_still_works_is_kept_and_a_return_to_the_front_asks() {
    let server = Server::start_with(Udp::Swallows).await;
    let client = connect(config(&server, "alice")).await;
    let mut events = client.events();
    let conversation = client.direct_with("bob").await.unwrap();
    for n in 0..3 {
        client.network_changed(None).await;
        client.set_foreground(false).await;
        client.set_foreground(true).await;
        says(&conversation, &mut events, &format!("line {n}")).await;
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(client.stats().sessions, 1, "each probe was answered");
}

#[tokio::test]
async fn the_network_that_comes_back_ends_the_wait() {
    let server = Server::start().await;
    let client = connect(config(&server, "alice")).await;
    // Gone for so long that the next try is far away.
    server.with(|model| {
        model.end_sessions(ErrorCode::Draining, 0);
        model.accepts_token = |_| false;
    });
    reach(&client, |state| *state == Connection::AuthRequired).await;
    client.network_changed(Some("wifi")).await;
    tokio::task::yield_now().await;
    assert_eq!(*client.connection().borrow(), Connection::AuthRequired, "that is the user's matter");
    server.with(|model| model.accepts_token = |_| true);
    client.retry().await;
    sessions(&client, 2).await;
}

// ---- streams ----

/// The texts of a conversation, in order, until so many came.
async fn texts(events: &mut Events, conversation: &Conversation, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let event = timeout(Duration::from_secs(20), events.next()).await.expect("in time");
        if let Some(Event::Entry(entry)) = event
            && entry.conversation == conversation.id()
        {
            found.extend(entry.text().map(str::to_string));
        }
    }
    found
}

#[tokio::test]
async fn live_messages_pass_a_backfill_that_does_not_move() {
    let server = Server::start().await;
    let alice = connect(config(&server, "alice")).await;
    let store = std::sync::Arc::new(talaria_client::MemoryStore::new());
    let of_bob = config(&server, "bob").store(store);
    let bob = connect(of_bob.clone()).await;
    let (long, short) =
        (alice.direct_with("bob").await.unwrap(), alice.create_group("short", ["bob"]).await.unwrap());
    let mut events = bob.events();
    short.send_text("known").await.unwrap();
    texts(&mut events, &short, 1).await;
    bob.shutdown().await;
    for n in 0..50 {
        long.send_text(n.to_string()).await.unwrap();
    }
    long.send_text("50").await.unwrap().acknowledged().await.unwrap();

    server.udp.as_ref().unwrap().hold_bulk(true);
    let bob = connect(of_bob).await;
    let mut events = bob.events();
    while bob.stats().resumes < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // One that follows the backfill comes before it, one elsewhere comes at once.
    long.send_text("51").await.unwrap().acknowledged().await.unwrap();
    short.send_text("news").await.unwrap().acknowledged().await.unwrap();
    assert_eq!(texts(&mut events, &short, 1).await, ["news"]);
    assert_eq!(bob.conversation(long.id()).stored(1, 100).await.unwrap().len(), 1, "what follows is held");
    server.udp.as_ref().unwrap().hold_bulk(false);
    let expected: Vec<_> = (0..=51).map(|n| n.to_string()).collect();
    assert_eq!(texts(&mut events, &long, 52).await, expected);
    assert_eq!((bob.stats().gaps, bob.stats().duplicates_dropped), (0, 0));
}

#[tokio::test]
async fn what_is_left_out_is_a_gap_in_the_timeline_and_a_page_away() {
    for choice in [TransportChoice::Tcp, TransportChoice::Quic] {
        let server = Server::start().await;
        let alice = connect(config(&server, "alice")).await;
        let conversation = alice.direct_with("bob").await.unwrap();
        for n in 0..100 {
            conversation.send_text(n.to_string()).await.unwrap();
        }
        conversation.send_text("the last").await.unwrap().acknowledged().await.unwrap();
        server.with(|model| {
            model.newest_only = Some(10);
            model.conversations.get_mut(&conversation.id()).unwrap().first_seq = 31;
        });
        let bob = connect(config(&server, "bob").transport(choice)).await;
        let mut events = bob.events();
        let there = bob.conversation(conversation.id());
        assert_eq!(texts(&mut events, &there, 10).await.last().unwrap(), "the last");
        let items = there.timeline(1, 1_000).await.unwrap();
        assert_eq!((items.len(), &items[0]), (11, &TimelineItem::Gap { from: 1, to: 92 }));
        let (mut to, mut shown) = (92, 0);
        loop {
            let page = there.history(to, Direction::Backward, 20).await.unwrap();
            shown += page.entries.len();
            match page.entries.first() {
                Some(first) if page.more => to = first.seq - 1,
                _ => break assert_eq!((shown, page.first_seq), (62, 31), "all that the server keeps"),
            }
        }
        conversation.send_text("goes on").await.unwrap();
        assert_eq!(texts(&mut events, &there, 1).await, ["goes on"]);
        assert_eq!(bob.stats().chain_mismatches, 0);
    }
}

// ---- early data ----

#[tokio::test]
async fn a_known_server_gets_the_hello_with_the_first_packet() {
    for (early_data, early) in [(true, 3), (false, 0)] {
        let server = Server::start().await;
        let config = config(&server, "alice").transport(TransportChoice::Quic).early_data(early_data);
        let client = connect(config).await;
        let mut events = client.events();
        let conversation = client.direct_with("bob").await.unwrap();
        for n in 1..=3 {
            says(&conversation, &mut events, &format!("line {n}")).await;
            client.drop_connection().await;
            sessions(&client, n + 1).await;
        }
        says(&conversation, &mut events, "the last").await;
        assert_eq!(server.counts.early.load(Ordering::Relaxed), early, "early data: {early_data}");
        assert_eq!(server.counts.quic.load(Ordering::Relaxed), 4);
        assert_eq!(server.with(|model| model.conversations[&conversation.id()].head()), 5, "each once");
    }
}

#[tokio::test]
async fn refused_early_data_is_said_again_on_the_same_connection() {
    let server = Server::start().await;
    let client = connect(config(&server, "alice").transport(TransportChoice::Quic)).await;
    let mut events = client.events();
    let conversation = client.direct_with("bob").await.unwrap();
    says(&conversation, &mut events, "before").await;
    server.udp.as_ref().unwrap().forget_sessions();
    let handle = conversation.send_text("in flight").await.unwrap();
    client.drop_connection().await;
    sessions(&client, 2).await;
    handle.acknowledged().await.unwrap();
    says(&conversation, &mut events, "after").await;
    assert_eq!((server.counts.early.load(Ordering::Relaxed), client.early_data()), (0, (0, 1)));
    assert_eq!(server.counts.quic.load(Ordering::Relaxed), 2);
    let stats = client.stats();
    assert_eq!((stats.sessions, stats.disconnects), (2, 1), "{stats:?}");
    assert_eq!(server.with(|model| model.conversations[&conversation.id()].head()), 4);
}

#[tokio::test]
async fn a_first_packet_into_the_void_does_not_keep_tcp_waiting() {
    let server = Server::start().await;
    let client = connect(config(&server, "alice")).await;
    let mut events = client.events();
    let conversation = client.direct_with("bob").await.unwrap();
    says(&conversation, &mut events, "before").await;
    server.udp.as_ref().unwrap().go_deaf();
    let begun = Instant::now();
    client.drop_connection().await;
    sessions(&client, 2).await;
    eprintln!("online over TCP after {:?}", begun.elapsed());
    assert_eq!(client.transport(), Some(Transport::Tcp));
    says(&conversation, &mut events, "after").await;
    assert_eq!(client.stats().disconnects, 1, "the provisional one was no session");
}

// ---- ends and oddities ----

#[tokio::test]
async fn streams_of_newer_types_are_refused_and_disturb_nothing() {
    let server = Server::start().await;
    let client = connect(config(&server, "alice")).await;
    let mut events = client.events();
    let conversation = client.direct_with("bob").await.unwrap();
    // More than may be open at once: the refused ones make room.
    for n in 0..5 {
        let opened = server.udp.as_ref().unwrap().open_strange_streams();
        timeout(Duration::from_secs(20), opened).await.expect("refused in time");
        says(&conversation, &mut events, &format!("line {n}")).await;
    }
    assert_eq!(client.stats().sessions, 1);
}

#[tokio::test]
async fn a_close_code_is_taken_like_the_frame_that_could_not_be_said() {
    for (code, stops) in [(ErrorCode::Unsupported, true), (ErrorCode::Draining, false)] {
        let server = Server::start().await;
        let client = connect(config(&server, "alice")).await;
        server.udp.as_ref().unwrap().close_all(code as u32);
        if stops {
            let state = reach(&client, |state| matches!(state, Connection::Stopped(_))).await;
            let Connection::Stopped(StopReason::Refused { code: told, message }) = state else {
                panic!("{state:?}")
            };
            assert!(told == code as u32 && message.contains("told by the code"), "{message}");
        } else {
            sessions(&client, 2).await;
        }
    }
}
