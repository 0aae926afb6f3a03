//! What waits in the world goes on: the log, its readers, the mail between the shards.

use talaria_core::{
    effect::{Identity, Input},
    log::{CursorWrite, LogOp, Outcome, ReadAnswer, ReadOp},
    peer::{PeerClass, ShardId},
    shard::Shard,
};
use talaria_protocol::{ids::ConversationId, message::Role};

use super::{super::mail::Way, World, shard_of_session};

impl World {
    // The log and its readers.

    pub(crate) fn ops_waiting(&self) -> usize {
        self.ops.len()
    }

    /// What the log was given and has not taken.
    pub(crate) fn ops_of(&self) -> Vec<&LogOp> {
        self.ops.iter().map(|(_, _, op)| op).collect()
    }

    /// A device's durable cursor; 0: none.
    pub(crate) fn delivered(&self, conversation: ConversationId, name: &str, device: u8) -> u64 {
        let Identity { user, device, .. } = self.identity(name, device, Role::Main);
        self.delivered.get(&(conversation, user, device)).copied().unwrap_or(0)
    }

    /// Sessions that the homes of their users know of.
    pub(crate) fn registered(&self) -> usize {
        self.shards.iter().map(Shard::registered).sum()
    }

    pub(crate) fn ops_ended(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn reads_waiting(&self) -> usize {
        self.reads.len()
    }

    /// The shard waits for this read.
    pub(crate) fn waits_for(&self, op: &ReadOp) -> bool {
        self.reads.iter().any(|pending| pending.op == *op)
    }

    /// The log writer takes up to `count` operations in one commit.
    pub(crate) fn commit(&mut self, count: usize) {
        let mut ids = Vec::new();
        let (mut cursors, mut cuts) = (Vec::new(), Vec::new());
        while ids.len() < count
            && let Some((shard, id, op)) = self.ops.pop_front()
        {
            cuts.extend(self.cuts.on_op(&self.log, &op));
            if let LogOp::Cursors(writes) = &op {
                cursors.extend(writes.clone());
            }
            self.group.push(op);
            ids.push((shard, id));
        }
        let outcomes = self.group.commit(&self.log);
        if matches!(outcomes.first(), Some(Outcome::Committed { .. })) {
            cuts.into_iter().for_each(|cut| self.cuts.on_committed(cut));
            cursors.iter().for_each(|write| self.check_cursor(write));
        }
        let ended = ids.into_iter().zip(outcomes);
        self.ended.extend(ended.map(|((shard, id), outcome)| (shard, id, outcome)));
    }

    fn check_cursor(&mut self, write: &CursorWrite) {
        let last = self.delivered.entry((write.conversation, write.user, write.device)).or_default();
        assert!(write.seq > *last, "a delivered cursor went from {last} to {}", write.seq);
        *last = write.seq;
        assert!(self.stored(write.conversation, write.seq).is_some(), "a cursor beyond the head");
    }

    /// The log takes no commits until the next restart.
    pub(crate) fn is_read_only(&self) -> bool {
        self.group.failure().is_some()
    }

    /// The shard hears of the oldest ended operation.
    pub(crate) fn complete_op(&mut self) {
        if let Some((shard, op, outcome)) = self.ended.pop_front() {
            self.handle_at(shard, Input::Durable { op, outcome });
        }
    }

    /// A reader reads.
    pub(crate) fn execute_read(&mut self, index: usize) {
        if let Some(pending) = self.reads.get_mut(index)
            && pending.answer.is_none()
        {
            pending.answer = Some(talaria_log::read(&self.log, &pending.op).unwrap_or(ReadAnswer::Failed));
        }
    }

    /// A reader fails.
    pub(crate) fn fail_read(&mut self, index: usize) {
        if let Some(pending) = self.reads.get_mut(index) {
            pending.answer = Some(ReadAnswer::Failed);
        }
    }

    /// The shard hears of a read, which is executed now unless it was before.
    pub(crate) fn complete_read(&mut self, index: usize) {
        if index < self.reads.len() {
            self.execute_read(index);
            let pending = self.reads.swap_remove(index);
            let answer = pending.answer.expect("it was executed");
            self.reads_done += 1;
            self.handle_at(pending.shard, Input::Read { read: pending.read, answer });
        }
    }

    /// Everything under way goes on to its end.
    pub(crate) fn settle(&mut self) {
        let mut rounds = 0;
        loop {
            self.commit(usize::MAX);
            while self.ops_ended() > 0 {
                self.complete_op();
            }
            while self.reads_waiting() > 0 {
                self.complete_read(0);
                rounds += 1;
                assert!(rounds < 100_000, "reads without end: {:?}", self.reads.first());
            }
            let moved = self.move_all_mail();
            if self.ops.is_empty() && !moved && self.reads.is_empty() {
                return;
            }
        }
    }

    // Mail.

    /// A message goes on its way, or a notice that comes before it.
    pub(crate) fn move_mail(&mut self, way: Way) {
        let (from, to, _) = way;
        match self.mail.take(way) {
            Some(Ok(message)) => self.handle_at(to, Input::Peer { from: ShardId(from), message }),
            Some(Err(incarnation)) => self.tell_restarted(to, from, incarnation),
            None => {}
        }
    }

    pub(crate) fn tell_restarted(&mut self, to: u16, shard: u16, incarnation: u32) {
        self.mail.notices.remove(&(to, shard));
        self.handle_at(to, Input::Restarted { shard: ShardId(shard), incarnation });
    }

    pub(crate) fn tell_room(&mut self, (at, who): (u16, u16)) {
        if self.mail.take_room((at, who)) {
            self.handle_at(who, Input::Room { at: ShardId(at) });
        }
    }

    /// All mail that may move does; whether there was any.
    fn move_all_mail(&mut self) -> bool {
        let mut moved = false;
        for round in 0.. {
            assert!(round < 100_000, "mail without end: {:?}", self.mail);
            let before = moved;
            moved = false;
            while let Some(((to, shard), incarnation)) = self.mail.notices.first_key_value() {
                let (to, shard, incarnation) = (*to, *shard, *incarnation);
                self.tell_restarted(to, shard, incarnation);
                moved = true;
            }
            for way in self.mail.ways() {
                self.move_mail(way);
                moved = true;
            }
            for room in self.mail.rooms() {
                self.tell_room(room);
                moved = true;
            }
            if !moved {
                return before;
            }
            moved |= before;
        }
        moved
    }

    /// A shard loses its state and begins anew, when all that it had given to the log has ended. Answers that are under
    /// way to it come all the same.
    pub(crate) fn restart_shard(&mut self, shard: u16) {
        self.commit(usize::MAX);
        self.ended.retain(|(of, ..)| *of != shard);
        self.incarnations[usize::from(shard)] += 1;
        let incarnation = self.incarnations[usize::from(shard)];
        self.shards[usize::from(shard)] = self.begin_shard(shard);
        self.watched.retain(|session, _| shard_of_session(*session) != shard);
        self.out.retain(|session, _| shard_of_session(*session) != shard);
        self.mail.on_restarted(shard, self.shards.len() as u16, incarnation);
    }

    /// The log and the readers go on, the mail does not.
    pub(crate) fn settle_once(&mut self) {
        self.commit(usize::MAX);
        while self.ops_ended() > 0 {
            self.complete_op();
        }
        self.settle_reads();
        let ways = self.mail.ways();
        for way in ways.into_iter().filter(|(_, _, class)| *class == PeerClass::Ask) {
            self.move_mail(way);
        }
    }

    /// All reads go on to their end, the log does not.
    pub(crate) fn settle_reads(&mut self) {
        while self.reads_waiting() > 0 {
            self.complete_read(0);
        }
    }
}
