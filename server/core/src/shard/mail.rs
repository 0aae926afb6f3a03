//! Messages between the two sides, on this shard or between two. To itself a shard talks through a queue that is empty
//! again when an input has been handled; to others by [`Effect::Post`], whose refusals come back and are made good
//! here: a question fails, acknowledgements are collected again, news of sessions are kept, a fan-out becomes a gap.

use std::collections::{BTreeMap, HashMap, VecDeque};

use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ConversationId, UserId},
    message::{Direction, RequestId},
};

use super::{Shard, ShardConfig, session::Waiting};
use crate::{
    answer::Answer,
    conversation::Refusal,
    effect::{Effect, SessionKey},
    gap::Gaps,
    limits::PEER_ASKS_IN_FLIGHT_MAX,
    peer::{AskId, Asking, Body, Control, PeerClass, PeerMessage, ShardId},
    placement::shard_of,
    question::Question,
};

/// What waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum AskTarget {
    Open(SessionKey, UserId),
    Append(SessionKey, RequestId),
    Members(SessionKey, RequestId),
    History(SessionKey, RequestId, Direction),
    Resume(SessionKey),
    Page(SessionKey),
    State(SessionKey),
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) to: ShardId,
    pub(super) ask: AskId,
    /// Of a user's home: all zeros.
    pub(super) conversation: ConversationId,
    pub(super) target: AskTarget,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mail {
    shard: ShardId,
    to_itself: VecDeque<Body>,
    asks: HashMap<AskId, Asked>,
    /// How many of the questions are other shards'.
    asks_of_others: usize,
    /// Of all shards, as this one knows them.
    incarnations: Vec<u32>,
    /// News of sessions that found no room: per shard, the newest of each.
    kept: Vec<BTreeMap<SessionKey, Control>>,
    gaps: Vec<Gaps>,
}

impl Mail {
    pub(super) fn new(config: &ShardConfig) -> Self {
        let incarnation = |shard| match ShardId(shard) {
            shard if shard == config.shard => config.incarnation,
            shard => config.sessions.incarnation(shard),
        };
        Self {
            shard: config.shard,
            to_itself: VecDeque::new(),
            asks: HashMap::new(),
            asks_of_others: 0,
            incarnations: (0..config.shards).map(incarnation).collect(),
            kept: (0..config.shards).map(|_| BTreeMap::new()).collect(),
            gaps: (0..config.shards).map(|_| Gaps::default()).collect(),
        }
    }

    pub(super) fn asks(&self) -> usize {
        self.asks.len()
    }

    pub(super) fn control_kept(&self) -> usize {
        self.kept.iter().map(BTreeMap::len).sum()
    }

    pub(super) fn gaps(&self) -> usize {
        self.gaps.iter().map(Gaps::len).sum()
    }

    /// A question to another shard has a place.
    pub(super) fn can_ask_others(&self) -> bool {
        self.asks_of_others < PEER_ASKS_IN_FLIGHT_MAX
    }

    fn can_ask(&self, to: ShardId) -> bool {
        to == self.shard || self.can_ask_others()
    }

    fn begin(&mut self, asked: Asked) {
        self.asks_of_others += usize::from(asked.to != self.shard);
        self.asks.insert(asked.ask, asked);
    }

    fn end(&mut self, ask: AskId) -> Option<Asked> {
        let asked = self.asks.remove(&ask)?;
        self.asks_of_others -= usize::from(asked.to != self.shard);
        Some(asked)
    }

    fn incarnation(&self, shard: ShardId) -> u32 {
        self.incarnations.get(usize::from(shard.0)).copied().unwrap_or(0)
    }

    fn keep(&mut self, to: ShardId, session: SessionKey, control: Control) {
        let Some(kept) = self.kept.get_mut(usize::from(to.0)) else { return };
        let control = match (kept.remove(&session), control) {
            (Some(Control::Register { identity, .. }), Control::Confirm { .. }) => {
                Control::Register { identity, confirmed: true }
            }
            (_, control) => control,
        };
        kept.insert(session, control);
    }

    pub(super) fn gaps_of(&mut self, to: ShardId) -> Option<&mut Gaps> {
        self.gaps.get_mut(usize::from(to.0))
    }
}

