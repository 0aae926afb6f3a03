//! Random runs against the truth. `TALARIA_SEEDS=10000` runs more, `TALARIA_SEED=17` the one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::support::sim::{Plan, Sim};

const SEEDS_DEFAULT: u64 = 800;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; its number is told when it fails.
fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let plan = Plan::of(seed);
    let mut sim = Sim::new(plan);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| sim.run())) {
        println!("TALARIA_SEED={seed} {plan:?}");
        std::panic::resume_unwind(panic);
    }
    sim.book.saw
}

#[test]
fn what_happens_is_what_may_happen() {
    if let Some(seed) = number("TALARIA_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let mut saw: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..number("TALARIA_SEEDS").unwrap_or(SEEDS_DEFAULT).max(SEEDS_DEFAULT) {
        run(seed).into_iter().for_each(|(what, times)| *saw.entry(what).or_default() += times);
    }
    println!("{saw:?}");
    // Runs in which these do not come about prove nothing.
    for (what, at_least) in [
        ("acknowledgement", 10_000),
        ("entry", 10_000),
        ("stub", 50),
        ("skipped", 100),
        ("duplicate", 100),
        ("page of history", 100),
        ("fork", 5),
        ("reset", 20),
        ("take-over", 100),
        ("changed", 100),
        ("delivery stopped", 20),
        ("OUT_OF_ORDER", 5),
        ("OUTCOME_UNKNOWN", 20),
        ("READ_ONLY", 100),
        ("READ_FAILED", 20),
        ("NO_CREDIT", 20),
        ("FORBIDDEN", 100),
    ] {
        let times = saw.get(what).copied().unwrap_or(0);
        assert!(times >= at_least, "{what}: {times} times, too rare");
    }
}

#[test]
fn one_seed_gives_one_run() {
    assert_eq!(run(7), run(7));
}
