//! A shard, one of the N of a node. It has two sides, which know each other by messages only:
//!
//! * the **home** side has the conversations and users of its slots: it alone appends to them, judges who may see what,
//!   and orders the openings of a user's sessions;
//! * the **session** side has the sessions of its connections: what they were granted, how far they are, what they asked.
//!
//! The session side asks the home of a conversation or user (`question.rs`) and is answered (`answer.rs`); the
//! home fans entries out. Where both are on this shard a message goes through a queue inside [`Shard::handle`], else
//! by [`Effect::Post`]; all else is the same. One input at a time; effects queue up until they are polled. Nothing
//! waits: what needs the log or another shard is parked, in bounded queues, or refused as `Busy`.
//!
//! | file | what happens there |
//! |---|---|
//! | `mail` | messages: to itself, to others, not posted, a shard that begins anew |
//! | `under_way` | what the log was asked, within its bounds |
//! | `settle` | the log's word on operations and reads |
//! | **`home/`** | |
//! | `ask` | a conversation is loaded, asked, barred, unloaded |
//! | `append` | a request is admitted; its answer |
//! | `resume` | a cursor is compared with the log |
//! | `page` | the next entries for a session that lags |
//! | `lists` | history, members, the state |
//! | `fan_out` | a durable entry, to every shard with sessions of who sees it |
//! | `delivered` | how far each device is; it never goes back |
//! | `retain` | the oldest entries go |
//! | `users` | sessions are opened one after the other, and take over |
//! | **`session/`** | |
//! | `open` | sessions come and go |
//! | `request` | a request is resolved (users by id) and finds its conversation |
//! | `answer` | the answer of a home finds what waits for it |
//! | `resume` | cursors are offered, and acknowledged |
//! | `deliver` | live entries, catch-up, credit, hints |
//! | `lists` | what is read without a home: a user's conversations, what changed |
//! | `gap` | entries were left out; a home has begun anew |

mod home;
mod mail;
mod session;
mod settle;
mod under_way;

use std::{collections::VecDeque, sync::Arc};

use talaria_protocol::{
    error_code::ErrorCode,
    hlc::Hlc,
    message::{Credit, Durability, RequestId, server::ServerFrame},
};

use self::{
    home::Home,
    mail::Mail,
    session::Sessions,
    under_way::{OpTarget, ReadTarget, UnderWay},
};
use crate::{
    conversation::{Refusal, Stamp},
    effect::{Effect, Input, Now, OpId, ReadId, SessionKey},
    limits::{CONVERSATIONS_LOADED_MAX, SHARDS_MAX},
    log::{LogInfo, LogOp, ReadOp},
    peer::ShardId,
    salt::Salts,
    session_directory::SessionDirectory,
};

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Of the opened log.
    pub log: LogInfo,
    /// What the log's word means.
    pub durability: Durability,
    /// Randomness, for salts.
    pub seed: [u8; 32],
    /// Which of the node's shards.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u16,
    /// How often this shard has begun: 0 at first. All numbers that it gives out (operations, reads, questions) are of
    /// this incarnation; what comes back for an earlier one is ignored.
    pub incarnation: u32,
    /// An append of an earlier incarnation may be in the log or not, and nobody knows which: no send that fails may hear
    /// that surely nothing happened ([ERR-7]).
    pub is_in_doubt: bool,
    /// Of the node.
    pub sessions: Arc<SessionDirectory>,
}

/// How much waits in a shard's queues. At rest all are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Log operations under way.
    pub log_ops: usize,
    /// Bytes of those that append.
    pub log_bytes: usize,
    /// Reads under way.
    pub reads: usize,
    /// Pages for sessions that wait for a reader.
    pub waiting_to_read: usize,
    /// Sessions of this shard that are being opened.
    pub opening: usize,
    /// Sessions of any shard that wait to be opened at their user's home, this shard.
    pub opening_at_home: usize,
    /// Requests whose users are being looked up.
    pub resolving: usize,
    /// Inputs parked at conversations.
    pub parked: usize,
    /// Delivered cursors that are not in the log yet.
    pub cursors: usize,
    /// Questions under way, to this shard itself included.
    pub asks: usize,
    /// Sessions that wait until they can ask.
    pub waiting_to_ask: usize,
    /// Acknowledgements that wait to be posted.
    pub acks: usize,
    /// News of sessions that wait for room at other shards.
    pub control: usize,
    /// Conversations with gaps that other shards are still to be told of.
    pub gaps: usize,
    /// Users whose conversations are being looked through after a gap.
    pub sweeping: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    now: Now,
    hlc: Hlc,
    salts: Salts,
    home: Home,
    sessions: Sessions,
    mail: Mail,
    under_way: UnderWay,
    effects: VecDeque<Effect>,
}

impl Shard {
    /// A shard over an opened log. One that begins anew does so when all that its predecessor had handed to the log has
    /// ended: no conversation is ever loaded while an append of it is under way.
    pub fn new(config: ShardConfig, now: Now) -> Self {
        assert!(config.shard.0 < config.shards && config.shards <= SHARDS_MAX, "no such shard");
        Self {
            now,
            hlc: Hlc::from_ms(now.unix_ms),
            salts: Salts::new(config.seed),
            home: Home::new(config.shards),
            sessions: Sessions::new(config.sessions.clone(), config.shard, config.incarnation),
            mail: Mail::new(&config),
            under_way: UnderWay::new(config.incarnation),
            effects: VecDeque::new(),
            config,
        }
    }

