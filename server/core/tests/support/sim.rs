//! Many devices on one shard, with everything between them, the shard and the log in random order, under faults;
//! then all heals, and what happened is held against the truth. One seed gives one run.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use talaria_core::{
    effect::{Input, SessionKey},
    log::{ReadAnswer, ReadOp},
};
use talaria_log::{CommitLog, CommitResult, MemoryLog};
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm},
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, UserId},
    limits::{CREDIT_BYTES_DEFAULT, CREDIT_ENTRIES_DEFAULT},
    message::{
        Credit, Direction, Role, UserRef,
        client::{ChangeMembers, History, Request},
        server::{HistoryPage, Sent},
    },
};

use super::{
    Rng,
    device::{Device, Item, ToServer},
    requests::{send_after, subject},
    truth::{self, Truth},
    world::World,
};

const NAMES: [&str; 4] = ["ada", "ben", "cleo", "dan"];

/// What happened to a request to append.
#[derive(Debug)]
struct Op {
    /// Of the device that made it.
    device: u8,
    request: Request,
    conversation: Option<ConversationId>,
    invoked: Option<u64>,
    completed: Option<u64>,
    /// seq, epoch; seq 0: nothing was appended.
    ok: Option<(u64, u64)>,
    failed: Option<ErrorCode>,
    /// It was acknowledged, and the log went back behind it.
    lost: bool,
}

/// A page of history that was read.
#[derive(Debug)]
struct Read {
    user: UserId,
    conversation: ConversationId,
    begun: u64,
    head: u64,
}

/// An entry that reached a user, when the conversation's head was `head`.
#[derive(Debug)]
struct Reached {
    user: UserId,
    conversation: ConversationId,
    seq: u64,
    hidden: bool,
    head: u64,
}

/// The record of a run.
#[derive(Debug, Default)]
pub struct Book {
    /// Logical time.
    pub t: u64,
    /// How often the log went back.
    pub rollbacks: u32,
    ops: BTreeMap<(UserId, ClientMessageId), Op>,
    reads: Vec<Read>,
    reached: Vec<Reached>,
    skipped: Vec<(UserId, ConversationId, u64, u64)>,
    /// (session, conversation) → (request, seq) of what was appended by it.
    orders: HashMap<(SessionKey, ConversationId), Vec<(u64, u64)>>,
    pub deliveries: u64,
    pub acknowledged: u64,
}

impl Book {
    fn op(&mut self, user: UserId, id: ClientMessageId) -> &mut Op {
        self.ops.get_mut(&(user, id)).expect("an op that was made")
    }

    fn made(&mut self, user: UserId, device: u8, id: ClientMessageId, request: &Request) {
        let conversation = match request {
            Request::Send(send) => Some(send.conversation),
            Request::AddMembers(change) | Request::RemoveMembers(change) => Some(change.conversation),
            Request::Leave { conversation, .. } => Some(*conversation),
            _ => None,
        };
        let op = Op {
            device,
            request: request.clone(),
            conversation,
            invoked: None,
            completed: None,
            ok: None,
            failed: None,
            lost: false,
        };
        assert!(self.ops.insert((user, id), op).is_none(), "an id was minted twice");
    }

    pub fn on_invoked(&mut self, user: UserId, id: ClientMessageId) {
        let t = self.t;
        self.op(user, id).invoked.get_or_insert(t);
    }

    pub fn content(&self, user: UserId, id: ClientMessageId) -> Bytes {
        match &self.ops[&(user, id)].request {
            Request::Send(send) => send.content.clone(),
            other => panic!("content omitted of {other:?}"),
        }
    }

    pub fn on_sent(
        &mut self,
        world: &World,
        user: UserId,
        id: ClientMessageId,
        sent: &Sent,
        session: SessionKey,
    ) {
        let conversation = self.op(user, id).conversation.expect("a send names one");
        self.on_ok(world, user, id, conversation, sent.seq, sent.epoch);
        if !sent.duplicate {
            let order = self.orders.entry((session, conversation)).or_default();
            order.push((sent.request_id.get(), sent.seq));
        }
    }

