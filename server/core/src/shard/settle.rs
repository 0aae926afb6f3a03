//! The log's word on operations and reads: answers are released, entries are fanned out, or all is given up.

use super::{OpTarget, ReadTarget, Shard, ask::Slot};
use crate::{
    effect::{OpId, ReadId},
    log::{Outcome, ReadAnswer},
};
use talaria_protocol::ids::ConversationId;

impl Shard {
    /// An operation has ended.
    pub(super) fn on_settled(&mut self, op: OpId, outcome: Outcome) {
        match self.under_way.ops.remove(&op) {
            Some(OpTarget::Append(conversation, bytes)) => {
                self.under_way.op_bytes -= bytes;
                match outcome {
                    Outcome::Committed { commit } => self.on_durable(conversation, commit),
                    _ => self.on_append_failed(conversation, outcome),
                }
            }
            Some(OpTarget::Open(write)) => self.on_device_settled(write, outcome),
            Some(OpTarget::Cursors(writes)) => self.cursors.on_settled(&writes),
            None => {}
        }
    }

    fn on_durable(&mut self, id: ConversationId, commit: u64) {
        let Some(Slot::Ready(conversation, _)) = self.slots.get_mut(&id) else { return };
        let Some(committed) = conversation.on_durable(commit) else { return };
        for (waiter, answer) in committed.released {
            self.answer(id, waiter, answer);
        }
        self.fan_out(id, &committed.entry, committed.author);
        if committed.unbarred {
            self.run_parked(id);
        }
    }

    /// The conversation leaves the memory; what was parked is asked again of what the log has.
    fn on_append_failed(&mut self, id: ConversationId, outcome: Outcome) {
        let Some(Slot::Ready(conversation, _)) = self.slots.get(&id) else { return };
        if conversation.is_at_rest() {
            return;
        }
        let Some(Slot::Ready(conversation, parked)) = self.slots.remove(&id) else { return };
        self.loaded.retain(|other| *other != id);
        for (waiter, answer) in conversation.on_failed(outcome, &mut self.doubtful) {
            self.answer(id, waiter, answer);
        }
        for (session, ask) in parked {
            self.ask(session, id, ask);
        }
    }

    /// A read has ended.
    pub(super) fn on_read(&mut self, read: ReadId, answer: ReadAnswer) {
        match (self.under_way.end_read(read), answer) {
            (Some(ReadTarget::Load(id)), ReadAnswer::Conversation(found)) => self.on_loaded(id, Some(found)),
            (Some(ReadTarget::Load(id)), _) => self.on_loaded(id, None),
            (Some(ReadTarget::Dedup(id, user, asked)), ReadAnswer::Dedup { highest, found }) => {
                self.on_dedup_read(id, |conversation| {
                    conversation.on_dedup(user, &asked, highest, &found);
                    true
                });
            }
            (Some(ReadTarget::Dedup(id, ..)), _) => self.on_dedup_read(id, |_| false),
            (Some(ReadTarget::Open(user)), ReadAnswer::User { row, device }) => {
                self.on_user_read(user, Some((row, device)));
            }
            (Some(ReadTarget::Open(user)), _) => self.on_user_read(user, None),
            (Some(ReadTarget::Resolve(session, request_id)), ReadAnswer::User { row, .. }) => {
                self.on_resolve_read(session, request_id, Some(row));
            }
            (Some(ReadTarget::Resolve(session, request_id)), _) => {
                self.on_resolve_read(session, request_id, None);
            }
            (Some(ReadTarget::Resume(session, id, cursor, seq)), answer) => {
                self.on_resume_read(session, id, cursor, seq, &answer);
            }
            (Some(ReadTarget::CatchUp(session, id)), answer) => self.on_page(session, id, answer),
            (Some(ReadTarget::History(session, request_id, what)), answer) => {
                self.on_history_read(session, request_id, &what, answer);
            }
            (Some(ReadTarget::List(session, request_id, what)), answer) => {
                self.on_list_read(session, request_id, &what, answer);
            }
            (None, _) => {}
        }
        self.wake_waiting_reader();
    }
}
