//! The mailboxes of a node's shards, in the hands of the test: a queue for each class of each pair, in order; between
//! them any order. Full, or told to refuse, a message comes back at once, and its sender hears of room later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use talaria_core::{
    limits::PEER_ASKS_IN_FLIGHT_MAX,
    peer::{PeerClass, PeerMessage},
};

use super::Rng;

/// From, to, class.
pub(crate) type Way = (u16, u16, PeerClass);

pub(crate) const CLASSES: [PeerClass; 4] =
    [PeerClass::Answer, PeerClass::Control, PeerClass::Ask, PeerClass::FanOut];

#[derive(Debug)]
pub(crate) struct Mail {
    /// Messages, with the incarnation of their senders.
    queues: BTreeMap<Way, VecDeque<(u32, PeerMessage)>>,
    /// At whom, who: to be told that there is room.
    starved: BTreeSet<(u16, u16)>,
    /// To whom, of whom: a shard has begun anew.
    pub(crate) notices: BTreeMap<(u16, u16), u32>,
    /// Messages of a class that wait at a shard.
    pub(crate) bound: usize,
    /// These are refused now.
    pub(crate) full: BTreeSet<(u16, PeerClass)>,
    /// These do not move when all else goes on.
    pub(crate) held: BTreeSet<Way>,
    /// How many of 100 are refused for no reason.
    pub(crate) refuse_percent: u64,
    pub(crate) rng: Rng,
    pub(crate) refused: u64,
}

impl Mail {
    pub(crate) fn new() -> Self {
        Self {
            queues: BTreeMap::new(),
            starved: BTreeSet::new(),
            notices: BTreeMap::new(),
            bound: 4096,
            full: BTreeSet::new(),
            held: BTreeSet::new(),
            refuse_percent: 0,
            rng: Rng(7),
            refused: 0,
        }
    }

    /// How many of a class wait at a shard.
    pub(crate) fn waiting_at(&self, at: u16, class: PeerClass) -> usize {
        let of_it = self.queues.iter().filter(|((_, to, of), _)| (*to, *of) == (at, class));
        of_it.map(|(_, queue)| queue.len()).sum()
    }

    /// Takes a message, or gives it back.
    pub(crate) fn post(
        &mut self,
        (from, to): (u16, u16),
        incarnation: u32,
        message: PeerMessage,
    ) -> Option<PeerMessage> {
        let class = message.class();
        let waiting = self.waiting_at(to, class);
        if class == PeerClass::Answer {
            assert!(waiting < PEER_ASKS_IN_FLIGHT_MAX, "more answers than questions");
        } else if self.full.contains(&(to, class))
            || waiting >= self.bound
            || self.rng.chance(self.refuse_percent)
        {
            self.starved.insert((to, from));
            self.refused += 1;
            return Some(message);
        }
        self.queues.entry((from, to, class)).or_default().push_back((incarnation, message));
        None
    }

    /// Where something waits that may move.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let waits = self.queues.iter().filter(|(way, queue)| !queue.is_empty() && !self.held.contains(way));
        waits.map(|(way, _)| *way).collect()
    }

    /// The next message of a way; first a notice that has to come before it.
    pub(crate) fn take(&mut self, way: Way) -> Option<Result<PeerMessage, u32>> {
        let (from, to, _) = way;
        let queue = self.queues.get_mut(&way)?;
        if let Some(notice) = self.notices.get(&(to, from)).copied()
            && queue.front()?.0 >= notice
        {
            self.notices.remove(&(to, from));
            return Some(Err(notice));
        }
        queue.pop_front().map(|(_, message)| Ok(message))
    }

    /// Who may be told of room, at whom.
    pub(crate) fn rooms(&self) -> Vec<(u16, u16)> {
        let has_room =
            |at: u16, class| !self.full.contains(&(at, class)) && self.waiting_at(at, class) < self.bound;
        let rooms = self.starved.iter().filter(|(at, _)| CLASSES.iter().all(|class| has_room(*at, *class)));
        rooms.copied().collect()
    }

    pub(crate) fn take_room(&mut self, room: (u16, u16)) -> bool {
        self.starved.remove(&room)
    }

    /// A shard begins anew: all others are to hear of it, and what it was starved of is forgotten.
    pub(crate) fn on_restarted(&mut self, shard: u16, shards: u16, incarnation: u32) {
        self.starved.retain(|(_, who)| *who != shard);
        self.notices.retain(|(to, _), _| *to != shard);
        for to in (0..shards).filter(|to| *to != shard) {
            self.notices.insert((to, shard), incarnation);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.starved.clear();
        self.notices.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.values().all(VecDeque::is_empty) && self.starved.is_empty() && self.notices.is_empty()
    }
}
