//! What the app asks for.

use std::time::Duration;

use talaria_protocol::session::Millis;

use super::{Effect, Engine, Link, batch::After};
use crate::{
    ask::{Ask, AskError, AskId},
    outbox::{Draft, QueueError},
    store::LocalId,
};

impl Engine {
    /// Queues a message: [`Effect::Queued`] once it is in the store, later [`Effect::Acknowledged`] or
    /// [`Effect::Failed`]. Takes messages while offline too.
    ///
    /// # Errors
    /// The outbox is full, or the store has failed.
    pub fn handle_send(&mut self, now: Millis, draft: Draft) -> Result<LocalId, QueueError> {
        if let Link::Stopped(super::StopReason::StoreFailed(_)) = self.link {
            return Err(QueueError::Stopped);
        }
        let conversation = draft.conversation;
        let item = self.outbox.push(draft, self.batches.number())?;
        let local_id = item.local_id;
        self.batches.put([item]);
        self.batches.batch().next_local_id = Some(self.outbox.next_local_id());
        self.batches.after(After::Do(Effect::Queued(local_id)));
        self.want_live(conversation);
        self.pump(now);
        Ok(local_id)
    }

    /// Asks the server: [`Effect::Answer`], in any case, within `timeout`.
    pub fn handle_ask(&mut self, now: Millis, ask: Ask, timeout: Duration) -> AskId {
        let ask_id = AskId(self.next_ask);
        self.next_ask += 1;
        let taken = match self.link {
            Link::Stopped(_) => Err(AskError::Stopped),
            _ => self.asks.push(ask_id, ask, now.after(timeout)),
        };
        if let Err(error) = taken {
            self.effects.push_back(Effect::Answer(ask_id, Err(error)));
        }
        self.pump(now);
        ask_id
    }

    /// Nobody waits for the answer any more.
    pub fn handle_cancel(&mut self, now: Millis, ask_id: AskId) {
        if let Some((_, Some(request))) = self.asks.take(ask_id)
            && let Some((session, live)) = self.live()
        {
            session.cancel(now, request);
            live.requests.remove(&request);
        }
    }

    pub(super) fn drop_late_asks(&mut self, now: Millis) {
        for (ask_id, request) in self.asks.take_late(now) {
            self.effects.push_back(Effect::Answer(ask_id, Err(AskError::Timeout)));
            if let Some(request) = request
                && let Some((session, live)) = self.live()
            {
                session.cancel(now, request);
                live.requests.remove(&request);
            }
        }
    }
}
