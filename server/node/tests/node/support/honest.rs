//! Alice and bob, who do everything right, and must not notice what others do.

use talaria_protocol::{
    ids::ConversationId,
    message::{Credit, Cursor, client::ClientFrame, server::ServerFrame},
};

use super::{client::Client, node::TestNode};

/// A pair with sessions and a conversation.
pub(crate) struct Honest {
    alice: Client,
    bob: Client,
    pub(crate) conversation: ConversationId,
    received: u64,
}

impl Honest {
    pub(crate) fn on(node: &TestNode) -> Self {
        Self::of(node.session("alice"), node.session("bob"))
    }

    /// Of a session of alice and one of bob.
    pub(crate) fn of(mut alice: Client, mut bob: Client) -> Self {
        let conversation = alice.direct_with("bob");
        bob.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
        Self { alice, bob, conversation, received: 1 }
    }

    /// A message arrives and is acknowledged.
    pub(crate) fn go_on(&mut self) {
        let seq = self.alice.say(self.conversation, "all is well");
        self.bob.wait_for(|frame| match frame {
            ServerFrame::Deliver { entry, .. } if entry.seq == seq => Some(()),
            _ => None,
        });
        self.bob.send(&ClientFrame::Ack { conversation: self.conversation, up_to: seq });
        self.received += 1;
        let granted = Credit { entries: 1_000 + self.received, bytes: 1024 * 1024 };
        self.bob.send(&ClientFrame::Credit(granted));
    }
}
