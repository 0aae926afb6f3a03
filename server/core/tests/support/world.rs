//! One shard over a log in memory. Operations and reads wait until the test lets them go on; every effect is
//! checked when it comes: nothing is acknowledged or delivered that is not in the log, credit is kept, a request
//! is answered once, a session that is gone gets nothing, delivered cursors do not go back.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use talaria_core::{
    effect::{Effect, Identity, Input, Now, OpId, ReadId, SessionKey},
    limits::{LOG_OPS_IN_FLIGHT_MAX, READS_IN_FLIGHT_MAX},
    log::{
        CursorWrite, LogInfo, LogOp, Outcome, PageQuery, ReadAnswer, ReadOp, StoredEntry, UserConversation,
    },
    session_directory::SessionDirectory,
    shard::{Queues, Shard, ShardConfig},
};
use talaria_log::{GroupCommit, MemoryLog, OpenSeeds, testing::FaultyLog};
use talaria_protocol::{
    entry::Entry,
    error_code::ErrorCode,
    frame::FrameDecoder,
    hlc::Hlc,
    ids::{BootId, ConversationId, DeviceId, UserId},
    limits::FRAME_BYTES_MAX,
    message::{Credit, Direction, Durability, RequestId, Role, client::Request, server::ServerFrame},
};

/// When the world begins, ms since 1970.
pub(crate) const BEGIN_MS: u64 = 1_800_000_000_000;

/// What reaches a client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Out {
    Opened(u32),
    Refused(ErrorCode),
    Frame(ServerFrame),
    End(ErrorCode),
}

/// A read under way: asked, then executed at some moment, then answered.
#[derive(Debug)]
struct PendingRead {
    read: ReadId,
    op: ReadOp,
    answer: Option<ReadAnswer>,
}

/// What the world knows of a session.
#[derive(Debug, Default)]
struct Watched {
    granted: Credit,
    sent: Credit,
    open: bool,
    asked: HashSet<RequestId>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) log: FaultyLog<MemoryLog>,
    pub(crate) info: LogInfo,
    pub(crate) now: Now,
    /// Of the shards that follow a crash.
    pub(crate) conversations_loaded_max: usize,
    /// Where the clock of the node is off, ms.
    pub(crate) skew_ms: i64,
    group: GroupCommit,
    ops: VecDeque<(OpId, LogOp)>,
    ended: VecDeque<(OpId, Outcome)>,
    reads: Vec<PendingRead>,
    watched: HashMap<SessionKey, Watched>,
    out: BTreeMap<SessionKey, VecDeque<Out>>,
    delivered: HashMap<(ConversationId, UserId, DeviceId), u64>,
    last_session: u64,
    last_boot: u8,
    /// Reads that were answered so far.
    pub(crate) reads_done: u64,
    /// Requests of directed tests so far.
    pub(crate) asked: u64,
}

fn open(log: &FaultyLog<MemoryLog>, boot: u8, now_ms: u64) -> LogInfo {
    let seeds = OpenSeeds { boot_id: BootId::new([boot; 16]), id_key_if_new: [9; 32], now_ms };
    talaria_log::open(log, seeds).expect("the log opens")
}

/// The log's answer.
fn read(log: &FaultyLog<MemoryLog>, op: &ReadOp) -> ReadAnswer {
    if let ReadOp::RecentConversations { user, before, rows_max } = op {
        return read_recent(log, *user, *before, *rows_max);
    }
    talaria_log::read(log, op).unwrap_or(ReadAnswer::Failed)
}

/// By brute force: all of a user's conversations, sorted.
fn read_recent(
    log: &FaultyLog<MemoryLog>,
    user: UserId,
    before: Option<(Hlc, ConversationId)>,
    rows_max: usize,
) -> ReadAnswer {
    let all = ReadOp::UserConversations { user, after: None, since_commit: 0, rows_max: 1 << 20 };
    let Ok(ReadAnswer::UserConversations { mut rows, .. }) = talaria_log::read(log, &all) else {
        return ReadAnswer::Failed;
    };
    let key = |row: &UserConversation| (row.row.heads.hlc, row.conversation);
    rows.retain(|row| before.is_none_or(|before| key(row) < before));
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    let more = rows.len() > rows_max;
    rows.truncate(rows_max);
    let next = rows.last().filter(|_| more).map(key);
    ReadAnswer::RecentConversations { rows, next }
}

