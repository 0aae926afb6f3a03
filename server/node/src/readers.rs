//! The readers: a bounded pool of threads that read the log for the shards, which never touch a disk. Damage is
//! logged with its file and keys, counted, and answered as such: nothing is served of what it concerns.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use talaria_core::{
    effect::ReadId,
    limits::READS_IN_FLIGHT_MAX,
    log::{ReadAnswer, ReadOp},
    peer::ShardId,
};
use talaria_log::CommitLog;

use crate::{
    mailbox::{Completion, Mailboxes},
    metrics::Metrics,
};

struct Job {
    shard: ShardId,
    read: ReadId,
    what: ReadOp,
}

/// Where a shard puts its reads. It has a place for each that the shard may have under way.
#[derive(Clone)]
pub struct ReadQueue {
    shard: ShardId,
    jobs: Sender<Job>,
}

impl ReadQueue {
    /// Hands a read over; never waits. `false`: there is no reader any more.
    ///
    /// # Panics
    /// More reads than a shard may have under way: a defect.
    pub fn put(&self, read: ReadId, what: ReadOp) -> bool {
        match self.jobs.try_send(Job { shard: self.shard, read, what }) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(_)) => panic!("the read queue has a place for every read"),
        }
    }
}

/// What the readers work with.
#[derive(Clone)]
pub struct Readers {
    /// The log.
    pub log: Arc<dyn CommitLog>,
    /// Of all shards.
    pub mailboxes: Arc<Mailboxes>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Readers {
    /// Starts `threads` threads. They end when all queues are dropped.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self, threads: usize) -> std::io::Result<(Vec<ReadQueue>, Vec<JoinHandle<()>>)> {
        let shards = self.mailboxes.shards();
        let (sender, receiver) = bounded(usize::from(shards) * READS_IN_FLIGHT_MAX);
        let queues =
            (0..shards).map(|shard| ReadQueue { shard: ShardId(shard), jobs: sender.clone() }).collect();
        let handles = (0..threads).map(|number| {
            let (readers, receiver) = (self.clone(), receiver.clone());
            let name = format!("log-reader-{number}");
            std::thread::Builder::new().name(name).spawn(move || readers.run(&receiver))
        });
        let handles = handles.collect::<std::io::Result<Vec<_>>>()?;
        Ok((queues, handles))
    }

    fn run(&self, jobs: &Receiver<Job>) {
        while let Ok(Job { shard, read, what }) = jobs.recv() {
            let answer = self.read(&what);
            self.mailboxes.of(shard).complete(Completion::Read(read, answer));
        }
    }

    fn read(&self, what: &ReadOp) -> ReadAnswer {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| talaria_log::read(&*self.log, what)));
        self.metrics.read_seconds.record(started.elapsed().as_secs_f64());
        match result {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::error!(%error, "the log is damaged here: run `talaria log verify`"),
            Err(_) => {
                self.metrics.panics.increment(1);
                tracing::error!("a reader panicked; the read is answered as failed");
            }
        }
        self.metrics.read_failures.increment(1);
        ReadAnswer::Failed
    }
}
