//! The sweeper: a thread that looks through the log for entries that are older, or more, than `[retention]` keeps, and tells
//! the shard of each conversation, which makes the cut. Slow on purpose: it waits for room in the shards' mailboxes, and
//! between two looks at all conversations.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use talaria_core::{log::Retention, peer::ShardId, placement::shard_of};
use talaria_log::{
    CommitLog, ReadError,
    retention::{Policy, Sweep, sweep},
};
use talaria_protocol::ids::ConversationId;

use crate::{
    clock::unix_ms,
    config::RetentionConfig,
    limits::{RETENTION_PAUSE, SWEPT_AT_ONCE},
    mailbox::Mailboxes,
    metrics::Metrics,
};

/// What the sweeper works with.
pub(crate) struct Sweeper {
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) policy: Policy,
    pub(crate) every: Duration,
    pub(crate) mailboxes: Arc<Mailboxes>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A sweeper at work. Dropped, or told to stop, it ends soon.
pub(crate) struct Sweeping {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// It was told to stop.
struct Stopped;

/// The log's terms of what is configured.
pub(crate) fn policy_of(config: &RetentionConfig) -> Policy {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    Policy {
        age_ms_max: config.max_age_days.map(|days| u64::from(days) * DAY_MS),
        entries_max: config.max_entries.map(u64::from),
    }
}

impl Sweeper {
    /// Starts the thread; `None`: everything is kept.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(self) -> std::io::Result<Option<Sweeping>> {
        if self.policy.keeps_all() {
            return Ok(None);
        }
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("retention".to_owned()).spawn(move || {
            while self.sweep_all(&stopped).and_then(|()| pause(&stopped, self.every)).is_ok() {}
        })?;
        Ok(Some(Sweeping { stop, thread }))
    }

    /// Looks at all conversations once.
    fn sweep_all(&self, stopped: &Receiver<()>) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let found = self.sweep_some(after);
            let Sweep { cuts, failed, next } = match found {
                Ok(found) => found,
                Err(error) => {
                    self.cannot_read(None, &error);
                    return Ok(());
                }
            };
            failed.iter().for_each(|(conversation, error)| self.cannot_read(Some(*conversation), error));
            for cut in cuts {
                self.tell(cut, stopped)?;
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
            pause(stopped, Duration::ZERO)?;
        }
    }

    fn sweep_some(&self, after: Option<ConversationId>) -> Result<Sweep, ReadError> {
        sweep(&*self.log.view(), &self.policy, unix_ms(), after, SWEPT_AT_ONCE)
    }

    fn cannot_read(&self, conversation: Option<ConversationId>, error: &ReadError) {
        self.metrics.read_failures.increment(1);
        let conversation = conversation.map(|id| id.to_string());
        tracing::error!(conversation, %error, "retention passes over what cannot be read: run `talaria log verify`");
    }

    /// Tells the conversation's shard, as soon as it has room.
    fn tell(&self, cut: Retention, stopped: &Receiver<()>) -> Result<(), Stopped> {
        let shard = ShardId(shard_of(cut.conversation.slot(), self.mailboxes.shards()));
        while !self.mailboxes.of(shard).retain(cut) {
            pause(stopped, RETENTION_PAUSE)?;
        }
        self.metrics.retention_cuts.increment(1);
        Ok(())
    }
}

fn pause(stopped: &Receiver<()>, time: Duration) -> Result<(), Stopped> {
    match stopped.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
    }
}

impl Sweeping {
    /// Ends it and waits for its end.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the retention thread panicked");
        }
    }
}
