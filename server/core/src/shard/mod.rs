//! A shard: the conversations and users of its slots, the sessions of its connections, and what is under way to
//! and from the log. One input at a time; effects queue up until they are polled. It never waits: what needs
//! the log is parked, in bounded queues, or refused as `Busy`.
//!
//! | file | what happens there |
//! |---|---|
//! | `open` | sessions come and go |
//! | `request` | a request is resolved (users by id) and finds its conversation |
//! | `ask` | a conversation is loaded, asked, barred, unloaded |
//! | `settle` | the log's word on an operation |
//! | `resume` | a cursor is compared with the log |
//! | `deliver` | fan-out, catch-up, credit |
//! | `lists` | history, members, conversations, sync |

mod ask;
mod deliver;
mod lists;
mod open;
mod request;
mod resume;
mod settle;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use talaria_protocol::{
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{ConversationId, UserId},
    message::{Credit, Durability, RequestId, server::ServerFrame},
};

use self::{ask::Slot, open::OpeningWrite, request::Resolving};
use crate::{
    conversation::{Appended, Doubtful, Refusal, ReplyKind, Stamp, Waiter},
    cursors::Cursors,
    directory::Directory,
    effect::{Effect, Input, Now, OpId, ReadId, SessionKey},
    limits::{
        CONVERSATIONS_LOADED_MAX, LOG_BYTES_IN_FLIGHT_MAX, LOG_OPS_IN_FLIGHT_MAX, LOG_OPS_RESERVED,
        READS_IN_FLIGHT_MAX,
    },
    log::{CursorWrite, LogInfo, LogOp, ReadOp},
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
    /// How often this shard has begun: 0 at first.
    pub incarnation: u32,
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
    /// Sessions whose catch-up waits for a reader.
    pub waiting_to_read: usize,
    /// Sessions that are being opened.
    pub opening: usize,
    /// Requests whose users are being looked up.
    pub resolving: usize,
    /// Inputs parked at conversations.
    pub parked: usize,
    /// Delivered cursors that are not in the log yet.
    pub cursors: usize,
}

/// Why an operation is under way.
#[derive(Debug)]
enum OpTarget {
    /// An append of this conversation, of so many bytes.
    Append(ConversationId, usize),
    /// A session is opening.
    Open(OpeningWrite),
    /// Nobody waits for it.
    Cursors(Vec<CursorWrite>),
}

/// Why a read is under way.
#[derive(Debug)]
enum ReadTarget {
    Load(ConversationId),
    Dedup(ConversationId, UserId, Vec<talaria_protocol::ids::ClientMessageId>),
    Open(UserId),
    Resolve(SessionKey, RequestId),
    /// Of a cursor, at a seq.
    Resume(SessionKey, ConversationId, talaria_protocol::message::Cursor, u64),
    CatchUp(SessionKey, ConversationId),
    History(SessionKey, RequestId, lists::HistoryRead),
    List(SessionKey, RequestId, lists::ListRead),
}

impl ReadTarget {
    /// The conversation that its answer will need. It stays in memory until then: a read whose conversation has to be
    /// loaded again, which drives out another, might never come to an end.
    fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Resume(_, id, ..) | Self::CatchUp(_, id) => Some(*id),
            _ => None,
        }
    }
}

/// What is under way to the log and from it, within its bounds.
#[derive(Debug, Default)]
struct UnderWay {
    ops: HashMap<OpId, OpTarget>,
    reads: HashMap<ReadId, ReadTarget>,
    /// How many of the reads will need a conversation.
    readers: HashMap<ConversationId, usize>,
    op_bytes: usize,
    last_id: u64,
}

impl UnderWay {
    /// A send may be handed to the log.
    fn has_room(&self) -> bool {
        self.ops.len() + LOG_OPS_RESERVED < LOG_OPS_IN_FLIGHT_MAX && self.op_bytes < LOG_BYTES_IN_FLIGHT_MAX
    }

    /// One of the reserved places is free.
    fn has_reserved_room(&self) -> bool {
        self.ops.len() < LOG_OPS_IN_FLIGHT_MAX
    }

    fn can_read(&self) -> bool {
        self.reads.len() < READS_IN_FLIGHT_MAX
    }

    fn begin_read(&mut self, read: ReadId, target: ReadTarget) {
        if let Some(id) = target.conversation() {
            *self.readers.entry(id).or_default() += 1;
        }
        self.reads.insert(read, target);
    }

    fn end_read(&mut self, read: ReadId) -> Option<ReadTarget> {
        let target = self.reads.remove(&read)?;
        if let Some(id) = target.conversation()
            && let Some(readers) = self.readers.get_mut(&id)
        {
            *readers -= 1;
            if *readers == 0 {
                self.readers.remove(&id);
            }
        }
        Some(target)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    now: Now,
    hlc: Hlc,
    salts: Salts,
    directory: Directory,
    slots: HashMap<ConversationId, Slot>,
    /// Loaded conversations, in the order in which they are looked at for unloading.
    loaded: VecDeque<ConversationId>,
    loaded_max: usize,
    resolving: HashMap<(SessionKey, RequestId), Resolving>,
    /// Sessions whose catch-up waits for a reader, each once.
    waiting_to_read: VecDeque<SessionKey>,
    cursors: Cursors,
    doubtful: Doubtful,
    under_way: UnderWay,
    effects: VecDeque<Effect>,
}

impl Shard {
    /// A shard over an opened log.
    pub fn new(config: ShardConfig, now: Now) -> Self {
        let salts = Salts::new(config.seed);
        Self {
            config,
            now,
            hlc: Hlc::from_ms(now.unix_ms),
            salts,
            directory: Directory::default(),
            slots: HashMap::new(),
            loaded: VecDeque::new(),
            loaded_max: CONVERSATIONS_LOADED_MAX,
            resolving: HashMap::new(),
            waiting_to_read: VecDeque::new(),
            cursors: Cursors::default(),
            doubtful: Doubtful::new(),
            under_way: UnderWay::default(),
            effects: VecDeque::new(),
        }
    }

