//! What a shard has for one session, on the shard's own thread: effects go in, the connection's task takes them.
//! Bounded by what the core may have for a session at once: an answer per request in flight, entries within its
//! credit, and a few frames per conversation that it has resumed.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use bytes::Bytes;
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    message::{Credit, server::ServerFrame},
    session::Lane,
};
use tokio::sync::Notify;

/// An effect on one session.
#[derive(Debug)]
pub(crate) enum SessionEffect {
    /// Say Welcome.
    Opened { device_number: u32 },
    /// Say Refused.
    Refused { code: ErrorCode, message: String, retry_after_ms: u32 },
    /// The answer to a request.
    Reply { frame: ServerFrame, cost: Credit },
    /// Another frame.
    Send(ServerFrame),
    /// A whole `Deliver` frame.
    Deliver { conversation: ConversationId, lane: Lane, frame: Bytes, cost: Credit },
    /// Say GoAway.
    End { code: ErrorCode, message: String },
    /// The core that knew the session is gone.
    Lost,
}

/// See the module. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    effects: RefCell<VecDeque<SessionEffect>>,
    wake: Notify,
}

impl Outbox {
    /// Adds an effect and wakes the task.
    pub(crate) fn put(&self, effect: SessionEffect) {
        self.0.effects.borrow_mut().push_back(effect);
        self.0.wake.notify_one();
    }

    /// The oldest effect.
    pub(crate) fn take(&self) -> Option<SessionEffect> {
        let mut effects = self.0.effects.borrow_mut();
        let effect = effects.pop_front();
        if effects.is_empty() && effects.capacity() > 64 {
            *effects = VecDeque::new();
        }
        effect
    }

    /// Ends when there was a wake-up since the last time. Cancel-safe.
    pub(crate) async fn woken(&self) {
        self.0.wake.notified().await;
    }
}