impl Default for World {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl World {
    pub(crate) fn new(conversations_loaded_max: usize) -> Self {
        let now = Now { mono_ms: 0, unix_ms: BEGIN_MS };
        let log = FaultyLog::new(MemoryLog::new());
        let info = open(&log, 1, now.unix_ms);
        let config = shard_config(&info, [1; 32]);
        Self {
            shard: Shard::new(config, now).with_conversations_loaded_max(conversations_loaded_max),
            group: GroupCommit::new(info.commit),
            log,
            info,
            now,
            conversations_loaded_max,
            skew_ms: 0,
            ops: VecDeque::new(),
            ended: VecDeque::new(),
            reads: Vec::new(),
            watched: HashMap::new(),
            out: BTreeMap::new(),
            delivered: HashMap::new(),
            last_session: 0,
            last_boot: 1,
            reads_done: 0,
            asked: 0,
        }
    }

    /// The node dies and comes back over what `log` has; sessions and all that was under way are gone.
    pub(crate) fn restart_over(&mut self, log: MemoryLog) {
        self.tick(1_500);
        self.last_boot += 1;
        self.log = FaultyLog::new(log);
        self.info = open(&self.log, self.last_boot, self.now.unix_ms);
        let seed = [self.last_boot; 32];
        let config = shard_config(&self.info, seed);
        self.shard =
            Shard::new(config, self.now).with_conversations_loaded_max(self.conversations_loaded_max);
        self.group = GroupCommit::new(self.info.commit);
        self.ops.clear();
        self.ended.clear();
        self.reads.clear();
        self.watched.clear();
        self.out.clear();
        self.delivered.clear();
    }

    /// The same over all that was committed.
    pub(crate) fn restart(&mut self) {
        let log = self.log.inner().reopen();
        self.restart_over(log);
    }

    /// Time goes on; the timer fires when it is due.
    pub(crate) fn tick(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms = (BEGIN_MS + self.now.mono_ms).saturating_add_signed(self.skew_ms);
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now.mono_ms) {
            self.handle(Input::Timeout);
        }
    }

    pub(crate) fn user(&self, name: &str) -> UserId {
        self.info.id_key.user("", name)
    }

    pub(crate) fn direct(&self, a: &str, b: &str) -> ConversationId {
        self.info.id_key.direct(self.user(a), self.user(b))
    }

    pub(crate) fn identity(&self, name: &str, device: u8, role: Role) -> Identity {
        Identity {
            tenant: String::new(),
            subject: name.to_owned(),
            user: self.user(name),
            device: DeviceId::from_parts(BEGIN_MS, [device; 10]),
            role,
        }
    }

    pub(crate) fn open(&mut self, identity: Identity, credit: Credit) -> SessionKey {
        self.last_session += 1;
        let session = SessionKey(self.last_session);
        self.watched.insert(session, Watched { granted: credit, ..Watched::default() });
        self.out.insert(session, VecDeque::new());
        self.handle(Input::Open { session, identity, credit, confirmed: true });
        session
    }

    pub(crate) fn close(&mut self, session: SessionKey) {
        self.watched.remove(&session);
        self.out.remove(&session);
        self.handle(Input::Close { session });
    }

    pub(crate) fn request(&mut self, session: SessionKey, request_id: RequestId, request: Request) {
        if let Some(watched) = self.watched.get_mut(&session) {
            assert!(watched.asked.insert(request_id), "a test reused {request_id:?}");
        }
        self.handle(Input::Request { session, request_id, request });
    }

    pub(crate) fn credit(&mut self, session: SessionKey, credit: Credit) {
        if let Some(watched) = self.watched.get_mut(&session) {
            watched.granted.entries = watched.granted.entries.max(credit.entries);
            watched.granted.bytes = watched.granted.bytes.max(credit.bytes);
        }
        self.handle(Input::Credit { session, credit });
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.shard.handle(self.now, input);
        while let Some(effect) = self.shard.poll_effect() {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Post { .. } => unreachable!("one shard"),
            Effect::Log { op, what } => {
                self.ops.push_back((op, what));
                assert!(
                    self.ops.len() + self.ended.len() <= LOG_OPS_IN_FLIGHT_MAX,
                    "log ops beyond the bound"
                );
            }
            Effect::Read { read, what } => {
                self.reads.push(PendingRead { read, op: what, answer: None });
                assert!(self.reads.len() <= READS_IN_FLIGHT_MAX, "reads beyond the bound");
            }
            Effect::Opened { session, device_number } => {
                let watched = self.watched.get_mut(&session).expect("opened, but it had closed");
                assert!(!std::mem::replace(&mut watched.open, true), "opened twice");
                self.push(session, Out::Opened(device_number));
            }
            Effect::Refused { session, code, .. } => {
                self.push(session, Out::Refused(code));
                self.watched.remove(&session);
            }
            Effect::Reply { session, request_id, frame, cost } => {
                assert_eq!(frame.request_id(), Some(request_id));
                let watched = self.watched.get_mut(&session).expect("an answer to a session that is gone");
                assert!(watched.asked.remove(&request_id), "{request_id:?} answered twice");
                self.check_reply(session, &frame, cost);
                self.push(session, Out::Frame(frame));
            }
            Effect::Send { session, frame } => {
                assert_eq!(frame.request_id(), None);
                self.push(session, Out::Frame(frame));
            }
            Effect::Deliver { session, frame, cost, .. } => self.on_deliver(session, &frame, cost),
            Effect::End { session, code, .. } => {
                self.push(session, Out::End(code));
                self.watched.remove(&session);
            }
        }
    }

