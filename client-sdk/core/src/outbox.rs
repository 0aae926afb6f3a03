//! Messages of this device on their way into the log, in order per conversation. What the app queues comes in; `Send`s
//! to transmit and [`StoreBatch`](crate::store::StoreBatch) changes come out.
//!
//! ```text
//!            mint                committed          transmit             Sent
//!   Queued ───────▶ Persisting ───────────▶ Ready ───────────▶ InFlight ──────▶ Accepted ── own entry ──▶ gone
//!                       │  ▲                  ▲ retryable, cut │   │ │                       (or skipped)
//!                       │  └── re-mint ──┐    └────────────────┘   │ └─ terminal ─▶ Removing ── committed ──▶ gone
//!                                     Proving ◀── id refused ──────┘
//! ```
//! An id is on disk before it is on the wire. Nothing is transmitted over a predecessor that is not in flight, so
//! neither a refusal nor a cut can reorder a conversation; while the predecessor is in flight it is named in `after`.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;
use talaria_protocol::{
    entry::Urgency,
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId},
    message::{RequestId, client::Send, server::Sent},
    session::Millis,
};

use crate::{
    backoff::retry_delay,
    mint::IdMint,
    rng::Rng,
    store::{LocalId, OutboxItem},
};

/// Messages that may wait in the outbox; one more is refused.
pub const OUTBOX_ITEMS_MAX: usize = 10_000;
/// Their content bytes together.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Unanswered sends of one conversation.
pub const WINDOW_ITEMS: usize = 16;
/// Where `order` starts, so that there is room before every item.
const ORDER_START: u64 = 1 << 32;
/// The longest wait before a refused send is repeated when the server gave no hint.
const RETRY_MS_MAX: u32 = 5_000;

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Too much waits already: try again once some of it is acknowledged.
    #[error("the outbox is full: wait until some messages are acknowledged")]
    Full,
    /// The store has failed: nothing can be kept.
    #[error("the client has stopped since its store failed")]
    Stopped,
}

/// A message to queue.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    /// Where to.
    pub conversation: ConversationId,
    /// An encoded, valid `Content`.
    pub content: Bytes,
    /// For notifications.
    pub urgency: Urgency,
    /// Ms since 1970; 0: never.
    pub expires_ms: u64,
    /// The sender has read up to here.
    pub seen: u64,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("conversation", &self.conversation)
            .field("content_bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its present form goes to the store with this batch.
    Persisting { batch: u64 },
    /// Kept, without an id.
    Queued,
    /// Kept, with its id.
    Ready,
    /// Unanswered.
    InFlight(RequestId),
    /// In the log at this seq; its own entry is still to come. `stale`: so said on a connection that is gone.
    /// Not kept: a restart sends it again, and the same id gives the same answer.
    Accepted { seq: u64, stale: bool },
    /// Its id was refused for its time; waits for proof that it was never appended.
    Proving,
    /// Refused for good; its removal goes to the store with this batch.
    Removing { batch: u64 },
}

#[derive(Debug)]
struct Item {
    kept: OutboxItem,
    state: State,
    /// The app was told of its acknowledgement; the log may since have gone back.
    told: bool,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    hold_until: Millis,
    refusals: u32,
}

impl Lane {
    /// The next item that may go on the wire, and what it comes after.
    fn next(&self, now: Millis) -> Option<(usize, Option<ClientMessageId>)> {
        if self.hold_until > now {
            return None;
        }
        let (mut after, mut in_flight) = (None, 0);
        for (index, item) in self.items.iter().enumerate() {
            match item.state {
                State::Accepted { .. } => {}
                State::InFlight(_) => {
                    in_flight += 1;
                    after = item.kept.id;
                }
                State::Ready if in_flight < WINDOW_ITEMS => return Some((index, after)),
                _ => return None,
            }
        }
        None
    }
}

/// What the log said of an own message, as the app is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Which.
    pub local_id: LocalId,
    /// Its id.
    pub id: ClientMessageId,
    /// Where.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: u64,
    /// The app is to be told: it was not acknowledged before.
    pub first: bool,
    /// Nothing more is expected for it: it is gone from the outbox, and is to be removed from the store.
    pub gone: bool,
}

/// What to do about a refused send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It goes out again by itself.
    Retried,
    /// Its id was refused: once the conversation is caught up anew, call [`Outbox::on_caught_up`].
    NeedsProof(ConversationId),
    /// It failed: to be removed from the store with the batch that was named.
    Failed(ConversationId, LocalId),
}

