//! The pure shard on its thread: inputs go in with the time, effects come out and are performed at once. Session tasks
//! call in directly; other threads come by the mailbox. Never awaits, so that no input can come between another and
//! its effects. If the core panics, nothing is known of its state: the host fails, and with it the node.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use talaria_core::{
    effect::{Effect, Input, Now, SessionKey},
    log::{Outcome, ReadAnswer},
    shard::Shard,
};
use talaria_protocol::{hlc::Hlc, message::server::ServerFrame};

use crate::{
    clock::Clock,
    log_thread::LogQueue,
    mailbox::{Mailbox, Message},
    metrics::Metrics,
    outbox::{Outbox, SessionEffect},
    readers::ReadQueue,
};

/// Mailbox messages taken before session tasks have their turn.
const MESSAGES_PER_TURN: usize = 256;

/// What a shard's effects need.
pub(crate) struct Ports {
    pub(crate) log: LogQueue,
    pub(crate) readers: ReadQueue,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
}

/// See the module.
pub(crate) struct ShardHost {
    core: RefCell<Shard>,
    outboxes: RefCell<HashMap<SessionKey, Outbox>>,
    ports: Ports,
    last_session: Cell<u64>,
    /// When the timer's task will wake, mono ms.
    armed_ms: Cell<Option<u64>>,
    failed: Cell<bool>,
}

impl ShardHost {
    pub(crate) fn new(core: Shard, ports: Ports) -> Rc<Self> {
        Rc::new(Self {
            core: RefCell::new(core),
            outboxes: RefCell::default(),
            ports,
            last_session: Cell::new(0),
            armed_ms: Cell::new(None),
            failed: Cell::new(false),
        })
    }

    /// The core panicked.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// A number and an outbox for a new session. [`Self::close`] gives them back.
    pub(crate) fn new_session(&self) -> (SessionKey, Outbox) {
        let key = SessionKey(self.last_session.get() + 1);
        self.last_session.set(key.0);
        let outbox = Outbox::default();
        self.outboxes.borrow_mut().insert(key, outbox.clone());
        (key, outbox)
    }

    /// The session is gone: nothing is sent to it any more.
    pub(crate) fn close(&self, session: SessionKey) {
        self.outboxes.borrow_mut().remove(&session);
        self.handle(Input::Close { session });
        self.ports.metrics.sessions.set(self.core.borrow().sessions() as f64);
    }

    /// The server's clock, for Welcome and Pong.
    pub(crate) fn hlc(&self) -> Hlc {
        self.core.borrow_mut().hlc(self.ports.clock.now())
    }

    /// Nothing is under way to the log, and nothing is due soon.
    pub(crate) fn is_idle(&self) -> bool {
        let core = self.core.borrow();
        core.under_way().0 == 0 && core.poll_timeout().is_none()
    }