    pub fn on_changed(
        &mut self,
        world: &World,
        user: UserId,
        id: ClientMessageId,
        conversation: ConversationId,
        seq: u64,
    ) {
        let epoch = self.op(user, id).ok.map_or(0, |(_, epoch)| epoch);
        self.on_ok(world, user, id, conversation, seq, epoch);
    }

    fn on_ok(
        &mut self,
        world: &World,
        user: UserId,
        id: ClientMessageId,
        conversation: ConversationId,
        seq: u64,
        epoch: u64,
    ) {
        self.acknowledged += 1;
        if seq > 0 {
            let stored = world.stored(conversation, seq).expect("acknowledged, so in the log");
            let header = talaria_protocol::entry::EntryHeader::parse(&stored.header).expect("a header");
            assert_eq!((header.sender, header.client_message_id), (user, id), "another's seq");
            assert!(epoch == 0 || epoch == header.epoch);
        }
        let t = self.t;
        let op = self.op(user, id);
        let is_direct = matches!(op.request, Request::DirectWith { .. });
        if let Some((before, _)) = op.ok {
            assert!(before == seq || is_direct, "a retry got seq {seq} instead of {before}");
        }
        op.conversation = Some(conversation);
        op.ok = Some((seq, epoch));
        op.completed = Some(t);
        op.lost = false;
    }

    pub fn on_failed(&mut self, user: UserId, id: ClientMessageId, code: ErrorCode) {
        let rollbacks = self.rollbacks;
        let op = self.op(user, id);
        let expected = match code {
            ErrorCode::Forbidden | ErrorCode::UnknownUser => true,
            ErrorCode::NotFound => rollbacks > 0,
            _ => false,
        };
        assert!(expected, "{code:?} to {:?}", op.request);
        op.failed = Some(code);
    }

    fn head(world: &World, conversation: ConversationId) -> u64 {
        match talaria_log::read(world.log.inner(), &ReadOp::Conversation(conversation)) {
            Ok(ReadAnswer::Conversation(Some((row, _)))) => row.heads.head,
            other => panic!("{other:?}"),
        }
    }

    pub fn on_delivered(&mut self, world: &World, user: UserId, conversation: ConversationId, entry: &Entry) {
        self.deliveries += 1;
        let hidden = matches!(entry.form, EntryForm::Hidden { .. });
        let head = Self::head(world, conversation);
        self.reached.push(Reached { user, conversation, seq: entry.seq, hidden, head });
    }

    pub fn on_skipped(
        &mut self,
        world: &World,
        user: UserId,
        conversation: ConversationId,
        from: u64,
        to: u64,
        chain: Chain,
    ) {
        assert_eq!(world.stored(conversation, to).expect("in the log").chain, chain);
        self.skipped.push((user, conversation, from, to));
    }

    pub fn on_history(&mut self, user: UserId, asked: &History, begun: u64, page: &HistoryPage) {
        let conversation = asked.conversation;
        assert!(page.entries.len() <= asked.entries_max);
        assert!(page.entries.iter().all(|entry| (page.first_seq..=page.head).contains(&entry.seq)));
        for entry in &page.entries {
            let hidden = matches!(entry.form, EntryForm::Hidden { .. });
            self.reached.push(Reached { user, conversation, seq: entry.seq, hidden, head: page.head });
        }
        if let (Direction::Backward, 0, Some(last)) = (asked.direction, asked.from, page.entries.last()) {
            assert_eq!(last.seq, page.head, "a page from the head begins there");
        }
        self.reads.push(Read { user, conversation, begun, head: page.head });
    }

    /// Own messages of a device that the log lost.
    pub fn lost_of(
        &self,
        user: UserId,
        device: u8,
        conversation: ConversationId,
    ) -> Vec<(ClientMessageId, Request)> {
        let of_it = self.ops.range((user, ClientMessageId::new([0; 16]))..=(user, ClientMessageId::new([255; 16])));
        of_it
            .filter(|(_, op)| op.lost && op.device == device && op.conversation == Some(conversation))
            .filter(|(_, op)| matches!(op.request, Request::Send(_)))
            .map(|((_, id), op)| (*id, op.request.clone()))
            .collect()
    }

