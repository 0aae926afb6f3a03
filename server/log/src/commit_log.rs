//! The trait that a store implements. One batch is one commit: all of it or nothing, and durable as
//! [`CommitLog::durability`] says before `Committed` is returned. A view sees one moment, whatever is committed
//! meanwhile. After an `Unknown` the log writes nothing any more until it is reopened: what is in it is not known.

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use talaria_protocol::message::Durability;

use crate::{Batch, error::ReadError, keys::Family, keys::prefix_end};

/// How a commit ended. `why` is for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// Durable.
    Committed,
    /// Surely nothing was written.
    NotCommitted {
        /// In the store's words.
        why: String,
    },
    /// It may be in the log or not: only reopening tells. The log is read-only from now on.
    Unknown {
        /// In the store's words.
        why: String,
    },
    /// Another owner writes this log now: surely nothing was written.
    Fenced,
}

/// A store of rows, written by one thread and read by many.
pub trait CommitLog: Send + Sync {
    /// Writes a batch and waits until it is durable. Called by one thread at a time.
    fn commit(&self, batch: &Batch) -> CommitResult;
    /// All that was committed when it is called.
    fn view(&self) -> Box<dyn View + '_>;
    /// What `Committed` means.
    fn durability(&self) -> Durability;
    /// Why nothing is written any more; `None` while the log takes commits.
    fn read_only(&self) -> Option<String>;
    /// Writes nothing any more, until it is reopened.
    fn is_read_only(&self) -> bool {
        self.read_only().is_some()
    }
}

/// What a visitor answers to a row: go on, or end the scan.
pub type Visit = ControlFlow<()>;

/// One moment of the log. Reads may nest: a visitor may read in the same view.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// The store failed, or its checksums do.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ReadError>;
    /// Shows rows (key, value) to the visitor until it breaks or the range ends.
    ///
    /// # Errors
    /// The store failed, or its checksums do; what was visited before is good.
    fn scan(
        &self,
        family: Family,
        scan: &Scan,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), ReadError>;
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The least key, included.
    pub start: Vec<u8>,
    /// The end, excluded; `None`: to the last key.
    pub end: Option<Vec<u8>>,
    /// Which way.
    pub order: Order,
}

impl Scan {
    /// All keys of a family.
    pub fn all() -> Self {
        Self { start: Vec::new(), end: None, order: Order::Forward }
    }
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: prefix_end(prefix), order: Order::Forward }
    }
    /// Keys in `start..end`.
    pub fn range(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: Some(end.to_vec()), order: Order::Forward }
    }
    /// The same range, from its end.
    #[must_use]
    pub fn backward(self) -> Self {
        Self { order: Order::Backward, ..self }
    }
    /// No key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Lets commits of a store through until one of them ends `Unknown` or `Fenced`.
#[derive(Debug, Default)]
pub struct WriteGate {
    closed: Mutex<Option<(String, bool)>>,
}

impl WriteGate {
    fn lock(&self) -> MutexGuard<'_, Option<(String, bool)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A gate that lets nothing through.
    pub fn new_closed(why: &str) -> Self {
        Self { closed: Mutex::new(Some((why.to_owned(), false))) }
    }
    /// Runs `commit` unless the gate is closed, and closes it when that ends `Unknown` or `Fenced`. Commits exclude
    /// each other.
    pub fn pass(&self, commit: impl FnOnce() -> CommitResult) -> CommitResult {
        let mut closed = self.lock();
        match &*closed {
            Some((_, true)) => return CommitResult::Fenced,
            Some((why, false)) => return CommitResult::NotCommitted { why: why.clone() },
            None => {}
        }
        let result = commit();
        match &result {
            CommitResult::Unknown { why } => {
                *closed = Some((format!("read-only until reopened, since a write failed: {why}"), false));
            }
            CommitResult::Fenced => *closed = Some(("another owner writes this log".to_owned(), true)),
            CommitResult::Committed | CommitResult::NotCommitted { .. } => {}
        }
        result
    }
    /// Why it is closed.
    pub fn closed(&self) -> Option<String> {
        self.lock().as_ref().map(|(why, _)| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_after_unknown_and_fenced_only() {
        let unknown = || CommitResult::Unknown { why: "disk".to_owned() };
        let refused = || CommitResult::NotCommitted { why: "full".to_owned() };
        let gate = WriteGate::default();
        assert_eq!(gate.pass(refused), refused());
        assert_eq!(gate.pass(|| CommitResult::Committed), CommitResult::Committed);
        assert_eq!(gate.closed(), None);
        assert_eq!(gate.pass(unknown), unknown());
        let CommitResult::NotCommitted { why } = gate.pass(|| panic!("nothing may be written")) else {
            panic!()
        };
        assert!(why.contains("until reopened") && why.contains("disk"), "{why}");
        let fenced = WriteGate::default();
        for _ in 0..2 {
            assert_eq!(fenced.pass(|| CommitResult::Fenced), CommitResult::Fenced);
        }
    }
}
