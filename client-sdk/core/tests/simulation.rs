//! Engines against the model server under cuts, delays, busy answers and crashes, over thousands of seeded steps:
//! every kept message is in the log once and in order, every device holds the log.
#![allow(clippy::unwrap_used)]

mod model;

use model::{Faults, world::World};
use talaria_client_core::{ask::Ask, event::Event, store::Store as _};
use talaria_protocol::{
    ids::ConversationId,
    message::{Credit, UserRef},
};

fn subject(name: &str) -> UserRef {
    UserRef::Subject(name.into())
}

/// alice with two devices, bob, carol; a direct conversation and a group.
fn world(seed: u64) -> (World, Vec<ConversationId>) {
    world_with(seed, None)
}

fn world_with(seed: u64, lanes_ms_max: Option<[u64; 3]>) -> (World, Vec<ConversationId>) {
    let mut world = World::new(seed);
    world.lanes_ms_max = lanes_ms_max;
    let alice = world.add("alice");
    world.add("alice");
    world.add("bob");
    world.add("carol");
    let direct = world.conversation(alice, Ask::DirectWith(subject("bob")));
    let members = vec![subject("bob"), subject("carol")];
    let group = world.conversation(alice, Ask::CreateGroup { title: "all".into(), members });
    world.settle();
    (world, vec![direct, group])
}

fn storm(seed: u64, steps: u64, crashes: bool) -> World {
    storm_with(seed, steps, crashes, None)
}

fn storm_with(seed: u64, steps: u64, crashes: bool, lanes_ms_max: Option<[u64; 3]>) -> World {
    storm_in(world_with(seed, lanes_ms_max), steps, crashes)
}

fn storm_in((mut world, conversations): (World, Vec<ConversationId>), steps: u64, crashes: bool) -> World {
    world.model.faults = Faults { busy: 60, unknown: 30, cut_after_append: 20 };
    for step in 0..steps {
        let device = world.below(4) as usize;
        match world.below(100) {
            0..60 => {
                // carol is in the group only.
                let which = if device == 3 { 1 } else { world.below(2) as usize };
                world.send(device, conversations[which], &format!("{device} says {step}"));
            }
            60..66 => world.cut(device),
            66 if crashes => world.crash(device),
            67 => world.model.restart(0),
            68 => {
                world.devices[device].offline = true;
                world.cut(device);
            }
            69..72 => world.devices[device].offline = false,
            _ => {
                let ms = world.below(120);
                world.run(ms);
            }
        }
    }
    world.model.faults = Faults::default();
    world.model.lags = false;
    world.devices.iter_mut().for_each(|device| device.offline = false);
    world.settle();
    world
}

#[test]
fn a_storm_loses_doubles_and_reorders_nothing() {
    let mut dedup_hits = 0;
    for seed in 0..40 {
        let world = storm(seed, 1_000, false);
        world.check_logs();
        world.check_messages();
        for device in &world.devices {
            assert_eq!(device.acknowledged.len(), device.kept.len(), "each is acknowledged");
            assert!(device.failed.is_empty());
            let stats = device.engine.stats();
            assert_eq!(stats.chain_mismatches + stats.rewinds + stats.gaps, 0, "{stats:?}");
        }
        dedup_hits += world.model.dedup_hits;
    }
    assert!(dedup_hits > 200, "retries met the dedup index: {dedup_hits}");
}

#[test]
fn crashes_of_the_app_lose_nothing_that_was_kept() {
    for seed in 100..140 {
        let world = storm(seed, 1_000, true);
        world.check_logs();
        world.check_messages();
    }
}