    fn push(&mut self, session: SessionKey, out: Out) {
        assert!(self.watched.contains_key(&session), "{out:?} to session {session:?}, which is gone");
        self.out.get_mut(&session).expect("a known session").push_back(out);
    }

    fn charge(&mut self, session: SessionKey, cost: Credit) {
        let watched = self.watched.get_mut(&session).expect("an open session");
        watched.sent.entries += cost.entries;
        watched.sent.bytes += cost.bytes;
        assert!(
            watched.sent.entries <= watched.granted.entries && watched.sent.bytes <= watched.granted.bytes,
            "more than was granted: {:?} of {:?}",
            watched.sent,
            watched.granted
        );
    }

    fn check_reply(&mut self, session: SessionKey, frame: &ServerFrame, cost: Credit) {
        match frame {
            ServerFrame::HistoryPage(page) => {
                let bytes = page.entries.iter().map(|entry| entry.encoded_len() as u64).sum();
                assert_eq!(cost, Credit { entries: page.entries.len() as u64, bytes });
                self.charge(session, cost);
            }
            ServerFrame::ConversationResult { conversation, seq, .. } if *seq > 0 => {
                assert!(
                    self.stored(conversation.conversation, *seq).is_some(),
                    "acknowledged before the log"
                );
            }
            _ => assert_eq!(cost, Credit::default()),
        }
    }

    fn on_deliver(&mut self, session: SessionKey, frame: &Bytes, cost: Credit) {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.extend(frame);
        let payload = decoder.poll_frame().expect("a frame").expect("a whole frame");
        assert_eq!(decoder.buffered_bytes(), 0);
        let frame = ServerFrame::parse(payload).expect("a server's frame");
        let ServerFrame::Deliver { conversation, entry } = &frame else { panic!("not a Deliver: {frame:?}") };
        assert_eq!(cost, Credit { entries: 1, bytes: entry.encoded_len() as u64 });
        self.charge(session, cost);
        self.check_durable(*conversation, entry);
        self.push(session, Out::Frame(frame));
    }

    fn check_durable(&self, conversation: ConversationId, entry: &Entry) {
        let stored = self.stored(conversation, entry.seq).expect("delivered before the log");
        if let Some(leaf) = entry.leaf() {
            assert_eq!(leaf, stored.leaf(), "not the log's entry");
        }
    }

    /// What the log has.
    pub(crate) fn stored(&self, conversation: ConversationId, seq: u64) -> Option<StoredEntry> {
        self.page(conversation, seq, 1).pop().filter(|entry| entry.seq == seq)
    }

    /// What the log has, from `from` on.
    pub(crate) fn page(
        &self,
        conversation: ConversationId,
        from: u64,
        entries_max: usize,
    ) -> Vec<StoredEntry> {
        let query = PageQuery {
            conversation,
            from,
            direction: Direction::Forward,
            entries_max,
            bytes_max: usize::MAX,
        };
        match talaria_log::read(self.log.inner(), &ReadOp::Page(query)) {
            Ok(ReadAnswer::Page { entries, .. }) => entries,
            other => panic!("cannot read the log: {other:?}"),
        }
    }

    // The log and its readers.

