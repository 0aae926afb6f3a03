//! Two people talk.

use talaria_protocol::message::{Cursor, Durability, client::ClientFrame, server::ServerFrame};

use crate::support::node::TestNode;

#[test]
fn alice_writes_and_bob_receives() {
    let node = TestNode::start();
    let (mut alice, mut bob) = (node.session("alice"), node.session("bob"));
    let conversation = alice.direct_with("bob");
    let changed = bob.wait_for(|frame| match frame {
        ServerFrame::Changed(state) => Some(state.conversation),
        _ => None,
    });
    assert_eq!(changed, conversation);
    bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    let seq = alice.say(conversation, "hello");
    assert_eq!(seq, 2, "after the entry that began the conversation");
    let delivered = bob.wait_for(|frame| match frame {
        ServerFrame::Deliver { conversation: of, entry } if entry.seq == seq => Some(*of),
        _ => None,
    });
    assert_eq!(delivered, conversation);
    bob.send(&ClientFrame::Ack { conversation, up_to: seq });
    node.assert_metric("talaria_messages_sent_total", 1.0);
    node.assert_metric("talaria_sessions", 2.0);
    drop((alice, bob));
    node.shutdown();
}

#[test]
fn welcome_says_what_this_node_is() {
    let node = TestNode::start();
    let mut client = node.connect();
    let welcome = client.hello(&node.token("alice"), 1);
    assert_eq!((welcome.subject.as_str(), welcome.node.as_str()), ("alice", "talaria"));
    assert_eq!((welcome.device_number, welcome.protocol, welcome.keepalive_ms), (1, 1, 30_000));
    assert_eq!(welcome.durability, Durability::Fsync);
}
