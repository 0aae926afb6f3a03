//! A session offers cursors, and acknowledges what it was sent. Both go to the conversations' homes; acknowledgements for
//! other shards are collected, the newest of each device, and posted together.

use std::collections::BTreeMap;

use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ConversationId, DeviceId, UserId},
    message::{Cursor, server::ServerFrame},
};

use crate::{
    answer::Resumed,
    conversation::Refusal,
    effect::SessionKey,
    limits::{ACK_DELAY_MS_MAX, ACKS_PER_MESSAGE, ACKS_WAITING_MAX, SUBSCRIPTIONS_PER_SESSION_MAX},
    peer::{Ack, AskId, Body, ShardId},
    question::Question,
    session::{Progress, Subscription},
    shard::{Shard, mail::AskTarget},
};

/// Acknowledgements that wait to be posted, by home.
#[derive(Debug, Default)]
pub(in crate::shard) struct Acks {
    waiting: BTreeMap<ShardId, BTreeMap<(ConversationId, UserId, DeviceId), u64>>,
    count: usize,
    due_ms: Option<u64>,
}

impl Acks {
    pub(in crate::shard) fn len(&self) -> usize {
        self.count
    }

    pub(in crate::shard) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether enough wait for this home to be posted now.
    fn add(&mut self, to: ShardId, ack: Ack, now_ms: u64) -> bool {
        let waiting = self.waiting.entry(to).or_default();
        let key = (ack.conversation, ack.user, ack.device);
        if self.count >= ACKS_WAITING_MAX && !waiting.contains_key(&key) {
            return false;
        }
        let up_to = waiting.entry(key).or_insert_with(|| {
            self.count += 1;
            0
        });
        *up_to = ack.up_to.max(*up_to);
        self.due_ms.get_or_insert(now_ms + ACK_DELAY_MS_MAX);
        waiting.len() >= ACKS_PER_MESSAGE
    }

    /// The next of those that wait for this home.
    fn take(&mut self, to: ShardId) -> Vec<Ack> {
        let Some(waiting) = self.waiting.get_mut(&to) else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < ACKS_PER_MESSAGE
            && let Some(((conversation, user, device), up_to)) = waiting.pop_first()
        {
            taken.push(Ack { conversation, user, device, up_to });
        }
        self.count -= taken.len();
        if waiting.is_empty() {
            self.waiting.remove(&to);
        }
        taken
    }
}

impl Shard {
    pub(in crate::shard) fn on_resume(&mut self, session: SessionKey, cursors: &[(ConversationId, Cursor)]) {
        for (id, cursor) in cursors {
            let Some(state) = self.sessions.directory.sessions.get_mut(&session) else { return };
            let known = state.subscriptions.contains_key(id);
            if !known && state.subscriptions.len() >= SUBSCRIPTIONS_PER_SESSION_MAX {
                let refusal =
                    Refusal::busy("this session has resumed as many conversations as a session can");
                self.stop_delivery(session, *id, &refusal);
                continue;
            }
            state.unlag(*id);
            let Some(ask) = self.ask(session, *id, Question::Resume(*cursor), AskTarget::Resume(session))
            else {
                self.stop_delivery(session, *id, &Refusal::busy("too many questions are under way"));
                continue;
            };
            let Some(state) = self.sessions.directory.sessions.get_mut(&session) else { return };
            let progress = Progress::Resuming(ask);
            let subscription = state.subscriptions.entry(*id).or_insert(Subscription::new(progress));
            subscription.progress = progress;
            subscription.next = cursor.seq.saturating_add(1);
            subscription.told = false;
            subscription.skipped_from = None;
        }
    }

    fn is_resuming(&self, session: SessionKey, id: ConversationId, ask: AskId) -> bool {
        let state = self.sessions.directory.sessions.get(&session);
        state
            .and_then(|state| state.subscriptions.get(&id))
            .is_some_and(|subscription| subscription.progress == Progress::Resuming(ask))
    }

    /// A cursor that no later one has replaced is refused.
    pub(in crate::shard) fn stop_resuming(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        ask: AskId,
        refusal: &Refusal,
    ) {
        if self.is_resuming(session, id, ask) {
            self.stop_delivery(session, id, refusal);
        }
    }

    pub(super) fn on_resumed(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        ask: AskId,
        resumed: &Resumed,
    ) {
        if !self.is_resuming(session, id, ask) {
            return;
        }
        let Some(state) = self.sessions.directory.sessions.get_mut(&session) else { return };
        match *resumed {
            Resumed::Good { held, truncated, next, skipped_from } => {
                if let Some(subscription) = state.subscriptions.get_mut(&id) {
                    subscription.next = next;
                    subscription.skipped_from = skipped_from;
                    subscription.sent_max = subscription.sent_max.max(held);
                }
                state.lag(id);
                if let Some((first_seq, chain)) = truncated {
                    self.send(session, ServerFrame::Truncated { conversation: id, first_seq, chain });
                }
                self.pump(session);
            }
            Resumed::Fork { first_seq, chain, epoch } => {
                state.stop(id);
                self.send(session, ServerFrame::EpochChanged { conversation: id, first_seq, chain, epoch });
            }
        }
    }

    pub(in crate::shard) fn on_ack(&mut self, session: SessionKey, id: ConversationId, up_to: u64) {
        let Some(state) = self.sessions.directory.sessions.get_mut(&session) else { return };
        // One that was stopped, and perhaps hinted at since: its client does not know yet ([DLV-21]).
        let Some(subscription) = state.subscriptions.get_mut(&id) else { return };
        if matches!(subscription.progress, Progress::Hinting | Progress::Hinted | Progress::Stopped) {
            return;
        }
        if up_to > subscription.sent_max {
            return self.end_for(
                session,
                ErrorCode::ProtocolViolation,
                "Ack.up_to: more than was sent [DLV-21]",
            );
        }
        if up_to <= subscription.acked {
            return;
        }
        subscription.acked = up_to;
        let (user, device) = (state.identity.user, state.identity.device);
        let ack = Ack { conversation: id, user, device, up_to };
        let home = self.home_of(id);
        if home == self.config.shard {
            self.on_acks(&[ack]);
        } else if self.sessions.acks.add(home, ack, self.now.mono_ms) {
            self.post_acks(home);
        }
    }

    fn post_acks(&mut self, home: ShardId) {
        let acks = self.sessions.acks.take(home);
        self.post(home, Body::Acks(acks));
    }

    pub(in crate::shard) fn post_due_acks(&mut self) {
        if self.sessions.acks.due_ms.is_none_or(|due| self.now.mono_ms < due) {
            return;
        }
        self.sessions.acks.due_ms = None;
        while let Some(home) = self.sessions.acks.waiting.keys().next().copied() {
            self.post_acks(home);
        }
    }

    /// They found no room: they wait again.
    pub(in crate::shard) fn put_back_acks(&mut self, home: ShardId, acks: &[Ack]) {
        for ack in acks {
            self.sessions.acks.add(home, *ack, self.now.mono_ms);
        }
    }
}
