//! A shard's share of the node's gauges: each is the sum over the shards, so a shard adds what changed at its own.

use std::cell::Cell;

use metrics::Gauge;

use super::Metrics;
use crate::mailbox::{CLASSES, Mailbox};

/// One gauge's share. Dropped, it is taken out.
pub(crate) struct Share {
    gauge: Gauge,
    share: Cell<f64>,
}

impl Share {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), share: Cell::new(0.0) }
    }

    /// The share is this now. Counts below 2^53 add up exactly.
    pub(crate) fn set(&self, value: usize) {
        let value = value as f64;
        let before = self.share.replace(value);
        if value > before {
            self.gauge.increment(value - before);
        } else if value < before {
            self.gauge.decrement(before - value);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// See the module.
pub(crate) struct ShardMetrics {
    pub(crate) sessions: Share,
    pub(crate) log_queue: Share,
    pub(crate) read_queue: Share,
    mailbox: Vec<Share>,
}

impl ShardMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            sessions: Share::new(&metrics.sessions),
            log_queue: Share::new(&metrics.log_queue),
            read_queue: Share::new(&metrics.read_queue),
            mailbox: metrics.mailbox.iter().map(Share::new).collect(),
        }
    }

    /// What waits in the mailbox.
    pub(crate) fn show_mailbox(&self, mailbox: &Mailbox) {
        let others = [mailbox.completions_len(), mailbox.retentions_len()];
        let lens = CLASSES.iter().map(|class| mailbox.len(*class)).chain(others);
        self.mailbox.iter().zip(lens).for_each(|(share, len)| share.set(len));
    }
}