    pub(crate) fn ops_waiting(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn ops_ended(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn reads_waiting(&self) -> usize {
        self.reads.len()
    }

    /// The shard waits for this read.
    pub(crate) fn waits_for(&self, op: &ReadOp) -> bool {
        self.reads.iter().any(|pending| pending.op == *op)
    }

    /// The log writer takes up to `count` operations in one commit.
    pub(crate) fn commit(&mut self, count: usize) {
        let mut ids = Vec::new();
        let mut cursors = Vec::new();
        while ids.len() < count
            && let Some((id, op)) = self.ops.pop_front()
        {
            if let LogOp::Cursors(writes) = &op {
                cursors.extend(writes.clone());
            }
            self.group.push(op);
            ids.push(id);
        }
        let outcomes = self.group.commit(&self.log);
        if matches!(outcomes.first(), Some(Outcome::Committed { .. })) {
            cursors.iter().for_each(|write| self.check_cursor(write));
        }
        self.ended.extend(ids.into_iter().zip(outcomes));
    }

    fn check_cursor(&mut self, write: &CursorWrite) {
        let last = self.delivered.entry((write.conversation, write.user, write.device)).or_default();
        assert!(write.seq > *last, "a delivered cursor went from {last} to {}", write.seq);
        *last = write.seq;
        assert!(self.stored(write.conversation, write.seq).is_some(), "a cursor beyond the head");
    }

    /// The log takes no commits until the next restart.
    pub(crate) fn is_read_only(&self) -> bool {
        self.group.failure().is_some()
    }

    /// The shard hears of the oldest ended operation.
    pub(crate) fn complete_op(&mut self) {
        if let Some((op, outcome)) = self.ended.pop_front() {
            self.handle(Input::Durable { op, outcome });
        }
    }

    /// A reader reads.
    pub(crate) fn execute_read(&mut self, index: usize) {
        if let Some(pending) = self.reads.get_mut(index)
            && pending.answer.is_none()
        {
            pending.answer = Some(read(&self.log, &pending.op));
        }
    }

    /// A reader fails.
    pub(crate) fn fail_read(&mut self, index: usize) {
        if let Some(pending) = self.reads.get_mut(index) {
            pending.answer = Some(ReadAnswer::Failed);
        }
    }

    /// The shard hears of a read, which is executed now unless it was before.
    pub(crate) fn complete_read(&mut self, index: usize) {
        if index < self.reads.len() {
            self.execute_read(index);
            let pending = self.reads.swap_remove(index);
            let answer = pending.answer.expect("it was executed");
            self.reads_done += 1;
            self.handle(Input::Read { read: pending.read, answer });
        }
    }

    /// Everything under way goes on to its end.
    pub(crate) fn settle(&mut self) {
        let mut rounds = 0;
        loop {
            self.commit(usize::MAX);
            while self.ops_ended() > 0 {
                self.complete_op();
            }
            while self.reads_waiting() > 0 {
                self.complete_read(0);
                rounds += 1;
                assert!(rounds < 100_000, "reads without end: {:?}", self.reads.first());
            }
            if self.ops.is_empty() {
                return;
            }
        }
    }

    /// All reads go on to their end, the log does not.
    pub(crate) fn settle_reads(&mut self) {
        while self.reads_waiting() > 0 {
            self.complete_read(0);
        }
    }

    // Sessions.

    /// The next that has reached a client.
    pub(crate) fn poll_out(&mut self, session: SessionKey) -> Option<Out> {
        self.out.get_mut(&session)?.pop_front()
    }

    /// All of it.
    pub(crate) fn take_out(&mut self, session: SessionKey) -> Vec<Out> {
        self.out.get_mut(&session).map(std::mem::take).unwrap_or_default().into()
    }

    /// For one who looked for something else.
    pub(crate) fn put_back(&mut self, session: SessionKey, out: Out) {
        self.out.entry(session).or_default().push_back(out);
    }

    pub(crate) fn is_open(&self, session: SessionKey) -> bool {
        self.watched.get(&session).is_some_and(|watched| watched.open)
    }

    /// After all went on to its end, cursors too, nothing waits anywhere, and every request of every session was
    /// answered.
    pub(crate) fn assert_at_rest(&mut self) {
        self.settle();
        self.tick(200);
        self.settle();
        assert_eq!(self.shard.queues(), Queues::default());
        assert!(self.ops.is_empty() && self.ended.is_empty() && self.reads.is_empty());
        for (session, watched) in &self.watched {
            assert!(watched.asked.is_empty(), "{session:?}: never answered: {:?}", watched.asked);
        }
    }
}

fn shard_config(log: &LogInfo, seed: [u8; 32]) -> ShardConfig {
    ShardConfig {
        log: log.clone(),
        durability: Durability::Fsync,
        seed,
        shard: talaria_core::peer::ShardId(0),
        shards: 1,
        incarnation: 0,
        sessions: std::sync::Arc::new(SessionDirectory::with_slots(256)),
    }
}
