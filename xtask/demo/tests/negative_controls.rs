//! A checker that never failed proves nothing: the demo with something broken must fail, and for the right reason. What
//! is broken is a wrapper around the node's log (`broken-node`, an example of the server's crate) or around the devices'
//! stores; nothing that is shipped can be broken so.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use indicatif::ProgressBar;
use talaria_client::{
    ConversationId, MemoryStore, Store, StoreError,
    store::{Loaded, StoreBatch, StoredEntry},
};
use talaria_demo::{
    device::WrapStore,
    node::{NodeConfig, program},
    play::{PlayConfig, run_alone},
    report::Report,
};

/// A short run. `broken`: how the node is broken, if it is.
fn demo(broken: Option<&str>, wrap: WrapStore, seed: u64) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let talaria = program("talaria").unwrap();
    let (node, args) = match broken {
        Some(how) => (program("examples/broken-node").unwrap(), vec!["--break".to_owned(), how.to_owned()]),
        None => (talaria.clone(), vec![]),
    };
    let config = PlayConfig {
        seed,
        messages: 3_000,
        kills: 4,
        node: NodeConfig {
            program: node,
            args,
            shards: None,
            data_dir: dir.path().to_owned(),
            power_cut: Some(seed),
        },
        talaria,
        wrap,
    };
    let report = run_alone(config, ProgressBar::hidden()).unwrap();
    eprintln!("seed {seed}, broken: {broken:?}\n{report}");
    report
}

/// Forgets, or makes up, the last entry that the device holds, each time its app starts.
struct OffByOne {
    inner: Arc<MemoryStore>,
    ahead: bool,
}

impl Store for OffByOne {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = self.inner.load()?;
        for (_, cursor) in &mut loaded.cursors {
            cursor.seq = if self.ahead { cursor.seq + 1 } else { cursor.seq.saturating_sub(1) };
        }
        Ok(loaded)
    }

    fn commit(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        self.inner.commit(batch)
    }

    fn entries(&self, of: ConversationId, from: u64, max: usize) -> Result<Vec<StoredEntry>, StoreError> {
        self.inner.entries(of, from, max)
    }
}

#[test]
fn nothing_broken_passes() {
    let report = demo(None, |store| store, 11);
    assert_eq!(report.failures(), Vec::<String>::new(), "{report}");
}

#[test]
fn acknowledging_before_the_sync_loses() {
    let report = demo(Some("early-ack"), |store| store, 12);
    assert!(report.verdict.lost > 0, "{report}");
}

#[test]
fn without_the_dedup_index_messages_are_doubled() {
    let report = demo(Some("no-dedup"), |store| store, 13);
    assert!(report.verdict.duplicated > 0, "{report}");
}

#[test]
fn a_cursor_one_too_far_is_noticed() {
    let report = demo(None, |inner| Arc::new(OffByOne { inner, ahead: true }), 14);
    assert!(report.verdict.lost > 0 || report.sdk.chain_mismatches > 0, "{report}");
    assert!(!report.failures().is_empty());
}

#[test]
fn a_cursor_one_too_low_is_noticed() {
    let report = demo(None, |inner| Arc::new(OffByOne { inner, ahead: false }), 15);
    assert!(report.verdict.lost > 0 || report.sdk.chain_mismatches > 0, "{report}");
    assert!(!report.failures().is_empty());
}
