//! A core that panicked is contained: nothing it held is trusted, nothing else is touched.
//!
//! ```text
//! Running ──panic──► Restarting ──all ops and reads are back──► Running, with the next incarnation of the core
//!                        └──the third within a minute──► Failed: the node ends
//! ```
//! While `Restarting` no input is taken: sessions end and their clients come back, who opens one is told when to, what the
//! log has done is counted and forgotten (who asked for it resends, and is recognised), and messages of other shards are
//! dropped. Then the others learn that what they asked will not be answered: each looks at the incarnations in every turn
//! and before every message, so that it knows before the new incarnation says anything, and drops what an old one said.

use std::{collections::VecDeque, time::Instant};

use talaria_core::{
    effect::{Input, Now},
    peer::{PeerClass, ShardId},
    shard::{Shard, ShardConfig},
};
use talaria_protocol::error_code::ErrorCode;

use super::{ShardHost, UnderWay};
use crate::{
    limits::{RESTART_RETRY_AFTER_MS, SHARD_RESTARTS_MAX, SHARD_RESTARTS_WITHIN},
    mailbox::CLASSES,
    outbox::SessionEffect,
};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Restarting,
    Failed,
}

/// What is known of restarts, its own and the others'.
pub(super) struct Restarts {
    /// The incarnation of each shard that the core was told of.
    known: Vec<u32>,
    /// The last panics.
    panics: VecDeque<Instant>,
}

impl Restarts {
    pub(super) fn new(shards: u16) -> Self {
        Self { known: vec![0; shards.into()], panics: VecDeque::new() }
    }

    /// A panic now. `false`: too many of late.
    fn note_panic(&mut self, now: Instant) -> bool {
        self.panics.push_back(now);
        while self.panics.front().is_some_and(|first| now.duration_since(*first) > SHARD_RESTARTS_WITHIN) {
            self.panics.pop_front();
        }
        self.panics.len() < SHARD_RESTARTS_MAX
    }
}

/// A core without state. No two incarnations draw the same salts.
pub(super) fn make_core(config: &ShardConfig, incarnation: u32, is_in_doubt: bool, now: Now) -> Shard {
    let seed = *blake3::keyed_hash(&config.seed, &incarnation.to_be_bytes()).as_bytes();
    Shard::new(ShardConfig { seed, incarnation, is_in_doubt, ..config.clone() }, now)
}

impl ShardHost {
    /// The core panicked too often: the node ends.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.get() == State::Failed
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.known_incarnation(self.ports.shard)
    }

    pub(super) fn known_incarnation(&self, shard: ShardId) -> u32 {
        self.restarts.borrow().known[usize::from(shard.0)]
    }

    /// Nobody is there to take it.
    pub(super) fn turn_away(&self, input: &Input) {
        if let Input::Open { session, .. } = input {
            let message = "a part of the server begins anew".to_owned();
            let code = ErrorCode::Busy;
            let refused = SessionEffect::Refused { code, message, retry_after_ms: RESTART_RETRY_AFTER_MS };
            self.put(*session, refused);
        }
    }

    /// The core is gone, and with it what it knew of its sessions.
    pub(super) fn on_panic(&self) {
        self.ports.metrics.panics.increment(1);
        let shard = self.ports.shard.0;
        if self.restarts.borrow_mut().note_panic(Instant::now()) {
            self.state.set(State::Restarting);
            tracing::error!(shard, "a shard's core panicked; it begins anew, and its clients come back");
        } else {
            self.state.set(State::Failed);
            tracing::error!(
                shard,
                "a shard's core panicked again and again; the node stops, what it acknowledged is in the log"
            );
        }
        self.outboxes.borrow().values().for_each(|outbox| outbox.put(SessionEffect::Lost));
        self.show_sessions();
        self.mailbox().wake();
    }

    /// Makes the next incarnation, once the log has nothing left of the last one.
    pub(crate) fn restart_if_due(&self) {
        if self.state.get() != State::Restarting || self.under_way.get() != UnderWay::default() {
            return;
        }
        for class in CLASSES {
            // What comes meanwhile may stay: it is answered, though nobody waits for it any more.
            for _ in 0..self.mailbox().len(class) {
                if self.mailbox().take(class).is_some() {
                    self.ports.metrics.mailbox_dropped.increment(1);
                }
            }
            self.tell_of_room(class);
        }
        let incarnation = self.incarnation() + 1;
        let core = make_core(&self.config, incarnation, self.is_in_doubt.get(), self.ports.clock.now());
        *self.core.borrow_mut() = core;
        self.restarts.borrow_mut().known[usize::from(self.ports.shard.0)] = incarnation;
        self.ports.mailboxes.begin_incarnation(self.ports.shard, incarnation);
        self.state.set(State::Running);
        self.ports.metrics.shard_restarts.increment(1);
        tracing::warn!(shard = self.ports.shard.0, incarnation, "the shard has begun anew");
    }

    /// Tells the core of other shards that have begun anew, after the answers that came before it.
    pub(super) fn observe_restarts(&self) {
        let mut later = Vec::new();
        for number in 0..self.ports.mailboxes.shards() {
            let shard = ShardId(number);
            let incarnation = self.ports.mailboxes.incarnation(shard);
            if shard == self.ports.shard || incarnation == self.known_incarnation(shard) {
                continue;
            }
            // All answers of the old one are in the mailbox by now. Their places must be free when the core asks anew.
            for _ in 0..self.mailbox().len(PeerClass::Answer) {
                match self.mailbox().take(PeerClass::Answer) {
                    Some(envelope) if envelope.incarnation > self.known_incarnation(envelope.from) => {
                        later.push(envelope);
                    }
                    Some(envelope) => self.deliver(envelope),
                    None => break,
                }
            }
            self.restarts.borrow_mut().known[usize::from(number)] = incarnation;
            self.handle(Input::Restarted { shard, incarnation });
        }
        later.into_iter().for_each(|envelope| self.deliver(envelope));
    }
}
