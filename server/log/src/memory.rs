//! A log in memory: what tests and simulations run on. Nothing is durable beyond the value itself. A commit puts a
//! new version of the changed families in place, a view holds the version it was made of.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use talaria_protocol::message::Durability;

use crate::{
    Batch,
    batch::Write,
    commit_log::{CommitLog, CommitResult, Order, Scan, View, Visit, WriteGate},
    error::ReadError,
    keys::Family,
};

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// One version of all rows; cloning it shares them.
#[derive(Clone, Debug, Default)]
struct Version {
    families: [Arc<Rows>; Family::ALL.len()],
}

impl Version {
    fn apply(&mut self, batch: &Batch) {
        for write in batch.writes() {
            match write {
                Write::Put { family, key, value } => {
                    self.rows(*family).insert(key.clone(), Bytes::copy_from_slice(value));
                }
                Write::Delete { family, key } => {
                    self.rows(*family).remove(key);
                }
                Write::DeleteRange { family, start, end } => {
                    let rows = self.rows(*family);
                    let mut cut = rows.split_off(start);
                    rows.append(&mut cut.split_off(end));
                }
            }
        }
    }
    fn rows(&mut self, family: Family) -> &mut Rows {
        Arc::make_mut(&mut self.families[family as usize])
    }
}

/// A log in memory. A clone is another handle to the same rows.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    rows: Arc<RwLock<Version>>,
    gate: Arc<WriteGate>,
    durability: Durability,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self { rows: Arc::default(), gate: Arc::default(), durability: Durability::Fsync }
    }
}

impl MemoryLog {
    /// An empty log that claims to be durable.
    pub fn new() -> Self {
        Self::default()
    }
    /// A copy of the rows as they are now that takes commits again: a restart, or a backup. The old log goes its own
    /// way.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner).clone();
        Self { rows: Arc::new(RwLock::new(rows)), gate: Arc::default(), durability: self.durability }
    }
}

impl CommitLog for MemoryLog {
    fn commit(&self, batch: &Batch) -> CommitResult {
        self.gate.pass(|| {
            self.rows.write().unwrap_or_else(PoisonError::into_inner).apply(batch);
            CommitResult::Committed
        })
    }
    fn view(&self) -> Box<dyn View + '_> {
        Box::new(self.rows.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
    fn durability(&self) -> Durability {
        self.durability
    }
    fn read_only(&self) -> Option<String> {
        self.gate.closed()
    }
}

impl View for Version {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.families[family as usize].get(key).cloned())
    }
    fn scan(
        &self,
        family: Family,
        scan: &Scan,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), ReadError> {
        if scan.is_empty() {
            return Ok(());
        }
        let end = scan.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows =
            self.families[family as usize].range::<[u8], _>((Bound::Included(&scan.start[..]), end));
        let ended = match scan.order {
            Order::Forward => rows.try_for_each(|(key, value)| visit(key, value)),
            Order::Backward => rows.rev().try_for_each(|(key, value)| visit(key, value)),
        };
        let _ = ended.is_break();
        Ok(())
    }
}
