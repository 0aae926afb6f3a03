//! What idle sessions cost a node, measured in a process of its own:
//! `cargo test --release -p talaria-server --test quic -- --ignored --nocapture idle_sessions_cost`, with
//! `TALARIA_SESSIONS=10000` for so many.

use crate::{
    support::client::{QuicClient, config, endpoint},
    tcp_support::process::Process,
};

#[tokio::test]
#[ignore = "a bench"]
#[allow(clippy::print_stdout, reason = "it is read by a person")]
async fn idle_sessions_cost() {
    let count: u32 = std::env::var("TALARIA_SESSIONS").map_or(2_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), &[]);
    let (endpoint, config) = (endpoint(), config(&dir.path().join("dev/ca.pem")));
    let mut sessions = Vec::new();
    let mut before = 0;
    for number in 0..=count {
        let mut client = QuicClient::connect_to(endpoint.clone(), node.tcp_addr, config.clone()).await;
        client.hello(&node.token(&format!("user-{number}")), 1).await;
        sessions.push(client);
        if number == 0 {
            before = node.memory_bytes();
        }
    }
    let after = node.memory_bytes();
    println!(
        "{count} idle sessions: {} MiB before, {} MiB after, {} bytes each",
        before >> 20,
        after >> 20,
        (after - before) / u64::from(count)
    );
}

/// The same over TCP, to compare.
#[test]
#[ignore = "a bench"]
#[allow(clippy::print_stdout, reason = "it is read by a person")]
fn idle_sessions_cost_over_tcp() {
    let count: u32 = std::env::var("TALARIA_SESSIONS").map_or(2_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), &[]);
    let mut sessions = vec![node.session("user-0")];
    let before = node.memory_bytes();
    sessions.extend((1..=count).map(|number| node.session(&format!("user-{number}"))));
    let after = node.memory_bytes();
    println!("{count} idle sessions over TCP: {} bytes each", (after - before) / u64::from(count));
}
