//! A log that takes its time for a commit, as a disk does.

use std::{thread::sleep, time::Duration};

use talaria_log::{Batch, CommitLog, CommitResult, MemoryLog, View};
use talaria_protocol::message::Durability;

pub(crate) struct SlowLog {
    inner: MemoryLog,
    commit: Duration,
}

impl SlowLog {
    pub(crate) fn new(commit: Duration) -> Self {
        Self { inner: MemoryLog::new(), commit }
    }
}

impl CommitLog for SlowLog {
    fn commit(&self, batch: &Batch) -> CommitResult {
        sleep(self.commit);
        self.inner.commit(batch)
    }
    fn view(&self) -> Box<dyn View + '_> {
        self.inner.view()
    }
    fn durability(&self) -> Durability {
        self.inner.durability()
    }
    fn read_only(&self) -> Option<String> {
        self.inner.read_only()
    }
}
