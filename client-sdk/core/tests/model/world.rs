//! Engines against the model server, under one virtual clock: delays, cuts, slow stores, restarts of either end, all
//! from a seed. Every store is watched: an entry that enters twice, out of order or off the server's chain panics.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use talaria_client_core::{
    ask::{Answer, Ask, AskError, AskId},
    engine::{Config, Connection, Effect, Engine, StopReason, TokenError},
    event::{Acknowledged, Event, SendFailure},
    outbox::Draft,
    rng::Rng,
    store::{LocalId, MemoryStore, Store, StoreBatch, StoreError},
    timeline::Streams,
};
use talaria_protocol::{
    chain::Chain,
    entry::{EntryKind, Urgency},
    frame::FrameDecoder,
    ids::{ClientMessageId, ConversationId, DeviceId},
    message::{Credit, client::Token, content::Content},
    session::{Lane, Millis, client::CloseReason},
};

use super::{ConnectionId, Model};

/// One step of the clock.
pub const TICK_MS: u64 = 5;

struct Wire {
    connection: ConnectionId,
    to_server: VecDeque<(u64, Bytes)>,
    /// By lane, each in order; on TCP all in the first.
    to_client: [VecDeque<(u64, Bytes)>; 3],
    at_server: FrameDecoder,
    at_client: [FrameDecoder; 3],
}

pub struct Device {
    pub subject: String,
    pub engine: Engine,
    pub store: MemoryStore,
    pub events: Vec<Event>,
    pub states: Vec<Connection>,
    pub takes_events: bool,
    /// Off once a store has lost what it held.
    pub checks_acks: bool,
    /// The next commit fails.
    pub breaks_store: bool,
    pub offline: bool,
    /// What it sends is lost on the way.
    pub mute: bool,
    pub token: Result<String, TokenError>,
    pub tokens_asked: u32,
    /// Queued durably, by text.
    pub kept: Vec<(ConversationId, String)>,
    pub acknowledged: BTreeMap<LocalId, Acknowledged>,
    pub failed: BTreeMap<LocalId, SendFailure>,
    pub answers: HashMap<AskId, Result<Answer, AskError>>,
    queued: HashMap<LocalId, (ConversationId, String)>,
    pub id: DeviceId,
    window: Credit,
    wire: Option<Wire>,
    batch: Option<(u64, StoreBatch)>,
    reads: VecDeque<(ConversationId, u64, usize)>,
    held: HashMap<ConversationId, (u64, Chain)>,
    runs: u8,
}

