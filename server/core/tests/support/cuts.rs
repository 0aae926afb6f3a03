//! What was cut off from the log, kept for the truth; and the reads of a log that has cut, and lists by recency, by
//! brute force. Over a log that cuts itself they change nothing.

use std::collections::HashMap;

use talaria_core::log::{
    Cut, Epoch, LogOp, PageQuery, ReadAnswer, ReadOp, Retention, StoredEntry, UserConversation,
};
use talaria_log::{MemoryLog, testing::FaultyLog};
use talaria_protocol::{
    hlc::Hlc,
    ids::{ConversationId, UserId},
    message::Direction,
};

/// Cuts that are durable, the last of each conversation, and the entries that went.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    last: HashMap<ConversationId, Cut>,
    gone: HashMap<ConversationId, Vec<StoredEntry>>,
    /// Of a log that does not cut: what its rows must keep.
    epochs: HashMap<ConversationId, Vec<Epoch>>,
    pub(crate) done: u64,
}

/// A cut that is being committed, the entries that go with it, and their epochs.
pub(crate) struct Cutting(Cut, Vec<StoredEntry>, Vec<Epoch>);

impl Cuts {
    /// Of a conversation that was never cut: 1.
    pub(crate) fn first_seq(&self, conversation: ConversationId) -> u64 {
        self.last.get(&conversation).map_or(1, |cut| cut.row.heads.first_seq)
    }

    /// Over a log that does not cut itself: its rows are not as they should be.
    pub(crate) fn emulates(&self) -> bool {
        !self.epochs.is_empty()
    }

    /// Entries that are no more.
    pub(crate) fn gone(&self, conversation: ConversationId) -> &[StoredEntry] {
        self.gone.get(&conversation).map_or(&[], |gone| gone)
    }

    /// An operation is about to be committed.
    pub(crate) fn on_op(&self, log: &FaultyLog<MemoryLog>, op: &mut LogOp) -> Option<Cutting> {
        match op {
            LogOp::Cut(cut) => Some(self.on_cut(log, cut)),
            LogOp::Append(append) => {
                if let Some(epochs) = self.epochs.get(&append.conversation) {
                    append.heads.first_seq = 1;
                    append.heads.epochs.splice(0..0, epochs.iter().copied());
                }
                None
            }
            _ => None,
        }
    }

    fn on_cut(&self, log: &FaultyLog<MemoryLog>, cut: &Cut) -> Cutting {
        let (conversation, heads) = (cut.conversation, &cut.row.heads);
        let first = self.first_seq(conversation);
        assert!(heads.first_seq > first && heads.first_seq <= heads.head, "not a cut");
        let page = PageQuery {
            conversation,
            from: first,
            direction: Direction::Forward,
            entries_max: (heads.first_seq - first) as usize,
            bytes_max: usize::MAX,
        };
        let Ok(ReadAnswer::Page { entries, .. }) = talaria_log::read(log.inner(), &ReadOp::Page(page)) else {
            panic!("cannot read the log")
        };
        assert_eq!(entries.last().expect("some go").chain, heads.first_chain);
        let row = talaria_log::read(log.inner(), &ReadOp::Conversation(conversation));
        let Ok(ReadAnswer::Conversation(Some((row, _)))) = row else { panic!("cannot read the log") };
        assert_eq!(row.commit, cut.row.commit, "a cut is no news");
        let mut epochs = row.heads.epochs;
        epochs.retain(|epoch| epoch.epoch < heads.epochs[0].epoch);
        Cutting(cut.clone(), entries, epochs)
    }

    /// The cut is durable.
    pub(crate) fn on_committed(&mut self, log: &FaultyLog<MemoryLog>, cutting: Cutting) {
        let Cutting(cut, entries, epochs) = cutting;
        let id = cut.conversation;
        let row = talaria_log::read(log.inner(), &ReadOp::Conversation(id));
        if matches!(row, Ok(ReadAnswer::Conversation(Some((row, _)))) if row.heads.first_seq == 1) {
            self.epochs.insert(id, epochs);
        }
        self.gone.entry(id).or_default().extend(entries);
        self.last.insert(id, cut);
        self.done += 1;
    }

    /// A retention that takes all below `first_seq`.
    pub(crate) fn retention(
        log: &FaultyLog<MemoryLog>,
        conversation: ConversationId,
        first_seq: u64,
    ) -> Option<Retention> {
        let op = PageQuery {
            conversation,
            from: first_seq - 1,
            direction: Direction::Forward,
            entries_max: 1,
            bytes_max: usize::MAX,
        };
        match talaria_log::read(log.inner(), &ReadOp::Page(op)) {
            Ok(ReadAnswer::Page { entries, .. }) => entries
                .first()
                .filter(|entry| entry.seq == first_seq - 1)
                .map(|entry| Retention { conversation, first_seq, chain_before: entry.chain }),
            _ => None,
        }
    }

    /// The log's answer.
    pub(crate) fn read(&self, log: &FaultyLog<MemoryLog>, op: &ReadOp) -> ReadAnswer {
        let mut answer = talaria_log::read(log, op).unwrap_or(ReadAnswer::Failed);
        match (op, &mut answer) {
            (ReadOp::RecentConversations { user, before, rows_max }, ReadAnswer::Failed) => {
                return self.read_recent(log, *user, *before, *rows_max);
            }
            (ReadOp::Conversation(id), ReadAnswer::Conversation(Some((row, _)))) => {
                self.cut(*id, &mut row.heads);
            }
            (ReadOp::UserConversations { .. }, ReadAnswer::UserConversations { rows, .. }) => {
                rows.iter_mut().for_each(|row| self.cut(row.conversation, &mut row.row.heads));
            }
            (ReadOp::ResumePoint { conversation, seq, .. }, ReadAnswer::ResumePoint { at, .. }) => {
                at.take_if(|_| *seq < self.first_seq(*conversation));
            }
            (ReadOp::Page(page), ReadAnswer::Page { chain_before, entries }) => {
                let first = self.first_seq(page.conversation);
                let gone = entries.partition_point(|entry| entry.seq < first);
                if let Some(last) = entries.drain(..gone).next_back() {
                    *chain_before = last.chain;
                }
            }
            _ => {}
        }
        answer
    }

    fn cut(&self, id: ConversationId, heads: &mut talaria_core::log::Heads) {
        if let Some(cut) = self.last.get(&id) {
            let cut = &cut.row.heads;
            heads.first_seq = cut.first_seq;
            heads.first_chain = cut.first_chain;
            heads.epochs.retain(|epoch| epoch.epoch >= cut.epochs[0].epoch);
        }
    }

    /// All of a user's conversations, sorted.
    fn read_recent(
        &self,
        log: &FaultyLog<MemoryLog>,
        user: UserId,
        before: Option<(Hlc, ConversationId)>,
        rows_max: usize,
    ) -> ReadAnswer {
        let all = ReadOp::UserConversations { user, after: None, since_commit: 0, rows_max: 1 << 20 };
        let ReadAnswer::UserConversations { mut rows, .. } = self.read(log, &all) else {
            return ReadAnswer::Failed;
        };
        let key = |row: &UserConversation| (row.row.heads.hlc, row.conversation);
        rows.retain(|row| before.is_none_or(|before| key(row) < before));
        rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
        let more = rows.len() > rows_max;
        rows.truncate(rows_max);
        let next = rows.last().filter(|_| more).map(key);
        ReadAnswer::RecentConversations { rows, next }
    }
}