/// Streams without order among each other: a live entry comes before a backfill that it follows, a `CaughtUp` before the
/// entries that it speaks of, an answer before both or long after.
#[test]
fn lanes_that_overtake_each_other_change_nothing() {
    let mut waited = 0;
    for seed in 300..340 {
        let lanes = [[20, 20, 400], [400, 20, 20], [20, 400, 20], [100, 100, 100]][seed as usize % 4];
        let mut world = storm_with(seed, 1_000, seed % 2 == 0, Some(lanes));
        world.check_logs();
        world.check_messages();
        waited += world.waited_max;
        for device in &world.devices {
            let stats = device.engine.stats();
            assert_eq!(stats.chain_mismatches + stats.rewinds + stats.gaps, 0, "{stats:?}");
            assert_eq!(device.engine.entries_waiting(), 0);
            assert_eq!(device.engine.in_hand(), Credit::default(), "all credit is given back");
        }
        // And after a log that went back.
        world.model.restart(5);
        // Longer than any backoff, or a device that still holds the fork looks as if it held the log.
        world.run(60_000);
        world.settle();
        world.check_logs();
    }
    assert!(waited > 40, "entries did wait for others: {waited}");
}

/// Every entry is held, or was told to be left out: once, and exactly.
fn check_gaps(world: &World) -> u64 {
    let mut left_out = 0;
    for device in &world.devices {
        for (id, conversation) in &world.model.conversations {
            if !conversation.members.iter().any(|(peer, _)| peer.subject == device.subject) {
                continue;
            }
            let held = device.store.entries(*id, 1, usize::MAX).unwrap();
            for held in &held {
                assert_eq!(held.chain, conversation.chain(held.entry.seq), "chain of seq {}", held.entry.seq);
            }
            let mut all: Vec<_> = held.iter().map(|held| held.entry.seq).collect();
            for event in &device.events {
                match event {
                    Event::Skipped { conversation, from, to } if conversation == id => {
                        left_out += to - from + 1;
                        all.extend(*from..=*to);
                        let were = |seq| world.model.left_out.contains(&(device.id, *id, seq));
                        assert!((*from..=*to).all(were), "{from} to {to} of {} were sent", device.subject);
                    }
                    _ => {}
                }
            }
            all.sort_unstable();
            assert_eq!(all, (1..=conversation.head()).collect::<Vec<_>>(), "{}", device.subject);
        }
    }
    left_out
}

/// What is left out, too, comes before and after entries that it does not belong to.
#[test]
fn gaps_on_streams_are_told_exactly() {
    let (mut left_out, mut waited) = (0, 0);
    for seed in 400..440 {
        let lanes = [[20, 20, 400], [400, 20, 20], [20, 400, 20], [100, 100, 100]][seed as usize % 4];
        let (mut world, conversations) = world_with(seed, Some(lanes));
        world.model.newest_only = Some(15);
        world.model.lags = true;
        let world = storm_in((world, conversations), 1_000, false);
        left_out += check_gaps(&world);
        world.check_messages();
        waited += world.waited_max;
        for device in &world.devices {
            let stats = device.engine.stats();
            assert_eq!((stats.chain_mismatches, stats.rewinds, stats.gaps), (0, 0, 0), "{stats:?}");
            assert_eq!(device.engine.entries_waiting(), 0);
            assert_eq!(device.engine.in_hand(), Credit::default(), "all credit is given back");
        }
    }
    assert!(left_out > 1_000 && waited > 40, "{left_out} were left out, {waited} waited");
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| {
        let world = storm(seed, 300, true);
        let stats: Vec<_> = world.devices.iter().map(|device| device.engine.stats()).collect();
        (world.now, world.model.dedup_hits, stats)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn a_log_that_went_back_gets_everything_again() {
    for seed in 200..240 {
        let (mut world, conversations) = world(seed);
        for step in 0..40 {
            let device = world.below(3) as usize;
            world.send(device, conversations[step % 2], &format!("{device} says {step}"));
            world.run(20);
        }
        // In some of the runs with messages in flight.
        if seed % 2 == 0 {
            world.settle();
        }
        let lost = 1 + world.below(15);
        world.model.restart(lost);
        for step in 40..60 {
            let device = world.below(3) as usize;
            world.send(device, conversations[step % 2], &format!("{device} says {step}"));
            world.run(20);
        }
        world.settle();
        world.check_logs();
        world.check_messages();
        assert!(
            world.devices.iter().all(|device| device.engine.stats().rewinds > 0),
            "each dropped its fork"
        );
    }
}
