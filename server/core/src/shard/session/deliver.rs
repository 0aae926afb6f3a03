//! Delivery: a live entry goes to every session for which it is the next one; all others lag, and their conversations'
//! homes are asked for pages, one at a time per session, within their credit.

use talaria_protocol::{
    entry::Entry,
    ids::ConversationId,
    message::{
        ConversationState,
        server::{ServerFrame, encode_deliver},
    },
    session::Lane,
};

use super::Waiting;
use crate::{
    answer::{PageAnswer, PageEnd},
    conversation::Refusal,
    effect::{Effect, SessionKey},
    fan_out::{FanOut, LiveEntry},
    limits::SUBSCRIPTIONS_PER_SESSION_MAX,
    question::{PageAsk, Question},
    session::{Progress, Session, Subscription},
    shard::{Shard, mail::AskTarget},
};

/// What comes after a page.
enum Turn {
    /// The conversation has caught up.
    Done,
    /// It goes on when the others have had their turns.
    Next,
    /// Nothing goes on before there is more credit.
    Wait,
}

impl Shard {
    /// A durable entry of any shard's conversation, for users with sessions here.
    pub(in crate::shard) fn on_fan_out(&mut self, fan_out: &FanOut) {
        for user in &fan_out.users {
            for at in 0.. {
                let Some(session) = self.sessions.directory.of_user(*user).get(at).copied() else { break };
                self.offer(session, &fan_out.entry);
            }
        }
    }

    fn offer(&mut self, key: SessionKey, entry: &LiveEntry) {
        let (id, seq) = (entry.conversation, entry.seq);
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        let Some(subscription) = session.subscriptions.get_mut(&id) else { return self.hint(key, id) };
        match subscription.progress {
            Progress::Stopped => return self.hint(key, id),
            Progress::Hinting | Progress::Hinted => return,
            Progress::Live if seq < subscription.next => return,
            Progress::Live | Progress::Resuming(_) | Progress::Lagging => {}
        }
        let is_next = subscription.progress == Progress::Live && subscription.next == seq;
        let (frame, bytes) = entry.encoded(session.identity.user, session.device_number);
        if is_next && let Some(cost) = session.take_credit(*bytes) {
            advance(session, id, seq);
            self.effects.push_back(Effect::Deliver {
                session: key,
                conversation: id,
                lane: Lane::Live,
                frame: frame.clone(),
                cost,
            });
            return;
        }
        if let Some(subscription) = session.subscriptions.get_mut(&id) {
            subscription.heard_max = subscription.heard_max.max(seq);
        }
        self.fall_behind(key, id);
    }

    /// One that is live lags from now on.
    pub(super) fn fall_behind(&mut self, key: SessionKey, id: ConversationId) {
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        if session.subscriptions.get(&id).is_some_and(|known| known.progress == Progress::Live) {
            session.lag(id);
            self.pump(key);
        }
    }

    /// Begins to tell a session of a conversation that it has not resumed, once.
    pub(super) fn hint(&mut self, key: SessionKey, id: ConversationId) {
        if self.begin_hint(key, id, Progress::Hinting) {
            self.ask_state(key, id);
        }
    }

