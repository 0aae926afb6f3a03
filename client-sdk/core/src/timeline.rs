//! One conversation's way into the store: entries come in as they arrive, and leave in the order of their seq, each
//! proven into the chain. Two cursors: what the store holds, and what is applied but not committed yet. A gap is
//! never passed over, a seq never leaves twice.
//!
//! ```text
//!           Resume            CaughtUp
//!   Idle ───────────▶ Resuming ───────▶ Live          a cut: back to Idle from everywhere but Damaged
//!    ▲                   │ │              │
//!    │    page applied   │ │ EpochChanged │
//!    ├──── Fetching ◀────┼─┼──────────────┤  own content is not here: read it from the history
//!    └──── Rewinding ◀───┴─┼──────────────┘
//!             Damaged ◀────┘                nothing is taken any more
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm},
    ids::ConversationId,
    message::Cursor,
    session::Millis,
};

use crate::{
    event::{DamageKind, EntryView},
    store::StoredEntry,
};

/// A gap that does not close within this time is asked for again.
pub const GAP_MS_MAX: u64 = 5_000;

/// The server's log went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// First seq that it does not have.
    pub first_seq: u64,
    /// What is held without it.
    pub cursor: Cursor,
}

/// See the module's diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not resumed on this connection.
    Idle,
    /// Resumed, not caught up.
    Resuming,
    /// Caught up.
    Live,
    /// The next entry's content is being read from the history.
    Fetching,
    /// A fork is being dropped.
    Rewinding(Fork),
    /// For good.
    Damaged(DamageKind),
}

/// What became of an entry that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is held until its turn; [`Timeline::next_entry`] gives it.
    Kept,
    /// It is held or applied already.
    Duplicate,
    /// Nothing is taken in this phase.
    Dropped,
}

/// What a `CaughtUp` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// Nothing: it is of an earlier `Resume`, or more is still to come.
    No,
    /// All there is is applied. `proven`: as of a `Resume` after [`Timeline::want_proof`].
    Yes {
        /// See there.
        proven: bool,
    },
}

/// Whether a fresh `Resume` is to show what the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    None,
    Wanted,
    Asked,
}

/// One conversation.
#[derive(Debug)]
pub struct Timeline {
    conversation: ConversationId,
    stored: Cursor,
    applied: Cursor,
    phase: Phase,
    waiting: BTreeMap<u64, Entry>,
    gap_since: Option<Millis>,
    acked: u64,
    /// Times that it was resumed on this connection.
    resumes: u32,
    resumed_at: u64,
    proof: Proof,
}

impl Timeline {
    /// Of a conversation of which this is in the store.
    pub fn new(conversation: ConversationId, stored: Cursor) -> Self {
        Self {
            conversation,
            stored,
            applied: stored,
            phase: Phase::Idle,
            waiting: BTreeMap::new(),
            gap_since: None,
            acked: 0,
            resumes: 0,
            resumed_at: 0,
            proof: Proof::None,
        }
    }

    /// What the store holds.
    pub fn stored(&self) -> Cursor {
        self.stored
    }

    /// What is held, committed or not.
    pub fn applied(&self) -> Cursor {
        self.applied
    }

