//! One scenario a file: `run` takes the node and the options and gives a report.

pub(crate) mod backfill;
pub(crate) mod group;
pub(crate) mod idle;
pub(crate) mod pairs;
pub(crate) mod rebind;

use std::{sync::Arc, time::Duration};

use crate::{
    client::{Dialer, ENDPOINTS, Transport},
    node::Node,
    report::Report,
    traffic::{Pairs, Tally},
};

/// Everyone's way to the node.
fn dialer(node: &Node, transport: Transport) -> anyhow::Result<Arc<Dialer>> {
    Ok(Arc::new(Dialer::new(node.address, transport, &node.ca(), node.token_key()?, ENDPOINTS)?))
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

/// What went wrong with a conversation's traffic, if anything did.
fn report_tally(report: &mut Report, pairs: &Pairs) {
    let tally = &pairs.tally;
    let counters = [
        ("sends answered by an error", &tally.errors),
        ("connections ended", &tally.ended),
        ("entries delivered twice", &tally.repeated),
        ("sends taken for repeated ones", &tally.duplicates),
    ];
    for (name, counter) in counters {
        let count = Tally::get(counter);
        report.count(name, count);
        report.fail_if(count > 0, format!("{name}: {count}"));
    }
    let lost = pairs.recorder.outstanding();
    report.count("messages not delivered", lost);
    report.fail_if(lost > 0, format!("messages not delivered: {lost}"));
    if !tally.kinds().is_empty() {
        report.text("they said", tally.kinds().join("; "));
    }
}
