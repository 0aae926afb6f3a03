//! The way into a shard's thread from the log writer and the readers: a bounded queue and a wake-up. It has a place
//! for every operation and read that a shard may have under way, so posting an answer never waits and never fails.

use crossbeam::queue::ArrayQueue;
use talaria_core::{
    effect::{OpId, ReadId},
    limits::{LOG_OPS_IN_FLIGHT_MAX, READS_IN_FLIGHT_MAX},
    log::{Outcome, ReadAnswer},
};
use tokio::sync::Notify;

/// Messages that a mailbox holds: one per operation and read under way.
pub const MAILBOX_MESSAGES_MAX: usize = LOG_OPS_IN_FLIGHT_MAX + READS_IN_FLIGHT_MAX;

/// What comes from other threads.
#[derive(Debug)]
pub enum Message {
    /// All of this shard's operations in one commit, in their order.
    Durable(Vec<(OpId, Outcome)>),
    /// A read has ended.
    Read(ReadId, ReadAnswer),
}

/// See the module.
#[derive(Debug)]
pub struct Mailbox {
    messages: ArrayQueue<Message>,
    wake: Notify,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { messages: ArrayQueue::new(MAILBOX_MESSAGES_MAX), wake: Notify::new() }
    }
}

impl Mailbox {
    /// Puts a message in and wakes the shard.
    ///
    /// # Panics
    /// More answers than the shard has questions under way: a defect.
    pub fn post(&self, message: Message) {
        let full = self.messages.push(message).is_err();
        assert!(!full, "a mailbox has a place for every answer");
        self.wake.notify_one();
    }

    /// Wakes the shard without a message.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The oldest message.
    pub fn take(&self) -> Option<Message> {
        self.messages.pop()
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Ends when something was posted since the last time. Cancel-safe.
    pub async fn posted(&self) {
        self.wake.notified().await;
    }
}
