//! The pure shard on its thread: inputs go in with the time, effects come out and are performed at once. Session tasks
//! call in directly; other threads come by the mailbox. Never awaits, so that no input can come between another and
//! its effects. If the core panics, nothing is known of its state: it is thrown away and the shard begins anew (`restart`).

mod perform;
mod restart;
mod turn;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use talaria_core::{
    effect::{Effect, Input, Now, SessionKey},
    peer::ShardId,
    shard::{Shard, ShardConfig},
};
use talaria_protocol::hlc::Hlc;

use self::restart::{Restarts, State};
use crate::{
    clock::Clock,
    faults::Faults,
    log_thread::LogQueue,
    mailbox::{Mailbox, Mailboxes},
    metrics::{Metrics, ShardMetrics},
    outbox::Outbox,
    readers::ReadQueue,
};

/// What a shard's effects need.
#[derive(Clone)]
pub(crate) struct Ports {
    pub(crate) shard: ShardId,
    pub(crate) log: LogQueue,
    pub(crate) readers: ReadQueue,
    pub(crate) mailboxes: Arc<Mailboxes>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
}

/// What was handed to the log's threads and has not come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnderWay {
    ops: usize,
    reads: usize,
}

/// See the module.
pub(crate) struct ShardHost {
    core: RefCell<Shard>,
    /// What each incarnation of the core is made with.
    config: ShardConfig,
    outboxes: RefCell<HashMap<SessionKey, Outbox>>,
    ports: Ports,
    shares: ShardMetrics,
    last_session: Cell<u64>,
    /// When the timer's task will wake, mono ms.
    armed_ms: Cell<Option<u64>>,
    under_way: Cell<UnderWay>,
    /// A commit ended so that nobody knows whether it is in the log.
    is_in_doubt: Cell<bool>,
    state: Cell<State>,
    restarts: RefCell<Restarts>,
}

impl ShardHost {
    /// Makes the core's first incarnation.
    pub(crate) fn new(config: ShardConfig, ports: Ports) -> Rc<Self> {
        let core = restart::make_core(&config, 0, false, ports.clock.now());
        Rc::new(Self {
            core: RefCell::new(core),
            outboxes: RefCell::default(),
            shares: ShardMetrics::new(&ports.metrics),
            last_session: Cell::new(0),
            armed_ms: Cell::new(None),
            under_way: Cell::default(),
            is_in_doubt: Cell::new(false),
            state: Cell::new(State::Running),
            restarts: RefCell::new(Restarts::new(config.shards)),
            config,
            ports,
        })
    }

    /// Which shard it is.
    pub(crate) fn shard(&self) -> ShardId {
        self.ports.shard
    }

    /// Its mailbox.
    pub(crate) fn mailbox(&self) -> &Mailbox {
        self.ports.mailboxes.of(self.ports.shard)
    }

    /// All shards'.
    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.ports.mailboxes
    }

    /// Faults to bring about.
    pub(crate) fn faults(&self) -> &Faults {
        &self.ports.faults
    }

    /// A number and an outbox for a new session. [`Self::close`] gives them back. The number's upper 16 bits are the shard's.
    pub(crate) fn new_session(&self) -> (SessionKey, Outbox) {
        let number = self.last_session.get() + 1;
        self.last_session.set(number);
        let key = SessionKey(u64::from(self.ports.shard.0) << 48 | number);
        let outbox = Outbox::default();
        self.outboxes.borrow_mut().insert(key, outbox.clone());
        (key, outbox)
    }

    /// The session is gone: nothing is sent to it any more.
    pub(crate) fn close(&self, session: SessionKey) {
        self.outboxes.borrow_mut().remove(&session);
        self.handle(Input::Close { session });
        self.show_sessions();
    }

    /// The server's clock, for Welcome and Pong.
    pub(crate) fn hlc(&self) -> Hlc {
        self.core.borrow_mut().hlc(self.ports.clock.now())
    }

    /// Nothing is under way to the log, nothing is due soon, and nothing waits in the mailbox.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.get() == State::Running
            && self.under_way.get() == UnderWay::default()
            && self.core.borrow().poll_timeout().is_none()
            && self.mailbox().is_empty()
    }

    /// Gives the core an input and performs its effects.
    pub(crate) fn handle(&self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            if self.state.get() != State::Running {
                self.turn_away(&input);
                continue;
            }
            let now = self.ports.clock.now();
            let effects = catch_unwind(AssertUnwindSafe(|| self.step(now, input)));
            match effects {
                Ok(effects) => effects
                    .into_iter()
                    .filter_map(|effect| self.perform(effect))
                    .for_each(|input| inputs.push_back(input)),
                Err(_) => self.on_panic(),
            }
        }
        self.arm();
    }

    /// When [`Self::handle_timeout`] is due, mono ms. The mailbox is woken when that becomes earlier.
    pub(crate) fn take_timeout(&self) -> Option<u64> {
        let due = self.due_ms();
        self.armed_ms.set(due);
        due
    }

    /// Gives the core its time-out, if it is due.
    pub(crate) fn handle_timeout(&self) {
        if self.due_ms().is_some_and(|due| due <= self.ports.clock.now().mono_ms) {
            self.handle(Input::Timeout);
        }
    }

    fn due_ms(&self) -> Option<u64> {
        (self.state.get() == State::Running).then(|| self.core.borrow().poll_timeout()).flatten()
    }

    fn step(&self, now: Now, input: Input) -> Vec<Effect> {
        let mut core = self.core.borrow_mut();
        core.handle(now, input);
        if self.ports.faults.take_core(self.ports.shard) {
            std::panic::panic_any("a fault that a test brings about");
        }
        std::iter::from_fn(|| core.poll_effect()).collect()
    }

    fn arm(&self) {
        let under_way = self.under_way.get();
        self.shares.log_queue.set(under_way.ops);
        self.shares.read_queue.set(under_way.reads);
        if self.due_ms().is_some_and(|due| self.armed_ms.get().is_none_or(|armed| due < armed)) {
            self.mailbox().wake();
        }
    }

    fn show_sessions(&self) {
        let is_running = self.state.get() == State::Running;
        self.shares.sessions.set(if is_running { self.core.borrow().sessions() } else { 0 });
    }
}