impl Shard {
    /// The shard that owns a conversation.
    pub(super) fn home_of(&self, conversation: ConversationId) -> ShardId {
        match self.config.shards {
            1 => self.config.shard,
            shards => ShardId(shard_of(conversation.slot(), shards)),
        }
    }

    /// The shard that owns a user.
    pub(super) fn home_of_user(&self, user: UserId) -> ShardId {
        match self.config.shards {
            1 => self.config.shard,
            shards => ShardId(shard_of(user.slot(), shards)),
        }
    }

    /// Hands a message over, to itself or to another.
    pub(super) fn post(&mut self, to: ShardId, body: Body) {
        if to == self.config.shard {
            return self.mail.to_itself.push_back(body);
        }
        let (from, incarnation) = (self.config.incarnation, self.mail.incarnation(to));
        let message = PeerMessage { from, to: incarnation, body };
        self.effects.push_back(Effect::Post { to, message });
    }

    /// News of a session. Behind one of it that waits for room it waits too.
    pub(super) fn post_control(&mut self, to: ShardId, session: SessionKey, control: Control) {
        if self.mail.kept.get(usize::from(to.0)).is_some_and(|kept| kept.contains_key(&session)) {
            return self.mail.keep(to, session, control);
        }
        self.post(to, Body::Control(session, control));
    }

    /// Registers a question that `body` makes; `None`: as many are under way as may be.
    pub(super) fn begin_ask(
        &mut self,
        to: ShardId,
        conversation: ConversationId,
        target: AskTarget,
    ) -> Option<AskId> {
        if !self.mail.can_ask(to) {
            return None;
        }
        let ask = self.under_way.next_ask();
        self.mail.begin(Asked { to, ask, conversation, target });
        Some(ask)
    }

    /// Asks a conversation for a session; `None`: as many questions are under way as may be.
    pub(super) fn ask(
        &mut self,
        session: SessionKey,
        conversation: ConversationId,
        question: Question,
        target: AskTarget,
    ) -> Option<AskId> {
        let state = self.sessions.directory.sessions.get(&session)?;
        let (user, device, device_number) = (state.identity.user, state.identity.device, state.device_number);
        let to = self.home_of(conversation);
        let ask = self.begin_ask(to, conversation, target)?;
        let asking = Asking { shard: self.config.shard, ask, user, device, device_number };
        self.post(to, Body::Ask(asking, conversation, question));
        Some(ask)
    }

    /// Answers a question, unless nobody waits for that.
    pub(super) fn answer(&mut self, shard: ShardId, ask: AskId, answer: Answer) {
        if ask != AskId(0) {
            self.post(shard, Body::Answer(ask, answer));
        }
    }

    /// Takes what the shard has said to itself, until there is no more.
    pub(super) fn take_mail(&mut self) {
        while let Some(body) = self.mail.to_itself.pop_front() {
            self.on_body(self.config.shard, body);
        }
    }

    pub(super) fn on_peer(&mut self, from: ShardId, message: PeerMessage) {
        let of_its_sessions = matches!(message.class(), PeerClass::Ask | PeerClass::Control);
        if of_its_sessions && message.from != self.mail.incarnation(from) {
            return;
        }
        let asks = matches!(message.body, Body::Ask(..) | Body::Open(_));
        if asks && message.to != self.config.incarnation {
            return;
        }
        self.on_body(from, message.body);
    }

    fn on_body(&mut self, from: ShardId, body: Body) {
        match body {
            Body::Ask(asking, conversation, question) => self.ask_here(asking, conversation, question),
            Body::Open(open) => self.open_here(open),
            Body::Acks(acks) => self.on_acks(&acks),
            Body::Answer(ask, answer) => {
                if let Some(asked) = self.mail.end(ask) {
                    self.on_answer(asked, answer);
                }
                if from != self.config.shard {
                    self.ask_again();
                }
            }
            Body::Control(session, control) => self.on_control(from, session, control),
            Body::FanOut(fan_out) => self.on_fan_out(&fan_out),
            Body::Gap(gap) => self.on_gap(from, gap),
        }
    }