    /// Holds the record against the log.
    pub fn check(&self, world: &World) {
        let truths: HashMap<ConversationId, Truth> =
            truth::conversations(world).into_iter().map(|id| (id, Truth::of(world, id))).collect();
        for ((user, id), op) in &self.ops {
            self.check_op(&truths, *user, *id, op);
        }
        for truth in truths.values() {
            self.check_truth(truth);
        }
        for reached in &self.reached {
            check_reached(&truths[&reached.conversation], reached);
        }
        for (user, conversation, from, to) in &self.skipped {
            let truth = &truths[conversation];
            assert!((*from..=*to).all(|seq| !truth.sees(*user, seq)), "skipped what may be seen");
            assert_eq!(truth.first(*user), to + 1, "skipped up to the first that may be seen");
        }
        for read in &self.reads {
            self.check_read(&truths[&read.conversation], read);
        }
        for order in self.orders.values() {
            let mut order = order.clone();
            order.sort_unstable();
            assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "a session's sends changed places");
        }
    }

    fn check_op(
        &self,
        truths: &HashMap<ConversationId, Truth>,
        user: UserId,
        id: ClientMessageId,
        op: &Op,
    ) {
        let truth = op.conversation.and_then(|conversation| truths.get(&conversation));
        let found = truth.and_then(|truth| truth.find(user, id));
        if let Some((seq, _)) = op.ok.filter(|(seq, _)| *seq > 0) {
            let entry = found.unwrap_or_else(|| panic!("acknowledged, then lost: {id} at {seq}"));
            assert_eq!(entry.stored.seq, seq);
        }
        assert!(op.failed.is_none() || found.is_none(), "refused with {:?}, then appended", op.failed);
        if let (Some(entry), Request::Send(send)) = (found, &op.request) {
            assert_eq!(entry.content, send.content, "other bytes than were sent");
            assert!(op.invoked.is_some(), "appended, but never sent");
        }
    }

    fn check_truth(&self, truth: &Truth) {
        // Linearizable: nothing that was invoked after another's end is before it.
        let mut soonest_end = u64::MAX;
        for entry in truth.entries.iter().rev() {
            let key = (entry.header.sender, entry.header.client_message_id);
            let op = self.ops.get(&key).unwrap_or_else(|| panic!("nobody asked for {}", entry.stored.seq));
            if matches!(op.request, Request::DirectWith { .. }) {
                continue;
            }
            let invoked = op.invoked.expect("invoked");
            assert!(soonest_end >= invoked, "seq {} was begun after a later one had ended", entry.stored.seq);
            soonest_end = soonest_end.min(op.completed.unwrap_or(u64::MAX));
        }
    }

    fn check_read(&self, truth: &Truth, read: &Read) {
        for op in self.ops.values() {
            if op.conversation == Some(read.conversation)
                && let (Some((seq, _)), Some(completed)) = (op.ok, op.completed)
                && completed < read.begun
                && truth.sees(read.user, seq)
            {
                assert!(seq <= read.head, "a read misses what was acknowledged before it began");
            }
        }
    }

    /// The log goes back: what is not in it any more was lost, by the disk's fault.
    fn on_rollback(&mut self, world: &World) {
        self.rollbacks += 1;
        self.reads.clear();
        self.reached.clear();
        self.skipped.clear();
        self.orders.clear();
        let truths: HashMap<ConversationId, Truth> =
            truth::conversations(world).into_iter().map(|id| (id, Truth::of(world, id))).collect();
        for ((user, id), op) in &mut self.ops {
            let truth = op.conversation.and_then(|conversation| truths.get(&conversation));
            if op.ok.is_some() && truth.and_then(|truth| truth.find(*user, *id)).is_none() {
                (op.ok, op.completed, op.lost) = (None, None, true);
            }
        }
    }
}

fn check_reached(truth: &Truth, reached: &Reached) {
    let Reached { user, seq, hidden, head, .. } = *reached;
    assert_eq!(truth.sees(user, seq), !hidden, "seq {seq} of {user}: hidden {hidden}");
    let later = (seq + 1..=head).any(|seq| truth.sees(user, seq));
    assert!(!hidden || later, "seq {seq} reached a user who was removed before it");
}

