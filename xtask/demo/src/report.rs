//! What a run came to: a table for people, JSON for programs, and whether it proved what it set out to.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::check::Verdict;

/// One kill of the node.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Messages said and not acknowledged at that moment.
    pub in_flight: usize,
    /// Messages acknowledged before.
    pub acknowledged: usize,
    /// Bytes that were written, but not synced, and went with the cut.
    pub bytes_lost: u64,
}

/// What was done to the devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// Connections cut.
    pub cuts: u64,
    /// Networks changed: a QUIC connection goes on from another port.
    pub moves: u64,
    /// Apps killed and started again from their stores.
    pub app_kills: u64,
}

/// What the SDKs counted, all devices and all their lives together.
#[derive(Clone, Copy, Debug, Default)]
pub struct SdkCounts {
    /// Sends that the server had accepted before.
    pub dedup_hits: u64,
    /// Sessions opened again after the first of each app.
    pub resumes: u64,
    /// Entries that came though they were held.
    pub duplicates_dropped: u64,
    /// Conversations whose chain differed from the server's.
    pub chain_mismatches: u64,
    /// Conversations of which a device was told that the log had gone back.
    pub rewinds: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Report {
    /// Seed of the run.
    pub seed: u64,
    /// Kills were power cuts.
    pub power_cut: bool,
    /// Messages and kills that the run was to have.
    pub asked: (usize, usize),
    /// Damage that a device reported, and other things that ended the run early, in words.
    pub mishaps: Vec<String>,
    /// Entries that a device held and had not shown when all was quiet.
    pub not_shown: u64,
    /// Messages said.
    pub messages: usize,
    /// Messages acknowledged.
    pub acknowledged: usize,
    /// Kills of the node.
    pub kills: Vec<Kill>,
    /// What was done to the devices.
    pub troubles: Troubles,
    /// The node's.
    pub shards: u64,
    /// Datagrams that came to another shard than their connection's, since the last kill.
    pub misrouted: u64,
    /// From the SDKs.
    pub sdk: SdkCounts,
    /// Name of each device, and the entries that it showed.
    pub delivered: Vec<(String, usize)>,
    /// From the checker.
    pub verdict: Verdict,
    /// Conversations and entries in the log, and what its own verification found.
    pub log: (u64, u64, Vec<String>),
    /// Said on one device → shown on another, µs.
    pub latency_us: Histogram<u64>,
    /// Of the whole play.
    pub seconds: f64,
}

impl Report {
    /// Why the run failed; empty: it did not.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut need = |good: bool, what: &str| {
            if !good {
                failures.push(what.to_owned());
            }
        };
        need(self.messages == self.asked.0, "not everything was said that was to be");
        need(self.kills.len() == self.asked.1, "the node was not killed as often as it was to be");
        need(self.mishaps.is_empty(), "something went wrong on the way");
        need(self.not_shown == 0, "a device held entries that its app was not told of");
        let verdict = &self.verdict;
        need(verdict.lost == 0, "messages were lost");
        need(verdict.duplicated == 0, "messages were duplicated");
        need(verdict.reordered == 0, "messages were reordered");
        need(verdict.altered == 0, "messages were altered");
        need(self.sdk.chain_mismatches == 0, "a device's chain differed from the log's");
        need(self.sdk.rewinds == 0, "the log went back");
        need(self.log.2.is_empty(), "the log's own verification found something");
        if !self.kills.is_empty() {
            let idle = self.kills.iter().any(|kill| kill.in_flight == 0);
            need(!idle, "no send was in flight at a kill: it proved nothing");
            let lost: u64 = self.kills.iter().map(|kill| kill.bytes_lost).sum();
            need(
                !self.power_cut || lost > 0,
                "no power cut lost anything that was not synced: they proved nothing",
            );
            need(
                self.sdk.dedup_hits > 0,
                "inconclusive: no retry hit the dedup index, so that it works was not shown",
            );
        }
        failures
    }

    fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let kill = |kill: &Kill| json!({ "in_flight": kill.in_flight, "acknowledged": kill.acknowledged, "bytes_lost": kill.bytes_lost });
        json!({
            "seed": self.seed,
            "power_cut": self.power_cut,
            "messages": self.messages,
            "acknowledged": self.acknowledged,
            "kills": self.kills.iter().map(kill).collect::<Vec<_>>(),
            "shards": self.shards,
            "quic_misrouted": self.misrouted,
            "connections_cut": self.troubles.cuts,
            "networks_changed": self.troubles.moves,
            "apps_killed": self.troubles.app_kills,
            "dedup_hits": self.sdk.dedup_hits,
            "resumes": self.sdk.resumes,
            "duplicates_dropped": self.sdk.duplicates_dropped,
            "chain_mismatches": self.sdk.chain_mismatches,
            "delivered": self.delivered.iter().map(|(name, n)| (name.clone(), json!(n))).collect::<serde_json::Map<_, _>>(),
            "rewinds": self.sdk.rewinds,
            "lost": self.verdict.lost,
            "duplicated": self.verdict.duplicated,
            "reordered": self.verdict.reordered,
            "altered": self.verdict.altered,
            "examples": self.verdict.examples,
            "mishaps": self.mishaps,
            "not_shown": self.not_shown,
            "log": { "conversations": self.log.0, "entries": self.log.1, "findings": self.log.2 },
            "send_to_deliver_ms": {
                "p50": self.latency_ms(0.5), "p99": self.latency_ms(0.99), "max": self.latency_us.max() as f64 / 1_000.0,
            },
            "seconds": self.seconds,
            "failures": self.failures(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<34} {value}");
        let cut = if self.power_cut { "power cuts" } else { "plain kills" };
        row("seed", self.seed.to_string())?;
        row("shards", format!("{} ({} datagrams came to the wrong one)", self.shards, self.misrouted))?;
        row("messages said", self.messages.to_string())?;
        row("acknowledged", self.acknowledged.to_string())?;
        for (n, kill) in self.kills.iter().enumerate() {
            let Kill { in_flight, acknowledged, bytes_lost } = kill;
            let what = format!("{in_flight} in flight, {acknowledged} acknowledged, {bytes_lost} bytes lost");
            row(&format!("kill {} of {} ({cut})", n + 1, self.kills.len()), what)?;
        }
        let Troubles { cuts, moves, app_kills } = self.troubles;
        row("connections cut, networks changed", format!("{cuts}, {moves}"))?;
        row("apps killed", app_kills.to_string())?;
        row("resumes", self.sdk.resumes.to_string())?;
        row("retries that hit the dedup index", self.sdk.dedup_hits.to_string())?;
        row("entries dropped by devices as held", self.sdk.duplicates_dropped.to_string())?;
        for (name, entries) in &self.delivered {
            row(&format!("delivered to {name}"), entries.to_string())?;
        }
        let (p50, p99) = (self.latency_ms(0.5), self.latency_ms(0.99));
        row("send → deliver p50 / p99", format!("{p50:.1} / {p99:.1} ms (kills and cuts included)"))?;
        row("log", format!("{} entries in {} conversations", self.log.1, self.log.0))?;
        row("log verify", if self.log.2.is_empty() { "clean".to_owned() } else { self.log.2.join("; ") })?;
        row("chain mismatches", self.sdk.chain_mismatches.to_string())?;
        row("rewinds", self.sdk.rewinds.to_string())?;
        row("lost", self.verdict.lost.to_string())?;
        row("duplicated", self.verdict.duplicated.to_string())?;
        row("reordered", self.verdict.reordered.to_string())?;
        row("altered", self.verdict.altered.to_string())?;
        row("seconds", format!("{:.1}", self.seconds))?;
        for example in self.verdict.examples.iter().chain(&self.mishaps) {
            writeln!(f, "  ! {example}")?;
        }
        Ok(())
    }
}
