//! Many devices on a node's shards, with everything between them, the shards and the log in random order, under faults;
//! then all heals, and what happened is held against the truth. One seed gives one run.

use std::collections::BTreeMap;

use talaria_core::{effect::Input, placement};
use talaria_log::{CommitResult, MemoryLog};
use talaria_protocol::{
    chain::Chain,
    ids::{ClientMessageId, ConversationId},
    limits::{CREDIT_BYTES_DEFAULT, CREDIT_ENTRIES_DEFAULT},
    message::{
        Credit, Direction, Role, UserRef,
        client::{ChangeMembers, History, Request},
    },
};

use super::{
    Rng,
    book::Book,
    cuts::Cuts,
    device::{Device, Item, ToServer},
    requests::{send_after, subject},
    truth::{self, Truth},
    world::{World, shard_of_session},
};

const NAMES: [&str; 4] = ["ada", "ben", "cleo", "dan"];

/// What a run is allowed to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    pub(crate) crashes: bool,
    pub(crate) rollbacks: bool,
    pub(crate) log_failures: bool,
    pub(crate) read_failures: bool,
    pub(crate) conversations_loaded_max: usize,
    pub(crate) small_credit: bool,
    pub(crate) shards: u16,
    /// Shards begin anew.
    pub(crate) restarts: bool,
    /// Messages of a class that wait at a shard.
    pub(crate) mail_max: usize,
    pub(crate) refuse_percent: u64,
    /// Some sessions are confirmed late.
    pub(crate) unconfirmed: bool,
    /// Old entries go.
    pub(crate) cuts: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64, shards: u16) -> Self {
        let mut rng = Rng(seed);
        let plan = Self {
            seed,
            steps: 300 + rng.below(700),
            crashes: rng.chance(60),
            rollbacks: rng.chance(30),
            log_failures: rng.chance(40),
            read_failures: rng.chance(40),
            conversations_loaded_max: if rng.chance(50) { 2 + rng.below(2) } else { usize::MAX },
            small_credit: rng.chance(60),
            shards,
            restarts: rng.chance(50),
            mail_max: if rng.chance(25) { 1 + rng.below(6) } else { usize::MAX },
            refuse_percent: if rng.chance(40) { rng.below(15) as u64 } else { 0 },
            unconfirmed: rng.chance(40),
            cuts: rng.chance(60),
        };
        let steps = plan.steps * if shards > 1 { 2 } else { 1 };
        Self { steps, cuts: plan.cuts && !plan.rollbacks && !plan.log_failures, ..plan }
    }
}

/// See the module.
pub(crate) struct Sim {
    plan: Plan,
    rng: Rng,
    pub(crate) world: World,
    devices: Vec<Device>,
    pub(crate) book: Book,
    snapshot: Option<MemoryLog>,
}

impl Sim {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = World::of(plan.shards, plan.conversations_loaded_max);
        world.mail.bound = plan.mail_max;
        world.mail.refuse_percent = plan.refuse_percent;
        world.mail.rng = Rng(plan.seed ^ 0xa11);
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

