//! The session side: the sessions of this shard's connections. Of conversations and users it knows what their homes
//! answer.

mod answer;
mod deliver;
mod gap;
mod lists;
mod open;
mod request;
mod resume;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use talaria_protocol::{ids::ConversationId, message::RequestId};

pub(super) use self::lists::{ListRead, bad_page};
use self::{gap::Sweep, request::Resolving, resume::Acks};
use crate::{directory::Directory, effect::SessionKey, peer::ShardId, session_directory::SessionDirectory};

/// What could not be asked, and is asked again: at most one page of each session, and one state of each conversation that
/// it was not yet told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Page(SessionKey),
    State(SessionKey, ConversationId),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) directory: Directory,
    pub(super) resolving: HashMap<(SessionKey, RequestId), Resolving>,
    /// Until a question of this shard has been answered.
    pub(super) waiting: VecDeque<Waiting>,
    /// Until there is room at a shard that had none.
    waiting_for_room: BTreeMap<ShardId, VecDeque<Waiting>>,
    /// A while, since their home could not say. They come under the same bounds.
    pub(super) waiting_longer: VecDeque<Waiting>,
    /// When these are asked again, mono ms.
    pub(super) ask_again_ms: Option<u64>,
    pub(super) acks: Acks,
    pub(super) sweep: Sweep,
}

impl Sessions {
    pub(super) fn new(node: Arc<SessionDirectory>, shard: ShardId, incarnation: u32) -> Self {
        Self {
            directory: Directory::new(node, shard, incarnation),
            resolving: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_for_room: BTreeMap::new(),
            waiting_longer: VecDeque::new(),
            ask_again_ms: None,
            acks: Acks::default(),
            sweep: Sweep::default(),
        }
    }

    pub(super) fn wait_for_room(&mut self, at: ShardId, what: Waiting) {
        self.waiting_for_room.entry(at).or_default().push_back(what);
    }

    /// What waited for this shard may be asked again.
    pub(super) fn on_room(&mut self, at: ShardId) {
        self.waiting.extend(self.waiting_for_room.remove(&at).unwrap_or_default());
    }

    /// What waits to be asked, for whatever reason.
    pub(super) fn waiting(&self) -> usize {
        let for_room: usize = self.waiting_for_room.values().map(VecDeque::len).sum();
        self.waiting.len() + for_room + self.waiting_longer.len()
    }
}