pub struct World {
    pub now: Millis,
    pub model: Model,
    pub devices: Vec<Device>,
    pub rng: Rng,
    pub delay_ms_max: u64,
    pub store_ms_max: u64,
    /// Added to the way to the server.
    pub slow_up_ms: u64,
    /// Connections have a stream for each lane, and these are the greatest delays of each: control, live, bulk.
    pub lanes_ms_max: Option<[u64; 3]>,
    /// Most entries that ever waited for others on a device.
    pub waited_max: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut bytes = [3; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            now: Millis(1_000),
            model: Model::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            devices: Vec::new(),
            rng: Rng::new(bytes),
            delay_ms_max: 20,
            store_ms_max: 10,
            slow_up_ms: 0,
            lanes_ms_max: None,
            waited_max: 0,
        }
    }

    pub fn below(&mut self, max: u64) -> u64 {
        self.rng.next_u64() % max
    }

    pub fn add(&mut self, subject: &str) -> usize {
        self.add_with(subject, Credit { entries: 1_000, bytes: 1 << 20 })
    }

    pub fn add_with(&mut self, subject: &str, window: Credit) -> usize {
        let index = self.devices.len();
        let id = DeviceId::from_parts(1_700_000_000_000, [index as u8; 10]);
        let config = Config { window, ..Config::new(id) };
        self.devices.push(Device {
            subject: subject.into(),
            engine: Engine::new(config, Default::default(), [index as u8 + 1; 32]),
            store: MemoryStore::new(),
            events: Vec::new(),
            states: Vec::new(),
            takes_events: true,
            checks_acks: true,
            breaks_store: false,
            offline: false,
            mute: false,
            token: Ok(subject.into()),
            tokens_asked: 0,
            kept: Vec::new(),
            acknowledged: BTreeMap::new(),
            failed: BTreeMap::new(),
            answers: HashMap::new(),
            queued: HashMap::new(),
            id,
            window,
            wire: None,
            batch: None,
            reads: VecDeque::new(),
            held: HashMap::new(),
            runs: 0,
        });
        index
    }

    // ---- what tests do ----

    /// Entries in the log as if the device had sent them, all at once.
    pub fn append_many(&mut self, device: usize, conversation: ConversationId, count: u64) {
        let connection = self.devices[device].wire.as_ref().unwrap().connection;
        for n in 0..count {
            let id = ClientMessageId::from_parts(super::START_MS + n, self.rng.id_bytes());
            let content = Content::text(n.to_string()).encode();
            self.model.append(self.now, connection, conversation, EntryKind::Message, content, id);
        }
    }

    /// What the server knows the device to hold.
    pub fn acked(&self, device: usize, conversation: ConversationId) -> u64 {
        self.model.acks.get(&(self.devices[device].id, conversation)).copied().unwrap_or(0)
    }

    pub fn send(&mut self, device: usize, conversation: ConversationId, text: &str) -> LocalId {
        let content = Content::text(text).encode();
        let draft = Draft { conversation, content, urgency: Urgency::Normal, expires_ms: 0, seen: 0 };
        let device = &mut self.devices[device];
        let local_id = device.engine.handle_send(self.now, draft).unwrap();
        device.queued.insert(local_id, (conversation, text.into()));
        local_id
    }

    pub fn ask(&mut self, device: usize, ask: Ask) -> Result<Answer, AskError> {
        let now = self.now;
        let id = self.devices[device].engine.handle_ask(now, ask, Duration::from_secs(30));
        for _ in 0..10_000 {
            self.tick();
            if let Some(answer) = self.devices[device].answers.remove(&id) {
                return answer;
            }
        }
        panic!("no answer, not even a timeout");
    }

    pub fn conversation(&mut self, device: usize, ask: Ask) -> ConversationId {
        match self.ask(device, ask).unwrap() {
            Answer::Conversation(state) => state.conversation,
            other => panic!("{other:?}"),
        }
    }

    /// Cuts a device's connection: what is on the way is lost.
    pub fn cut(&mut self, device: usize) {
        if let Some(wire) = self.devices[device].wire.take() {
            self.model.disconnect(wire.connection);
            self.devices[device].engine.handle_disconnected(self.now);
        }
    }

    /// The app dies and starts again with what its store has; a batch on its way is there or not.
    pub fn crash(&mut self, device: usize) {
        let committed = self.below(2) == 0;
        let seed = self.rng.next_u64();
        let device = &mut self.devices[device];
        if let Some(wire) = device.wire.take() {
            self.model.disconnect(wire.connection);
        }
        if let Some((_, batch)) = device.batch.take()
            && committed
        {
            commit(device, &batch);
            // It knows of these though it was not told.
            for item in &batch.outbox_put {
                if let Some(kept) = device.queued.remove(&item.local_id) {
                    device.kept.push(kept);
                }
            }
        }
        device.queued.clear();
        device.reads.clear();
        device.runs += 1;
        let mut bytes = [device.runs; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let config = Config { window: device.window, ..Config::new(device.id) };
        device.engine = Engine::new(config, device.store.load().unwrap(), bytes);
    }

    /// The app starts again with an empty store, on the same device.
    pub fn forget(&mut self, device: usize) {
        self.crash(device);
        let device = &mut self.devices[device];
        device.store = MemoryStore::new();
        device.held.clear();
        device.checks_acks = false;
        device.events.clear();
        let config = Config { window: device.window, ..Config::new(device.id) };
        device.engine = Engine::new(config, Default::default(), [device.runs; 32]);
    }

    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.tick();
        }
    }

    /// Runs until nothing is on its way any more.
    pub fn settle(&mut self) {
        for _ in 0..200_000 {
            self.tick();
            if self.is_settled() {
                return;
            }
        }
        for device in &self.devices {
            eprintln!(
                "{} {:?}: {} in outbox",
                device.subject,
                device.states.last(),
                device.engine.outbox_len()
            );
        }
        panic!("does not come to rest");
    }

    fn is_settled(&self) -> bool {
        self.devices.iter().filter(|device| !device.offline).all(|device| {
            let stopped = matches!(device.states.last(), Some(Connection::Stopped(_)));
            let online = matches!(device.states.last(), Some(Connection::Online));
            let held = self.model.conversations.iter().all(|(id, conversation)| {
                let member = conversation.members.iter().any(|(peer, _)| peer.subject == device.subject);
                let damaged = device
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::Damage { conversation, .. } if conversation == id));
                !member || damaged || device.held.get(id).is_some_and(|(seq, _)| *seq == conversation.head())
            });
            let idle = device.engine.outbox_len() == 0 && device.engine.is_store_idle();
            stopped || (online && held && idle && device.batch.is_none())
        })
    }

    // ---- the clock ----

    pub fn tick(&mut self) {
        self.now = Millis(self.now.0 + TICK_MS);
        self.model.handle_timeouts(self.now);
        for index in 0..self.devices.len() {
            self.carry_to_server(index);
        }
        for connection in self.model.take_cut() {
            if let Some(index) = self.device_of(connection) {
                self.cut(index);
            }
        }
        self.model.deliver();
        for index in 0..self.devices.len() {
            self.carry_to_client(index);
            self.serve_store(index);
            let device = &mut self.devices[index];
            if device.engine.poll_timeout(self.now).is_some_and(|at| at <= self.now) {
                device.engine.handle_timeout(self.now);
            }
            self.drive(index);
        }
        let waiting = self.devices.iter().map(|device| device.engine.entries_waiting());
        self.waited_max = waiting.max().unwrap_or(0).max(self.waited_max);
        self.check_acks();
    }

    /// Nothing is acknowledged that the store does not hold.
    fn check_acks(&self) {
        for device in self.devices.iter().filter(|device| device.checks_acks) {
            for (id, (held, _)) in &device.held {
                let acked = self.model.acks.get(&(device.id, *id)).copied().unwrap_or(0);
                assert!(acked <= *held, "{} acknowledged {acked}, holds {held}", device.subject);
            }
        }
    }

    fn device_of(&self, connection: ConnectionId) -> Option<usize> {
        self.devices.iter().position(|d| d.wire.as_ref().is_some_and(|wire| wire.connection == connection))
    }

    fn carry_to_server(&mut self, index: usize) {
        let now = self.now;
        let Some(wire) = &mut self.devices[index].wire else { return };
        while wire.to_server.front().is_some_and(|(at, _)| *at <= now.0) {
            let (_, bytes) = wire.to_server.pop_front().unwrap();
            wire.at_server.extend(&bytes);
            loop {
                wire.at_server.set_frame_bytes_max(self.model.frame_bytes_max(wire.connection));
                let Some(payload) = wire.at_server.poll_frame().unwrap() else { break };
                self.model.handle_frame(now, wire.connection, payload);
            }
        }
    }

    fn carry_to_client(&mut self, index: usize) {
        let now = self.now;
        let (delays, first) = match self.lanes_ms_max {
            // Which lane is read first is anybody's guess.
            Some(max) => (max.map(|max| 1 + self.below(max)), self.below(3) as usize),
            None => ([1 + self.below(self.delay_ms_max); 3], 0),
        };
        let device = &mut self.devices[index];
        let Some(wire) = &mut device.wire else { return };
        for lane in Lane::ALL {
            let next = |model: &mut Model| match self.lanes_ms_max {
                Some(_) => model.poll_lane(wire.connection, lane),
                None => model.poll_transmit(wire.connection),
            };
            while let Some(frame) = next(&mut self.model) {
                let queue = &mut wire.to_client[lane as usize];
                let at = (now.0 + delays[lane as usize]).max(queue.back().map_or(0, |(at, _)| *at));
                queue.push_back((at, frame));
            }
        }
        for lane in (0..3).map(|n| (first + n) % 3) {
            let (queue, decoder) = (&mut wire.to_client[lane], &mut wire.at_client[lane]);
            while queue.front().is_some_and(|(at, _)| *at <= now.0) {
                let (_, bytes) = queue.pop_front().unwrap();
                decoder.extend(&bytes);
                decoder.set_frame_bytes_max(device.engine.frame_bytes_max());
                while let Some(payload) = decoder.poll_frame().unwrap() {
                    device.engine.handle_frame(now, payload);
                    decoder.set_frame_bytes_max(device.engine.frame_bytes_max());
                }
            }
        }
        if wire.to_client.iter().all(VecDeque::is_empty) && self.model.is_closed(wire.connection) {
            self.cut(index);
        }
    }

    fn serve_store(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if device.batch.as_ref().is_some_and(|(at, _)| *at <= self.now.0) {
            let (_, batch) = device.batch.take().unwrap();
            let result = match device.breaks_store {
                true => Err(StoreError::new("full")),
                false => {
                    commit(device, &batch);
                    Ok(())
                }
            };
            device.engine.handle_stored(self.now, result);
        }
        while let Some((conversation, from, entries_max)) = device.reads.pop_front() {
            let entries = device.store.entries(conversation, from, entries_max);
            device.engine.handle_read(self.now, conversation, entries);
        }
    }

    /// Does what an engine asks for.
    fn drive(&mut self, index: usize) {
        let delay = 1 + self.slow_up_ms + self.below(self.delay_ms_max);
        let store_delay = self.below(self.store_ms_max + 1);
        let now = self.now;
        loop {
            let device = &mut self.devices[index];
            while let Some(frame) = device.engine.poll_transmit() {
                if let Some(wire) = device.wire.as_mut().filter(|_| !device.mute) {
                    let at = (now.0 + delay).max(wire.to_server.back().map_or(0, |(at, _)| *at));
                    wire.to_server.push_back((at, frame));
                }
            }
            while device.takes_events
                && let Some(event) = device.engine.poll_event(now)
            {
                if let Event::Entry(entry) = &event {
                    let held = device.held.get(&entry.conversation).map_or(0, |(seq, _)| *seq);
                    assert!(
                        entry.seq <= held || !device.checks_acks,
                        "{} is shown before it is stored",
                        entry.seq
                    );
                }
                device.events.push(event);
            }
            let Some(effect) = device.engine.poll_effect() else { return };
            self.perform(index, effect, store_delay);
        }
    }

    fn perform(&mut self, index: usize, effect: Effect, store_delay: u64) {
        let (now, device) = (self.now, &mut self.devices[index]);
        match effect {
            Effect::NeedToken => {
                device.tokens_asked += 1;
                let token = device.token.clone().map(Token);
                device.engine.handle_token(now, token);
            }
            Effect::Connect if device.offline => device.engine.handle_disconnected(now),
            Effect::Connect => {
                let connection = self.model.connect(now);
                device.wire = Some(Wire {
                    connection,
                    to_server: VecDeque::new(),
                    to_client: Default::default(),
                    at_server: FrameDecoder::new(1 << 14),
                    at_client: [(); 3].map(|()| FrameDecoder::new(1 << 14)),
                });
                let streams = if self.lanes_ms_max.is_some() { Streams::Many } else { Streams::One };
                device.engine.handle_connected(now, streams);
            }
            Effect::Disconnect(reason) => {
                assert!(
                    !matches!(reason, Some(CloseReason::Violation(_) | CloseReason::Frame(_))),
                    "{reason:?}"
                );
                if let Some(wire) = device.wire.take() {
                    self.model.disconnect(wire.connection);
                }
            }
            Effect::Store(batch) => {
                assert!(device.batch.is_none(), "one batch at a time");
                device.batch = Some((now.0 + store_delay, batch));
            }
            Effect::Read { conversation, from, entries_max } => {
                device.reads.push_back((conversation, from, entries_max));
            }
            Effect::Queued(local_id) => {
                let kept = device.queued.remove(&local_id).unwrap();
                device.kept.push(kept);
            }
            Effect::Acknowledged(acknowledged) => {
                let before = device.acknowledged.insert(acknowledged.local_id, acknowledged);
                assert!(before.is_none() || device.runs > 0, "acknowledged twice");
            }
            Effect::Failed(local_id, failure) => {
                device.failed.insert(local_id, failure);
            }
            Effect::Answer(id, answer) => {
                device.answers.insert(id, answer);
            }
            Effect::Connection(state) => device.states.push(state),
        }
    }

    // ---- what must hold ----

    /// Every device holds exactly the server's log, and its app was told all of it, in order.
    pub fn check_logs(&self) {
        for device in &self.devices {
            for (id, conversation) in &self.model.conversations {
                if !conversation.members.iter().any(|(peer, _)| peer.subject == device.subject) {
                    continue;
                }
                let held = device.store.entries(*id, 1, usize::MAX).unwrap();
                let seqs: Vec<_> = held.iter().map(|held| held.entry.seq).collect();
                assert_eq!(
                    seqs,
                    (1..=conversation.head()).collect::<Vec<_>>(),
                    "{} holds all",
                    device.subject
                );
                for (held, stored) in held.iter().zip(&conversation.entries) {
                    assert_eq!(held.chain, stored.chain, "chain of seq {}", held.entry.seq);
                }
            }
        }
    }

    /// Every message that a device kept is in the log once, and a device's are in the order of queueing.
    pub fn check_messages(&self) {
        for device in &self.devices {
            let mut by_conversation: BTreeMap<ConversationId, Vec<&str>> = BTreeMap::new();
            for (conversation, text) in &device.kept {
                by_conversation.entry(*conversation).or_default().push(text);
            }
            for (id, texts) in by_conversation {
                let log: Vec<_> = self.model.conversations[&id]
                    .entries
                    .iter()
                    .filter(|stored| stored.device == device.id)
                    .filter_map(|stored| match Content::parse(&stored.content).unwrap().body {
                        talaria_protocol::message::content::Body::Text(text) => Some(text),
                        _ => None,
                    })
                    .collect();
                assert_eq!(log, texts, "{}: each once, in order", device.subject);
            }
        }
    }

    pub fn stop_reason(&self, device: usize) -> Option<StopReason> {
        match self.devices[device].states.last() {
            Some(Connection::Stopped(reason)) => Some(reason.clone()),
            _ => None,
        }
    }
}

/// Commits, and watches what enters.
fn commit(device: &mut Device, batch: &StoreBatch) {
    for write in &batch.conversations {
        let held = device.held.entry(write.conversation).or_insert((0, Chain::ZERO));
        if let Some(from) = write.drop_from {
            assert!(from <= held.0, "drops what is held");
            device.checks_acks = false;
            *held = (from - 1, write.cursor.chain);
        }
        for stored in &write.entries {
            assert!(stored.entry.seq > held.0, "{} stored again or out of order", stored.entry.seq);
            *held = (stored.entry.seq, stored.chain);
        }
        if write.cursor.seq > held.0 {
            *held = (write.cursor.seq, write.cursor.chain);
        }
        assert_eq!((write.cursor.seq, write.cursor.chain), *held, "the cursor is what is held");
    }
    device.store.commit(batch).unwrap();
}
