//! One rule of the engine per test, against the model server.
#![allow(clippy::unwrap_used)]

mod model;

use model::{START_MS, world::World};
use talaria_client_core::{
    ask::{Answer, Ask},
    engine::StopReason,
    event::{DamageKind, Event, SendFailure},
    history,
    outbox::WINDOW_ITEMS,
    store::{ConversationWrite, Store, StoreBatch},
};
use talaria_protocol::{
    chain::Chain,
    entry::EntryKind,
    error_code::ErrorCode,
    ids::ConversationId,
    message::{Credit, Cursor, Direction, UserRef, content::Content},
};

const ALICE: usize = 0;
const BOB: usize = 1;

fn pair() -> (World, ConversationId) {
    pair_with(Credit { entries: 1_000, bytes: 1 << 20 })
}

fn pair_with(window: Credit) -> (World, ConversationId) {
    let mut world = World::new(1);
    world.add("alice");
    world.add_with("bob", window);
    let conversation = world.conversation(ALICE, Ask::DirectWith(UserRef::Subject("bob".into())));
    world.settle();
    (world, conversation)
}

fn log(world: &World, conversation: ConversationId) -> Vec<String> {
    let entries = &world.model.conversations[&conversation].entries;
    let texts = entries.iter().filter(|entry| entry.header.kind == EntryKind::Message);
    texts.map(|entry| String::from_utf8_lossy(&entry.content[2..]).into_owned()).collect()
}

fn has(world: &World, device: usize, wanted: impl Fn(&Event) -> bool) -> bool {
    world.devices[device].events.iter().any(wanted)
}

// ---- outbox ----

#[test]
fn a_terminal_refusal_fails_one_message_and_relinks_the_others() {
    let (mut world, conversation) = pair();
    world.model.refuse_next.extend([ErrorCode::TooLarge]);
    let refused = world.send(ALICE, conversation, "a");
    for text in ["b", "c", "d"] {
        world.send(ALICE, conversation, text);
    }
    world.settle();
    assert_eq!(log(&world, conversation), ["b", "c", "d"]);
    let failure = &world.devices[ALICE].failed[&refused];
    assert!(matches!(failure, SendFailure::Refused { code, .. } if *code == ErrorCode::TooLarge as u32));
    assert!(has(
        &world,
        ALICE,
        |event| matches!(event, Event::Failed { local_id, .. } if *local_id == refused)
    ));
    assert!(world.devices[ALICE].store.load().unwrap().outbox.is_empty());
}

#[test]
fn refusals_that_pass_keep_the_order() {
    let codes = [
        ErrorCode::Busy,
        ErrorCode::ReadOnly,
        ErrorCode::OutcomeUnknown,
        ErrorCode::TooManyRequests,
        ErrorCode::Internal,
        ErrorCode::OutOfOrder,
    ];
    for code in codes {
        let (mut world, conversation) = pair();
        world.model.refuse_next.extend([code; 3]);
        for text in ["a", "b", "c", "d", "e"] {
            world.send(ALICE, conversation, text);
        }
        world.settle();
        assert_eq!(log(&world, conversation), ["a", "b", "c", "d", "e"], "{code:?}");
    }
}

#[test]
fn at_most_a_window_is_in_flight() {
    let (mut world, conversation) = pair();
    world.delay_ms_max = 1_000;
    world.store_ms_max = 0;
    for n in 0..100 {
        world.send(ALICE, conversation, &n.to_string());
    }
    world.run(50);
    assert_eq!(world.devices[ALICE].engine.stats().transmissions, WINDOW_ITEMS as u64);
    world.settle();
    assert_eq!(log(&world, conversation).len(), 100);
}

#[test]
fn nothing_is_transmitted_before_its_id_is_stored() {
    let (mut world, conversation) = pair();
    world.store_ms_max = 0;
    world.run(50);
    let before = world.devices[ALICE].engine.stats().transmissions;
    world.devices[ALICE].breaks_store = true;
    world.send(ALICE, conversation, "never on the wire");
    world.run(500);
    assert_eq!(world.devices[ALICE].engine.stats().transmissions, before);
    assert!(matches!(world.stop_reason(ALICE), Some(StopReason::StoreFailed(_))));
}