    /// Everything applied is committed: a cursor to offer.
    pub fn is_settled(&self) -> bool {
        self.applied == self.stored
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The server has what this device holds: entries after the cursor that was offered have come, or all of them.
    pub fn is_confirmed(&self) -> bool {
        match self.phase {
            Phase::Live => true,
            Phase::Resuming => self.applied.seq > self.resumed_at,
            Phase::Idle | Phase::Fetching | Phase::Rewinding(_) | Phase::Damaged(_) => false,
        }
    }

    /// To be resumed: the cursor to offer, or `None` until the store has what is applied. What waited comes again.
    pub fn begin_resume(&mut self) -> (Option<Cursor>, Vec<Entry>) {
        let dropped = self.drop_waiting();
        if !self.is_settled() {
            self.phase = Phase::Idle;
            return (None, dropped);
        }
        if self.proof == Proof::Wanted && self.phase != Phase::Resuming {
            self.proof = Proof::Asked;
        }
        self.phase = Phase::Resuming;
        self.resumes += 1;
        self.resumed_at = self.stored.seq;
        self.acked = self.stored.seq;
        (Some(self.stored), dropped)
    }

    /// It is to be known what the log has from now on. True when it is to be resumed for that; else it is being
    /// resumed, and is to be again once that is done.
    pub fn want_proof(&mut self) -> bool {
        self.proof = Proof::Wanted;
        self.phase != Phase::Resuming
    }

    /// A proof is wanted and not asked for.
    pub fn wants_proof(&self) -> bool {
        self.proof == Proof::Wanted
    }

    /// Its delivery has stopped for now: to be resumed when the gap's time is over.
    pub fn on_refused(&mut self, now: Millis) -> Vec<Entry> {
        let dropped = self.drop_waiting();
        self.phase = Phase::Idle;
        self.gap_since = Some(now);
        dropped
    }

    /// The connection is gone.
    pub fn on_disconnected(&mut self) -> Vec<Entry> {
        if !matches!(self.phase, Phase::Damaged(_)) {
            self.phase = Phase::Idle;
        }
        self.acked = 0;
        self.resumes = 0;
        if self.proof == Proof::Asked {
            self.proof = Proof::Wanted;
        }
        self.drop_waiting()
    }

    /// The next content is not here: nothing is taken until the history brought it.
    pub fn on_fetching(&mut self) -> Vec<Entry> {
        self.phase = Phase::Fetching;
        self.drop_waiting()
    }

    /// The history brought what was missing, or did not: resume.
    pub fn on_fetched(&mut self) {
        if self.phase == Phase::Fetching {
            self.phase = Phase::Idle;
        }
    }

    /// Nothing is taken any more.
    pub fn on_damaged(&mut self, kind: DamageKind) -> Vec<Entry> {
        self.phase = Phase::Damaged(kind);
        self.drop_waiting()
    }

    fn drop_waiting(&mut self) -> Vec<Entry> {
        self.gap_since = None;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// An entry has arrived, in whatever order.
    pub fn handle_entry(&mut self, entry: Entry, now: Millis) -> Intake {
        if !matches!(self.phase, Phase::Resuming | Phase::Live) {
            return Intake::Dropped;
        }
        if entry.seq <= self.applied.seq || self.waiting.contains_key(&entry.seq) {
            return Intake::Duplicate;
        }
        if entry.seq > self.applied.seq + 1 {
            self.gap_since.get_or_insert(now);
        }
        self.waiting.insert(entry.seq, entry);
        Intake::Kept
    }

    /// The next entry in order, if it has arrived.
    pub fn next_entry(&mut self) -> Option<Entry> {
        if !matches!(self.phase, Phase::Resuming | Phase::Live) {
            return None;
        }
        let first = self.waiting.first_entry()?;
        if *first.key() != self.applied.seq + 1 {
            return None;
        }
        let entry = first.remove();
        if self.waiting.is_empty() {
            self.gap_since = None;
        }
        Some(entry)
    }

    /// Proves an entry into the chain, its content filled in. It is to be stored and, after that, shown.
    ///
    /// # Errors
    /// It contradicts itself or its predecessor.
    pub fn apply(&mut self, entry: &Entry) -> Result<Applied, DamageKind> {
        let expected = self.applied.seq + 1;
        let entry = detached(entry);
        let view = EntryView::new(self.conversation, &entry).map_err(|_| DamageKind::BadEntry)?;
        let leaf = entry.leaf().ok_or(DamageKind::BadEntry)?;
        let (seq, epoch) = match &view.header {
            Some(header) => (header.seq, header.epoch),
            // A hidden entry does not say its epoch.
            None => (entry.seq, self.applied.epoch),
        };
        if entry.seq != expected || seq != expected || epoch < self.applied.epoch {
            return Err(DamageKind::BadEntry);
        }
        let chain = self.applied.chain.next(self.conversation, seq, &leaf);
        self.applied = Cursor { epoch, seq, chain };
        Ok(Applied { stored: StoredEntry { entry, chain }, view })
    }

    /// Entries up to `to` are left out: they count as held. True when that concerns this device.
    pub fn handle_left_out(&mut self, to: u64, chain: Chain) -> bool {
        if !matches!(self.phase, Phase::Resuming | Phase::Live) || to <= self.applied.seq {
            return false;
        }
        // The epoch of the last header that is known goes with it ([DLV-61]).
        self.applied = Cursor { epoch: self.applied.epoch, seq: to, chain };
        self.waiting = self.waiting.split_off(&(to + 1));
        true
    }

    /// All up to `head` was sent, `chain` is its hash where this device may know.
    ///
    /// # Errors
    /// What is applied is another history, or on a connection's first `Resume` another seq ([DLV-44]): something is
    /// missing.
    pub fn handle_caught_up(
        &mut self,
        head: u64,
        chain: Option<Chain>,
        now: Millis,
    ) -> Result<CaughtUp, DamageKind> {
        if !matches!(self.phase, Phase::Resuming | Phase::Live) {
            return Ok(CaughtUp::No);
        }
        if self.applied.seq != head && self.resumes == 1 {
            return Err(DamageKind::Incomplete);
        }
        if self.applied.seq == head && chain.is_some_and(|chain| chain != self.applied.chain) {
            return Err(DamageKind::ChainMismatch);
        }
        self.phase = Phase::Live;
        if self.applied.seq < head {
            self.gap_since.get_or_insert(now);
            return Ok(CaughtUp::No);
        }
        if self.acked == self.resumed_at {
            // The cursor that was offered may be ahead of what was ever acknowledged.
            self.acked = 0;
        }
        let proven = self.proof == Proof::Asked;
        if proven {
            self.proof = Proof::None;
        }
        Ok(CaughtUp::Yes { proven })
    }

    /// The log went back.
    ///
    /// # Errors
    /// To where this device cannot follow.
    pub fn handle_fork(&mut self, fork: Fork) -> Result<Vec<Entry>, DamageKind> {
        if fork.first_seq == 0 || fork.first_seq > self.applied.seq {
            return Err(DamageKind::BadFork);
        }
        let dropped = self.drop_waiting();
        self.phase = Phase::Rewinding(fork);
        Ok(dropped)
    }

    /// The fork is dropped with the batch that is being built: hold what is left.
    pub fn on_rewound(&mut self, cursor: Cursor) {
        self.applied = cursor;
        self.phase = Phase::Idle;
    }

    /// The store holds everything up to here.
    pub fn on_committed(&mut self, cursor: Cursor) {
        self.stored = cursor;
    }

    /// The seq to acknowledge now, once: of a conversation that this connection knows.
    pub fn poll_ack(&mut self) -> Option<u64> {
        let known = matches!(self.phase, Phase::Resuming | Phase::Live | Phase::Fetching);
        if !known || self.stored.seq <= self.acked {
            return None;
        }
        self.acked = self.stored.seq;
        Some(self.acked)
    }

    /// When a gap has been open for too long.
    pub fn gap_deadline(&self) -> Option<Millis> {
        self.gap_since.map(|since| Millis(since.0 + GAP_MS_MAX))
    }
}

/// An entry that is the next one.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// To store.
    pub stored: StoredEntry,
    /// To show.
    pub view: EntryView,
}

/// A copy that does not keep a receive buffer alive.
fn detached(entry: &Entry) -> Entry {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let form = match &entry.form {
        EntryForm::Full { header, content, salt } => {
            EntryForm::Full { header: copy(header), content: content.as_ref().map(copy), salt: *salt }
        }
        EntryForm::Erased { header, commitment } => {
            EntryForm::Erased { header: copy(header), commitment: *commitment }
        }
        EntryForm::Hidden { leaf } => EntryForm::Hidden { leaf: *leaf },
    };
    Entry { seq: entry.seq, form }
}
