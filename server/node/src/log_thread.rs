//! The log's one writer: operations of all shards come in by a bounded queue, are committed in groups (one batch, one
//! sync), and each shard gets one message per group. After a commit that did not succeed nothing is written until
//! the node is restarted; what waits is answered, the node says that it is not ready, and reads go on.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use talaria_core::{
    effect::OpId,
    limits::LOG_OPS_IN_FLIGHT_MAX,
    log::{LogOp, Outcome},
    peer::ShardId,
};
use talaria_log::{CommitLog, GroupCommit};

use crate::{
    lifecycle::Lifecycle,
    mailbox::{Completion, Mailboxes},
    metrics::{Metrics, OutcomeKind},
};

/// An operation on its way to the log.
struct Job {
    shard: ShardId,
    op: OpId,
    what: LogOp,
}

/// Where a shard puts its operations. It has a place for each that the shard may have under way.
#[derive(Clone)]
pub struct LogQueue {
    shard: ShardId,
    jobs: Sender<Job>,
}

impl LogQueue {
    /// Hands an operation over; never waits. `false`: there is no writer any more, and it was not written.
    ///
    /// # Panics
    /// More operations than a shard may have under way: a defect.
    pub fn put(&self, op: OpId, what: LogOp) -> bool {
        match self.jobs.try_send(Job { shard: self.shard, op, what }) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(_)) => panic!("the log queue has a place for every operation"),
        }
    }
}

/// What the writer works with.
pub struct LogWriter {
    /// The log.
    pub log: Arc<dyn CommitLog>,
    /// The last commit before this opening.
    pub last_commit: u64,
    /// Of all shards.
    pub mailboxes: Arc<Mailboxes>,
    /// To say that the log has failed.
    pub lifecycle: Arc<Lifecycle>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl LogWriter {
    /// Starts the thread. It ends when all queues are dropped and all that they held is committed.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self) -> std::io::Result<(Vec<LogQueue>, JoinHandle<()>)> {
        let shards = self.mailboxes.shards();
        let (sender, receiver) = bounded(usize::from(shards) * LOG_OPS_IN_FLIGHT_MAX);
        let queues =
            (0..shards).map(|shard| LogQueue { shard: ShardId(shard), jobs: sender.clone() }).collect();
        let thread =
            std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || self.run(&receiver))?;
        Ok((queues, thread))
    }

    fn run(self, jobs: &Receiver<Job>) {
        let mut group = GroupCommit::new(self.last_commit);
        let mut owners = Vec::new();
        while let Ok(first) = jobs.recv() {
            owners.clear();
            let mut next = Some(first);
            while let Some(job) = next {
                owners.push((job.shard, job.op));
                group.push(job.what);
                next = if group.is_full() { None } else { jobs.try_recv().ok() };
            }
            let Some(outcomes) = self.commit(&mut group) else {
                self.answer(&owners, &vec![Outcome::Unknown; owners.len()]);
                return self.refuse(jobs);
            };
            self.answer(&owners, &outcomes);
        }
    }

    /// One commit. `None`: it panicked, and nobody knows what it wrote.
    fn commit(&self, group: &mut GroupCommit) -> Option<Vec<Outcome>> {
        let had_failed = group.failure().is_some();
        self.metrics.commit_ops.record(group.len() as f64);
        self.metrics.commit_bytes.record(group.bytes() as f64);
        let started = Instant::now();
        let outcomes = catch_unwind(AssertUnwindSafe(|| group.commit(&*self.log)));
        self.metrics.sync_seconds.record(started.elapsed().as_secs_f64());
        let Ok(outcomes) = outcomes else {
            self.metrics.panics.increment(1);
            self.failed("the log writer panicked");
            return None;
        };
        if let (false, Some(why)) = (had_failed, group.failure()) {
            self.failed(why);
        }
        Some(outcomes)
    }

    /// After a panic nothing is written any more: whatever comes is answered so.
    fn refuse(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            self.answer(&[(job.shard, job.op)], &[Outcome::NotCommitted]);
        }
    }

    fn failed(&self, why: &str) {
        tracing::error!(
            why,
            "the log takes no writes any more: sends are refused, reads go on. If this names corruption, stop the node, run \
             `talaria log verify`, and restore the data directory from a backup; else look at the disk (space, health, \
             permissions) and restart the node. Messages acknowledged so far are in the log"
        );
        self.metrics.log_read_only.set(1.0);
        self.lifecycle.fail(format!("the log is read-only until the node is restarted: {why}"));
    }

    fn answer(&self, owners: &[(ShardId, OpId)], outcomes: &[Outcome]) {
        let mut by_shard = vec![Vec::new(); usize::from(self.mailboxes.shards())];
        for ((shard, op), outcome) in owners.iter().zip(outcomes) {
            by_shard[usize::from(shard.0)].push((*op, *outcome));
        }
        for (shard, answers) in (0..).zip(by_shard) {
            if !answers.is_empty() {
                self.mailboxes.of(ShardId(shard)).complete(Completion::Durable(answers));
            }
        }
        if let Some(first) = outcomes.first() {
            self.metrics.log_ops_ended(kind(*first), outcomes.len() as u64);
        }
    }
}

fn kind(outcome: Outcome) -> OutcomeKind {
    match outcome {
        Outcome::Committed { .. } => OutcomeKind::Committed,
        Outcome::NotCommitted => OutcomeKind::NotCommitted,
        Outcome::Unknown => OutcomeKind::Unknown,
        Outcome::Fenced => OutcomeKind::Fenced,
    }
}