#[test]
fn an_expired_id_that_was_never_appended_is_minted_anew() {
    for code in [ErrorCode::IdExpired, ErrorCode::IdFromFuture] {
        let (mut world, conversation) = pair();
        // Long enough for the next one to try to overtake.
        world.delay_ms_max = 300;
        world.model.refuse_next.extend([code]);
        world.send(ALICE, conversation, "old");
        world.send(ALICE, conversation, "next");
        world.settle();
        assert_eq!(log(&world, conversation), ["old", "next"]);
        let resumes = world.devices[ALICE].engine.stats().resumes;
        assert_eq!(resumes, 2, "it looked whether the old one was there");
    }
}

#[test]
fn an_expired_id_that_was_appended_is_not_sent_again() {
    let (mut world, conversation) = pair();
    // Appended, and the answer is lost; offline for longer than the server remembers.
    world.model.faults.cut_after_append = 1_000;
    let local_id = world.send(ALICE, conversation, "once");
    world.run(100);
    world.model.faults.cut_after_append = 0;
    world.devices[ALICE].offline = true;
    world.cut(ALICE);
    world.run(1_000);
    world.model.refuse_next.extend([ErrorCode::IdExpired]);
    world.devices[ALICE].offline = false;
    world.settle();
    assert_eq!(log(&world, conversation), ["once"]);
    assert!(world.devices[ALICE].acknowledged.contains_key(&local_id));
}

#[test]
fn an_expired_id_that_may_have_been_appended_is_the_users_to_decide() {
    let (mut world, conversation) = pair();
    world.devices[ALICE].offline = true;
    world.model.faults.busy = 1_000;
    world.devices[ALICE].offline = false;
    let local_id = world.send(ALICE, conversation, "perhaps");
    world.run(200);
    world.devices[ALICE].offline = true;
    world.cut(ALICE);
    for n in 0..20 {
        world.model.faults.busy = 0;
        world.send(BOB, conversation, &n.to_string());
    }
    world.run(2_000);
    // Alice gets the newest three only: her own could be among the others.
    world.model.newest_only = Some(3);
    world.model.refuse_next.extend([ErrorCode::Busy, ErrorCode::IdExpired]);
    world.devices[ALICE].offline = false;
    world.run(60_000);
    assert_eq!(world.devices[ALICE].failed.get(&local_id), Some(&SendFailure::OutcomeUnknown));
}

#[test]
fn ids_are_of_the_servers_time_and_ascend() {
    let (mut world, conversation) = pair();
    world.send(ALICE, conversation, "a");
    world.send(ALICE, conversation, "b");
    world.settle();
    let ids: Vec<_> = world.devices[ALICE].acknowledged.values().map(|sent| sent.id).collect();
    assert!(ids[0] < ids[1]);
    assert!(ids[0].unix_ms() >= START_MS && ids[0].unix_ms() <= START_MS + world.now.0);
}

// ---- timeline ----

#[test]
fn own_content_that_is_gone_is_read_from_history() {
    let (mut world, conversation) = pair();
    for n in 0..120 {
        world.send(n % 2, conversation, &n.to_string());
        world.run(10);
    }
    world.settle();
    world.forget(ALICE);
    world.settle();
    world.check_logs();
    let texts = world.devices[ALICE].events.iter().filter_map(|event| match event {
        Event::Entry(entry) => entry.text(),
        _ => None,
    });
    assert_eq!(texts.count(), 120, "each is shown once, own ones with their text");
}

#[test]
fn what_is_skipped_is_told_and_counts_as_held() {
    let (mut world, conversation) = pair();
    world.devices[BOB].offline = true;
    world.cut(BOB);
    for n in 0..50 {
        world.send(ALICE, conversation, &n.to_string());
    }
    world.settle();
    world.model.newest_only = Some(10);
    world.devices[BOB].offline = false;
    world.settle();
    assert!(has(&world, BOB, |event| *event == Event::Skipped { conversation, from: 2, to: 41 }));
    let held = world.devices[BOB].store.entries(conversation, 1, 100).unwrap();
    assert_eq!(held.len(), 11);
    world.cut(BOB);
    world.settle();
    assert_eq!(world.devices[BOB].engine.stats().chain_mismatches, 0, "the chain goes on over the gap");
    let skips = world.devices[BOB].events.iter().filter(|event| matches!(event, Event::Skipped { .. }));
    assert_eq!(skips.count(), 1, "once");
}