    pub(crate) fn run(&mut self) {
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
        if self.plan.shards > 1 && self.rng.chance(50) {
            return self.move_mail();
        }
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

    /// Something moves between the shards.
    fn move_mail(&mut self) {
        let notices: Vec<_> =
            self.world.mail.notices.iter().map(|(way, incarnation)| (*way, *incarnation)).collect();
        let rooms = self.world.mail.rooms();
        match self.rng.below(20) {
            0 if !notices.is_empty() => {
                let ((to, shard), incarnation) = notices[self.rng.below(notices.len())];
                self.world.tell_restarted(to, shard, incarnation);
            }
            1..4 if !rooms.is_empty() => self.world.tell_room(rooms[self.rng.below(rooms.len())]),
            _ => {
                let ways = self.world.mail.ways();
                if let Some(way) = ways.get(self.rng.below(ways.len())) {
                    for _ in 0..1 + self.rng.below(3) {
                        self.world.move_mail(*way);
                    }
                }
            }
        }
    }

    fn connect(&mut self, index: usize, window: Credit) {
        let shard = self.rng.below(usize::from(self.plan.shards)) as u16;
        let confirmed = !(self.plan.unconfirmed && self.rng.chance(40));
        self.devices[index].connect(&mut self.world, window, shard, confirmed);
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
            return self.connect(index, window);
        }
        if self.plan.unconfirmed && self.rng.chance(10) {
            self.devices[index].confirm(&mut self.world, &mut self.book);
        }
        let known = self.devices[index].known();
        let one = known.get(self.rng.below(known.len())).copied();
        match (self.rng.below(100), one) {
            (0..3, _) => {
                let window = self.window();
                let wipe = self.rng.chance(30);
                let take_over = self.rng.chance(50);
                if take_over {
                    self.connect(index, window);
                } else {
                    self.devices[index].disconnect(&mut self.world);
                }
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
            self.book.made(device.user, (device.number, device.role), id, &request);
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
        if self.plan.cuts && self.rng.chance(60) {
            return self.cut();
        }
        if self.plan.restarts && self.rng.chance(20) {
            return self.restart_shard();
        }
        match self.rng.below(10) {
            0 if self.plan.crashes => self.crash(None),
            1..3 if self.plan.rollbacks => self.snapshot = Some(self.world.log.inner().reopen()),
            3 | 9 if self.plan.rollbacks => {
                let snapshot = self.snapshot.take();
                self.crash(snapshot);
            }
            4..6 if self.plan.log_failures => self.fail_log(),
            // A fork is located by epochs, which take their numbers from the clock: where the log goes back, the clock
            // must not.
            6..8 if !self.plan.rollbacks => self.world.skew_ms = self.rng.below(240_000) as i64 - 120_000,
            8 if self.plan.log_failures && self.world.is_read_only() => self.crash(None),
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

    /// Old entries may go.
    fn cut(&mut self) {
        let known = truth::conversations(&self.world);
        let Some(id) = known.get(self.rng.below(known.len())).copied() else { return };
        let head = Truth::of(&self.world, id).entries.len();
        let first_seq = 2 + self.rng.below(head) as u64;
        if let Some(retention) = Cuts::retention(&self.world.log, id, first_seq) {
            let shard = placement::shard_of(id.slot(), self.plan.shards);
            self.world.handle_at(shard, Input::Retain(retention));
        }
    }

    fn restart_shard(&mut self) {
        self.book.saw("restart");
        let shard = self.rng.below(usize::from(self.plan.shards)) as u16;
        self.world.restart_shard(shard);
        for device in &mut self.devices {
            if device.session.is_some_and(|session| shard_of_session(session) == shard) {
                device.lose_connection();
            }
        }
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
        if self.world.ops_waiting() == 0 || self.world.is_read_only() {
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
        if self.world.is_read_only() {
            self.crash(None);
        }
        let window = Credit { entries: CREDIT_ENTRIES_DEFAULT, bytes: CREDIT_BYTES_DEFAULT };
        for round in 0.. {
            assert!(round < 400, "it does not come to rest: {:?}", self.stuck());
            self.book.t += 1;
            for index in 0..self.devices.len() {
                if self.devices[index].session.is_none() {
                    let shard = self.rng.below(usize::from(self.plan.shards)) as u16;
                    self.devices[index].connect(&mut self.world, window, shard, true);
                }
                self.devices[index].confirm(&mut self.world, &mut self.book);
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
                // What is beyond a former member's head is gone, and was told so.
                let at = held.cursor.seq;
                let gone = at > head && at < self.world.cuts.first_seq(id);
                assert!(at == head || gone, "{} {}: at {at}, not {head}", device.name, device.number);
                let chain = truth.at(at).map_or(Chain::ZERO, |entry| entry.stored.chain);
                assert_eq!(held.cursor.chain, chain);
                if head == 0 {
                    // Told of it once, before the log went back.
                    assert!(held.entries.is_empty());
                    continue;
                }
                let first = truth.first(device.user);
                let is_gone = |seq: &u64| held.gone.iter().any(|gone| gone.contains(seq));
                let expected: BTreeMap<_, _> = (first..=head)
                    .filter(|seq| !is_gone(seq))
                    .map(|seq| {
                        (seq, (truth.at(seq).expect("it is there").leaf, !truth.sees(device.user, seq)))
                    })
                    .collect();
                assert_eq!(held.entries, expected, "{} {}", device.name, device.number);
            }
        }
    }
}
