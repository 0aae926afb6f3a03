//! The log's word on operations and reads finds what waits for it. What is not of this incarnation is unknown here.

use super::{
    Shard,
    under_way::{OpTarget, ReadTarget},
};
use crate::{
    effect::{OpId, ReadId},
    log::{Outcome, ReadAnswer},
};

impl Shard {
    /// An operation has ended.
    pub(super) fn on_settled(&mut self, op: OpId, outcome: Outcome) {
        match (self.under_way.end_op(op), outcome) {
            (Some(OpTarget::Append(id, _)), Outcome::Committed { commit }) => self.on_durable(id, commit),
            (Some(OpTarget::Append(id, _)), _) => self.on_append_failed(id, outcome),
            (Some(OpTarget::Open(write)), _) => self.on_device_settled(write, outcome),
            (Some(OpTarget::Cursors(writes)), _) => self.home.cursors.on_settled(&writes),
            (Some(OpTarget::Cut(id, heads)), _) => self.on_cut(id, *heads, outcome),
            (None, _) => {}
        }
    }

    /// A read has ended.
    pub(super) fn on_read(&mut self, read: ReadId, answer: ReadAnswer) {
        let Some(target) = self.under_way.end_read(read) else { return };
        match (target, answer) {
            (ReadTarget::Load(id), ReadAnswer::Conversation(found)) => self.on_loaded(id, Some(found)),
            (ReadTarget::Load(id), _) => self.on_loaded(id, None),
            (ReadTarget::Dedup(id, user, asked), ReadAnswer::Dedup { highest, found }) => {
                self.on_dedup_read(id, |conversation| {
                    conversation.on_dedup(user, &asked, highest, &found);
                    true
                });
            }
            (ReadTarget::Dedup(id, ..), _) => self.on_dedup_read(id, |_| false),
            (ReadTarget::Open(user), ReadAnswer::User { row, device }) => {
                self.on_user_read(user, Some((row, device)));
            }
            (ReadTarget::Open(user), _) => self.on_user_read(user, None),
            (ReadTarget::Resume(read), answer) => self.on_resume_read(&read, &answer),
            (ReadTarget::Delivered(read), answer) => self.on_delivered_read(&read, &answer),
            (ReadTarget::Page(asking, id, ask), answer) => self.on_page_read(asking, id, ask, &answer),
            (ReadTarget::History(asking, what), answer) => self.on_history_read(asking, &what, &answer),
            (ReadTarget::Resolve(session, request_id), ReadAnswer::User { row, .. }) => {
                self.on_resolve_read(session, request_id, Some(row));
            }
            (ReadTarget::Resolve(session, request_id), _) => {
                self.on_resolve_read(session, request_id, None);
            }
            (ReadTarget::List(session, request_id, what), answer) => {
                self.on_list_read(session, request_id, &what, answer);
            }
            (ReadTarget::Sweep(user), answer) => self.on_sweep_read(user, answer),
        }
        self.take_mail();
        self.read_waiting_pages();
        self.go_on_sweeping();
    }
}