/// What a run is allowed to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub steps: usize,
    pub crashes: bool,
    pub rollbacks: bool,
    pub log_failures: bool,
    pub read_failures: bool,
    pub conversations_loaded_max: usize,
    pub small_credit: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng(seed);
        Self {
            seed,
            steps: 300 + rng.below(700),
            crashes: rng.chance(60),
            rollbacks: rng.chance(15),
            log_failures: rng.chance(40),
            read_failures: rng.chance(40),
            conversations_loaded_max: if rng.chance(50) { 2 + rng.below(2) } else { usize::MAX },
            small_credit: rng.chance(60),
        }
    }
}

/// See the module.
pub struct Sim {
    plan: Plan,
    rng: Rng,
    pub world: World,
    devices: Vec<Device>,
    pub book: Book,
    snapshot: Option<MemoryLog>,
}

impl Sim {
    pub fn new(plan: Plan) -> Self {
        let world = World::new(plan.conversations_loaded_max);
        let mut devices = Vec::new();
        for (index, name) in NAMES.into_iter().enumerate() {
            devices.push(Device::new(&world, name, 1, Role::Main));
            if index < 2 {
                devices.push(Device::new(&world, name, 2, Role::Main));
            }
        }
        devices.push(Device::new(&world, NAMES[0], 1, Role::PushFetch));
        Self { plan, rng: Rng(plan.seed ^ 0x5eed), world, devices, book: Book::default(), snapshot: None }
    }

