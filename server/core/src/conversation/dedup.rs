//! Which client message ids of a user were accepted. A client's ids ascend, so one that is greater than the
//! greatest accepted is surely new; only for the others, once, the log is asked.

use std::collections::{HashMap, VecDeque};

use talaria_protocol::ids::{ClientMessageId, UserId};

use crate::{limits::RECENT_IDS_MAX, log::Accepted};

/// What is known of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was never accepted.
    New,
    /// It was.
    Accepted(Accepted),
    /// Only the log knows.
    AskLog,
}

#[derive(Debug, Default)]
struct UserIds {
    /// Greatest id accepted, pending ones included.
    highest: Option<ClientMessageId>,
    /// The last accepted ones.
    accepted: VecDeque<(ClientMessageId, Accepted)>,
    /// Ids that the log does not have, and that were not accepted since.
    absent: VecDeque<ClientMessageId>,
}

/// What is known of the ids of a conversation's users.
#[derive(Debug, Default)]
pub struct Dedup {
    users: HashMap<UserId, UserIds>,
}

impl Dedup {
    /// Nothing of this user is in the log: no need to ask.
    pub(super) fn begin(&mut self, user: UserId) {
        self.users.entry(user).or_default();
    }

    /// Whether an id was accepted.
    pub fn lookup(&self, user: UserId, id: ClientMessageId) -> Known {
        let Some(ids) = self.users.get(&user) else { return Known::AskLog };
        if ids.highest.is_none_or(|highest| id > highest) {
            return Known::New;
        }
        if let Some((_, accepted)) = ids.accepted.iter().rev().find(|(known, _)| *known == id) {
            return Known::Accepted(*accepted);
        }
        if ids.absent.contains(&id) { Known::New } else { Known::AskLog }
    }

    /// What the log said of `asked`.
    pub(super) fn on_answer(
        &mut self,
        user: UserId,
        asked: &[ClientMessageId],
        highest: Option<ClientMessageId>,
        found: &[(ClientMessageId, Accepted)],
    ) {
        let ids = self.users.entry(user).or_default();
        ids.highest = ids.highest.max(highest);
        for id in asked {
            match found.iter().find(|(known, _)| known == id) {
                Some((_, accepted)) => push_bounded(&mut ids.accepted, (*id, *accepted)),
                None => push_bounded(&mut ids.absent, *id),
            }
        }
    }

    /// An id was given a seq.
    pub(super) fn on_assigned(&mut self, user: UserId, id: ClientMessageId) {
        let ids = self.users.entry(user).or_default();
        ids.highest = ids.highest.max(Some(id));
        ids.absent.retain(|absent| *absent != id);
    }

    /// An id's entry is durable.
    pub(super) fn on_accepted(&mut self, user: UserId, id: ClientMessageId, accepted: Accepted) {
        push_bounded(&mut self.users.entry(user).or_default().accepted, (id, accepted));
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == RECENT_IDS_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}
