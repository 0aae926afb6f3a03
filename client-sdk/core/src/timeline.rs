//! One conversation's way into the store: entries come in as they arrive, and leave in the order of their seq, each
//! proven into the chain. Two cursors: what the store holds, and what is applied but not committed yet. A gap is
//! never passed over, a seq never leaves twice. What arrives before its turn is held: entries within the connection's
//! credit, [`LEFT_OUT_MAX`] words on what is left out, one `CaughtUp`; the end of the connection drops all of it.
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
/// Words on left-out entries that may wait for the entries before them; with one more, what is held is dropped and
/// asked for again.
pub const LEFT_OUT_MAX: usize = 8;

/// How what the server sends reaches this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// In the order in which it was sent: TCP.
    One,
    /// Live entries may overtake others, and what is said of the session may overtake both: QUIC ([QUI-23]).
    Many,
}

/// Entries that the server leaves out, by `Skipped` or `Truncated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// First; 0: whatever comes after what is held.
    pub from: u64,
    /// Last.
    pub to: u64,
    /// chain(to).
    pub chain: Chain,
}

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

/// What is next in a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    /// To be given to [`Timeline::apply`].
    Entry(Entry),
    /// These are not held and count as if they were; the cursor has moved.
    Gap {
        /// First.
        from: u64,
        /// Last.
        to: u64,
        /// The server does not have them either.
        is_truncated: bool,
        /// Entries that had come for it.
        dropped: Vec<Entry>,
    },
}

