//! The answer of a home finds what waits for it. A session that is gone hears nothing.

use talaria_protocol::{
    ids::ConversationId,
    message::{
        RequestId,
        server::{Sent, ServerFrame},
    },
};

use super::Waiting;
use crate::{
    answer::Answer,
    conversation::{Appended, Refusal},
    effect::SessionKey,
    limits::ASK_AGAIN_MS,
    shard::{
        Shard,
        mail::{AskTarget, Asked},
    },
};

impl Shard {
    pub(in crate::shard) fn on_answer(&mut self, asked: Asked, answer: Answer) {
        let Asked { ask, conversation: id, target, .. } = asked;
        match (target, answer) {
            (_, Answer::Refused(refusal)) => self.on_refused(asked, &refusal),
            (AskTarget::Open(session, user), Answer::Opened { device_number, confirmed }) => {
                self.on_opened(session, user, device_number, confirmed);
            }
            (AskTarget::Append(session, request_id), Answer::Appended(appended, state)) => {
                self.on_appended(session, request_id, appended, state);
            }
            (AskTarget::Members(session, request_id), Answer::Members(members, next_page)) => {
                self.reply(session, request_id, ServerFrame::MemberList { request_id, members, next_page });
            }
            (AskTarget::History(session, request_id, direction), Answer::History(page)) => {
                self.on_history_page(session, request_id, id, direction, page);
            }
            (AskTarget::Resume(session), Answer::Resumed(resumed)) => {
                self.on_resumed(session, id, ask, &resumed);
            }
            (AskTarget::Page(session), Answer::Page(page)) => self.on_page(session, id, page),
            (AskTarget::State(session), Answer::State(state)) => self.on_state(session, id, state),
            (target, answer) => debug_assert!(false, "{answer:?} to {target:?}"),
        }
    }

    fn on_refused(&mut self, asked: Asked, refusal: &Refusal) {
        let Asked { ask, conversation: id, target, .. } = asked;
        match target {
            AskTarget::Open(session, _) => self.refuse_open(session, refusal),
            AskTarget::Append(session, request_id)
            | AskTarget::Members(session, request_id)
            | AskTarget::History(session, request_id, _) => self.refuse(session, request_id, refusal),
            AskTarget::Resume(session) => self.stop_resuming(session, id, ask, refusal),
            AskTarget::Page(session) => {
                self.stop_lagging(session, id, refusal);
                self.go_on_reading(session);
            }
            AskTarget::State(session) => {
                self.sessions.waiting_longer.push_back(Waiting::State(session, id));
                self.ask_again_later();
            }
        }
    }

    fn on_appended(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        appended: Appended,
        state: Option<Box<talaria_protocol::message::ConversationState>>,
    ) {
        let Appended { seq, epoch, hlc, duplicate } = appended;
        let frame = match state {
            None => {
                let durability = self.config.durability;
                ServerFrame::Sent(Sent { request_id, seq, epoch, hlc, durability, duplicate })
            }
            Some(state) => {
                ServerFrame::ConversationResult { request_id, conversation: *state, seq, duplicate }
            }
        };
        self.reply(session, request_id, frame);
    }

    /// What waits is asked again in a while, should nothing else set it off.
    pub(in crate::shard) fn ask_again_later(&mut self) {
        self.sessions.ask_again_ms.get_or_insert(self.now.mono_ms + ASK_AGAIN_MS);
    }

    /// There may be room for what waits.
    pub(in crate::shard) fn ask_again(&mut self) {
        self.go_on_sweeping();
        for _ in 0..self.sessions.waiting.len() {
            if !self.mail.can_ask_others() {
                return;
            }
            match self.sessions.waiting.pop_front() {
                Some(Waiting::Page(session)) => self.go_on_reading(session),
                Some(Waiting::State(session, id)) => self.ask_state(session, id),
                None => {}
            }
        }
    }

    /// Ends the delivery of a conversation to a session, and says why.
    pub(super) fn stop_delivery(&mut self, session: SessionKey, id: ConversationId, refusal: &Refusal) {
        let Some(state) = self.sessions.directory.sessions.get_mut(&session) else { return };
        state.stop(id);
        let frame = ServerFrame::Error {
            request_id: None,
            conversation: Some(id),
            code: refusal.code as u32,
            message: refusal.message.to_owned(),
            retry_after_ms: refusal.retry_after_ms,
        };
        self.send(session, frame);
    }
}
