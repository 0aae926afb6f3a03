//! A log that fails as it is told, over any other.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use talaria_protocol::message::Durability;

use crate::{
    Batch,
    commit_log::{CommitLog, CommitResult, Scan, View, Visit, WriteGate},
    error::ReadError,
    keys::Family,
};

#[derive(Debug, Default)]
struct Plan {
    /// (outcome, whether the batch is in the log all the same)
    commit: Option<(CommitResult, bool)>,
    reads: usize,
}

/// Passes everything to the log inside, until told to fail.
#[derive(Debug)]
pub struct FaultyLog<L> {
    inner: L,
    gate: WriteGate,
    plan: Mutex<Plan>,
}

impl<L: CommitLog> FaultyLog<L> {
    /// Fails nothing yet.
    pub fn new(inner: L) -> Self {
        Self { inner, gate: WriteGate::default(), plan: Mutex::default() }
    }
    /// The next commit ends so. `applied` says whether an `Unknown` one is in the log all the same.
    pub fn fail_next_commit(&self, result: CommitResult, applied: bool) {
        self.plan().commit = Some((result, applied));
    }
    /// The next `count` reads (gets and scans) fail.
    pub fn fail_next_reads(&self, count: usize) {
        self.plan().reads = count;
    }
    /// The log inside.
    pub fn inner(&self) -> &L {
        &self.inner
    }
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: CommitLog> CommitLog for FaultyLog<L> {
    fn commit(&self, batch: &Batch) -> CommitResult {
        self.gate.pass(|| match self.plan().commit.take() {
            None => self.inner.commit(batch),
            Some((result, applied)) => {
                if applied && matches!(result, CommitResult::Unknown { .. }) {
                    let _ = self.inner.commit(batch);
                }
                result
            }
        })
    }
    fn view(&self) -> Box<dyn View + '_> {
        Box::new(FaultyView { plan: &self.plan, inner: self.inner.view() })
    }
    fn durability(&self) -> Durability {
        self.inner.durability()
    }
    fn read_only(&self) -> Option<String> {
        self.gate.closed().or_else(|| self.inner.read_only())
    }
}

struct FaultyView<'a> {
    plan: &'a Mutex<Plan>,
    inner: Box<dyn View + 'a>,
}

impl FaultyView<'_> {
    fn fail(&self, family: Family, key: &[u8]) -> Result<(), ReadError> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.reads == 0 {
            return Ok(());
        }
        plan.reads -= 1;
        let detail = "told to fail".to_owned();
        Err(ReadError::Store { family, keys: (key.to_vec(), None), file: None, detail })
    }
}

impl View for FaultyView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.fail(family, key)?;
        self.inner.get(family, key)
    }
    fn scan(
        &self,
        family: Family,
        scan: &Scan,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), ReadError> {
        self.fail(family, &scan.start)?;
        self.inner.scan(family, scan, visit)
    }
}
