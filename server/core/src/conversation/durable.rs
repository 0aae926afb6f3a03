//! The log has spoken: what was pending becomes visible, or is given up.

use std::collections::HashSet;

use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, UserId},
};

use super::{Appended, Bar, Conversation, Refusal, Waiter, admit::Waits};
use crate::log::{Accepted, Heads, MemberRow, Outcome, StoredEntry};

/// An append under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) entry: StoredEntry,
    /// After it.
    pub(super) heads: Heads,
    pub(super) sender: (UserId, u32),
    pub(super) is_message: bool,
    pub(super) id: ClientMessageId,
    pub(super) accepted: Accepted,
    pub(super) members: Vec<(UserId, MemberRow)>,
    pub(super) waiters: Vec<(Waiter, Waits)>,
}

/// Ids whose append may be in the log or not, until that is reopened: their retries must not hear that surely
/// nothing happened ([ERR-7]). Only one commit of an opening ends so, and no more was under way than the log queue
/// holds: that bounds it.
pub type Doubtful = HashSet<(ConversationId, UserId, ClientMessageId)>;

/// Answers that the log's word releases.
pub type Released = Vec<(Waiter, Result<Appended, Refusal>)>;

/// What became durable.
#[derive(Debug)]
pub struct Committed {
    /// To be fanned out to all who see it now.
    pub entry: StoredEntry,
    /// Of a message: who sent it, from which device.
    pub author: Option<(UserId, u32)>,
    /// Whom to answer.
    pub released: Released,
    /// Appends are no longer barred: parked ones can be admitted.
    pub unbarred: bool,
}

impl Conversation {
    /// The oldest pending append is durable. `None` when nothing is pending any more, after a failure.
    pub fn on_durable(&mut self, commit: u64) -> Option<Committed> {
        let pending = self.pending.pop_front()?;
        let user = pending.sender.0;
        self.pending_ids.remove(&(user, pending.id));
        self.dedup.on_accepted(user, pending.id, pending.accepted);
        let unbarred = !pending.members.is_empty() && self.bar == Some(Bar::Membership);
        if unbarred {
            self.bar = None;
        }
        self.members.extend(pending.members);
        self.durable = pending.heads;
        self.commit = commit;
        self.tail.push(pending.entry.clone());
        let released = pending
            .waiters
            .into_iter()
            .map(|(waiter, waits)| (waiter, waits.answer(&pending.accepted)))
            .collect();
        Some(Committed {
            entry: pending.entry,
            author: pending.is_message.then_some(pending.sender),
            released,
            unbarred,
        })
    }

    /// An append failed, and with it all that came after: their seqs were never given out. The conversation must
    /// be loaded anew. `in_doubt`: all ids are doubtful.
    pub fn on_failed(self, outcome: Outcome, doubtful: &mut Doubtful, in_doubt: bool) -> Released {
        let mut released = Vec::new();
        for pending in self.pending {
            let key = (self.id, pending.sender.0, pending.id);
            if outcome == Outcome::Unknown {
                doubtful.insert(key);
            }
            let refusal = if in_doubt || doubtful.contains(&key) { outcome_unknown() } else { read_only() };
            released.extend(pending.waiters.into_iter().map(|(waiter, _)| (waiter, Err(refusal.clone()))));
        }
        released
    }
}

fn outcome_unknown() -> Refusal {
    Refusal::new(ErrorCode::OutcomeUnknown, "the write may have reached the log: send again, same id")
}

fn read_only() -> Refusal {
    Refusal {
        code: ErrorCode::ReadOnly,
        message: "the log takes no writes until the node is reopened",
        retry_after_ms: 5_000,
    }
}
