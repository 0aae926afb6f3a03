//! Effects are performed.

use talaria_core::{
    effect::{Effect, Input, SessionKey},
    log::{Outcome, ReadAnswer},
    peer::{PeerClass, PeerMessage, ShardId},
};
use talaria_protocol::message::server::ServerFrame;

use super::ShardHost;
use crate::{mailbox::Envelope, outbox::SessionEffect};

impl ShardHost {
    /// Performs one effect; an input that follows from it at once is given back.
    pub(super) fn perform(&self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Log { op, what } => {
                let handed = self.ports.log.put(op, what);
                self.count_under_way(usize::from(handed), 0);
                return (!handed).then_some(Input::Durable { op, outcome: Outcome::NotCommitted });
            }
            Effect::Read { read, what } => {
                let handed = self.ports.readers.put(read, what);
                self.count_under_way(0, usize::from(handed));
                return (!handed).then_some(Input::Read { read, answer: ReadAnswer::Failed });
            }
            Effect::Post { to, message } => return self.post(to, message),
            Effect::Opened { session, device_number } => {
                self.ports.metrics.sessions_opened.increment(1);
                self.show_sessions();
                self.put(session, SessionEffect::Opened { device_number });
            }
            Effect::Refused { session, code, message, retry_after_ms } => {
                self.put(session, SessionEffect::Refused { code, message, retry_after_ms });
            }
            Effect::Reply { session, request_id: _, frame, cost } => {
                self.count_reply(&frame);
                self.put(session, SessionEffect::Reply { frame, cost });
            }
            Effect::Send { session, frame } => self.put(session, SessionEffect::Send(frame)),
            Effect::Deliver { session, conversation, lane, frame, cost } => {
                self.ports.metrics.delivered.increment(1);
                self.put(session, SessionEffect::Deliver { conversation, lane, frame, cost });
            }
            Effect::End { session, code, message } => {
                self.show_sessions();
                self.put(session, SessionEffect::End { code, message });
            }
        }
        None
    }

    fn count_under_way(&self, ops: usize, reads: usize) {
        let mut under_way = self.under_way.get();
        under_way.ops += ops;
        under_way.reads += reads;
        self.under_way.set(under_way);
    }

    /// Puts it into the other's mailbox, or gives it back to the core.
    fn post(&self, to: ShardId, message: PeerMessage) -> Option<Input> {
        let class = message.class();
        let envelope = Envelope { from: self.ports.shard, incarnation: self.incarnation(), message };
        let Envelope { message, .. } = *self.ports.mailboxes.post(to, envelope).err()?;
        self.ports.metrics.mailbox_full(class);
        if class == PeerClass::Answer {
            // A defect: whoever asked has more questions under way than it may. It must not take this shard down.
            tracing::error!(from = self.ports.shard.0, to = to.0, "a mailbox had no place for an answer");
            return None;
        }
        Some(Input::NotPosted { to, message })
    }

    /// Puts something into a session's outbox.
    pub(super) fn put(&self, session: SessionKey, effect: SessionEffect) {
        match self.outboxes.borrow().get(&session) {
            Some(outbox) => outbox.put(effect),
            None => self.ports.metrics.answers_without_session.increment(1),
        }
    }

    fn count_reply(&self, frame: &ServerFrame) {
        let metrics = &self.ports.metrics;
        match frame {
            ServerFrame::Sent(sent) if sent.duplicate => metrics.dedup_hits.increment(1),
            ServerFrame::Sent(_) => metrics.messages_sent.increment(1),
            ServerFrame::ConversationResult { duplicate: true, .. } => metrics.dedup_hits.increment(1),
            ServerFrame::Error { code, .. } => metrics.errors.increment_wire(*code),
            _ => {}
        }
    }
}
