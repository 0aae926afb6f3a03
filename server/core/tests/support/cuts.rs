//! What was cut off from the log, kept for the truth.

use std::collections::HashMap;

use talaria_core::log::{Cut, LogOp, PageQuery, ReadAnswer, ReadOp, Retention, StoredEntry};
use talaria_log::{MemoryLog, testing::FaultyLog};
use talaria_protocol::{ids::ConversationId, message::Direction};

/// Cuts that are durable, the last of each conversation, and the entries that went.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    last: HashMap<ConversationId, Cut>,
    gone: HashMap<ConversationId, Vec<StoredEntry>>,
    pub(crate) done: u64,
}

/// A cut that is being committed, and the entries that go with it.
pub(crate) struct Cutting(Cut, Vec<StoredEntry>);

impl Cuts {
    /// Of a conversation that was never cut: 1.
    pub(crate) fn first_seq(&self, conversation: ConversationId) -> u64 {
        self.last.get(&conversation).map_or(1, |cut| cut.row.heads.first_seq)
    }

    /// Entries that are no more.
    pub(crate) fn gone(&self, conversation: ConversationId) -> &[StoredEntry] {
        self.gone.get(&conversation).map_or(&[], |gone| gone)
    }

    /// An operation is about to be committed.
    pub(crate) fn on_op(&self, log: &FaultyLog<MemoryLog>, op: &LogOp) -> Option<Cutting> {
        match op {
            LogOp::Cut(cut) => Some(self.on_cut(log, cut)),
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
        Cutting(cut.clone(), entries)
    }

    /// The cut is durable.
    pub(crate) fn on_committed(&mut self, Cutting(cut, entries): Cutting) {
        let id = cut.conversation;
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
}
