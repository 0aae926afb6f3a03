//! What the server says on an open session.

use talaria_protocol::{
    error_code::ErrorCode,
    hlc::Hlc,
    ids::ConversationId,
    message::{
        ConversationState, Cursor, RequestId,
        server::{HistoryPage, Sent, ServerFrame},
    },
    session::Millis,
};

use super::{Effect, Engine, Purpose, batch::After};
use crate::{
    ask::Answer,
    backoff::retry_delay,
    event::{Acknowledged, DamageKind, Event, SendFailure},
    outbox::{Refusal, Resolved},
    store::LocalId,
    timeline::{Fork, LeftOut, Timeline},
};

impl Engine {
    pub(super) fn on_frame(&mut self, now: Millis, frame: ServerFrame) {
        match frame {
            ServerFrame::Deliver { conversation, entry } => self.on_deliver(now, conversation, entry),
            ServerFrame::CaughtUp { conversation, head, chain } => {
                self.on_caught_up(now, conversation, head, chain);
            }
            ServerFrame::Changed(state) => {
                self.want_live(state.conversation);
                self.tell(Event::Conversation(state));
            }
            ServerFrame::Skipped { conversation, from, to, chain } => {
                self.on_left_out(now, conversation, LeftOut { from, to, chain });
            }
            ServerFrame::Truncated { conversation, first_seq, chain } => {
                let to = first_seq.saturating_sub(1);
                self.on_left_out(now, conversation, LeftOut { from: 0, to, chain });
            }
            ServerFrame::EpochChanged { conversation, first_seq, chain, epoch } => {
                let cursor = Cursor { epoch, seq: first_seq.saturating_sub(1), chain };
                self.on_epoch_changed(now, conversation, Fork { first_seq, cursor });
            }
            ServerFrame::Error { request_id: None, conversation: Some(conversation), code, .. } => {
                self.on_delivery_stopped(now, conversation, code);
            }
            frame => {
                let purpose =
                    frame.request_id().and_then(|id| Some((id, self.live()?.1.requests.remove(&id)?)));
                if let Some((id, purpose)) = purpose {
                    self.on_answer(now, id, purpose, frame);
                }
            }
        }
    }

    fn on_answer(&mut self, now: Millis, request_id: RequestId, purpose: Purpose, frame: ServerFrame) {
        match (purpose, frame) {
            (purpose, ServerFrame::Error { code, message, retry_after_ms, .. }) => {
                self.on_error(now, request_id, purpose, code, message, retry_after_ms);
            }
            (Purpose::Send, ServerFrame::Sent(sent)) => self.on_sent(&sent),
            (Purpose::Sync, ServerFrame::SyncResult { token, reset, conversations, next_page, .. }) => {
                let timelines = &self.timelines;
                let held = |id| timelines.get(&id).map_or(0, |timeline| timeline.applied().seq);
                if let super::Link::Open(open) = &mut self.link
                    && let Some(live) = &mut open.live
                {
                    live.sync.on_page(token, reset, &conversations, next_page, held);
                }
                self.on_listed(conversations);
            }
            (Purpose::Reauth, ServerFrame::Reauthed { token_expires_ms, .. }) => {
                self.on_reauthed(now, token_expires_ms);
            }
            (Purpose::Fetch(conversation), ServerFrame::HistoryPage(page)) => {
                self.on_fetched(now, conversation, &page);
            }
            (Purpose::Ask(ask_id), frame) => {
                if let ServerFrame::HistoryPage(page) = &frame {
                    self.consume_page(now, page);
                }
                if let Some(answer) = self.asks.on_answered(ask_id, frame) {
                    if let Ok(Answer::Conversation(state)) = &answer {
                        self.on_conversation(state);
                    }
                    self.effects.push_back(Effect::Answer(ask_id, answer));
                }
            }
            // An answer of another kind than the request: the server is broken, the request gets no answer.
            _ => {}
        }
    }

    fn on_error(
        &mut self,
        now: Millis,
        request_id: RequestId,
        purpose: Purpose,
        code: u32,
        message: String,
        retry_after_ms: u32,
    ) {
        match purpose {
            Purpose::Send => self.on_send_refused(now, request_id, code, message, retry_after_ms),
            Purpose::Ask(ask_id) => {
                let end = self.asks.on_refused(ask_id, code, message, retry_after_ms, now, &mut self.rng);
                if let Some(error) = end {
                    self.effects.push_back(Effect::Answer(ask_id, Err(error)));
                }
            }
            Purpose::Sync => {
                let not_before = now.after(retry_delay(retry_after_ms.max(100), &mut self.rng));
                if let Some((_, live)) = self.live() {
                    live.sync.on_refused(not_before);
                }
            }
            Purpose::Reauth => self.postpone_reauth(now),
            Purpose::Fetch(conversation) => {
                let at = now.after(retry_delay(retry_after_ms.max(100), &mut self.rng));
                self.to_fetch.insert(conversation, at);
            }
        }
    }

