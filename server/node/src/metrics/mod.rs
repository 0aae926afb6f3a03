//! What a node counts. Handles are made once per node, from a recorder of its own: no global state, no lookup on a
//! hot path, and two nodes in one process count apart. Every bounded thing has its depth here, every drop its
//! counter with a reason. A gauge is the sum over the node's shards (`ShardMetrics`).

mod shard;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use talaria_core::peer::PeerClass;
use talaria_protocol::error_code::ErrorCode;

pub(crate) use shard::{ShardMetrics, Share};

/// Buckets of sync times, seconds.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Buckets of operations in a commit.
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Why a connection was dropped without a session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// `connections_max` are there, all with sessions.
    ConnectionsMax,
    /// The oldest without Hello made place for a new one.
    WithoutHelloMax,
    /// Its address has opened too many of late.
    AddressRate,
    /// Its address has too many without Hello.
    AddressWithoutHello,
    /// The oldest handshake made place for a new one.
    HandshakesMax,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The TLS handshake failed: plaintext, garbage, no ALPN, TLS 1.2.
    Handshake,
    /// The system could not accept it.
    Accept,
    /// TLS broke after the handshake.
    Tls,
    /// The peer closed or reset it without a word.
    Peer,
    /// The drain's deadline came.
    Drain,
    /// It took too little for too long.
    SlowConsumer,
    /// Its task panicked.
    Panic,
}

impl DropReason {
    const ALL: [(Self, &'static str); 13] = [
        (Self::ConnectionsMax, "connections_max"),
        (Self::WithoutHelloMax, "without_hello_max"),
        (Self::AddressRate, "address_rate"),
        (Self::AddressWithoutHello, "address_without_hello"),
        (Self::HandshakesMax, "handshakes_max"),
        (Self::HandshakeTimeout, "handshake_timeout"),
        (Self::Handshake, "handshake"),
        (Self::Accept, "accept"),
        (Self::Tls, "tls"),
        (Self::Peer, "peer"),
        (Self::Drain, "drain"),
        (Self::SlowConsumer, "slow_consumer"),
        (Self::Panic, "panic"),
    ];
}

/// Names of a mailbox's queues, in the order of [`crate::mailbox::CLASSES`].
const CLASS_NAMES: [(PeerClass, &str); 4] = [
    (PeerClass::Answer, "answers"),
    (PeerClass::Control, "control"),
    (PeerClass::Ask, "asks"),
    (PeerClass::FanOut, "fan_outs"),
];

/// How a log operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// Durable.
    Committed,
    /// Surely not written.
    NotCommitted,
    /// Perhaps written.
    Unknown,
    /// Another owner writes.
    Fenced,
}

impl OutcomeKind {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Committed, "committed"),
        (Self::NotCommitted, "not_committed"),
        (Self::Unknown, "unknown"),
        (Self::Fenced, "fenced"),
    ];
}

/// A counter for each error code.
pub struct ByCode(Vec<Counter>);

impl ByCode {
    fn new(maker: &Maker<'_>, name: &'static str, help: &'static str) -> Self {
        maker.describe_counter(name, help);
        let counter = |code: &ErrorCode| maker.labelled(name, "code", code.name());
        Self(ErrorCode::ALL.iter().map(counter).collect())
    }

    /// Counts one.
    pub fn increment(&self, code: ErrorCode) {
        let position = ErrorCode::ALL.iter().position(|other| *other == code);
        if let Some(counter) = position.and_then(|position| self.0.get(position)) {
            counter.increment(1);
        }
    }

    /// Counts one of a number from a frame.
    pub fn increment_wire(&self, code: u32) {
        if let Some(code) = ErrorCode::from_wire(code) {
            self.increment(code);
        }
    }
}

