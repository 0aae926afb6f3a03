//! One conversation: who is in it, where its heads are, and what of it is on its way to the log. Requests come
//! in through [`Conversation::admit`], which answers at once or gives an [`Append`](crate::log::Append); the log's word comes back
//! through [`Conversation::on_durable`]. It never shows an entry, nor refuses by a state, that is not durable:
//! a pending change of members bars all further appends until the log has spoken.
//!
//! ```text
//! admit ─┬─ Answer                                    refused, or accepted before
//!        ├─ Lookup ── the log is asked ── on_dedup ── admit again
//!        ├─ Park ──── the bar goes ────────────────── admit again
//!        └─ Append ── pending ── on_durable ───────── answers, fan-out
//! ```

mod admit;
mod assign;
mod cut;
mod dedup;
mod durable;
mod membership;
mod request;
mod tail;

use std::collections::{BTreeMap, HashMap, VecDeque};

use talaria_protocol::{
    ids::{ClientMessageId, ConversationId, UserId},
    message::{ConversationKind, ConversationState, MemberRole, Peer},
};

pub use self::{
    admit::{Admission, Admit},
    assign::Stamp,
    dedup::Dedup,
    durable::{Committed, Doubtful, Released},
    request::{AppendKind, AppendRequest, Appended, Refusal, ReplyKind, Sender, Waiter},
};
use self::{durable::Pending, tail::Tail};
use crate::log::{ConversationRow, Heads, MemberRow, StoredEntry};

/// Why appends wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bar {
    /// The last pending append changes who is a member.
    Membership,
    /// The log is asked about client message ids.
    Dedup,
    /// The oldest entries are going.
    Cut,
}

/// A conversation in memory. See the module.
#[derive(Debug)]
pub struct Conversation {
    id: ConversationId,
    /// What readers see.
    durable: Heads,
    /// After all that is pending.
    assigned: Heads,
    /// The last epoch of `assigned` was begun by this opening of the log.
    epoch_open: bool,
    /// Durable rows of all who are or were members.
    members: BTreeMap<UserId, MemberRow>,
    /// Appends under way, in the order of their seqs.
    pending: VecDeque<Pending>,
    /// Their ids → their seqs.
    pending_ids: HashMap<(UserId, ClientMessageId), u64>,
    bar: Option<Bar>,
    dedup: Dedup,
    tail: Tail,
    /// Commit of the last durable append.
    commit: u64,
}

impl Conversation {
    /// As the log has it; `boot_first_commit` is the first commit number of this opening.
    pub fn new(
        id: ConversationId,
        stored: Option<(ConversationRow, Vec<(UserId, MemberRow)>)>,
        boot_first_commit: u64,
    ) -> Self {
        let (row, members) =
            stored.unwrap_or_else(|| (ConversationRow { heads: Heads::empty(), commit: 0 }, vec![]));
        Self {
            id,
            durable: row.heads.clone(),
            assigned: row.heads,
            epoch_open: row.commit >= boot_first_commit,
            members: members.into_iter().collect(),
            pending: VecDeque::new(),
            pending_ids: HashMap::new(),
            bar: None,
            dedup: Dedup::default(),
            tail: Tail::default(),
            commit: row.commit,
        }
    }

    /// Which.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// There is at least one durable entry.
    pub fn exists(&self) -> bool {
        self.durable.head > 0
    }

    /// Durable heads.
    pub fn heads(&self) -> &Heads {
        &self.durable
    }

    /// Commit of the last durable append.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Nothing is under way: it can leave the memory.
    pub fn is_at_rest(&self) -> bool {
        self.pending.is_empty() && self.bar.is_none()
    }

    /// A durable row, of a member or of one who was.
    pub fn member(&self, user: UserId) -> Option<&MemberRow> {
        self.members.get(&user)
    }

    /// Has no durable row, but one is on its way to the log.
    pub fn is_joining(&self, user: UserId) -> bool {
        let last = self.pending.back().map_or(&[][..], |pending| &pending.members);
        !self.members.contains_key(&user) && last.iter().any(|(other, _)| *other == user)
    }

    /// All durable rows, in the order of user ids.
    pub fn members(&self) -> impl Iterator<Item = (&UserId, &MemberRow)> {
        self.members.iter()
    }

    /// Durable rows after `user`, in the order of user ids.
    pub fn members_after(&self, user: Option<UserId>) -> impl Iterator<Item = (&UserId, &MemberRow)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.members.range((user.map_or(Unbounded, Excluded), Unbounded))
    }

    /// The durable entry of this seq, if it is among the last ones.
    pub fn tail(&self, seq: u64) -> Option<&StoredEntry> {
        self.tail.get(seq)
    }

    /// Epoch of a durable seq; 0 for seq 0.
    pub fn epoch_at(&self, seq: u64) -> u64 {
        self.durable.epoch_at(seq)
    }

    /// As this user sees it, who must have a row.
    pub fn state(&self, user: UserId) -> Option<ConversationState> {
        let member = self.members.get(&user)?;
        let peer = (self.durable.kind == ConversationKind::Direct)
            .then(|| self.members.iter().find(|(other, _)| **other != user))
            .flatten()
            .map(|(other, row)| Peer { user: *other, subject: row.subject.clone() });
        Some(state_of(self.id, &self.durable, member, peer))
    }
}

/// A conversation as a user sees it, from what the log keeps of both.
pub fn state_of(
    id: ConversationId,
    heads: &Heads,
    member: &MemberRow,
    peer: Option<Peer>,
) -> ConversationState {
    let head = member.head(heads.head);
    ConversationState {
        conversation: id,
        kind: heads.kind,
        title: heads.title.clone(),
        head,
        epoch: heads.epoch_at(head),
        first_seq: heads.first_seq,
        hlc: heads.hlc,
        member: member.is_member(),
        role: if member.is_member() { member.role } else { MemberRole::Member },
        peer,
    }
}
