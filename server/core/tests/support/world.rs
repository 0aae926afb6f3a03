//! The shards of a node (one by default) over a log in memory. Operations, reads and mail wait until the test lets them
//! go on, see [`moves`]; every effect is checked when it comes: nothing is acknowledged or delivered that is not in the
//! log, credit is kept, a request is answered once, a session that is gone gets nothing, delivered cursors do not go back.

#[path = "moves.rs"]
mod moves;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use talaria_core::{
    effect::{Effect, Identity, Input, Now, OpId, ReadId, SessionKey},
    limits::{LOG_OPS_IN_FLIGHT_MAX, READS_IN_FLIGHT_MAX},
    log::{LogInfo, LogOp, Outcome, PageQuery, ReadAnswer, ReadOp, StoredEntry},
    peer::{PeerMessage, ShardId},
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

use super::{cuts::Cuts, mail::Mail};

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
    shard: u16,
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
    place: Option<(UserId, DeviceId, Role)>,
    asked: HashSet<RequestId>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    incarnations: Vec<u32>,
    directory: Arc<SessionDirectory>,
    pub(crate) mail: Mail,
    /// Posts that were refused, to be told of at once.
    not_posted: VecDeque<(u16, u16, PeerMessage)>,
    pub(crate) cuts: Cuts,
    pub(crate) log: FaultyLog<MemoryLog>,
    pub(crate) info: LogInfo,
    pub(crate) now: Now,
    /// Of the shards that follow a crash.
    pub(crate) conversations_loaded_max: usize,
    /// Where the clock of the node is off, ms.
    pub(crate) skew_ms: i64,
    group: GroupCommit,
    ops: VecDeque<(u16, OpId, LogOp)>,
    ended: VecDeque<(u16, OpId, Outcome)>,
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

impl Default for World {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl World {
    pub(crate) fn new(conversations_loaded_max: usize) -> Self {
        Self::of(1, conversations_loaded_max)
    }

    /// Of many shards.
    pub(crate) fn of(shards: u16, conversations_loaded_max: usize) -> Self {
        let now = Now { mono_ms: 0, unix_ms: BEGIN_MS };
        let log = FaultyLog::new(MemoryLog::new());
        let info = open(&log, 1, now.unix_ms);
        let mut world = Self {
            shards: Vec::new(),
            incarnations: vec![0; usize::from(shards)],
            directory: Arc::default(),
            mail: Mail::new(),
            not_posted: VecDeque::new(),
            cuts: Cuts::default(),
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
        };
        world.begin_all();
        world
    }

    /// All shards begin, over the opened log.
    fn begin_all(&mut self) {
        self.directory = Arc::new(SessionDirectory::with_slots(64));
        self.incarnations.fill(0);
        self.shards = (0..self.incarnations.len() as u16).map(|shard| self.begin_shard(shard)).collect();
    }

    fn begin_shard(&self, shard: u16) -> Shard {
        let incarnation = self.incarnations[usize::from(shard)];
        let mut seed = [self.last_boot; 32];
        (seed[0], seed[1]) = (shard as u8, incarnation as u8);
        let config = ShardConfig {
            log: self.info.clone(),
            durability: Durability::Fsync,
            seed,
            shard: ShardId(shard),
            shards: self.incarnations.len() as u16,
            incarnation,
            is_in_doubt: self.is_read_only(),
            sessions: self.directory.clone(),
        };
        Shard::new(config, self.now).with_conversations_loaded_max(self.conversations_loaded_max)
    }

    /// The node dies and comes back over what `log` has; sessions and all that was under way are gone.
    pub(crate) fn restart_over(&mut self, log: MemoryLog) {
        self.tick(1_500);
        self.last_boot += 1;
        self.log = FaultyLog::new(log);
        self.info = open(&self.log, self.last_boot, self.now.unix_ms);
        self.mail.clear();
        self.begin_all();
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
        for shard in 0..self.shards.len() as u16 {
            let due = self.shards[usize::from(shard)].poll_timeout();
            if due.is_some_and(|due| due <= self.now.mono_ms) {
                self.handle_at(shard, Input::Timeout);
            }
        }
    }

    /// A node's clock, by any of its shards.
    pub(crate) fn hlc(&mut self) -> Hlc {
        let now = self.now;
        self.shards[0].hlc(now)
    }

    /// What waits in all shards.
    pub(crate) fn queues(&self) -> Queues {
        assert_eq!(self.shards.len(), 1);
        self.shards[0].queues()
    }

