//! Group commit without the thread: operations are gathered up to a count and a size, written in one batch, and each
//! gets its outcome. After the first outcome that is not `Committed` nothing is written any more, so that no later
//! operation can build on one that is not there.

use talaria_core::log::{Append, Heads, LogOp, Outcome, StoredBody};

use crate::{
    batch::{Batch, encode_op, seal},
    commit_log::{CommitLog, CommitResult},
};

/// Operations in one commit.
pub const GROUP_COMMIT_OPS_MAX: usize = 1_024;
/// Header, content and row bytes, as far as they vary, after which a commit takes no more operations.
pub const GROUP_COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a row costs beside what varies in it: its key and fixed fields.
const ROW_BYTES: usize = 128;

/// Gathers operations and commits them together.
#[derive(Debug)]
pub struct GroupCommit {
    ops: Vec<LogOp>,
    bytes: usize,
    next_commit: u64,
    failed: Option<String>,
}

impl GroupCommit {
    /// The first commit will be the one after `last_commit` ([`LogInfo::commit`](talaria_core::log::LogInfo)).
    pub fn new(last_commit: u64) -> Self {
        Self { ops: Vec::new(), bytes: 0, next_commit: last_commit + 1, failed: None }
    }
    /// Adds an operation to the next commit. Accepts it even when full: the caller asks [`Self::is_full`] first.
    pub fn push(&mut self, op: LogOp) {
        self.bytes += op_bytes(&op);
        self.ops.push(op);
    }
    /// Takes no more: commit now.
    pub fn is_full(&self) -> bool {
        self.ops.len() >= GROUP_COMMIT_OPS_MAX || self.bytes >= GROUP_COMMIT_BYTES_MAX
    }
    /// Nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
    /// Operations that wait.
    pub fn len(&self) -> usize {
        self.ops.len()
    }
    /// Bytes that wait, as [`GROUP_COMMIT_BYTES_MAX`] counts them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Why nothing is committed any more; for the log and `readyz`.
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Commits what waits, and answers each operation in the order of [`Self::push`].
    pub fn commit(&mut self, log: &dyn CommitLog) -> Vec<Outcome> {
        let ops = std::mem::take(&mut self.ops);
        self.bytes = 0;
        if ops.is_empty() {
            return Vec::new();
        }
        let outcome = if self.failed.is_some() { Outcome::NotCommitted } else { self.write(&ops, log) };
        vec![outcome; ops.len()]
    }

    fn write(&mut self, ops: &[LogOp], log: &dyn CommitLog) -> Outcome {
        let commit = self.next_commit;
        let mut batch = Batch::default();
        ops.iter().for_each(|op| encode_op(op, commit, &mut batch));
        seal(commit, &mut batch);
        match log.commit(&batch) {
            CommitResult::Committed => {
                self.next_commit += 1;
                Outcome::Committed { commit }
            }
            CommitResult::NotCommitted { why } => self.fail(why, Outcome::NotCommitted),
            CommitResult::Unknown { why } => self.fail(why, Outcome::Unknown),
            CommitResult::Fenced => self.fail("another owner writes this log".to_owned(), Outcome::Fenced),
        }
    }

    fn fail(&mut self, why: String, outcome: Outcome) -> Outcome {
        self.failed = Some(why);
        outcome
    }
}

/// About what an operation adds to a batch.
pub fn op_bytes(op: &LogOp) -> usize {
    match op {
        LogOp::Append(append) => append_bytes(append),
        LogOp::User(write) => 2 * ROW_BYTES + write.row.subject.len() + write.row.tenant.len(),
        LogOp::Cut(cut) => ROW_BYTES + heads_bytes(&cut.row.heads),
        LogOp::Cursors(cursors) => cursors.len() * ROW_BYTES,
    }
}

fn append_bytes(append: &Append) -> usize {
    let entry = |body: &StoredBody| match body {
        StoredBody::Kept { content, .. } => content.len(),
        StoredBody::Erased { .. } => 0,
    };
    let entries: usize = append.entries.iter().map(|e| ROW_BYTES + e.header.len() + entry(&e.body)).sum();
    let members: usize = append.members.iter().map(|(_, row)| 2 * ROW_BYTES + row.subject.len()).sum();
    entries + members + append.accepted.len() * ROW_BYTES + heads_bytes(&append.heads)
}

fn heads_bytes(heads: &Heads) -> usize {
    ROW_BYTES + heads.title.len() + heads.epochs.len() * 48
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FaultyLog, Scenario};

    #[test]
    fn commits_are_numbered_and_answered_in_order() {
        let (log, mut chat) = (crate::MemoryLog::new(), Scenario::new(1));
        let mut group = GroupCommit::new(41);
        assert_eq!(group.commit(&log), []);
        group.push(chat.create());
        group.push(chat.message(0, "a"));
        assert_eq!(group.commit(&log), [Outcome::Committed { commit: 42 }; 2]);
        group.push(chat.message(1, "b"));
        assert_eq!(group.commit(&log), [Outcome::Committed { commit: 43 }]);
    }

    #[test]
    fn nothing_is_committed_after_a_failure() {
        for (result, outcome) in [
            (CommitResult::Unknown { why: "disk".to_owned() }, Outcome::Unknown),
            (CommitResult::NotCommitted { why: "disk".to_owned() }, Outcome::NotCommitted),
            (CommitResult::Fenced, Outcome::Fenced),
        ] {
            let (log, mut chat) = (FaultyLog::new(crate::MemoryLog::new()), Scenario::new(1));
            let mut group = GroupCommit::new(0);
            group.push(chat.create());
            group.commit(&log);
            log.fail_next_commit(result, false);
            group.push(chat.message(0, "a"));
            group.push(chat.message(0, "b"));
            assert_eq!(group.commit(&log), [outcome; 2]);
            assert!(group.failure().is_some());
            group.push(chat.message(0, "c"));
            assert_eq!(group.commit(&log), [Outcome::NotCommitted]);
        }
    }

    #[test]
    fn is_full_by_count_and_by_bytes() {
        let mut chat = Scenario::new(1);
        let mut group = GroupCommit::new(0);
        while !group.is_full() {
            group.push(chat.message(0, "x"));
        }
        assert_eq!(group.len(), GROUP_COMMIT_OPS_MAX);
        let mut group = GroupCommit::new(0);
        let text = "x".repeat(60_000);
        while !group.is_full() {
            group.push(chat.message(0, &text));
        }
        assert!(group.len() < 80 && group.bytes() >= GROUP_COMMIT_BYTES_MAX);
    }
}
