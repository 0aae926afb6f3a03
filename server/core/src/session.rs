//! A session as its shard sees it: who it is, what it was granted, and how far it is with each conversation that
//! it has resumed. An entry is delivered live only when it is the next one for this session; whatever else
//! happens, that conversation *lags*, and its home is asked for pages until it has caught up.
//!
//! ```text
//!            Resume            cursor fits             home: caught up at next - 1,
//! (none) ──► Resuming ───────► Lagging ──────────────► Live   and of no later entry was heard
//!    │          │ fork, damage    ▲    entry not next,   │
//!    ▼ entry    ▼                 └──── no credit, gap ──┘
//! Hinting ◄── Stopped
//!    ▼ home: state
//! Hinted
//! ```
//!
//! Answers and entries come by different queues, in any order. An entry that comes while its conversation lags is not
//! delivered, but remembered (`heard_max`): an answer that says "caught up" before it is not yet the end. After a gap not
//! even that is known, and only a question that was asked later counts (`recheck`).
//!
//! A delivery that stops for another reason (`Busy`, a failed read) is `Stopped` too. All at the left go on with `Resume`.

use std::collections::{HashMap, VecDeque};

use talaria_protocol::{ids::ConversationId, message::Credit};

use crate::{effect::Identity, peer::AskId};

/// How far a session is with a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// To be told by `Changed` that there is something: its state is asked for.
    Hinting,
    /// Told so; not resumed, or not any more.
    Hinted,
    /// Told that its delivery has stopped. Kept for what was sent before, which may still be acknowledged.
    Stopped,
    /// The cursor that it offered is being compared with the log, by this question.
    Resuming(AskId),
    /// Waits for its turn, or for credit, to be read.
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
    /// Acknowledged up to here, on this session.
    pub(crate) acked: u64,
    /// The greatest seq that was fanned out while it could not be delivered.
    pub(crate) heard_max: u64,
    /// Something may have been left out: what was asked before does not tell whether it has caught up.
    pub(crate) recheck: bool,
    /// `CaughtUp` was sent.
    pub(crate) told: bool,
    /// First seq of those that are not for this user, to be told by `Skipped` before the next entry.
    pub(crate) skipped_from: Option<u64>,
}

impl Subscription {
    /// Nothing was sent yet.
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            progress,
            next: 1,
            sent_max: 0,
            acked: 0,
            heard_max: 0,
            recheck: false,
            told: false,
            skipped_from: None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) identity: Identity,
    pub(crate) device_number: u32,
    /// Its peer has proved that it is there now.
    pub(crate) confirmed: bool,
    granted: Credit,
    sent: Credit,
    pub(crate) subscriptions: HashMap<ConversationId, Subscription>,
    /// Lagging conversations, each once, in the order of their turns.
    pub(crate) lagging: VecDeque<ConversationId>,
    /// A page was asked for, or waits until it can be.
    pub(crate) reading: bool,
    /// What was granted when a page was last asked for.
    asked_with: Credit,
    /// The next entry is more than the credit: a grant goes on.
    pub(crate) starved: bool,
}

impl Session {
    pub(crate) fn new(identity: Identity, device_number: u32, confirmed: bool, granted: Credit) -> Self {
        Self {
            identity,
            device_number,
            confirmed,
            granted,
            sent: Credit::default(),
            subscriptions: HashMap::new(),
            lagging: VecDeque::new(),
            reading: false,
            asked_with: Credit::default(),
            starved: false,
        }
    }

    /// New totals; they never go down.
    pub(crate) fn grant(&mut self, credit: Credit) {
        self.granted.entries = self.granted.entries.max(credit.entries);
        self.granted.bytes = self.granted.bytes.max(credit.bytes);
        self.starved = false;
    }

    /// A page is asked for, with the credit that there is.
    pub(crate) fn begin_reading(&mut self) -> Credit {
        self.reading = true;
        self.asked_with = self.granted;
        self.credit_left()
    }

    /// The credit was not enough, unless there was a grant since it was asked with.
    pub(crate) fn starve(&mut self) {
        self.starved = self.asked_with == self.granted;
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
        if self.lagging.front() == Some(&conversation) {
            self.lagging.pop_front();
            self.starved = false;
        } else if self.subscriptions.get(&conversation).is_some_and(lags) {
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
