//! What the session side asks the home of a conversation.

use talaria_protocol::message::{Credit, Cursor, PageToken, client::History};

use crate::{
    conversation::{AppendRequest, ReplyKind},
    log::Retention,
};

/// A question to a conversation.
#[derive(Debug)]
pub(crate) enum Question {
    /// Answered by `Appended`.
    Append { subject: String, reply: ReplyKind, request: AppendRequest },
    /// Answered by `Members`.
    Members { page: PageToken },
    /// Answered by `History`. `entries_max` is within the asking session's credit.
    History(History),
    /// Answered by `Resumed`.
    Resume(Cursor),
    /// Answered by `Page`.
    Page(PageAsk),
    /// Answered by `State`.
    State,
    /// Not answered: a device holds all up to here.
    Ack(u64),
    /// Not answered, and of no session: old entries may go.
    Retain(Retention),
}

/// The next entries for a lagging session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageAsk {
    /// First seq.
    pub(crate) from: u64,
    /// The chain before it is to be told.
    pub(crate) chain_wanted: bool,
    /// What the session may be sent.
    pub(crate) credit: Credit,
}