    /// Sessions of all shards.
    pub(crate) fn sessions(&self) -> usize {
        self.shards.iter().map(Shard::sessions).sum()
    }

    /// Conversations in the memory of all shards.
    pub(crate) fn conversations_loaded(&self) -> usize {
        self.shards.iter().map(Shard::conversations_loaded).sum()
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
        self.open_at(0, identity, credit, true)
    }

    pub(crate) fn open_at(
        &mut self,
        shard: u16,
        identity: Identity,
        credit: Credit,
        confirmed: bool,
    ) -> SessionKey {
        self.last_session += 1;
        let session = SessionKey((u64::from(shard) << 48) | self.last_session);
        let place = Some((identity.user, identity.device, identity.role));
        let place = place.filter(|_| confirmed);
        self.watched.insert(session, Watched { granted: credit, place, ..Watched::default() });
        self.out.insert(session, VecDeque::new());
        self.handle_at(shard, Input::Open { session, identity, credit, confirmed });
        session
    }

    pub(crate) fn confirm(&mut self, session: SessionKey, identity: &Identity) {
        if let Some(watched) = self.watched.get_mut(&session) {
            watched.place = Some((identity.user, identity.device, identity.role));
        }
        self.handle(Input::Confirm { session });
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

    /// Of a session: at its shard.
    pub(crate) fn handle(&mut self, input: Input) {
        let shard = match &input {
            Input::Close { session }
            | Input::Confirm { session }
            | Input::Request { session, .. }
            | Input::Ack { session, .. }
            | Input::Resume { session, .. }
            | Input::Credit { session, .. } => shard_of_session(*session),
            other => panic!("at which shard? {other:?}"),
        };
        self.handle_at(shard, input);
    }

    pub(crate) fn handle_at(&mut self, shard: u16, input: Input) {
        self.handle_one(shard, input);
        while let Some((from, to, message)) = self.not_posted.pop_front() {
            self.handle_one(from, Input::NotPosted { to: ShardId(to), message });
        }
    }

    fn handle_one(&mut self, shard: u16, input: Input) {
        self.shards[usize::from(shard)].handle(self.now, input);
        while let Some(effect) = self.shards[usize::from(shard)].poll_effect() {
            self.perform(shard, effect);
        }
    }

    fn perform(&mut self, shard: u16, effect: Effect) {
        match effect {
            Effect::Post { to, message } => {
                assert!(to.0 != shard, "a post to itself");
                let incarnation = self.incarnations[usize::from(shard)];
                if let Some(message) = self.mail.post((shard, to.0), incarnation, message) {
                    self.not_posted.push_back((shard, to.0, message));
                }
            }
            Effect::Log { op, what } => {
                self.ops.push_back((shard, op, what));
                let under_way = self.ops.len() + self.ended.len();
                assert!(under_way <= LOG_OPS_IN_FLIGHT_MAX * self.shards.len(), "log ops beyond the bound");
            }
            Effect::Read { read, what } => {
                self.reads.push(PendingRead { shard, read, op: what, answer: None });
                let reads_max = READS_IN_FLIGHT_MAX * self.shards.len();
                assert!(self.reads.len() <= reads_max, "reads beyond the bound");
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
        let mut found: Vec<StoredEntry> = self.cuts.gone(conversation).to_vec();
        match talaria_log::read(self.log.inner(), &ReadOp::Page(query)) {
            Ok(ReadAnswer::Page { entries, .. }) => found.extend(entries),
            other => panic!("cannot read the log: {other:?}"),
        }
        found.retain(|entry| entry.seq >= from);
        found.truncate(entries_max);
        found
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
        for shard in &self.shards {
            assert_eq!(shard.queues(), Queues::default());
        }
        assert!(self.mail.is_empty(), "{:?}", self.mail);
        let mut places = HashSet::new();
        for (session, place) in self.watched.iter().filter_map(|(key, one)| Some((key, one.place?))) {
            assert!(places.insert(place), "{session:?}: two sessions of one device and role");
        }
        assert!(self.ops.is_empty() && self.ended.is_empty() && self.reads.is_empty());
        for (session, watched) in &self.watched {
            assert!(watched.asked.is_empty(), "{session:?}: never answered: {:?}", watched.asked);
        }
    }
}

pub(crate) fn shard_of_session(session: SessionKey) -> u16 {
    (session.0 >> 48) as u16
}
