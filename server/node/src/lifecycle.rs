//! A node's life, as all its threads see it.
//!
//! ```text
//! Serving ──shutdown──► Draining { until } ──sessions gone, or until──► Stopped
//! ```

use std::{sync::Mutex, time::Instant};

use tokio::sync::watch;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connections are accepted.
    Serving,
    /// No new ones; sessions were told to go and are closed at the latest at this instant.
    Draining {
        /// It.
        until: Instant,
    },
    /// No connection is left.
    Stopped,
}

/// Shared by the node's threads.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    not_ready: Mutex<Option<String>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), not_ready: Mutex::new(None) }
    }
}

impl Lifecycle {
    /// Begins to drain, unless that has begun.
    pub fn drain(&self, until: Instant) {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Draining { until };
            }
            serving
        });
    }

    /// No connection is left.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
    }

    /// The phase, and news of it.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The node cannot take writes any more, until it is restarted. The first reason stays.
    pub fn fail(&self, reason: impl Into<String>) {
        let mut slot = self.not_ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.get_or_insert_with(|| reason.into());
    }

    /// Why no client should be sent here; `None`: it may.
    pub fn not_ready(&self) -> Option<String> {
        match self.phase() {
            Phase::Draining { .. } => return Some("draining: the node goes down".to_owned()),
            Phase::Stopped => return Some("stopped".to_owned()),
            Phase::Serving => {}
        }
        self.not_ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