    fn on_control(&mut self, from: ShardId, session: SessionKey, control: Control) {
        match control {
            Control::Closed { user } => self.close_here(user, session),
            Control::Confirm { user } => self.confirm_here(user, session),
            Control::Register { identity, confirmed } => {
                self.register_here(from, session, &identity, confirmed);
            }
            Control::TakeOver => self.on_taken_over(session),
        }
    }

    pub(super) fn on_not_posted(&mut self, to: ShardId, message: PeerMessage) {
        match message.body {
            Body::Ask(Asking { ask, .. }, ..) => self.fail_ask(ask, Failure::NotPosted),
            Body::Open(open) => self.fail_ask(open.ask, Failure::NotPosted),
            Body::Acks(acks) => self.put_back_acks(to, &acks),
            Body::Control(session, control) => self.mail.keep(to, session, control),
            Body::FanOut(fan_out) => {
                if let Some(gaps) = self.mail.gaps_of(to) {
                    gaps.add(fan_out.entry.conversation, &fan_out.users, fan_out.entry.commit);
                }
            }
            Body::Gap(gap) => {
                if let Some(gaps) = self.mail.gaps_of(to) {
                    gaps.put_back(gap);
                }
            }
            Body::Answer(..) => debug_assert!(false, "an answer has its place"),
        }
    }

    /// What was kept for a shard is posted again; what is refused comes back, and waits for the next room.
    pub(super) fn on_room(&mut self, at: ShardId) {
        let kept = self.mail.kept.get_mut(usize::from(at.0)).map(std::mem::take).unwrap_or_default();
        for (session, control) in kept {
            self.post(at, Body::Control(session, control));
        }
        while let Some(gap) = self.mail.gaps_of(at).and_then(Gaps::take) {
            self.post(at, Body::Gap(gap));
        }
        self.sessions.on_room(at);
        self.ask_again();
    }

    /// Another shard has begun anew: see [`crate::effect::Input::Restarted`].
    pub(super) fn on_restarted(&mut self, shard: ShardId, incarnation: u32) {
        // A shard that began after it knows already, and has asked that incarnation only.
        if shard == self.config.shard || self.mail.incarnation(shard) >= incarnation {
            return;
        }
        if let Some(known) = self.mail.incarnations.get_mut(usize::from(shard.0)) {
            *known = incarnation;
        }
        if let Some(kept) = self.mail.kept.get_mut(usize::from(shard.0)) {
            kept.clear();
        }
        self.forget_sessions_of(shard);
        let mut lost: Vec<AskId> =
            self.mail.asks.values().filter(|asked| asked.to == shard).map(|asked| asked.ask).collect();
        lost.sort_unstable();
        for ask in lost {
            self.fail_ask(ask, Failure::Lost);
        }
        self.sessions.on_room(shard);
        self.register_again(shard);
        self.on_home_lost(shard);
        self.ask_again();
    }

    /// A question will not be answered.
    fn fail_ask(&mut self, ask: AskId, failure: Failure) {
        let Some(Asked { to, conversation, target, .. }) = self.mail.end(ask) else { return };
        let busy = Refusal::busy("the shard of what was asked has too much to do");
        match target {
            AskTarget::Open(session, _) => self.refuse_open(session, &busy),
            AskTarget::Append(session, request_id) => {
                let refusal = if failure == Failure::Lost { outcome_unknown() } else { busy };
                self.refuse(session, request_id, &refusal);
            }
            AskTarget::Members(session, request_id) | AskTarget::History(session, request_id, _) => {
                self.refuse(session, request_id, &busy);
            }
            AskTarget::Resume(session) => self.stop_resuming(session, conversation, ask, &busy),
            AskTarget::Page(session) if failure == Failure::Lost => self.go_on_reading(session),
            // They try again when there is room there, which is told.
            AskTarget::Page(session) => self.sessions.wait_for_room(to, Waiting::Page(session)),
            AskTarget::State(session) => {
                self.sessions.wait_for_room(to, Waiting::State(session, conversation));
            }
        }
    }
}

/// Why a question will not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It never reached its shard.
    NotPosted,
    /// Its shard has begun anew.
    Lost,
}

fn outcome_unknown() -> Refusal {
    Refusal::new(
        ErrorCode::OutcomeUnknown,
        "the shard of this conversation has begun anew: send again, same id",
    )
}