    /// Gives the core an input and performs its effects.
    pub(crate) fn handle(&self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            if self.failed.get() {
                return;
            }
            let now = self.ports.clock.now();
            let effects = catch_unwind(AssertUnwindSafe(|| self.step(now, input)));
            match effects {
                Ok(effects) => effects
                    .into_iter()
                    .filter_map(|effect| self.perform(effect))
                    .for_each(|input| inputs.push_back(input)),
                Err(_) => self.fail(),
            }
        }
        self.arm();
    }

    /// Takes what other threads sent, up to a bound. `true`: there may be more.
    pub(crate) fn drain_mailbox(&self) -> bool {
        self.ports.metrics.mailbox.set(self.ports.mailbox.len() as f64);
        for _ in 0..MESSAGES_PER_TURN {
            match self.ports.mailbox.take() {
                None => return false,
                Some(Message::Durable(outcomes)) => {
                    for (op, outcome) in outcomes {
                        self.handle(Input::Durable { op, outcome });
                    }
                }
                Some(Message::Read(read, answer)) => self.handle(Input::Read { read, answer }),
            }
        }
        true
    }

    /// When [`Self::handle_timeout`] is due, mono ms. The mailbox is woken when that becomes earlier.
    pub(crate) fn take_timeout(&self) -> Option<u64> {
        let due = self.core.borrow().poll_timeout();
        self.armed_ms.set(due);
        due
    }

    /// Gives the core its time-out, if it is due.
    pub(crate) fn handle_timeout(&self) {
        let due = self.core.borrow().poll_timeout();
        if due.is_some_and(|due| due <= self.ports.clock.now().mono_ms) {
            self.handle(Input::Timeout);
        }
    }

    fn step(&self, now: Now, input: Input) -> Vec<Effect> {
        let mut core = self.core.borrow_mut();
        core.handle(now, input);
        std::iter::from_fn(|| core.poll_effect()).collect()
    }

    fn fail(&self) {
        self.failed.set(true);
        self.ports.metrics.panics.increment(1);
        tracing::error!("the shard's core panicked; the node stops, what it acknowledged is in the log");
        self.ports.mailbox.wake();
    }

    fn arm(&self) {
        let core = self.core.borrow();
        let due = core.poll_timeout();
        let (ops, reads) = core.under_way();
        drop(core);
        self.ports.metrics.log_queue.set(ops as f64);
        self.ports.metrics.read_queue.set(reads as f64);
        if due.is_some_and(|due| self.armed_ms.get().is_none_or(|armed| due < armed)) {
            self.ports.mailbox.wake();
        }
    }

    /// Performs one effect; an input that follows from it at once is given back.
    fn perform(&self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Log { op, what } => {
                let handed = self.ports.log.put(op, what);
                return (!handed).then_some(Input::Durable { op, outcome: Outcome::NotCommitted });
            }
            Effect::Read { read, what } => {
                let handed = self.ports.readers.put(read, what);
                return (!handed).then_some(Input::Read { read, answer: ReadAnswer::Failed });
            }
            Effect::Post { to, message } => return Some(Input::NotPosted { to, message }),
            Effect::Opened { session, device_number } => {
                self.ports.metrics.sessions_opened.increment(1);
                self.ports.metrics.sessions.set(self.core.borrow().sessions() as f64);
                self.put(session, SessionEffect::Opened { device_number });
            }
            Effect::Refused { session, code, message, retry_after_ms } => {
                self.put(session, SessionEffect::Refused { code, message, retry_after_ms });
            }
            Effect::Reply { session, request_id: _, frame, cost } => {
                self.count_reply(&frame);
                self.put(session, SessionEffect::Reply { frame, cost });
            }
            Effect::Send { session, frame } => self.put(session, SessionEffect::Send(frame)),
            Effect::Deliver { session, conversation, lane, frame, cost } => {
                self.ports.metrics.delivered.increment(1);
                self.put(session, SessionEffect::Deliver { conversation, lane, frame, cost });
            }
            Effect::End { session, code, message } => {
                self.ports.metrics.sessions.set(self.core.borrow().sessions() as f64);
                self.put(session, SessionEffect::End { code, message });
            }
        }
        None
    }

    fn put(&self, session: SessionKey, effect: SessionEffect) {
        match self.outboxes.borrow().get(&session) {
            Some(outbox) => outbox.put(effect),
            None => self.ports.metrics.answers_without_session.increment(1),
        }
    }

    fn count_reply(&self, frame: &ServerFrame) {
        let metrics = &self.ports.metrics;
        match frame {
            ServerFrame::Sent(sent) if sent.duplicate => metrics.dedup_hits.increment(1),
            ServerFrame::Sent(_) => metrics.messages_sent.increment(1),
            ServerFrame::ConversationResult { duplicate: true, .. } => metrics.dedup_hits.increment(1),
            ServerFrame::Error { code, .. } => metrics.errors.increment_wire(*code),
            _ => {}
        }
    }
}
