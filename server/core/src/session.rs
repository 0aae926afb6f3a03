//! A session as its shard sees it: who it is, what it was granted, and how far it is with each conversation that
//! it has resumed. An entry is delivered live only when it is the next one for this session; whatever else
//! happens, that conversation *lags* and is read from the tail or the log until it has caught up.
//!
//! ```text
//!            Resume            cursor fits             next > head
//! (none) ──► Resuming ───────► Lagging ──────────────► Live
//!    │          │ fork, damage    ▲    entry not next,   │
//!    ▼ entry    ▼                 └──────── no credit ───┘
//! Hinted ◄── Stopped
//!       entry
//! ```
//!
//! A delivery that stops for another reason (`Busy`, a failed read) is `Stopped` too. All three at the left go on
//! with `Resume`.

use std::collections::{HashMap, VecDeque};

use talaria_protocol::{ids::ConversationId, message::Credit};

use crate::effect::Identity;

/// How far a session is with a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Told by `Changed` that there is something; not resumed, or not any more.
    Hinted,
    /// Told that its delivery has stopped. Kept for what was sent before, which may still be acknowledged.
    Stopped,
    /// The cursor that it offered is being compared with the log.
    Resuming,
    /// Waits for its turn, or for credit, to be read from the log.
    Lagging,
    /// Has been sent all that is durable.
    Live,
}

/// A conversation that a session has resumed, or was told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) progress: Progress,
    /// The next seq to send.
    pub(crate) next: u64,
    /// The greatest seq that was sent, or offered as held, on this session.
    pub(crate) sent_max: u64,
    /// Acknowledged up to here.
    pub(crate) acked: u64,
    /// `CaughtUp` was sent.
    pub(crate) told: bool,
    /// First seq of those that are not for this user, to be told by `Skipped` before the next entry.
    pub(crate) skipped_from: Option<u64>,
}

impl Subscription {
    /// Nothing was sent yet.
    pub(crate) fn new(progress: Progress) -> Self {
        Self { progress, next: 1, sent_max: 0, acked: 0, told: false, skipped_from: None }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) identity: Identity,
    pub(crate) device_number: u32,
    granted: Credit,
    sent: Credit,
    pub(crate) subscriptions: HashMap<ConversationId, Subscription>,
    /// Lagging conversations, each once, in the order of their turns.
    pub(crate) lagging: VecDeque<ConversationId>,
    /// A page is being read for it, or waits for a reader.
    pub(crate) reading: bool,
}

impl Session {
    pub(crate) fn new(identity: Identity, device_number: u32, granted: Credit) -> Self {
        Self {
            identity,
            device_number,
            granted,
            sent: Credit::default(),
            subscriptions: HashMap::new(),
            lagging: VecDeque::new(),
            reading: false,
        }
    }

    /// New totals; they never go down.
    pub(crate) fn grant(&mut self, credit: Credit) {
        self.granted.entries = self.granted.entries.max(credit.entries);
        self.granted.bytes = self.granted.bytes.max(credit.bytes);
    }

    /// What may still be sent.
    pub(crate) fn credit_left(&self) -> Credit {
        Credit {
            entries: self.granted.entries.saturating_sub(self.sent.entries),
            bytes: self.granted.bytes.saturating_sub(self.sent.bytes),
        }
    }

    /// Takes what an entry of `bytes` costs; `None`, and nothing taken, when there is not enough.
    pub(crate) fn take_credit(&mut self, bytes: u64) -> Option<Credit> {
        let left = self.credit_left();
        if left.entries == 0 || left.bytes < bytes {
            return None;
        }
        self.sent.entries += 1;
        self.sent.bytes += bytes;
        Some(Credit { entries: 1, bytes })
    }

    /// Ends the delivery of a conversation, until it is resumed again.
    pub(crate) fn stop(&mut self, conversation: ConversationId) {
        self.unlag(conversation);
        if let Some(subscription) = self.subscriptions.get_mut(&conversation) {
            subscription.progress = Progress::Stopped;
            if subscription.sent_max == 0 {
                self.subscriptions.remove(&conversation);
            }
        }
    }

    /// Takes a conversation out of the queue of those to be read.
    pub(crate) fn unlag(&mut self, conversation: ConversationId) {
        let lags = |subscription: &Subscription| subscription.progress == Progress::Lagging;
        if self.subscriptions.get(&conversation).is_some_and(lags) {
            self.lagging.retain(|other| *other != conversation);
        }
    }

    /// Puts a conversation into the queue of those to be read, unless it is there.
    pub(crate) fn lag(&mut self, conversation: ConversationId) {
        if let Some(subscription) = self.subscriptions.get_mut(&conversation)
            && subscription.progress != Progress::Lagging
        {
            subscription.progress = Progress::Lagging;
            self.lagging.push_back(conversation);
        }
    }
}
