//! Random runs against the truth. `TALARIA_SEEDS=10000` runs more, `TALARIA_SEED=17 TALARIA_SHARDS=4` the one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::support::sim::{Plan, Sim};

const SEEDS_DEFAULT: u64 = 500;
/// Of each number of shards.
const SHARDS: [u16; 3] = [1, 2, 4];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; its number is told when it fails.
fn run(seed: u64, shards: u16) -> BTreeMap<&'static str, u64> {
    let plan = Plan::of(seed, shards);
    let mut sim = Sim::new(plan);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| sim.run())) {
        println!("TALARIA_SHARDS={shards} TALARIA_SEED={seed} {plan:?}");
        std::panic::resume_unwind(panic);
    }
    *sim.book.saw.entry("refused post").or_default() += sim.world.mail.refused;
    *sim.book.saw.entry("cut").or_default() += sim.world.cuts.done;
    sim.book.saw
}

fn run_all(shards: u16) -> BTreeMap<&'static str, u64> {
    let mut saw: BTreeMap<&'static str, u64> = BTreeMap::new();
    let only = number("TALARIA_SHARDS").is_some_and(|only| only != u64::from(shards));
    if let Some(seed) = number("TALARIA_SEED") {
        if !only {
            println!("{:?}", run(seed, shards));
        }
        return saw;
    }
    for seed in 0..number("TALARIA_SEEDS").unwrap_or(SEEDS_DEFAULT).max(SEEDS_DEFAULT) {
        run(seed, shards).into_iter().for_each(|(what, times)| *saw.entry(what).or_default() += times);
    }
    println!("{shards} shards: {saw:?}");
    // Runs in which these do not come about prove nothing.
    for (what, at_least) in [
        ("acknowledgement", 6_000),
        ("entry", 6_000),
        ("stub", 15),
        ("skipped", 50),
        ("duplicate", 60),
        ("page of history", 60),
        ("fork", 1),
        ("reset", 10),
        ("take-over", 60),
        ("changed", 60),
        ("delivery stopped", 10),
        ("OUT_OF_ORDER", 3),
        ("OUTCOME_UNKNOWN", 10),
        ("READ_ONLY", 60),
        ("READ_FAILED", 10),
        ("NO_CREDIT", 10),
        ("FORBIDDEN", 60),
        ("restart", 60),
        ("cut", 60),
        ("truncated", 30),
    ] {
        let times = saw.get(what).copied().unwrap_or(0);
        assert!(times >= at_least, "{what}: {times} times, too rare");
    }
    assert!(shards == 1 || saw["refused post"] > 1_000);
    saw
}

#[test]
fn what_happens_on_one_shard_is_what_may_happen() {
    run_all(SHARDS[0]);
}

#[test]
fn what_happens_on_two_shards_is_what_may_happen() {
    run_all(SHARDS[1]);
}

#[test]
fn what_happens_on_four_shards_is_what_may_happen() {
    run_all(SHARDS[2]);
}

#[test]
fn one_seed_gives_one_run() {
    for shards in SHARDS {
        assert_eq!(run(7, shards), run(7, shards));
    }
}