    /// The same, with fewer conversations in memory than [`CONVERSATIONS_LOADED_MAX`].
    #[must_use]
    pub fn with_conversations_loaded_max(mut self, conversations: usize) -> Self {
        self.loaded_max = conversations.min(CONVERSATIONS_LOADED_MAX);
        self
    }

    /// Takes an input. Its effects are polled afterwards; they must be performed in their order.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Open { session, identity, credit, .. } => self.on_open(session, identity, credit),
            Input::Close { session } => self.on_close(session),
            Input::Request { session, request_id, request } => self.on_request(session, request_id, request),
            Input::Ack { session, conversation, up_to } => self.on_ack(session, conversation, up_to),
            Input::Resume { session, cursors } => self.on_resume(session, &cursors),
            Input::Credit { session, credit } => self.on_credit(session, credit),
            Input::Durable { op, outcome } => self.on_settled(op, outcome),
            Input::Read { read, answer } => self.on_read(read, answer),
            Input::Confirm { .. }
            | Input::Peer { .. }
            | Input::NotPosted { .. }
            | Input::Room { .. }
            | Input::Restarted { .. }
            | Input::Retain(_)
            | Input::Timeout => {}
        }
        self.commit_due_cursors();
    }

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due, mono ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.cursors.due_ms()
    }

    /// The clock, for `Welcome` and `Pong`.
    pub fn hlc(&mut self, now: Now) -> Hlc {
        self.hlc = self.hlc.max(Hlc::from_ms(now.unix_ms));
        self.hlc
    }

    /// Sessions in the directory.
    pub fn sessions(&self) -> usize {
        self.directory.sessions.len()
    }

    /// Conversations in memory.
    pub fn conversations_loaded(&self) -> usize {
        self.loaded.len()
    }

    /// Log operations and reads under way.
    pub fn under_way(&self) -> (usize, usize) {
        (self.under_way.ops.len(), self.under_way.reads.len())
    }

    /// What waits now. Looks at every conversation in memory.
    pub fn queues(&self) -> Queues {
        let parked = self.slots.values().map(|slot| match slot {
            Slot::Loading(parked) | Slot::Ready(_, parked) => parked.len(),
        });
        Queues {
            log_ops: self.under_way.ops.len(),
            log_bytes: self.under_way.op_bytes,
            reads: self.under_way.reads.len(),
            waiting_to_read: self.waiting_to_read.len(),
            opening: self.directory.opening.len(),
            resolving: self.resolving.len(),
            parked: parked.sum(),
            cursors: self.cursors.len(),
        }
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
        if let OpTarget::Append(_, bytes) = &target {
            self.under_way.op_bytes += bytes;
        }
        self.under_way.ops.insert(op, target);
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

    fn end(&mut self, session: SessionKey, code: ErrorCode, message: &str) {
        if self.directory.remove(session).is_some() {
            self.effects.push_back(Effect::End { session, code, message: message.to_owned() });
        }
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
        if self.directory.sessions.contains_key(&session) {
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

    /// Answers a request to append.
    fn answer(&mut self, conversation: ConversationId, waiter: Waiter, answer: Result<Appended, Refusal>) {
        let appended = match answer {
            Ok(appended) => appended,
            Err(refusal) => return self.refuse(waiter.session, waiter.request_id, &refusal),
        };
        let request_id = waiter.request_id;
        let Appended { seq, epoch, hlc, duplicate } = appended;
        let frame = match waiter.reply {
            ReplyKind::Sent => {
                let durability = self.config.durability;
                ServerFrame::Sent(talaria_protocol::message::server::Sent {
                    request_id,
                    seq,
                    epoch,
                    hlc,
                    durability,
                    duplicate,
                })
            }
            ReplyKind::Conversation => match self.state_for(waiter.session, conversation) {
                Some(state) => {
                    ServerFrame::ConversationResult { request_id, conversation: state, seq, duplicate }
                }
                None => return self.refuse(waiter.session, request_id, &Refusal::not_found()),
            },
        };
        self.reply(waiter.session, request_id, frame);
    }

    fn commit_due_cursors(&mut self) {
        loop {
            if self.cursors.due_ms().is_some_and(|due| due <= self.now.mono_ms)
                && !self.under_way.has_reserved_room()
            {
                return self.cursors.postpone(self.now.mono_ms);
            }
            let writes = self.cursors.take_due(self.now.mono_ms);
            if writes.is_empty() {
                return;
            }
            self.log(LogOp::Cursors(writes.clone()), OpTarget::Cursors(writes));
        }
    }
}