macro_rules! metrics {
    (
        gauges { $($gauge:ident $gauge_name:literal $gauge_help:literal;)* }
        counters { $($counter:ident $counter_name:literal $counter_help:literal;)* }
        histograms { $($histogram:ident $histogram_name:literal $unit:ident $histogram_help:literal;)* }
        codes { $($code:ident $code_name:literal $code_help:literal;)* }
    ) => {
        /// All handles of one node.
        pub struct Metrics {
            $(#[doc = $gauge_help] pub $gauge: Gauge,)*
            $(#[doc = $counter_help] pub $counter: Counter,)*
            $(#[doc = $histogram_help] pub $histogram: Histogram,)*
            $(#[doc = $code_help] pub $code: ByCode,)*
            connections_dropped: Vec<Counter>,
            log_ops: Vec<Counter>,
            mailbox_full: Vec<Counter>,
            mailbox_posted: Vec<Counter>,
            /// In the order of [`crate::mailbox::CLASSES`], then completions and retentions.
            mailbox: Vec<Gauge>,
            handle: PrometheusHandle,
        }

        impl Metrics {
            fn of(maker: &Maker<'_>, handle: PrometheusHandle) -> Self {
                Self {
                    $($gauge: maker.gauge($gauge_name, $gauge_help),)*
                    $($counter: maker.counter($counter_name, $counter_help),)*
                    $($histogram: maker.histogram($histogram_name, Unit::$unit, $histogram_help),)*
                    $($code: ByCode::new(maker, $code_name, $code_help),)*
                    connections_dropped: maker.family(
                        "talaria_connections_dropped_total",
                        "Connections that ended without a session's end, by reason.",
                        "reason",
                        &DropReason::ALL,
                    ),
                    log_ops: maker.family(
                        "talaria_log_ops_total",
                        "Log operations, by how they ended.",
                        "outcome",
                        &OutcomeKind::ALL,
                    ),
                    mailbox_full: maker.family(
                        "talaria_mailbox_full_total",
                        "Messages between shards that found no place, by queue.",
                        "queue",
                        &CLASS_NAMES,
                    ),
                    mailbox_posted: maker.family(
                        "talaria_mailbox_posted_total",
                        "Messages from one shard to another, by queue.",
                        "queue",
                        &CLASS_NAMES,
                    ),
                    mailbox: maker.mailbox_gauges(),
                    handle,
                }
            }
        }
    };
}

metrics! {
    gauges {
        connections "talaria_connections" "Open connections.";
        connections_without_hello "talaria_connections_without_hello" "Connections that have no session yet.";
        sessions "talaria_sessions" "Open sessions.";
        quic_handshakes "talaria_quic_handshakes" "QUIC handshakes in progress.";
        transmit_bytes "talaria_transmit_queue_bytes" "Bytes waiting to be written, all connections.";
        log_queue "talaria_log_queue_ops" "Log operations under way.";
        read_queue "talaria_read_queue_ops" "Reads under way.";
        shards "talaria_shards" "Shards of this node.";
        handshakes "talaria_handshakes_in_progress" "Connections in their TLS handshake.";
        log_read_only "talaria_log_read_only" "1 when the log takes no writes until the node is restarted.";
        draining "talaria_draining" "1 while the node goes down.";
    }
    counters {
        accepted "talaria_connections_accepted_total" "Connections accepted.";
        bytes_received "talaria_received_bytes_total" "Bytes of frames received, TLS apart.";
        bytes_sent "talaria_sent_bytes_total" "Bytes of frames sent, TLS apart.";
        requests "talaria_requests_total" "Requests received.";
        sessions_opened "talaria_sessions_opened_total" "Sessions opened.";
        messages_sent "talaria_messages_sent_total" "Sends acknowledged as durable, repeated ones apart.";
        dedup_hits "talaria_dedup_hits_total" "Appending requests recognised as sent before.";
        delivered "talaria_entries_delivered_total" "Entries delivered to sessions.";
        panics "talaria_panics_total" "Panics contained.";
        shard_restarts "talaria_shard_restarts_total" "Shards that began anew after a panic of their core.";
        mailbox_dropped "talaria_mailbox_dropped_total" "Messages between shards dropped because one began anew.";
        retention_cuts "talaria_retention_cuts_total" "Conversations whose oldest entries were told to go.";
        handshakes_paced "talaria_handshakes_paced_total" "Times that accepting waited for its turn.";
        hellos_paced "talaria_hellos_paced_total" "Hellos refused because too many came at once.";
        read_failures "talaria_log_read_failures_total" "Reads that found damage or failed.";
        quic_misrouted "talaria_quic_misrouted_total" "Datagrams that came to another shard than their connection's.";
        quic_misrouted_dropped "talaria_quic_misrouted_dropped_total" "Of them, those that found their shard's queue full.";
        quic_retried "talaria_quic_retried_total" "Connections asked to prove their address first.";
        quic_turned_away "talaria_quic_turned_away_total" "Connections refused or ignored before their handshake, because there were too many.";
        answers_without_session "talaria_answers_dropped_total" "Answers whose session was gone.";
    }
    histograms {
        commit_ops "talaria_log_commit_ops" Count "Operations in one commit.";
        commit_bytes "talaria_log_commit_bytes" Bytes "Bytes in one commit.";
        sync_seconds "talaria_log_sync_seconds" Seconds "Time of one commit, sync included.";
        read_seconds "talaria_log_read_seconds" Seconds "Time of one read.";
    }
    codes {
        refused "talaria_hello_refused_total" "Sessions refused, by code.";
        ended "talaria_sessions_ended_total" "Sessions ended by the server, by code.";
        errors "talaria_request_errors_total" "Requests answered by an error, by code.";
    }
}

impl Metrics {
    /// Those of a new node.
    ///
    /// # Errors
    /// Never, unless the bucket lists above are empty.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .set_buckets_for_metric(Matcher::Full("talaria_log_commit_ops".to_owned()), &COUNTS)?
            .set_buckets_for_metric(
                Matcher::Full("talaria_log_commit_bytes".to_owned()),
                &COUNTS.map(|count| count * 256.0),
            )?
            .build_recorder();
        let handle = recorder.handle();
        Ok(Self::of(&Maker(&recorder), handle))
    }

    /// Counts a dropped connection.
    pub fn connection_dropped(&self, reason: DropReason) {
        increment_of(&self.connections_dropped, &DropReason::ALL, reason, 1);
    }

    /// Counts log operations that ended.
    pub fn log_ops_ended(&self, outcome: OutcomeKind, count: u64) {
        increment_of(&self.log_ops, &OutcomeKind::ALL, outcome, count);
    }

    /// Counts a message that found no place.
    pub fn mailbox_full(&self, class: PeerClass) {
        increment_of(&self.mailbox_full, &CLASS_NAMES, class, 1);
    }

    /// A message is in another shard's mailbox.
    pub(crate) fn mailbox_posted(&self, class: PeerClass) {
        increment_of(&self.mailbox_posted, &CLASS_NAMES, class, 1);
    }

    /// All of them in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded histogram values together; without it they pile up while nobody renders.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn increment_of<T: PartialEq + Copy>(counters: &[Counter], all: &[(T, &str)], which: T, count: u64) {
    let position = all.iter().position(|(other, _)| *other == which);
    if let Some(counter) = position.and_then(|position| counters.get(position)) {
        counter.increment(count);
    }
}

/// Makes and describes handles.
struct Maker<'a>(&'a PrometheusRecorder);

const METADATA: Metadata<'static> = Metadata::new("talaria", Level::INFO, None);

impl Maker<'_> {
    fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        let gauge = self.0.register_gauge(&Key::from_static_name(name), &METADATA);
        gauge.set(0.0);
        gauge
    }

    fn mailbox_gauges(&self) -> Vec<Gauge> {
        let name = "talaria_mailbox_messages";
        let help = "Messages in the shards' mailboxes when they were last drained, by queue.";
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        let queues = CLASS_NAMES.iter().map(|(_, queue)| *queue).chain(["completions", "retentions"]);
        let gauge = |queue| {
            let key = Key::from_parts(name, vec![Label::from_static_parts("queue", queue)]);
            let gauge = self.0.register_gauge(&key, &METADATA);
            gauge.set(0.0);
            gauge
        };
        queues.map(gauge).collect()
    }

    fn describe_counter(&self, name: &'static str, help: &'static str) {
        self.0.describe_counter(KeyName::from(name), None, help.into());
    }

    fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.describe_counter(name, help);
        self.0.register_counter(&Key::from_static_name(name), &METADATA)
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &'static str) -> Counter {
        let key = Key::from_parts(name, vec![Label::from_static_parts(label, value)]);
        self.0.register_counter(&key, &METADATA)
    }

    fn family<T>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        all: &[(T, &'static str)],
    ) -> Vec<Counter> {
        self.describe_counter(name, help);
        all.iter().map(|(_, value)| self.labelled(name, label, value)).collect()
    }

    fn histogram(&self, name: &'static str, unit: Unit, help: &'static str) -> Histogram {
        self.0.describe_histogram(KeyName::from(name), Some(unit), help.into());
        self.0.register_histogram(&Key::from_static_name(name), &METADATA)
    }
}
