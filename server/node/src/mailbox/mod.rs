//! The way into a shard's thread: from the log writer and the readers, and from the other shards. A bounded queue for each
//! class of messages, so that none can fill another, and one wake-up for all: a burst rings once. Nobody ever waits for room.
//!
//! | queue | places | full |
//! |---|---|---|
//! | completions | one for every operation and read that a shard may have under way | cannot be |
//! | answers | one for every question under way, of this incarnation and of those before | cannot be; a defect is counted |
//! | retentions | [`RETENTIONS_QUEUED_MAX`] | refused, and the sweeper waits ([`Mailbox::retain`]) |
//! | control, asks, fan-outs | `PEER_*_QUEUED_MAX` | given back at once ([`Mailbox::post`]); the sender is told when there is room |
//!
//! The order of steps is what makes it right, see [`Mailbox::begin_turn`] and [`Mailbox::end_turn`]; shuttle tries it.

mod class;
mod node;
mod primitives;
#[cfg(test)]
mod tests;

use talaria_core::{
    effect::{OpId, ReadId},
    limits::{
        LOG_OPS_IN_FLIGHT_MAX, PEER_ASKS_IN_FLIGHT_MAX, PEER_ASKS_QUEUED_MAX, PEER_CONTROL_QUEUED_MAX,
        PEER_FAN_OUTS_QUEUED_MAX, READS_IN_FLIGHT_MAX,
    },
    log::{Outcome, ReadAnswer, Retention},
    peer::{PeerClass, PeerMessage, ShardId},
};

use self::{
    class::Class,
    primitives::{Bell, Primitives, Queue, Real, Word},
};
use crate::limits::{RETENTIONS_QUEUED_MAX, SHARD_RESTARTS_MAX};

pub use self::{class::Envelope, node::Mailboxes};

/// Completions that a mailbox holds: one per operation and read under way.
pub const COMPLETIONS_MAX: usize = LOG_OPS_IN_FLIGHT_MAX + READS_IN_FLIGHT_MAX;
/// Answers that a mailbox holds. Those to questions of an incarnation that is gone may still come.
pub const ANSWERS_MAX: usize = PEER_ASKS_IN_FLIGHT_MAX * SHARD_RESTARTS_MAX;

/// What comes from the log's threads.
#[derive(Debug)]
pub enum Completion {
    /// All of this shard's operations in one commit, in their order.
    Durable(Vec<(OpId, Outcome)>),
    /// A read has ended.
    Read(ReadId, ReadAnswer),
}

/// Classes of messages between shards, in the order of their turns: answers first, since they free places.
pub const CLASSES: [PeerClass; 4] =
    [PeerClass::Answer, PeerClass::Control, PeerClass::Ask, PeerClass::FanOut];

fn places_of(class: PeerClass) -> usize {
    match class {
        PeerClass::Answer => ANSWERS_MAX,
        PeerClass::Control => PEER_CONTROL_QUEUED_MAX,
        PeerClass::Ask => PEER_ASKS_QUEUED_MAX,
        PeerClass::FanOut => PEER_FAN_OUTS_QUEUED_MAX,
    }
}

/// See the module. Of one shard.
pub struct Mailbox<P: Primitives = Real, C: Send = Completion, M: Send = PeerMessage> {
    completions: P::Queue<C>,
    classes: [Class<P, M>; 4],
    retentions: P::Queue<Retention>,
    /// A bit for each shard whose mailbox has room again.
    rooms: P::Word,
    /// 1: the bell has rung and the consumer has not begun its turn.
    is_woken: P::Word,
    bell: P::Bell,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::with_places(COMPLETIONS_MAX, places_of)
    }
}

impl<P: Primitives, C: Send, M: Send> Mailbox<P, C, M> {
    fn with_places(completions: usize, places_of: impl Fn(PeerClass) -> usize) -> Self {
        Self {
            completions: P::Queue::new(completions),
            classes: CLASSES.map(|class| Class::new(places_of(class))),
            retentions: P::Queue::new(RETENTIONS_QUEUED_MAX),
            rooms: P::Word::default(),
            is_woken: P::Word::default(),
            bell: P::Bell::default(),
        }
    }

    fn class(&self, class: PeerClass) -> &Class<P, M> {
        match class {
            PeerClass::Answer => &self.classes[0],
            PeerClass::Control => &self.classes[1],
            PeerClass::Ask => &self.classes[2],
            PeerClass::FanOut => &self.classes[3],
        }
    }

    /// Puts a completion in and wakes the shard.
    ///
    /// # Panics
    /// More of them than the shard has under way: a defect.
    pub fn complete(&self, completion: C) {
        let full = self.completions.push(completion).is_err();
        assert!(!full, "a mailbox has a place for every completion");
        self.wake();
    }

    /// Puts a message of another shard in and wakes this one.
    ///
    /// # Errors
    /// The message, when its class has no place: the sender is told by [`Self::take_rooms`] of its own mailbox once it has.
    pub fn post(&self, class: PeerClass, envelope: Envelope<M>) -> Result<(), Box<Envelope<M>>> {
        // Full: the consumer has something to take, so it is awake or was woken.
        self.class(class).push(envelope)?;
        self.wake();
        Ok(())
    }

    /// Hands a cut over and wakes the shard. `false`: there is no place now.
    pub fn retain(&self, cut: Retention) -> bool {
        let has_room = self.retentions.push(cut).is_ok();
        if has_room {
            self.wake();
        }
        has_room
    }

    /// Says that this shard's mailbox has room again, to the owner of this mailbox.
    pub fn give_room(&self, at: ShardId) {
        self.rooms.set(1 << at.0);
        self.wake();
    }

    /// Wakes the shard without a message.
    pub fn wake(&self) {
        if self.is_woken.swap(1) == 0 {
            self.bell.ring();
        }
    }

    /// The consumer begins to take out. What is posted from here on rings again; what was posted before is seen in this turn.
    pub fn begin_turn(&self) {
        self.is_woken.swap(0);
    }

    /// Shards whose mailboxes, once found full, have room again: a bit for each.
    pub fn take_rooms(&self) -> u64 {
        if self.rooms.load() == 0 { 0 } else { self.rooms.swap(0) }
    }

    /// The oldest completion.
    pub fn take_completion(&self) -> Option<C> {
        self.completions.pop()
    }

    /// The oldest cut.
    pub fn take_retention(&self) -> Option<Retention> {
        self.retentions.pop()
    }

    /// The oldest message of a class.
    pub fn take(&self, class: PeerClass) -> Option<Envelope<M>> {
        self.class(class).pop()
    }

    /// After something of a class was taken out: the shards, a bit for each, that are to be told by [`Self::give_room`].
    pub fn end_turn(&self, class: PeerClass) -> u64 {
        self.class(class).take_starved()
    }

    /// Completions that wait.
    pub fn completions_len(&self) -> usize {
        self.completions.len()
    }

    /// Cuts that wait.
    pub fn retentions_len(&self) -> usize {
        self.retentions.len()
    }

    /// Messages of a class that wait.
    pub fn len(&self, class: PeerClass) -> usize {
        self.class(class).len()
    }

    /// Nothing waits that anybody waits for.
    pub fn is_empty(&self) -> bool {
        self.completions_len() == 0 && CLASSES.iter().all(|class| self.len(*class) == 0)
    }
}

impl Mailbox {
    /// Ends when the bell has rung since the last time. Cancel-safe.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
}
