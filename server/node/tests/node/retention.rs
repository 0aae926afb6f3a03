//! Old entries go, where the configuration says so; who comes later is told what is not there any more.

use talaria_protocol::{
    ids::ConversationId,
    message::{Cursor, client::ClientFrame, server::ServerFrame},
};

use crate::support::node::TestNode;

#[test]
fn a_sweep_cuts_and_a_new_device_is_told() {
    let node = TestNode::start_with(|config| {
        config.shards = 4;
        config.retention.max_entries = Some(10);
        config.retention.sweep_seconds = 1;
    });
    let mut alice = node.session("alice");
    // Of several homes.
    let conversations: Vec<_> = (0..8).map(|n| alice.direct_with(&format!("user-{n}"))).collect();
    for conversation in &conversations {
        for _ in 0..39 {
            alice.say(*conversation, "x");
        }
    }
    for conversation in conversations {
        while truncated(&node, conversation) != Some((31, 31)) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    assert!(node.metric("talaria_retention_cuts_total") >= 8.0, "one for each, more while they grew");
    node.shutdown();
}

/// What a new device is told: the oldest seq kept, and the first that it gets. `None`: everything is there.
fn truncated(node: &TestNode, conversation: ConversationId) -> Option<(u64, u64)> {
    let mut device = node.session_of("alice", 2);
    device.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    let first_seq = device.wait_for(|frame| match frame {
        ServerFrame::Truncated { first_seq, .. } => Some(Some(*first_seq)),
        ServerFrame::Deliver { .. } => Some(None),
        _ => None,
    })?;
    let first = device.wait_for(|frame| match frame {
        ServerFrame::Deliver { entry, .. } => Some(entry.seq),
        _ => None,
    });
    Some((first_seq, first))
}
