//! Health and metrics.

use crate::support::{honest::Honest, http, node::TestNode};

#[test]
fn a_ready_node_says_so_and_counts() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    honest.go_on();
    assert_eq!(http::get(node.admin_addr, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(http::get(node.admin_addr, "/readyz"), (200, "{\"ready\":true}\n".to_owned()));
    let (status, text) = http::get(node.admin_addr, "/metrics");
    assert_eq!(status, 200);
    for (name, least) in [
        ("talaria_connections", 2.0),
        ("talaria_sessions", 2.0),
        ("talaria_sessions_opened_total", 2.0),
        ("talaria_messages_sent_total", 1.0),
        ("talaria_entries_delivered_total", 1.0),
        ("talaria_log_sync_seconds_count", 2.0),
        ("talaria_log_commit_ops_count", 2.0),
        ("talaria_log_read_seconds_count", 1.0),
        ("talaria_log_ops_total{outcome=\"committed\"}", 3.0),
        ("talaria_received_bytes_total", 100.0),
        ("talaria_sent_bytes_total", 100.0),
    ] {
        assert!(http::metric_in(&text, name) >= least, "{name}: {}", http::metric_in(&text, name));
    }
    for name in [
        "talaria_transmit_queue_bytes",
        "talaria_log_queue_ops",
        "talaria_read_queue_ops",
        "talaria_panics_total",
        "talaria_shard_restarts_total",
        "talaria_mailbox_full_total{queue=\"asks\"}",
        "talaria_mailbox_messages{queue=\"completions\"}",
        "talaria_handshakes_in_progress",
    ] {
        assert_eq!(http::metric_in(&text, name), 0.0, "{name}");
    }
    assert!(text.contains("# HELP talaria_sessions "), "{text}");
    assert_eq!(http::get(node.admin_addr, "/").0, 404);
}

#[test]
fn a_draining_node_is_not_ready() {
    let node = TestNode::start();
    // A session that does not read keeps the drain open for a while.
    let _session = node.session("alice");
    node.begin_shutdown();
    let (status, body) = http::get(node.admin_addr, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("draining") || body.contains("stopped"), "{body}");
    node.shutdown();
}

#[test]
fn two_nodes_in_one_process_count_apart() {
    let (one, two) = (TestNode::start(), TestNode::start());
    let _session = one.session("alice");
    assert_eq!((one.metric("talaria_sessions"), two.metric("talaria_sessions")), (1.0, 0.0));
}