    /// The same, with fewer conversations in memory than [`CONVERSATIONS_LOADED_MAX`].
    #[must_use]
    pub fn with_conversations_loaded_max(mut self, conversations: usize) -> Self {
        self.home.loaded_max = conversations.min(CONVERSATIONS_LOADED_MAX);
        self
    }

    /// Takes an input. Its effects are polled afterwards; they must be performed in their order.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Open { session, identity, credit, confirmed } => {
                self.on_open(session, identity, credit, confirmed);
            }
            Input::Confirm { session } => self.on_confirm(session),
            Input::Close { session } => self.on_close(session),
            Input::Request { session, request_id, request } => self.on_request(session, request_id, request),
            Input::Ack { session, conversation, up_to } => self.on_ack(session, conversation, up_to),
            Input::Resume { session, cursors } => self.on_resume(session, &cursors),
            Input::Credit { session, credit } => self.on_credit(session, credit),
            Input::Durable { op, outcome } => self.on_settled(op, outcome),
            Input::Read { read, answer } => self.on_read(read, answer),
            Input::Peer { from, message } => self.on_peer(from, message),
            Input::NotPosted { to, message } => self.on_not_posted(to, message),
            Input::Room { at } => self.on_room(at),
            Input::Restarted { shard, incarnation } => self.on_restarted(shard, incarnation),
            Input::Retain(retention) => self.on_retain(retention),
            Input::Timeout => {}
        }
        self.take_mail();
        self.do_what_is_due();
    }

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due, mono ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        [self.home.cursors.due_ms(), self.sessions.acks.due_ms(), self.sessions.ask_again_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// The clock, for `Welcome` and `Pong`.
    pub fn hlc(&mut self, now: Now) -> Hlc {
        self.hlc = self.hlc.max(Hlc::from_ms(now.unix_ms));
        self.hlc
    }

    /// Sessions of this shard.
    pub fn sessions(&self) -> usize {
        self.sessions.directory.sessions.len()
    }

    /// Sessions of users of this shard's slots, on whatever shard.
    pub fn registered(&self) -> usize {
        self.home.registered()
    }

    /// Conversations in memory.
    pub fn conversations_loaded(&self) -> usize {
        self.home.loaded.len()
    }

    /// Log operations and reads under way.
    pub fn under_way(&self) -> (usize, usize) {
        (self.under_way.ops(), self.under_way.reads())
    }

    /// What waits now. Looks at every conversation and user in memory.
    pub fn queues(&self) -> Queues {
        Queues {
            log_ops: self.under_way.ops(),
            log_bytes: self.under_way.op_bytes,
            reads: self.under_way.reads(),
            waiting_to_read: self.home.waiting_to_read.len(),
            opening: self.sessions.directory.opening.len(),
            opening_at_home: self.home.opening(),
            resolving: self.sessions.resolving.len(),
            parked: self.home.parked(),
            cursors: self.home.cursors.len(),
            asks: self.mail.asks(),
            waiting_to_ask: self.sessions.waiting(),
            acks: self.sessions.acks.len(),
            control: self.mail.control_kept(),
            gaps: self.mail.gaps(),
            sweeping: self.sessions.sweep.len(),
        }
    }

    fn do_what_is_due(&mut self) {
        let now_ms = self.now.mono_ms;
        if self.sessions.ask_again_ms.is_some_and(|due| due <= now_ms) {
            self.sessions.ask_again_ms = None;
            let longer = std::mem::take(&mut self.sessions.waiting_longer);
            self.sessions.waiting.extend(longer);
            self.ask_again();
            self.take_mail();
        }
        self.post_due_acks();
        self.commit_due_cursors();
    }

    fn stamp(&mut self) -> Stamp {
        self.hlc = self.hlc.tick(self.now.unix_ms);
        let boot_epoch = self.config.log.boots.last().map_or(1, |boot| boot.opened_ms / 1000);
        Stamp { hlc: self.hlc, salt: self.salts.draw(), boot_epoch }
    }

    fn boot_first_commit(&self) -> u64 {
        self.config.log.boots.last().map_or(0, |boot| boot.first_commit)
    }

    fn log(&mut self, what: LogOp, target: OpTarget) {
        let op = OpId(self.under_way.next_id());
        self.under_way.begin_op(op, target);
        self.effects.push_back(Effect::Log { op, what });
    }

    fn read(&mut self, what: ReadOp, target: ReadTarget) {
        let read = ReadId(self.under_way.next_id());
        self.under_way.begin_read(read, target);
        self.effects.push_back(Effect::Read { read, what });
    }

    fn send(&mut self, session: SessionKey, frame: ServerFrame) {
        self.effects.push_back(Effect::Send { session, frame });
    }

    fn reply(&mut self, session: SessionKey, request_id: RequestId, frame: ServerFrame) {
        self.reply_at_cost(session, request_id, frame, Credit::default());
    }

    fn reply_at_cost(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        frame: ServerFrame,
        cost: Credit,
    ) {
        if self.sessions.directory.sessions.contains_key(&session) {
            self.effects.push_back(Effect::Reply { session, request_id, frame, cost });
        }
    }

    fn refuse(&mut self, session: SessionKey, request_id: RequestId, refusal: &Refusal) {
        let frame = ServerFrame::Error {
            request_id: Some(request_id),
            conversation: None,
            code: refusal.code as u32,
            message: refusal.message.to_owned(),
            retry_after_ms: refusal.retry_after_ms,
        };
        self.reply(session, request_id, frame);
    }

    fn end(&mut self, session: SessionKey, code: ErrorCode, message: &str) {
        self.effects.push_back(Effect::End { session, code, message: message.to_owned() });
    }
}
