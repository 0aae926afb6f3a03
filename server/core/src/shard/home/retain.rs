//! The oldest entries of a conversation go, as a sweep of the log has found that they may. The sweep comes again, so what
//! finds no room, or is not right any more, is dropped.

use talaria_protocol::ids::{ConversationId, DeviceId, UserId};

use crate::{
    log::{Heads, LogOp, Outcome, Retention},
    peer::{AskId, Asking},
    question::Question,
    shard::{Shard, under_way::OpTarget},
};

impl Shard {
    /// Of a conversation of this shard; of another's it is not for this one to say.
    pub(in crate::shard) fn on_retain(&mut self, retention: Retention) {
        let id = retention.conversation;
        if self.home_of(id) != self.config.shard {
            return;
        }
        // Nobody asks, and nobody is answered.
        let asking = Asking {
            shard: self.config.shard,
            ask: AskId(0),
            user: UserId::new([0; 16]),
            device: DeviceId::from_parts(0, [0; 10]),
            device_number: 0,
        };
        self.ask_here(asking, id, Question::Retain(retention));
    }

    pub(super) fn run_retain(&mut self, id: ConversationId, retention: &Retention) {
        if !self.under_way.has_room() {
            return;
        }
        let Some(loaded) = self.loaded(id) else { return };
        if let Some(cut) = loaded.conversation.cut(retention) {
            let heads = Box::new(cut.row.heads.clone());
            self.log(LogOp::Cut(cut), OpTarget::Cut(id, heads));
        }
    }

    /// The log's word on a cut. Where that is not good, the conversation is loaded anew, as after a failed append.
    pub(in crate::shard) fn on_cut(&mut self, id: ConversationId, heads: Heads, outcome: Outcome) {
        if !matches!(outcome, Outcome::Committed { .. }) {
            return self.on_append_failed(id, outcome);
        }
        if let Some(loaded) = self.loaded(id) {
            loaded.conversation.on_cut(heads);
            self.run_parked(id);
        }
    }
}