    /// Whether the session is to be told.
    pub(super) fn begin_hint(&mut self, key: SessionKey, id: ConversationId, progress: Progress) -> bool {
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return false };
        let places = SUBSCRIPTIONS_PER_SESSION_MAX;
        if let Some(subscription) = session.subscriptions.get_mut(&id) {
            let untold = subscription.progress == Progress::Stopped;
            if untold {
                subscription.progress = progress;
            }
            untold
        } else if session.subscriptions.len() < places {
            session.subscriptions.insert(id, Subscription::new(progress));
            true
        } else {
            // It has no place to remember that it was told; its client has as many as a session can and syncs later.
            false
        }
    }

    fn is_hinting(&self, key: SessionKey, id: ConversationId) -> bool {
        let session = self.sessions.directory.sessions.get(&key);
        session
            .and_then(|session| session.subscriptions.get(&id))
            .is_some_and(|subscription| subscription.progress == Progress::Hinting)
    }

    /// Asks for the state that a session is to be told, if it still is.
    pub(super) fn ask_state(&mut self, key: SessionKey, id: ConversationId) {
        if self.is_hinting(key, id) && self.ask(key, id, Question::State, AskTarget::State(key)).is_none() {
            self.sessions.waiting.push_back(Waiting::State(key, id));
        }
    }

    pub(super) fn on_state(
        &mut self,
        key: SessionKey,
        id: ConversationId,
        state: Option<Box<ConversationState>>,
    ) {
        if !self.is_hinting(key, id) {
            return;
        }
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        match (state, session.subscriptions.get_mut(&id)) {
            (Some(state), Some(subscription)) => {
                subscription.progress = Progress::Hinted;
                self.send(key, ServerFrame::Changed(*state));
            }
            _ => session.stop(id),
        }
    }

    /// Goes on with a session's lagging conversations, the first of them first, unless a page is under way.
    pub(super) fn pump(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        let Some(id) = session.lagging.front().copied() else { return };
        if session.reading || session.starved {
            return;
        }
        let credit = session.begin_reading();
        let Some(subscription) = session.subscriptions.get_mut(&id) else { return };
        subscription.recheck = false;
        let chain_wanted = subscription.skipped_from.is_some();
        let ask = PageAsk { from: subscription.next, chain_wanted, credit };
        if self.ask(key, id, Question::Page(ask), AskTarget::Page(key)).is_none() {
            self.sessions.waiting.push_back(Waiting::Page(key));
        }
    }

    /// The page that was asked for has come, or will not.
    pub(in crate::shard) fn go_on_reading(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.directory.sessions.get_mut(&key) {
            session.reading = false;
            self.pump(key);
        }
    }

    /// One that still lags cannot be read.
    pub(super) fn stop_lagging(&mut self, key: SessionKey, id: ConversationId, refusal: &Refusal) {
        let session = self.sessions.directory.sessions.get(&key);
        let subscription = session.and_then(|session| session.subscriptions.get(&id));
        if subscription.is_some_and(|subscription| subscription.progress == Progress::Lagging) {
            self.stop_delivery(key, id, refusal);
        }
    }

    /// A page for a conversation that lagged when it was asked for.
    pub(super) fn on_page(&mut self, key: SessionKey, id: ConversationId, page: PageAnswer) {
        let turn = self.deliver_page(key, id, page);
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        match turn {
            Turn::Wait => session.starve(),
            Turn::Done => session.unlag(id),
            Turn::Next if session.lagging.front() == Some(&id) => session.lagging.rotate_left(1),
            Turn::Next => {}
        }
        if matches!(turn, Turn::Done)
            && let Some(subscription) = session.subscriptions.get_mut(&id)
        {
            subscription.progress = Progress::Live;
        }
        self.go_on_reading(key);
    }

    fn deliver_page(&mut self, key: SessionKey, id: ConversationId, page: PageAnswer) -> Turn {
        let PageAnswer { from, truncated, chain_before, entries, end } = page;
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return Turn::Next };
        let Some(subscription) = session.subscriptions.get_mut(&id) else { return Turn::Next };
        // Resumed anew since, from elsewhere.
        if subscription.progress != Progress::Lagging || subscription.next != from {
            return Turn::Next;
        }
        if let Some((first_seq, chain)) = truncated {
            subscription.next = first_seq;
            subscription.skipped_from = None;
            subscription.sent_max = subscription.sent_max.max(first_seq - 1);
            let frame = ServerFrame::Truncated { conversation: id, first_seq, chain };
            self.effects.push_back(Effect::Send { session: key, frame });
        }
        if let (Some(from), Some(chain)) = (subscription.skipped_from, chain_before) {
            subscription.skipped_from = None;
            let to = subscription.next - 1;
            subscription.sent_max = subscription.sent_max.max(to);
            let frame = ServerFrame::Skipped { conversation: id, from, to, chain };
            self.effects.push_back(Effect::Send { session: key, frame });
        }
        for entry in &entries {
            let Some(cost) = session.take_credit(entry.encoded_len() as u64) else { return Turn::Wait };
            self.effects.push_back(deliver(key, id, entry, cost));
            advance(session, id, entry.seq);
        }
        match end {
            PageEnd::More => Turn::Next,
            PageEnd::NoCredit => Turn::Wait,
            PageEnd::CaughtUp { head, chain } => {
                let Some(subscription) = session.subscriptions.get_mut(&id) else { return Turn::Next };
                if subscription.recheck || subscription.heard_max > head {
                    return Turn::Next;
                }
                if !std::mem::replace(&mut subscription.told, true) {
                    self.send(key, ServerFrame::CaughtUp { conversation: id, head, chain });
                }
                Turn::Done
            }
        }
    }

    pub(in crate::shard) fn on_credit(&mut self, key: SessionKey, credit: talaria_protocol::message::Credit) {
        if let Some(session) = self.sessions.directory.sessions.get_mut(&key) {
            session.grant(credit);
            self.pump(key);
        }
    }
}

fn deliver(
    session: SessionKey,
    conversation: ConversationId,
    entry: &Entry,
    cost: talaria_protocol::message::Credit,
) -> Effect {
    let frame = encode_deliver(conversation, entry);
    Effect::Deliver { session, conversation, lane: Lane::Bulk, frame, cost }
}

fn advance(session: &mut Session, id: ConversationId, seq: u64) {
    if let Some(subscription) = session.subscriptions.get_mut(&id) {
        subscription.next = seq + 1;
        subscription.sent_max = subscription.sent_max.max(seq);
    }
}