#[test]
fn what_is_truncated_is_told_and_later_entries_go_on() {
    let (mut world, conversation) = pair();
    world.devices[BOB].offline = true;
    world.cut(BOB);
    for n in 0..20 {
        world.send(ALICE, conversation, &n.to_string());
    }
    world.settle();
    world.model.conversations.get_mut(&conversation).unwrap().first_seq = 11;
    world.devices[BOB].offline = false;
    world.settle();
    assert!(has(&world, BOB, |event| *event == Event::Truncated { conversation, first_seq: 11 }));
    world.send(ALICE, conversation, "on");
    world.send(BOB, conversation, "and on");
    world.settle();
    world.run(1_000);
    assert_eq!(world.acked(BOB, conversation), 23);
    let held = world.devices[BOB].store.entries(conversation, 1, 100).unwrap();
    assert_eq!(
        held.iter().map(|held| held.entry.seq).collect::<Vec<_>>(),
        Vec::from_iter((1..2).chain(11..24))
    );
    let ask = |from| Ask::History { conversation, from, direction: Direction::Backward, entries_max: 10 };
    let Ok(Answer::History(page)) = world.ask(BOB, ask(10)) else { panic!("no page") };
    assert!(
        page.entries.is_empty() && page.first_seq == 11 && !page.more,
        "there is no more to page: {page:?}"
    );
    world.crash(BOB);
    world.settle();
    assert_eq!(world.devices[BOB].engine.stats().chain_mismatches, 0);
}

#[test]
fn a_gap_that_stays_open_is_asked_for_though_what_waits_fills_the_window() {
    let (mut world, conversation) = pair_with(Credit { entries: 20, bytes: 1 << 20 });
    world.lanes_ms_max = Some([20, 20, 20]);
    world.cut(BOB);
    world.settle();
    world.devices[ALICE].offline = true;
    world.cut(ALICE);
    // Six are taken, so that the grant is renewed; then a whole window waits.
    world.model.swallows = Some(8);
    for n in 0..30 {
        world.send(BOB, conversation, &n.to_string());
    }
    world.run(1_000);
    assert_eq!(world.waited_max, 20);
    world.run(100_000);
    world.devices[ALICE].offline = false;
    world.settle();
    world.check_logs();
    assert!(world.devices[BOB].engine.stats().gaps > 0);
}

/// Fills a gap by pages from its end to its beginning, each proven against what is held around it.
fn page_through(world: &mut World, conversation: ConversationId, gap: std::ops::RangeInclusive<u64>) -> u64 {
    let (mut to, mut shown) = (*gap.end(), 0);
    while to >= *gap.start() {
        let ask = Ask::History { conversation, from: to, direction: Direction::Backward, entries_max: 200 };
        let Ok(Answer::History(page)) = world.ask(BOB, ask) else { panic!("no page") };
        let (first, count) = (page.entries[0].seq, page.entries.len());
        let held = world.devices[BOB].store.entries(conversation, first - 1, count + 2).unwrap();
        let views = history::verify(conversation, &page, &held).unwrap();
        shown += views.iter().filter(|view| gap.contains(&view.seq)).count() as u64;
        to = first - 1;
    }
    shown
}

#[test]
fn a_gap_of_a_hundred_thousand_costs_nothing_and_is_paged_on_demand() {
    for lanes in [None, Some([20, 20, 200])] {
        let (mut world, conversation) = pair();
        world.lanes_ms_max = lanes;
        world.devices[BOB].offline = true;
        world.cut(BOB);
        world.append_many(ALICE, conversation, 100_000);
        // The newest page first.
        world.model.newest_only = Some(500);
        world.devices[BOB].offline = false;
        world.run(60_000);
        world.settle();
        let gap = Event::Skipped { conversation, from: 2, to: 99_501 };
        assert!(has(&world, BOB, |event| *event == gap));
        let told = world.devices[BOB].events.len();
        assert!(told < 600, "{told} events");
        assert!(world.waited_max <= 1_000, "{} entries were held in memory", world.waited_max);
        let held = world.devices[BOB].store.entries(conversation, 1, usize::MAX).unwrap();
        assert_eq!(held.len(), 501, "the one from before, and the newest page");
        // It goes on.
        world.send(ALICE, conversation, "on");
        world.settle();
        world.run(1_000);
        assert_eq!(world.acked(BOB, conversation), 100_002);
        assert_eq!(page_through(&mut world, conversation, 2..=99_501), 99_500);
        let stats = world.devices[BOB].engine.stats();
        assert_eq!((stats.entries_stored, stats.gaps), (502, 0), "{stats:?}");
    }
}

