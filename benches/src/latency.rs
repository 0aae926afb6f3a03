//! How long messages take from the moment at which they were to be sent until they are delivered. The moment stands in
//! the message; a sender that was late does not hide it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use talaria_protocol::{
    entry::{Entry, EntryForm},
    message::content::{Body, Content},
};

use crate::time::since_start;

/// The longest latency that is told apart, µs.
const LATENCY_MAX_US: u64 = 300_000_000;
/// Digits of a moment in a message.
const DIGITS: usize = 16;

/// Latencies, by the phase in which the message was to be sent.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Phase>>);

#[derive(Debug)]
struct Phase {
    name: &'static str,
    from: Duration,
    latencies: Histogram<u64>,
    sent: u64,
}

/// Of one phase.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Recorder {
    /// What is to be sent from now on counts to this phase.
    pub(crate) fn begin(&self, name: &'static str) {
        // The bounds are right, and a histogram of them is small.
        let Ok(latencies) = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3) else { return };
        // A stamp is cut to whole microseconds, too: what is to be sent at once is of this phase.
        let from = Duration::from_micros(u64::try_from(since_start().as_micros()).unwrap_or(u64::MAX));
        self.phases().push(Phase { name, from, latencies, sent: 0 });
    }

    pub(crate) fn sent(&self, intended: Duration) {
        if let Some(phase) = phase_at(&mut self.phases(), intended) {
            phase.sent += 1;
        }
    }

    pub(crate) fn delivered(&self, intended: Duration) {
        let latency = since_start().saturating_sub(intended);
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(phase) = phase_at(&mut self.phases(), intended) {
            phase.latencies.saturating_record(us);
        }
    }

    /// Sent, and not delivered yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.phases().iter().map(|phase| phase.sent.saturating_sub(phase.latencies.len())).sum()
    }

    /// Of the last phase of this name.
    pub(crate) fn summary(&self, name: &str) -> Option<Summary> {
        let phases = self.phases();
        let phase = phases.iter().rev().find(|phase| phase.name == name)?;
        let ms = |quantile| phase.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Some(Summary {
            sent: phase.sent,
            delivered: phase.latencies.len(),
            p50_ms: ms(0.50),
            p90_ms: ms(0.90),
            p99_ms: ms(0.99),
            max_ms: phase.latencies.max() as f64 / 1000.0,
        })
    }

    fn phases(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn phase_at(phases: &mut [Phase], intended: Duration) -> Option<&mut Phase> {
    phases.iter_mut().rev().find(|phase| phase.from <= intended)
}

impl Summary {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "sent": self.sent, "delivered": self.delivered, "p50_ms": self.p50_ms, "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms, "max_ms": self.max_ms,
        })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, delivered, p50_ms, p90_ms, p99_ms, max_ms } = self;
        write!(
            f,
            "p50 {p50_ms:.1}  p90 {p90_ms:.1}  p99 {p99_ms:.1}  max {max_ms:.1} ms  ({delivered} of {sent} delivered)"
        )
    }
}

/// A text of so many bytes, at least 16, that tells when it was to be sent.
pub(crate) fn stamped(intended: Duration, bytes: usize) -> Content {
    let micros = intended.as_micros();
    let mut text = format!("{micros:0DIGITS$x}");
    text.extend(std::iter::repeat_n('.', bytes.saturating_sub(DIGITS)));
    Content::text(text)
}

/// When the message was to be sent; `None` for anything else than a stamped message with its content.
pub(crate) fn stamp_of(entry: &Entry) -> Option<Duration> {
    let EntryForm::Full { content: Some(content), .. } = &entry.form else { return None };
    let Ok(Content { body: Body::Text(text), .. }) = Content::parse(content) else { return None };
    let micros = u64::from_str_radix(text.get(..DIGITS)?, 16).ok()?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_to_the_phase_in_which_it_was_to_be_sent() {
        let recorder = Recorder::default();
        recorder.begin("quiet");
        let intended = since_start();
        recorder.sent(intended);
        recorder.begin("storm");
        recorder.delivered(intended);
        recorder.sent(since_start());
        let (quiet, storm) = (recorder.summary("quiet").unwrap(), recorder.summary("storm").unwrap());
        assert_eq!((quiet.sent, quiet.delivered, storm.sent, storm.delivered), (1, 1, 1, 0));
        assert_eq!(recorder.outstanding(), 1);
    }

    #[test]
    fn stamps_come_back() {
        let content = Some(stamped(Duration::from_micros(123_456), 200).encode());
        let form = EntryForm::Full { header: bytes::Bytes::new(), content, salt: [0; 16] };
        assert_eq!(stamp_of(&Entry { seq: 1, form }), Some(Duration::from_micros(123_456)));
    }
}