/// What the entries of a conversation prove of the items whose id was refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// To be put in the store; they go out again, with a new id where there is none.
    pub put: Vec<OutboxItem>,
    /// May have been appended or not, and never to be known: failed, to be removed from the store.
    pub unknown: Vec<LocalId>,
}

/// All messages of this device on their way.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: BTreeMap<ConversationId, Lane>,
    in_flight: HashMap<RequestId, (ConversationId, LocalId)>,
    items: usize,
    bytes: usize,
    next_local_id: u64,
    served: Option<ConversationId>,
}

impl Outbox {
    /// Goes on with what a store kept, ascending in `order`.
    pub fn load(items: Vec<OutboxItem>, next_local_id: Option<u64>) -> Self {
        let mut outbox = Self { next_local_id: next_local_id.unwrap_or(1), ..Self::default() };
        for kept in items {
            outbox.next_local_id = outbox.next_local_id.max(kept.local_id.0 + 1);
            let state = if kept.id.is_some() { State::Ready } else { State::Queued };
            outbox.insert(Item { kept, state, told: false });
        }
        outbox
    }

    fn insert(&mut self, item: Item) {
        self.items += 1;
        self.bytes += item.kept.content.len();
        let lane = self.lanes.entry(item.kept.conversation).or_default();
        let place = lane.items.partition_point(|other| other.kept.order < item.kept.order);
        lane.items.insert(place, item);
    }

    /// Messages that are not yet among the stored entries.
    pub fn len(&self) -> usize {
        self.items
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Sends that wait for their answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Conversations with something unanswered or unsent.
    pub fn conversations(&self) -> impl Iterator<Item = ConversationId> + '_ {
        self.lanes.keys().copied()
    }

    /// The local id that the next message gets.
    pub fn next_local_id(&self) -> u64 {
        self.next_local_id
    }

