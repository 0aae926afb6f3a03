//! A log that fails under the node: a write whose outcome nobody knows, and reads that find damage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use talaria_log::{Batch, CommitLog, CommitResult, MemoryLog, View, testing::FaultyLog};
use talaria_protocol::{
    error_code::ErrorCode,
    message::{
        Direction, Durability,
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
    node.assert_metric("talaria_log_read_only", 1.0);
    node.assert_metric("talaria_log_ops_total{outcome=\"unknown\"}", 1.0);
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
    node.assert_metric("talaria_log_read_failures_total", 1.0);
    client.say(conversation, "and the session goes on");
    assert!(Instant::now() < deadline);
}

/// Panics where it is told to.
struct PanickingLog {
    inner: MemoryLog,
    in_commit: AtomicBool,
    in_view: AtomicBool,
}

impl CommitLog for PanickingLog {
    fn commit(&self, batch: &Batch) -> CommitResult {
        assert!(!self.in_commit.load(Ordering::Relaxed), "told to panic in commit");
        self.inner.commit(batch)
    }
    fn view(&self) -> Box<dyn View + '_> {
        assert!(!self.in_view.swap(false, Ordering::Relaxed), "told to panic in view");
        self.inner.view()
    }
    fn durability(&self) -> Durability {
        self.inner.durability()
    }
    fn read_only(&self) -> Option<String> {
        self.inner.read_only()
    }
}

#[test]
fn a_panic_in_the_log_is_answered_and_counted() {
    let log = Arc::new(PanickingLog {
        inner: MemoryLog::new(),
        in_commit: AtomicBool::new(false),
        in_view: AtomicBool::new(false),
    });
    let node = TestNode::start_on(log.clone(), |_| {});
    let mut client = node.session("alice");
    let conversation = client.direct_with("bob");
    log.in_view.store(true, Ordering::Relaxed);
    let refused = client.refused(Request::ListConversations { page: Default::default() });
    assert_eq!(refused, ErrorCode::ReadFailed);
    client.say(conversation, "the reader goes on");
    log.in_commit.store(true, Ordering::Relaxed);
    assert_eq!(client.refused(text_to(conversation, "x")), ErrorCode::OutcomeUnknown);
    assert_eq!(http::get(node.admin_addr, "/readyz").0, 503);
    node.assert_metric("talaria_panics_total", 2.0);
    log.in_commit.store(false, Ordering::Relaxed);
    assert_eq!(
        client.refused(text_to(conversation, "nothing is written after an unknown outcome")),
        ErrorCode::ReadOnly
    );
    assert!(matches!(client.request(history(conversation)), ServerFrame::HistoryPage(_)));
    node.shutdown();
}
