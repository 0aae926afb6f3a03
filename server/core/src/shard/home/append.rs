//! A request to append is admitted, and answered when the log has spoken.

use talaria_protocol::{ids::ConversationId, message::Peer};

use super::Slot;
use crate::{
    answer::Answer,
    conversation::{Admission, Admit, AppendRequest, Appended, Refusal, ReplyKind, Sender, Waiter},
    log::{Append, LogOp, Outcome, ReadOp, StoredBody},
    peer::Asking,
    question::Question,
    shard::{
        Shard,
        under_way::{OpTarget, ReadTarget},
    },
};

impl Shard {
    /// Admits an append; gives it back when it has to be parked.
    pub(super) fn run_append(
        &mut self,
        asking: Asking,
        id: ConversationId,
        subject: String,
        reply: ReplyKind,
        request: AppendRequest,
    ) -> Option<Question> {
        let Asking { shard, ask, user, device_number, .. } = asking;
        let sender = Sender { peer: Peer { user, subject }, device: device_number };
        let (stamp, room, can_read) = (self.stamp(), self.under_way.has_room(), self.under_way.can_read());
        let loaded = self.loaded(id)?;
        let waiter = Waiter { shard, ask, user, reply };
        match loaded.conversation.admit(&Admit { sender: &sender, waiter, request: &request, room, stamp }) {
            Admission::Append(append) => {
                let bytes = bytes_of(&append);
                self.log(LogOp::Append(*append), OpTarget::Append(id, bytes));
                None
            }
            Admission::Joined => None,
            Admission::Answer(answer) => {
                self.answer_append(id, waiter, answer);
                None
            }
            Admission::Lookup(_) if !can_read => {
                loaded.conversation.on_dedup_failed();
                self.answer(shard, ask, Answer::Refused(Refusal::busy("too many reads are under way")));
                None
            }
            Admission::Lookup(ids) => {
                let what = ReadOp::Dedup { conversation: id, user, ids: ids.clone() };
                self.read(what, ReadTarget::Dedup(id, user, ids));
                Some(Question::Append { subject: sender.peer.subject, reply, request })
            }
            Admission::Park => Some(Question::Append { subject: sender.peer.subject, reply, request }),
        }
    }

    fn answer_append(&mut self, id: ConversationId, waiter: Waiter, answer: Result<Appended, Refusal>) {
        let answer = match (answer, waiter.reply) {
            (Err(refusal), _) => Answer::Refused(refusal),
            (Ok(appended), ReplyKind::Sent) => Answer::Appended(appended, None),
            (Ok(appended), ReplyKind::Conversation) => {
                match self.ready(id).and_then(|conversation| conversation.state(waiter.user)) {
                    Some(state) => Answer::Appended(appended, Some(Box::new(state))),
                    None => Answer::Refused(Refusal::not_found()),
                }
            }
        };
        self.answer(waiter.shard, waiter.ask, answer);
    }

    /// An append of the conversation is durable.
    pub(in crate::shard) fn on_durable(&mut self, id: ConversationId, commit: u64) {
        let Some(loaded) = self.loaded(id) else { return };
        let Some(committed) = loaded.conversation.on_durable(commit) else { return };
        let can_go_on = committed.unbarred || (loaded.conversation.is_at_rest() && !loaded.parked.is_empty());
        for (waiter, answer) in committed.released {
            self.answer_append(id, waiter, answer);
        }
        self.fan_out(id, &committed.entry, commit, committed.author);
        if can_go_on {
            self.run_parked(id);
        }
    }

    /// The conversation leaves the memory; what was parked is asked again of what the log has.
    pub(in crate::shard) fn on_append_failed(&mut self, id: ConversationId, outcome: Outcome) {
        if self.ready(id).is_none_or(crate::conversation::Conversation::is_at_rest) {
            return;
        }
        let Some(Slot::Ready(loaded)) = self.home.slots.remove(&id) else { return };
        self.home.loaded.retain(|other| *other != id);
        let in_doubt = self.config.is_in_doubt;
        for (waiter, answer) in loaded.conversation.on_failed(outcome, &mut self.home.doubtful, in_doubt) {
            self.answer_append(id, waiter, answer);
        }
        for (asking, question) in loaded.parked {
            self.ask_here(asking, id, question);
        }
    }
}

fn bytes_of(append: &Append) -> usize {
    let content = |body: &StoredBody| match body {
        StoredBody::Kept { content, .. } => content.len(),
        StoredBody::Erased { .. } => 0,
    };
    append.entries.iter().map(|entry| entry.header.len() + content(&entry.body) + 64).sum()
}
