//! Random runs against the truth. `TALARIA_SEEDS=10000` runs more, `TALARIA_SEED=17` the one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::sim::{Plan, Sim};

const SEEDS_DEFAULT: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; its number is told when it fails.
fn run(seed: u64) -> (u64, u64) {
    let plan = Plan::of(seed);
    let mut sim = Sim::new(plan);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| sim.run())) {
        println!("TALARIA_SEED={seed} {plan:?}");
        std::panic::resume_unwind(panic);
    }
    (sim.book.deliveries, sim.book.acknowledged)
}

#[test]
fn what_happens_is_what_may_happen() {
    let seeds = match number("TALARIA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TALARIA_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    let (mut deliveries, mut acknowledged) = (0, 0);
    for seed in seeds {
        let (delivered, acked) = run(seed);
        deliveries += delivered;
        acknowledged += acked;
    }
    println!("{deliveries} deliveries, {acknowledged} acknowledgements");
}