    fn on_listed(&mut self, conversations: Vec<ConversationState>) {
        let held: Vec<_> = self.timelines.keys().copied().collect();
        for conversation in held {
            let moved = self.moved.as_ref();
            if matches!(&self.link, super::Link::Open(open) if open.live.as_ref().is_some_and(|live| live.sync.is_doubted(conversation, moved)))
            {
                self.want_live(conversation);
            }
        }
        for state in conversations {
            self.want_live(state.conversation);
            self.tell(Event::Conversation(state));
        }
        self.keep_sync_token();
    }

    /// The token is kept once all that was listed with it is applied, in a batch not before that.
    pub(super) fn keep_sync_token(&mut self) {
        if let Some((_, live)) = self.live()
            && let Some((token, moved)) = live.sync.take_token()
        {
            self.moved = Some(moved);
            self.sync_token = Some(token);
            self.batches.batch().sync_token = Some(token);
        }
    }

    /// A request made it known.
    fn on_conversation(&mut self, state: &ConversationState) {
        if !self.timelines.contains_key(&state.conversation) {
            self.tell(Event::Conversation(state.clone()));
        }
        self.want_live(state.conversation);
    }

    fn on_sent(&mut self, sent: &Sent) {
        self.stats.dedup_hits += u64::from(sent.duplicate);
        let timelines = &self.timelines;
        let held = |id| timelines.get(&id).map_or(0, |timeline| timeline.applied().seq);
        let Some(resolved) = self.outbox.on_sent(sent, held) else { return };
        if resolved.gone {
            self.batches.remove(resolved.local_id);
        }
        self.want_live(resolved.conversation);
        if !resolved.first {
            return;
        }
        let acknowledged = Acknowledged {
            local_id: resolved.local_id,
            id: resolved.id,
            conversation: resolved.conversation,
            seq: sent.seq,
            epoch: sent.epoch,
            hlc: sent.hlc,
            durability: sent.durability,
            duplicate: sent.duplicate,
        };
        self.stats.acknowledged += 1;
        self.effects.push_back(Effect::Acknowledged(acknowledged));
        self.tell(Event::Acknowledged(acknowledged));
    }

    /// An own entry says that its message is in the log.
    pub(super) fn acknowledge(&mut self, resolved: Resolved, epoch: u64, hlc: Hlc) {
        let durability = self.welcome().map(|welcome| welcome.durability).unwrap_or_default();
        let acknowledged = Acknowledged {
            local_id: resolved.local_id,
            id: resolved.id,
            conversation: resolved.conversation,
            seq: resolved.seq,
            epoch,
            hlc,
            durability,
            duplicate: false,
        };
        self.stats.acknowledged += 1;
        self.batches.after(After::Do(Effect::Acknowledged(acknowledged)));
        self.tell(Event::Acknowledged(acknowledged));
    }

    fn on_send_refused(
        &mut self,
        now: Millis,
        request_id: RequestId,
        code: u32,
        message: String,
        retry_after_ms: u32,
    ) {
        let known = ErrorCode::from_wire(code);
        if known == Some(ErrorCode::IdFromFuture)
            && let Some((session, _)) = self.live()
            && let Some(unix_ms) = session.server_unix_ms(now)
        {
            self.mint.forget_future(unix_ms);
        }
        let batch = self.batches.number();
        match self.outbox.on_refused(request_id, known, retry_after_ms, now, &mut self.rng, batch) {
            Some(Refusal::Retried) => self.stats.retries += 1,
            Some(Refusal::NeedsProof(conversation)) => {
                self.stats.retries += 1;
                let new = || Timeline::new(conversation, Cursor::START);
                if self.timelines.entry(conversation).or_insert_with(new).want_proof() {
                    self.to_resume.insert(conversation);
                }
            }
            Some(Refusal::Failed(conversation, local_id)) => {
                self.give_up(conversation, local_id, SendFailure::Refused { code, message });
            }
            None => {}
        }
    }

    pub(super) fn give_up(&mut self, conversation: ConversationId, local_id: LocalId, failure: SendFailure) {
        self.stats.failed += 1;
        self.batches.remove(local_id);
        self.batches.after(After::Do(Effect::Failed(local_id, failure.clone())));
        self.tell(Event::Failed { local_id, conversation, failure });
    }

    /// A `Resume` was refused, or a delivery has stopped ([DLV-46]).
    fn on_delivery_stopped(&mut self, now: Millis, conversation: ConversationId, code: u32) {
        let known = ErrorCode::from_wire(code);
        match known {
            Some(ErrorCode::ChainMismatch) => self.damage(now, conversation, DamageKind::ChainMismatch),
            Some(ErrorCode::NotFound) => self.on_gone(now, conversation),
            _ => {
                let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
                let dropped = timeline.on_refused(now);
                if known.is_some_and(ErrorCode::retryable) {
                    self.gaps.insert(conversation);
                }
                self.consume_all(now, &dropped);
            }
        }
    }

    fn consume_page(&mut self, now: Millis, page: &HistoryPage) {
        self.last_delivery = now;
        for entry in &page.entries {
            let cost = self.receive(1, entry.encoded_len());
            self.consume(now, cost);
        }
    }
}