    pub fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.step();
        }
        self.heal();
        self.world.assert_at_rest();
        self.book.check(&self.world);
        self.check_devices();
        let report = talaria_log::verify(self.world.log.inner()).expect("a memory log can be read");
        assert!(report.is_good(), "{report}");
    }

    fn window(&mut self) -> Credit {
        if self.plan.small_credit {
            let entries = self.rng.below(6) as u64;
            Credit { entries, bytes: self.rng.below(1_500) as u64 }
        } else {
            Credit { entries: CREDIT_ENTRIES_DEFAULT, bytes: CREDIT_BYTES_DEFAULT }
        }
    }

    fn step(&mut self) {
        self.book.t += 1;
        match self.rng.below(100) {
            0..22 => self.deliver_to_server(),
            22..42 => self.deliver_to_client(),
            42..50 => {
                let count = 1 + self.rng.below(4);
                self.world.commit(count);
            }
            50..58 => self.world.complete_op(),
            58..64 => {
                let read = self.rng.below(self.world.reads_waiting());
                self.world.execute_read(read);
            }
            64..72 => {
                let read = self.rng.below(self.world.reads_waiting());
                if self.plan.read_failures && self.rng.chance(2) {
                    self.world.fail_read(read);
                }
                self.world.complete_read(read);
            }
            72..75 => {
                let ms = self.rng.below(60) as u64;
                self.world.tick(ms);
            }
            75..99 => self.act(),
            _ => self.fault(),
        }
    }

    fn deliver_to_server(&mut self) {
        let ready: Vec<usize> =
            (0..self.devices.len()).filter(|index| !self.devices[*index].to_server.is_empty()).collect();
        if let Some(&index) = ready.get(self.rng.below(ready.len())) {
            for _ in 0..1 + self.rng.below(3) {
                self.deliver_one(index);
            }
        }
    }

    fn deliver_one(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let (Some(session), Some(frame)) = (device.session, device.to_server.pop_front()) else { return };
        match frame {
            ToServer::Request(request_id, request) => self.world.request(session, request_id, request),
            ToServer::Ack(conversation, up_to) => {
                self.world.handle(Input::Ack { session, conversation, up_to });
            }
            ToServer::Resume(cursors) => self.world.handle(Input::Resume { session, cursors }),
            ToServer::Credit(credit) => self.world.credit(session, credit),
        }
    }

    fn deliver_to_client(&mut self) {
        let index = self.rng.below(self.devices.len());
        for _ in 0..1 + self.rng.below(4) {
            self.hear_one(index);
        }
    }

    fn hear_one(&mut self, index: usize) -> bool {
        let device = &mut self.devices[index];
        let Some(out) = device.session.and_then(|session| self.world.poll_out(session)) else { return false };
        device.on_out(out, &mut self.world, &mut self.book);
        true
    }

    /// Some device does something.
    fn act(&mut self) {
        let index = self.rng.below(self.devices.len());
        if self.devices[index].session.is_none() {
            let window = self.window();
            return self.devices[index].connect(&mut self.world, window);
        }
        let known = self.devices[index].known();
        let one = known.get(self.rng.below(known.len())).copied();
        match (self.rng.below(100), one) {
            (0..3, _) => {
                let window = self.window();
                let wipe = self.rng.chance(30);
                let take_over = self.rng.chance(50);
                let device = &mut self.devices[index];
                if take_over { device.connect(&mut self.world, window) } else { device.disconnect(&mut self.world) }
                if wipe {
                    self.devices[index].wipe();
                }
            }
            (3..40, Some(conversation)) => {
                for _ in 0..1 + self.rng.below(3) {
                    self.say(index, conversation);
                }
                self.flush(index);
            }
            (40..50, _) => self.flush(index),
            (50..65, _) => self.change_members(index, one),
            (65..75, _) => {
                let window = self.window();
                self.devices[index].grant(window);
            }
            (75..88, _) => {
                let wanted = self.devices[index].wanted();
                self.devices[index].resume(&wanted);
            }
            (88..90, Some(conversation)) => self.devices[index].resume(&[conversation]),
            (90..95, Some(conversation)) => self.devices[index].ack(conversation),
            (95..98, Some(conversation)) => self.look_back(index, conversation),
            (98..99, Some(conversation)) => self.devices[index].look_around(conversation),
            _ => {
                self.devices[index].retry_sync();
                if self.rng.chance(20) {
                    self.devices[index].sync();
                }
            }
        }
    }

    fn flush(&mut self, index: usize) {
        let count = 1 + self.rng.below(4);
        self.devices[index].flush(&mut self.book, count);
    }

    fn make(&mut self, index: usize, request: impl FnOnce(ClientMessageId) -> Request) {
        let random = self.rng.bytes();
        let device = &mut self.devices[index];
        if device.outbox.len() < 30 {
            let id = device.mint(&self.world, random);
            let request = request(id);
            self.book.made(device.user, device.number, id, &request);
            device.outbox.push(Item { id, request, in_flight: None });
        }
    }

    fn say(&mut self, index: usize, conversation: ConversationId) {
        let said = "x".repeat(self.rng.below(300));
        let number = self.rng.draw();
        self.make(index, |id| send_after(conversation, id, None, &format!("{number} {said}")));
    }

    fn change_members(&mut self, index: usize, conversation: Option<ConversationId>) {
        let name = NAMES[self.rng.below(NAMES.len())];
        let other = if self.rng.chance(70) { subject(name) } else { UserRef::Id(self.world.user(name)) };
        let users = vec![other.clone()];
        match (self.rng.below(10), conversation) {
            (0..3, _) => {
                self.make(index, |id| Request::DirectWith { user: other, client_message_id: id });
            }
            (3..5, _) => {
                let members = vec![subject(NAMES[self.rng.below(NAMES.len())]), other];
                let title = "g".to_owned();
                self.make(index, |id| Request::CreateGroup { client_message_id: id, title, members });
            }
            (5..7, Some(conversation)) => self.make(index, |client_message_id| {
                Request::AddMembers(ChangeMembers { client_message_id, conversation, users })
            }),
            (7..9, Some(conversation)) if self.devices[index].name != name => {
                self.make(index, |client_message_id| {
                    Request::RemoveMembers(ChangeMembers { client_message_id, conversation, users })
                });
            }
            (9, Some(conversation)) => {
                self.make(index, |id| Request::Leave { client_message_id: id, conversation });
            }
            _ => {}
        }
        self.flush(index);
    }

    fn look_back(&mut self, index: usize, conversation: ConversationId) {
        let direction = if self.rng.chance(50) { Direction::Forward } else { Direction::Backward };
        let from = self.rng.below(20) as u64;
        let entries_max = 1 + self.rng.below(10);
        let history = History { conversation, from, direction, entries_max };
        self.devices[index].read_history(history, self.book.t);
    }

    // Faults.

    fn fault(&mut self) {
        match self.rng.below(12) {
            0..2 if self.plan.crashes => self.crash(None),
            2 if self.plan.rollbacks => self.snapshot = Some(self.world.log.inner().reopen()),
            3 if self.plan.rollbacks => {
                let snapshot = self.snapshot.take();
                self.crash(snapshot);
            }
            4..6 if self.plan.log_failures => self.fail_log(),
            6..8 => self.world.skew_ms = self.rng.below(240_000) as i64 - 120_000,
            8 if self.plan.log_failures && self.world.log.is_read_only() => self.crash(None),
            _ => {}
        }
    }

    fn crash(&mut self, back_to: Option<MemoryLog>) {
        match back_to {
            None => self.world.restart(),
            Some(log) => {
                self.book.check(&self.world);
                self.world.restart_over(log);
                self.book.on_rollback(&self.world);
            }
        }
        self.devices.iter_mut().for_each(Device::lose_connection);
    }

    /// The next commit fails. One that is in the log all the same is only found after a restart.
    fn fail_log(&mut self) {
        let why = || "told to fail".to_owned();
        let (result, applied) = match self.rng.below(4) {
            0 => (CommitResult::NotCommitted { why: why() }, false),
            1 => (CommitResult::Fenced, false),
            2 => (CommitResult::Unknown { why: why() }, false),
            _ => (CommitResult::Unknown { why: why() }, true),
        };
        if self.world.ops_waiting() == 0 || self.world.log.is_read_only() {
            return;
        }
        self.world.log.fail_next_commit(result, applied);
        self.world.commit(usize::MAX);
        while applied && self.world.ops_ended() > 0 {
            self.world.complete_op();
        }
        if applied {
            for index in 0..self.devices.len() {
                while self.hear_one(index) {}
            }
            self.crash(None);
        }
    }

    // The end.

    fn heal(&mut self) {
        if self.world.log.is_read_only() {
            self.crash(None);
        }
        let window = Credit { entries: CREDIT_ENTRIES_DEFAULT, bytes: CREDIT_BYTES_DEFAULT };
        for round in 0.. {
            assert!(round < 400, "it does not come to rest: {:?}", self.stuck());
            self.book.t += 1;
            for index in 0..self.devices.len() {
                if self.devices[index].session.is_none() {
                    self.devices[index].connect(&mut self.world, window);
                }
                self.devices[index].retry_sync();
                self.devices[index].grant(window);
                let wanted = self.devices[index].wanted();
                self.devices[index].resume(&wanted);
                self.devices[index].flush(&mut self.book, 10);
                while !self.devices[index].to_server.is_empty() {
                    self.deliver_one(index);
                }
            }
            self.world.settle();
            let mut heard = false;
            for index in 0..self.devices.len() {
                while self.hear_one(index) {
                    heard = true;
                }
            }
            self.world.tick(150);
            self.world.settle();
            if !heard && self.devices.iter().all(|device| device.is_done() && device.opened) {
                return;
            }
        }
    }

    fn stuck(&self) -> Vec<String> {
        let stuck = self.devices.iter().filter(|device| !device.is_done());
        stuck.map(|device| format!("{device:?}")).collect()
    }

    /// Every device holds what its user may see, up to the head.
    fn check_devices(&self) {
        for id in truth::conversations(&self.world) {
            let truth = Truth::of(&self.world, id);
            for device in &self.devices {
                let head = truth.head(device.user);
                let Some(held) = device.held.get(&id) else {
                    assert_eq!(head, 0, "{} {} never heard of {id}", device.name, device.number);
                    continue;
                };
                assert_eq!(held.cursor.seq, head, "{} {}: not at the head", device.name, device.number);
                assert_eq!(held.cursor.chain, truth.at(head).expect("it is there").stored.chain);
                let first = truth.first(device.user);
                let expected: BTreeMap<_, _> = (first..=head)
                    .map(|seq| (seq, (truth.at(seq).expect("it is there").leaf, !truth.sees(device.user, seq))))
                    .collect();
                assert_eq!(held.entries, expected, "{} {}", device.name, device.number);
            }
        }
    }
}
