//! A durable entry goes to every shard that may hold a session of one who sees it: once, with the list of those users.
//! Who is connected where is read from the node's directory, never asked.

use talaria_protocol::ids::{ConversationId, UserId};

use super::Slot;
use crate::{
    fan_out::{FanOut, LiveEntry},
    log::StoredEntry,
    peer::{Body, ShardId},
    shard::Shard,
};

impl Shard {
    pub(super) fn fan_out(
        &mut self,
        id: ConversationId,
        entry: &StoredEntry,
        commit: u64,
        author: Option<(UserId, u32)>,
    ) {
        let Some(Slot::Ready(loaded)) = self.home.slots.get(&id) else { return };
        let node = self.sessions.directory.node();
        let mut shards = 0;
        for (user, _) in loaded.conversation.members().filter(|(_, row)| row.sees(entry.seq)) {
            let mut present = node.shards_of(*user);
            shards |= present;
            while present != 0 {
                let shard = present.trailing_zeros() as usize;
                present &= present - 1;
                if let Some(users) = self.home.plan.get_mut(shard) {
                    users.push(*user);
                }
            }
        }
        if shards == 0 {
            return;
        }
        let author = author.filter(|(user, _)| node.shards_of(*user) != 0);
        let entry = LiveEntry::new(id, entry, commit, author);
        while shards != 0 {
            let shard = shards.trailing_zeros() as u16;
            shards &= shards - 1;
            let users = self.home.plan.get_mut(usize::from(shard)).map(std::mem::take).unwrap_or_default();
            self.post(ShardId(shard), Body::FanOut(FanOut { entry: entry.clone(), users }));
        }
    }
}
