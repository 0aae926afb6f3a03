//! What a commit releases: acknowledgements to the server, sends whose ids are safe, effects and events.

use talaria_protocol::{ids::ConversationId, session::Millis};

use super::{Engine, StopReason, batch::After};
use crate::store::StoreError;

impl Engine {
    /// Answers [`super::Effect::Store`].
    pub fn handle_stored(&mut self, now: Millis, stored: Result<(), StoreError>) {
        if let Err(error) = stored {
            return self.stop(now, StopReason::StoreFailed(error.to_string()));
        }
        if let Some(committed) = self.batches.on_committed() {
            for (conversation, cursor) in &committed.cursors {
                if let Some(timeline) = self.timelines.get_mut(conversation) {
                    timeline.on_committed(*cursor);
                }
            }
            self.outbox.on_committed(committed.number);
            for after in committed.after {
                match after {
                    After::Tell(told) => self.events.push_back(told),
                    After::Do(effect) => self.effects.push_back(effect),
                }
            }
            self.send_acks(now, committed.cursors.iter().map(|(conversation, _)| *conversation));
        }
        self.pump(now);
    }

    /// One per conversation, whatever the batch held of it.
    pub(super) fn send_acks(&mut self, now: Millis, conversations: impl IntoIterator<Item = ConversationId>) {
        for conversation in conversations {
            let Some(up_to) = self.timelines.get_mut(&conversation).and_then(|timeline| timeline.poll_ack())
            else {
                continue;
            };
            if let Some((session, _)) = self.live() {
                session.ack(now, conversation, up_to);
            }
        }
    }
}
