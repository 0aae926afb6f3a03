//! The home side: conversations and users of this shard's slots. It knows sessions only as who asks and who is
//! answered.

mod append;
mod ask;
mod delivered;
mod fan_out;
mod lists;
mod page;
mod resume;
mod retain;
mod users;

use std::collections::{HashMap, VecDeque};

use talaria_protocol::ids::{ConversationId, UserId};

use self::users::HomeUser;
pub(super) use self::{ask::Slot, lists::HistoryRead, users::OpeningWrite};
use crate::{
    conversation::Doubtful, cursors::Cursors, limits::CONVERSATIONS_LOADED_MAX, peer::Asking,
    question::PageAsk,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) slots: HashMap<ConversationId, Slot>,
    /// Loaded conversations, in the order in which they are looked at for unloading.
    pub(super) loaded: VecDeque<ConversationId>,
    pub(super) loaded_max: usize,
    pub(super) cursors: Cursors,
    pub(super) doubtful: Doubtful,
    users: HashMap<UserId, HomeUser>,
    /// Pages that wait for a reader: at most one of each session.
    pub(super) waiting_to_read: VecDeque<(Asking, ConversationId, PageAsk)>,
    /// Recipients of an entry, per shard: empty between two.
    plan: Vec<Vec<UserId>>,
}

impl Home {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            slots: HashMap::new(),
            loaded: VecDeque::new(),
            loaded_max: CONVERSATIONS_LOADED_MAX,
            cursors: Cursors::default(),
            doubtful: Doubtful::new(),
            users: HashMap::new(),
            waiting_to_read: VecDeque::new(),
            plan: (0..shards).map(|_| Vec::new()).collect(),
        }
    }

    /// What is parked at conversations.
    pub(super) fn parked(&self) -> usize {
        self.slots.values().map(Slot::parked).sum()
    }

    /// Sessions that have their place.
    pub(super) fn registered(&self) -> usize {
        self.users.values().map(HomeUser::sessions).sum()
    }

    /// Sessions that wait to be opened.
    pub(super) fn opening(&self) -> usize {
        self.users.values().map(HomeUser::opening).sum()
    }
}
