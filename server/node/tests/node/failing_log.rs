//! A log that fails under the node: a write whose outcome nobody knows, and reads that find damage.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use talaria_log::{CommitResult, MemoryLog, testing::FaultyLog};
use talaria_protocol::{
    error_code::ErrorCode,
    message::{
        Direction,
        client::{History, Request},
        server::ServerFrame,
    },
};

use crate::support::{client::text_to, http, node::TestNode};

fn history(conversation: talaria_protocol::ids::ConversationId) -> Request {
    Request::History(History { conversation, from: 1, direction: Direction::Forward, entries_max: 10 })
}

#[test]
fn an_unknown_outcome_makes_the_node_read_only_and_not_ready() {
    let log = Arc::new(FaultyLog::new(MemoryLog::new()));
    let node = TestNode::start_on(log.clone(), |_| {});
    let mut client = node.session("alice");
    let conversation = client.direct_with("bob");
    client.say(conversation, "before");
    assert_eq!(http::get(node.admin_addr, "/readyz"), (200, "{\"ready\":true}\n".to_owned()));

    log.fail_next_commit(CommitResult::Unknown { why: "the disk is on fire".to_owned() }, false);
    assert_eq!(client.refused(text_to(conversation, "during")), ErrorCode::OutcomeUnknown);
    assert_eq!(client.refused(text_to(conversation, "after")), ErrorCode::ReadOnly);

    let (status, body) = http::get(node.admin_addr, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("the disk is on fire") && body.contains("restart"), "{body}");
    assert_eq!(
        http::get(node.admin_addr, "/healthz"),
        (200, "ok\n".to_owned()),
        "the process itself is fine"
    );
    assert_eq!(node.metric("talaria_log_read_only"), 1.0);
    assert_eq!(node.metric("talaria_log_ops_total{outcome=\"unknown\"}"), 1.0);
    // Reads go on, and what is not known to be durable is not shown.
    match client.request(history(conversation)) {
        ServerFrame::HistoryPage(page) => assert_eq!(page.entries.len(), 2),
        other => panic!("{other:?}"),
    }
    node.shutdown();
}

#[test]
fn a_read_that_fails_is_answered_and_counted() {
    let log = Arc::new(FaultyLog::new(MemoryLog::new()));
    let node = TestNode::start_on(log.clone(), |_| {});
    let mut client = node.session("alice");
    let conversation = client.direct_with("bob");
    log.fail_next_reads(1);
    let deadline = Instant::now() + Duration::from_secs(5);
    // The tail may answer without a read; a list never does.
    let refused = client.refused(Request::ListConversations { page: Default::default() });
    assert_eq!(refused, ErrorCode::ReadFailed);
    assert_eq!(node.metric("talaria_log_read_failures_total"), 1.0);
    client.say(conversation, "and the session goes on");
    assert!(Instant::now() < deadline);
}
