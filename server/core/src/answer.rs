//! What the home of a conversation or of a user answers. Entries are ready for the wire: what the reader may see of them
//! was decided at home, at the moment of the answer.

use talaria_protocol::{
    chain::Chain,
    entry::Entry,
    message::{ConversationState, Member, PageToken},
};

use crate::conversation::{Appended, Refusal};

/// An answer to a [`crate::question::Question`], or to an `Open`.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To any.
    Refused(Refusal),
    /// Where it is for `ConversationResult`, with the state.
    Appended(Appended, Option<Box<ConversationState>>),
    Members(Vec<Member>, PageToken),
    History(HistoryAnswer),
    Resumed(Resumed),
    Page(PageAnswer),
    /// `None`: there is nothing that this user may know of.
    State(Option<Box<ConversationState>>),
    /// The session has its place. `confirmed`: as its home knows it.
    Opened {
        device_number: u32,
        confirmed: bool,
    },
}

/// A page of history, not yet cut to the session's credit.
#[derive(Debug)]
pub(crate) struct HistoryAnswer {
    pub(crate) chain_before: Chain,
    pub(crate) entries: Vec<Entry>,
    /// Oldest that this reader gets.
    pub(crate) first_seq: u64,
    /// Newest.
    pub(crate) head: u64,
}

/// What became of a cursor.
#[derive(Debug)]
pub(crate) enum Resumed {
    /// It is good, or was moved to `first_seq - 1` of `truncated`.
    Good {
        /// Everything up to here is held.
        held: u64,
        truncated: Option<(u64, Chain)>,
        /// The next seq to send.
        next: u64,
        /// First of those that are passed over to get there.
        skipped_from: Option<u64>,
    },
    /// It is on a fork.
    Fork { first_seq: u64, chain: Chain, epoch: u64 },
}

/// The next entries for a lagging session.
#[derive(Debug)]
pub(crate) struct PageAnswer {
    /// What was asked for.
    pub(crate) from: u64,
    /// Those before `first_seq` are gone; the entries begin there, with the chain before it.
    pub(crate) truncated: Option<(u64, Chain)>,
    /// Before the first entry, if it was wanted.
    pub(crate) chain_before: Option<Chain>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) end: PageEnd,
}

/// Why a page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageEnd {
    /// It is full.
    More,
    /// The next entry is more than the credit.
    NoCredit,
    /// These are all up to the reader's durable head, which may follow live from here. The chain is told to a reader who
    /// sees up to the conversation's head.
    CaughtUp { head: u64, chain: Option<Chain> },
}
