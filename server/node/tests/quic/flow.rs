//! Who reads slowly or not at all, and what is urgent.

use std::time::Duration;

use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    limits::{ALPN, CREDIT_BYTES_MAX, CREDIT_ENTRIES_MAX},
    message::{Credit, Cursor, client::ClientFrame, content::Content, server::ServerFrame},
    session::Lane,
};

use crate::{
    support::{
        client::{QuicClient, assert_metric, config_with, endpoint, soon},
        relay::Relay,
    },
    tcp_support::{
        client::{new_message_id, send_with},
        node::TestNode,
    },
};

const TEXT_BYTES: usize = 60_000;
/// Almost all that a client can grant credit for.
const TEXTS: u64 = 64;

/// A conversation of alice and bob that holds [`TEXTS`] long messages, and an empty one of bob and carol.
fn filled(node: &TestNode) -> (ConversationId, ConversationId) {
    let mut alice = node.session("alice");
    let long = alice.direct_with("bob");
    let text = "x".repeat(TEXT_BYTES);
    for _ in 0..TEXTS {
        alice.say(long, &text);
    }
    (long, node.session("carol").direct_with("bob"))
}

/// A session of bob with all the credit that there can be.
async fn greedy(node: &TestNode, mut client: QuicClient) -> QuicClient {
    let mut hello = QuicClient::hello_frame(&node.token("bob"), 1);
    hello.credit = Credit { entries: CREDIT_ENTRIES_MAX, bytes: CREDIT_BYTES_MAX };
    client.send(&ClientFrame::Hello(Box::new(hello))).await;
    client.welcome().await;
    client
}

/// [SES-49]
#[tokio::test]
async fn a_client_that_reads_nothing_costs_a_bounded_amount_and_is_dropped() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 1);
    let (long, _) = filled(&node);
    let config = config_with(&node.ca, vec![ALPN.to_vec()], |transport| {
        transport.stream_receive_window(65_536u32.into()).receive_window(100_000u32.into());
    });
    let mut bob = greedy(&node, QuicClient::connect_with(&node, config).await).await;
    bob.send(&ClientFrame::Resume(vec![(long, Cursor::START)])).await;
    let mut most = 0.0f64;
    let closed = loop {
        // It is there, and says so; it only does not read.
        let ping = ClientFrame::Ping(1).encode();
        tokio::select! {
            closed = bob.connection.closed() => break closed,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let _ = bob.send.write(&ping).await;
        most = most.max(node.metric("talaria_transmit_queue_bytes"));
    };
    assert_eq!(crate::support::client::application_code(&closed), ErrorCode::SlowConsumer as u64);
    assert!(most > 1_000_000.0, "much waited: {most}");
    assert!(most < CREDIT_BYTES_MAX as f64 * 1.1, "no more than it granted: {most}");
    assert_metric(&node, "talaria_connections_dropped_total{reason=\"slow_consumer\"}", 1.0).await;
    assert_metric(&node, "talaria_transmit_queue_bytes", 0.0).await;
}

/// A slow line, full of history: what happens now comes at once. [QUI-11]
#[tokio::test]
async fn live_entries_overtake_a_backfill() {
    let node = TestNode::start();
    let (long, short) = filled(&node);
    let mut carol = node.session("carol");
    let relay = Relay::to(node.tcp_addr);
    relay.set_rate(2_000_000);
    let config = config_with(&node.ca, vec![ALPN.to_vec()], |transport| {
        transport.stream_receive_window(4_000_000u32.into());
    });
    let client = QuicClient::connect_to(endpoint(), relay.address, config).await;
    let mut bob = greedy(&node, client).await;
    bob.send(&ClientFrame::Resume(vec![(short, Cursor::START)])).await;
    bob.wait_for(|_, frame| matches!(frame, ServerFrame::CaughtUp { .. }).then_some(())).await;
    bob.inbox.clear();
    bob.send(&ClientFrame::Resume(vec![(long, Cursor::START)])).await;

    let (mut bulk, mut said, mut late) = (0u64, 0u64, Vec::new());
    let mut said_at = 0;
    while bulk < TEXTS {
        match soon(bob.receive()).await.unwrap() {
            (lane, ServerFrame::Deliver { conversation, .. }) if conversation == long => {
                assert_eq!(lane, Lane::Bulk);
                bulk += 1;
            }
            (lane, ServerFrame::Deliver { conversation, .. }) if conversation == short => {
                assert_eq!(lane, Lane::Live);
                late.push(bulk - said_at);
            }
            _ => {}
        }
        // The next one is said when the last one has come, all while the backfill goes on.
        if said == late.len() as u64 && (5..40).contains(&bulk) {
            said += 1;
            said_at = bulk;
            let content = Content::text("now");
            let request = send_with(short, new_message_id(), content.encode());
            carol.ask(request);
        }
    }
    eprintln!("long entries between a live one's sending and its coming: {late:?}");
    assert!(late.len() >= 3, "{late:?}");
    // What is on the line already cannot be overtaken: 0.3 s of it, or half a megabyte that QUIC may hold.
    assert!(late.iter().all(|entries| *entries <= 20), "{late:?}");
}