/// What became of an entry that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is held until its turn; [`Timeline::poll_ready`] gives it.
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
    /// Wait for the entries before them, by `from`.
    left_out: BTreeMap<u64, LeftOut>,
    /// The head and its hash of a `CaughtUp` that came before the last entries up to it.
    caught_up: Option<(u64, Option<Chain>)>,
    /// The `CaughtUp` of an earlier `Resume` may still come.
    is_stale: bool,
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
            left_out: BTreeMap::new(),
            caught_up: None,
            is_stale: false,
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
        let dropped = self.leave(Phase::Idle);
        if !self.is_settled() {
            return (None, dropped);
        }
        if self.proof == Proof::Wanted && !self.is_stale {
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
        let dropped = self.leave(Phase::Idle);
        self.gap_since = Some(now);
        dropped
    }

    /// A gap did not close: what waits behind it is dropped, for it holds credit that closing the gap needs.
    pub fn on_gap_late(&mut self) -> Vec<Entry> {
        self.drop_waiting()
    }

    /// The connection is gone.
    pub fn on_disconnected(&mut self) -> Vec<Entry> {
        let dropped = match self.phase {
            Phase::Damaged(_) => self.drop_waiting(),
            _ => self.leave(Phase::Idle),
        };
        self.is_stale = false;
        self.acked = 0;
        self.resumes = 0;
        if self.proof == Proof::Asked {
            self.proof = Proof::Wanted;
        }
        dropped
    }

    /// The next content is not here: nothing is taken until the history brought it.
    pub fn on_fetching(&mut self) -> Vec<Entry> {
        self.leave(Phase::Fetching)
    }

    /// The history brought what was missing, or did not: resume.
    pub fn on_fetched(&mut self) {
        if self.phase == Phase::Fetching {
            self.phase = Phase::Idle;
        }
    }

    /// Nothing is taken any more.
    pub fn on_damaged(&mut self, kind: DamageKind) -> Vec<Entry> {
        self.leave(Phase::Damaged(kind))
    }

    /// To a phase that takes nothing, at least for now.
    fn leave(&mut self, phase: Phase) -> Vec<Entry> {
        self.is_stale |= self.phase == Phase::Resuming && self.caught_up.is_none();
        self.phase = phase;
        self.drop_waiting()
    }

    fn drop_waiting(&mut self) -> Vec<Entry> {
        self.gap_since = None;
        self.left_out.clear();
        self.caught_up = None;
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

    /// `Skipped` or `Truncated` has arrived. False when more of them wait than a server has reason to send.
    pub fn handle_left_out(&mut self, left_out: LeftOut, now: Millis) -> bool {
        let concerns = matches!(self.phase, Phase::Resuming | Phase::Live) && left_out.to > self.applied.seq;
        if !concerns {
            return true;
        }
        if left_out.from > self.applied.seq + 1 {
            self.gap_since.get_or_insert(now);
        }
        self.left_out.insert(left_out.from, left_out);
        self.left_out.len() <= LEFT_OUT_MAX
    }

    /// What is next, if it has arrived. An entry comes before a word that it is left out.
    pub fn poll_ready(&mut self, now: Millis) -> Option<Ready> {
        if !matches!(self.phase, Phase::Resuming | Phase::Live) {
            return None;
        }
        let next = self.applied.seq + 1;
        let ready = match self.waiting.remove(&next) {
            Some(entry) => Ready::Entry(entry),
            None => self.pass_over(next)?,
        };
        // It moves: what still waits has its full time again.
        let waits = !self.waiting.is_empty() || !self.left_out.is_empty() || self.caught_up.is_some();
        self.gap_since = waits.then_some(now);
        Some(ready)
    }

    /// Counts left-out entries from `next` on as held, if it is their turn.
    fn pass_over(&mut self, next: u64) -> Option<Ready> {
        self.left_out.retain(|_, left_out| left_out.to >= next);
        let from = *self.left_out.range(..=next).next()?.0;
        let LeftOut { to, chain, .. } = self.left_out.remove(&from)?;
        // The epoch of the last header that is known goes with it ([DLV-61]).
        self.applied = Cursor { epoch: self.applied.epoch, seq: to, chain };
        let after = self.waiting.split_off(&(to + 1));
        let dropped = std::mem::replace(&mut self.waiting, after).into_values().collect();
        Some(Ready::Gap { from: next, to, is_truncated: from == 0, dropped })
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

    /// All up to `head` was sent, `chain` is its hash where this device may know. With [`Streams::Many`] the last of
    /// it may still be on its way: [`poll_caught_up`](Self::poll_caught_up) says when it has come.
    ///
    /// # Errors
    /// What is applied is another history; or, where everything comes in order, on a connection's first `Resume`
    /// another seq ([DLV-44]): something is missing.
    pub fn handle_caught_up(
        &mut self,
        head: u64,
        chain: Option<Chain>,
        streams: Streams,
        now: Millis,
    ) -> Result<CaughtUp, DamageKind> {
        if !matches!(self.phase, Phase::Resuming | Phase::Live) {
            self.is_stale = false;
            return Ok(CaughtUp::No);
        }
        if streams == Streams::One && self.applied.seq != head && self.resumes == 1 {
            return Err(DamageKind::Incomplete);
        }
        self.caught_up = Some((head, chain));
        if self.applied.seq < head {
            self.gap_since.get_or_insert(now);
        }
        self.poll_caught_up().map(|end| end.map_or(CaughtUp::No, |(_, end)| end))
    }

    /// Whether everything up to the head of a `CaughtUp` is applied now, and that head: once. To be asked after each
    /// [`apply`](Self::apply) and each [`Ready::Gap`].
    ///
    /// # Errors
    /// What is applied is another history than the server's.
    pub fn poll_caught_up(&mut self) -> Result<Option<(u64, CaughtUp)>, DamageKind> {
        let Some((head, chain)) = self.caught_up.filter(|(head, _)| self.applied.seq >= *head) else {
            return Ok(None);
        };
        if self.applied.seq == head && chain.is_some_and(|chain| chain != self.applied.chain) {
            return Err(DamageKind::ChainMismatch);
        }
        self.caught_up = None;
        self.phase = Phase::Live;
        if self.waiting.is_empty() && self.left_out.is_empty() {
            self.gap_since = None;
        }
        if self.acked == self.resumed_at {
            // The cursor that was offered may be ahead of what was ever acknowledged.
            self.acked = 0;
        }
        let proven = self.proof == Proof::Asked;
        if proven {
            self.proof = Proof::None;
        }
        self.is_stale = false;
        Ok(Some((head, CaughtUp::Yes { proven })))
    }

    /// The log went back.
    ///
    /// # Errors
    /// To where this device cannot follow.
    pub fn handle_fork(&mut self, fork: Fork) -> Result<Vec<Entry>, DamageKind> {
        if fork.first_seq == 0 || fork.first_seq > self.applied.seq {
            return Err(DamageKind::BadFork);
        }
        let dropped = self.leave(Phase::Rewinding(fork));
        // This answers the `Resume`: no `CaughtUp` will.
        self.is_stale = false;
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

    /// Entries that wait for those before them.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
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