    /// Takes a message; it is to be put in the store with `batch`.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn push(&mut self, draft: Draft, batch: u64) -> Result<OutboxItem, QueueError> {
        if self.items >= OUTBOX_ITEMS_MAX || self.bytes + draft.content.len() > OUTBOX_BYTES_MAX {
            return Err(QueueError::Full);
        }
        let local_id = LocalId(self.next_local_id);
        self.next_local_id += 1;
        let kept = OutboxItem {
            local_id,
            order: ORDER_START + local_id.0,
            conversation: draft.conversation,
            content: draft.content,
            urgency: draft.urgency,
            expires_ms: draft.expires_ms,
            seen: draft.seen,
            id: None,
            unproven: false,
        };
        self.insert(Item { kept: kept.clone(), state: State::Persisting { batch }, told: false });
        Ok(kept)
    }

    /// Mints ids for those next in line, in order; they are to be put in the store with `batch`. Call it while
    /// connected only: the id's time is that of the first transmission.
    pub fn mint(&mut self, unix_ms: u64, mint: &mut IdMint, rng: &mut Rng, batch: u64) -> Vec<OutboxItem> {
        let mut minted = Vec::new();
        for lane in self.lanes.values_mut() {
            let waiting = lane.items.iter_mut().filter(|item| !matches!(item.state, State::Accepted { .. }));
            for item in waiting.take(WINDOW_ITEMS) {
                match item.state {
                    State::Queued | State::Persisting { .. } if item.kept.id.is_none() => {}
                    State::Proving | State::Removing { .. } => break,
                    _ => continue,
                }
                item.kept.id = Some(mint.mint(unix_ms, rng));
                item.state = State::Persisting { batch };
                minted.push(item.kept.clone());
            }
        }
        minted
    }

    /// The next message to transmit as `request`, if there is one whose conversation is not `held`.
    pub fn next_send(
        &mut self,
        now: Millis,
        held: impl Fn(ConversationId) -> bool,
    ) -> Option<(LocalId, Send)> {
        // The lane after the one served last, so that a busy conversation starves no other.
        let start = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.lanes.range((start, Bound::Unbounded)).chain(self.lanes.iter());
        let (conversation, (index, after)) = turn
            .filter(|(conversation, _)| !held(**conversation))
            .find_map(|(conversation, lane)| Some((*conversation, lane.next(now)?)))?;
        let kept = &self.lanes.get(&conversation)?.items.get(index)?.kept;
        self.served = Some(conversation);
        let send = Send {
            conversation,
            client_message_id: kept.id?,
            content: kept.content.clone(),
            after,
            seen: kept.seen,
            urgency: kept.urgency,
            expires_ms: kept.expires_ms,
        };
        Some((kept.local_id, send))
    }

    /// What [`next_send`](Self::next_send) gave is on the wire.
    pub fn on_transmitted(&mut self, conversation: ConversationId, local_id: LocalId, request: RequestId) {
        if let Some(item) = self.find(conversation, local_id) {
            item.state = State::InFlight(request);
            self.in_flight.insert(request, (conversation, local_id));
        }
    }

    /// When [`next_send`](Self::next_send) may have something though nothing else happens.
    pub fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        self.lanes.values().map(|lane| lane.hold_until).filter(|until| *until > now).min()
    }

    /// The store has committed this batch and those before it.
    pub fn on_committed(&mut self, committed: u64) {
        let mut removed = Vec::new();
        for (conversation, lane) in &mut self.lanes {
            for item in &mut lane.items {
                match item.state {
                    State::Persisting { batch } if batch <= committed => {
                        item.state = if item.kept.id.is_some() { State::Ready } else { State::Queued };
                    }
                    State::Removing { batch } if batch <= committed => {
                        removed.push((*conversation, item.kept.local_id));
                    }
                    _ => {}
                }
            }
        }
        for (conversation, local_id) in removed {
            self.remove(conversation, local_id);
        }
    }

    /// The connection is gone: what was unanswered goes out again, with the same ids and in order.
    pub fn on_disconnected(&mut self) {
        self.in_flight.clear();
        for lane in self.lanes.values_mut() {
            lane.hold_until = Millis::default();
            for item in &mut lane.items {
                item.state = match item.state {
                    State::InFlight(_) => State::Ready,
                    State::Accepted { seq, .. } => State::Accepted { seq, stale: true },
                    state => state,
                };
            }
        }
    }

    /// The log has it. `held_seq`: everything up to there is among the entries already.
    pub fn on_sent(&mut self, sent: &Sent, held_seq: impl Fn(ConversationId) -> u64) -> Option<Resolved> {
        let (conversation, local_id) = self.in_flight.remove(&sent.request_id)?;
        let lane = self.lanes.get_mut(&conversation)?;
        lane.refusals = 0;
        let item = lane.items.iter_mut().find(|item| item.kept.local_id == local_id)?;
        item.state = State::Accepted { seq: sent.seq, stale: false };
        let first = !std::mem::replace(&mut item.told, true);
        let id = item.kept.id?;
        let gone = sent.seq <= held_seq(conversation);
        if gone {
            self.remove(conversation, local_id);
        }
        Some(Resolved { local_id, id, conversation, seq: sent.seq, first, gone })
    }

    /// The log does not have it now. `batch` is the one that will remove it when it failed.
    pub fn on_refused(
        &mut self,
        request: RequestId,
        code: Option<ErrorCode>,
        retry_after_ms: u32,
        now: Millis,
        rng: &mut Rng,
        batch: u64,
    ) -> Option<Refusal> {
        let (conversation, local_id) = self.in_flight.remove(&request)?;
        let lane = self.lanes.get_mut(&conversation)?;
        let item = lane.items.iter_mut().find(|item| item.kept.local_id == local_id)?;
        match code {
            Some(code) if code.retryable() => {
                item.state = State::Ready;
                if code != ErrorCode::OutOfOrder {
                    lane.refusals += 1;
                    let unhinted = (10u32 << lane.refusals.min(12)).min(RETRY_MS_MAX);
                    let until = now.after(retry_delay(retry_after_ms.max(unhinted), rng));
                    lane.hold_until = lane.hold_until.max(until);
                } else if lane.hold_until <= now {
                    lane.hold_until = now.after(retry_delay(retry_after_ms, rng));
                }
                Some(Refusal::Retried)
            }
            Some(ErrorCode::IdExpired | ErrorCode::IdFromFuture) => {
                item.state = State::Proving;
                Some(Refusal::NeedsProof(conversation))
            }
            _ => {
                item.state = State::Removing { batch };
                Some(Refusal::Failed(conversation, local_id))
            }
        }
    }

    /// Content of an own message, to prove its entry, whose content was not sent back.
    pub fn content(&self, conversation: ConversationId, id: ClientMessageId) -> Option<Bytes> {
        let lane = self.lanes.get(&conversation)?;
        lane.items.iter().find(|item| item.kept.id == Some(id)).map(|item| item.kept.content.clone())
    }

    /// An own entry is among the entries that the next batch stores: the same batch is to remove the item.
    pub fn on_own_entry(
        &mut self,
        conversation: ConversationId,
        id: ClientMessageId,
        seq: u64,
    ) -> Option<Resolved> {
        let lane = self.lanes.get_mut(&conversation)?;
        let item = lane.items.iter().find(|item| item.kept.id == Some(id))?;
        let (local_id, first) = (item.kept.local_id, !item.told);
        if let State::InFlight(request) = item.state {
            self.in_flight.remove(&request);
        }
        lane.refusals = 0;
        self.remove(conversation, local_id);
        Some(Resolved { local_id, id, conversation, seq, first, gone: true })
    }

    /// Entries up to `to` were skipped: accepted items among them are done (their local ids are returned), of the
    /// others nothing can be proved any more (they are to be put in the store).
    pub fn on_skipped(&mut self, conversation: ConversationId, to: u64) -> (Vec<LocalId>, Vec<OutboxItem>) {
        let (mut gone, mut put) = (Vec::new(), Vec::new());
        for item in self.lanes.get_mut(&conversation).into_iter().flat_map(|lane| &mut lane.items) {
            match item.state {
                State::Accepted { seq, .. } if seq <= to => gone.push(item.kept.local_id),
                State::Accepted { .. } => {}
                _ if item.kept.id.is_some() && !item.kept.unproven => {
                    item.kept.unproven = true;
                    put.push(item.kept.clone());
                }
                _ => {}
            }
        }
        for local_id in &gone {
            self.remove(conversation, *local_id);
        }
        (gone, put)
    }

    /// The conversation is caught up: what an earlier connection accepted and is still here was not among its
    /// entries. `proven`: the `Resume` was sent after the last refusal of an id, so the same holds for those. Puts go
    /// with `batch`.
    pub fn on_caught_up(&mut self, conversation: ConversationId, proven: bool, batch: u64) -> Proof {
        let mut proof = Proof::default();
        for item in self.lanes.get_mut(&conversation).into_iter().flat_map(|lane| &mut lane.items) {
            match item.state {
                State::Proving if !proven => {}
                State::Proving if item.kept.unproven => {
                    item.state = State::Removing { batch };
                    proof.unknown.push(item.kept.local_id);
                }
                State::Proving => {
                    item.kept.id = None;
                    item.state = State::Persisting { batch };
                    proof.put.push(item.kept.clone());
                }
                // The log may have gone back before the entry came: the same id finds out.
                State::Accepted { stale: true, .. } => item.state = State::Ready,
                _ => {}
            }
        }
        proof
    }

    /// The log went back to before `first_seq`: what was accepted from there on goes out again, and what only the
    /// entries held (`lost`, in their order) does before it, with the same ids. Puts go with `batch`.
    pub fn on_fork(
        &mut self,
        conversation: ConversationId,
        first_seq: u64,
        lost: Vec<(ClientMessageId, Draft)>,
        batch: u64,
    ) -> Vec<OutboxItem> {
        let mut put = Vec::new();
        let lane = self.lanes.entry(conversation).or_default();
        for item in &mut lane.items {
            if matches!(item.state, State::Accepted { seq, .. } if seq >= first_seq) {
                item.state = State::Ready;
            }
        }
        let count = lost.len() as u64;
        let before = lane.items.front().map_or(ORDER_START + self.next_local_id, |item| item.kept.order);
        for (offset, (id, draft)) in lost.into_iter().enumerate() {
            let kept = OutboxItem {
                local_id: LocalId(self.next_local_id),
                order: before - count + offset as u64,
                conversation,
                content: draft.content,
                urgency: draft.urgency,
                expires_ms: draft.expires_ms,
                seen: draft.seen,
                id: Some(id),
                unproven: false,
            };
            self.next_local_id += 1;
            put.push(kept.clone());
            self.insert(Item { kept, state: State::Persisting { batch }, told: true });
        }
        put
    }

    fn find(&mut self, conversation: ConversationId, local_id: LocalId) -> Option<&mut Item> {
        self.lanes.get_mut(&conversation)?.items.iter_mut().find(|item| item.kept.local_id == local_id)
    }

    fn remove(&mut self, conversation: ConversationId, local_id: LocalId) {
        let Some(lane) = self.lanes.get_mut(&conversation) else { return };
        let Some(index) = lane.items.iter().position(|item| item.kept.local_id == local_id) else { return };
        if let Some(item) = lane.items.remove(index) {
            self.items -= 1;
            self.bytes -= item.kept.content.len();
        }
        if lane.items.is_empty() {
            self.lanes.remove(&conversation);
        }
    }
}