#[test]
fn the_last_page_before_what_is_held_is_proven_by_what_follows_it() {
    let (mut world, conversation) = pair();
    world.devices[BOB].offline = true;
    world.cut(BOB);
    world.append_many(ALICE, conversation, 50);
    world.model.newest_only = Some(10);
    world.devices[BOB].offline = false;
    world.settle();
    let entries = &mut world.model.conversations.get_mut(&conversation).unwrap().entries;
    entries[40].content = Content::text("forged").encode();
    let ask = Ask::History { conversation, from: 41, direction: Direction::Backward, entries_max: 10 };
    let Ok(Answer::History(page)) = world.ask(BOB, ask) else { panic!("no page") };
    let held = world.devices[BOB].store.entries(conversation, 31, 12).unwrap();
    let mismatch = history::verify(conversation, &page, &held).unwrap_err();
    assert_eq!(mismatch, history::HistoryMismatch::Chain { seq: 42 });
}

#[test]
fn a_chain_that_differs_is_reported_and_nothing_more_is_taken() {
    let (mut world, conversation) = pair();
    world.send(ALICE, conversation, "a");
    world.settle();
    // A bit flips in bob's store.
    let cursor = world.devices[BOB].engine.cursor(conversation).unwrap();
    let write = ConversationWrite {
        conversation,
        drop_from: None,
        entries: Vec::new(),
        cursor: Cursor { chain: Chain::new([1; 32]), ..cursor },
    };
    let batch = StoreBatch { conversations: vec![write], ..StoreBatch::default() };
    world.devices[BOB].store.commit(&batch).unwrap();
    world.crash(BOB);
    world.run(2_000);
    let damage = Event::Damage { conversation, seq: 2, kind: DamageKind::ChainMismatch };
    assert!(has(&world, BOB, |event| *event == damage));
    let stored = world.devices[BOB].engine.stats().entries_stored;
    world.send(ALICE, conversation, "b");
    world.run(2_000);
    assert_eq!(world.devices[BOB].engine.stats().entries_stored, stored);
    assert_eq!(world.devices[BOB].engine.stats().chain_mismatches, 1);
    // Sending still works.
    world.send(BOB, conversation, "c");
    world.run(2_000);
    assert_eq!(log(&world, conversation), ["a", "b", "c"]);
}

#[test]
fn history_that_was_rewritten_is_found() {
    let (mut world, conversation) = pair();
    for text in ["a", "b", "c"] {
        world.send(ALICE, conversation, text);
    }
    world.settle();
    let ask = |from| Ask::History { conversation, from, direction: Direction::Forward, entries_max: 10 };
    let held = world.devices[BOB].store.entries(conversation, 0, 10).unwrap();
    let Ok(Answer::History(page)) = world.ask(BOB, ask(1)) else { panic!("no page") };
    assert_eq!(history::verify(conversation, &page, &held).unwrap().len(), 4);
    world.model.conversations.get_mut(&conversation).unwrap().entries[2].content =
        Content::text("x").encode();
    let Ok(Answer::History(page)) = world.ask(BOB, ask(2)) else { panic!("no page") };
    let mismatch = history::verify(conversation, &page, &held[1..]).unwrap_err();
    assert_eq!(mismatch, history::HistoryMismatch::Chain { seq: 3 });
}

#[test]
fn a_conversation_that_the_log_lost_is_dropped_and_its_messages_are_told_to_have_failed() {
    let (mut world, conversation) = pair();
    let local_id = world.send(ALICE, conversation, "a");
    world.settle();
    assert!(world.devices[ALICE].acknowledged.contains_key(&local_id));
    world.model.restart(0);
    world.model.conversations.clear();
    world.run(5_000);
    let rewound = Event::Rewound { conversation, first_seq: 1, reoffered: 1 };
    assert!(has(&world, ALICE, |event| *event == rewound));
    assert!(world.devices[ALICE].store.entries(conversation, 1, 9).unwrap().is_empty());
    assert!(
        has(&world, ALICE, |event| matches!(event, Event::Failed { .. })),
        "the server has no such place"
    );
}

#[test]
fn an_app_that_takes_nothing_gets_a_window_and_no_more() {
    let (mut world, conversation) = pair_with(Credit { entries: 20, bytes: 1 << 20 });
    world.devices[BOB].takes_events = false;
    for n in 0..60 {
        world.send(ALICE, conversation, &n.to_string());
    }
    world.run(5_000);
    for _ in 0..5 {
        // Nor by reconnecting.
        world.cut(BOB);
        world.run(5_000);
    }
    let stored = world.devices[BOB].engine.stats().entries_stored;
    assert!(stored <= 41, "{stored}");
    world.devices[BOB].takes_events = true;
    world.settle();
    world.check_logs();
}
