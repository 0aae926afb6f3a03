//! Reading: history from any place in both directions, members, conversations, what changed since a sync.

use bytes::Bytes;
use talaria_core::effect::SessionKey;
use talaria_protocol::{
    entry::EntryForm,
    error_code::ErrorCode,
    ids::{BootId, ConversationId},
    limits::{PAGE_BYTES_MAX, PAGE_CONVERSATIONS_MAX, PAGE_MEMBERS_MAX},
    message::{
        ConversationState, Credit, Direction, SyncToken,
        client::Request,
        server::{HistoryPage, ServerFrame},
    },
};

use crate::support::{
    requests::{PLENTY, add, code, create_group, direct_with, history, members, remove, send},
    truth::Truth,
    world::World,
};

/// A group of 30 entries in which Ben was from 5 to 12 and is from 20 on.
fn group() -> (World, SessionKey, ConversationId) {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, ..) = world.changed(ada, create_group(1, &["cleo"]));
    for seq in 2..=30 {
        match seq {
            5 | 20 => assert_eq!(world.changed(ada, add(group, seq, &["ben"])).1, seq),
            12 => assert_eq!(world.changed(ada, remove(group, seq, &["ben"])).1, seq),
            _ => assert_eq!(world.sent(ada, send(group, seq, "some words")).seq, seq),
        }
    }
    world.take_out(ada);
    (world, ada, group)
}

/// What a page must be, by brute force.
fn check_page(
    truth: &Truth,
    world: &World,
    name: &str,
    asked: (u64, Direction, usize),
    page: &HistoryPage,
    cut: bool,
) {
    let (from, direction, entries_max) = asked;
    let user = world.user(name);
    let (first, head) = (truth.first(user), truth.head(user));
    assert_eq!((page.first_seq, page.head), (first, head));
    let mut expected: Vec<u64> = match direction {
        Direction::Forward => (from.max(first)..=head).collect(),
        Direction::Backward => {
            let from = if from == 0 { head } else { from.min(head) };
            (first..=from).rev().collect()
        }
    };
    let all = expected.len();
    expected.truncate(if cut { page.entries.len() } else { entries_max });
    let more = !expected.is_empty() && all > expected.len();
    if direction == Direction::Backward {
        expected.reverse();
    }
    let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, expected, "{name} {asked:?}");
    assert_eq!(page.more, more, "{name} {asked:?}");
    let mut chain = page.chain_before;
    for entry in &page.entries {
        assert_eq!(matches!(entry.form, EntryForm::Hidden { .. }), !truth.sees(user, entry.seq));
        chain = chain.next(truth.conversation, entry.seq, &entry.leaf().expect("nothing is omitted"));
        assert_eq!(chain, truth.at(entry.seq).expect("it is there").stored.chain, "{name} {asked:?}");
    }
}

#[test]
fn history_goes_both_ways_from_anywhere() {
    let (mut world, ada, group) = group();
    let ben = world.session("ben");
    let truth = Truth::of(&world, group);
    for (session, name) in [(ada, "ada"), (ben, "ben")] {
        for direction in [Direction::Forward, Direction::Backward] {
            for from in (0..=33).chain([u64::MAX]) {
                for entries_max in [1, 3, 25, 200] {
                    let page = world.page_of(session, history(group, from, direction, entries_max));
                    check_page(&truth, &world, name, (from, direction, entries_max), &page, false);
                }
            }
        }
    }
}

#[test]
fn history_ends_where_a_member_was_removed() {
    let (mut world, ada, group) = group();
    world.changed(ada, remove(group, 40, &["ben"]));
    world.sent(ada, send(group, 41, "without ben"));
    let truth = Truth::of(&world, group);
    let ben = world.session("ben");
    for from in 0..40 {
        for direction in [Direction::Forward, Direction::Backward] {
            let page = world.page_of(ben, history(group, from, direction, 10));
            check_page(&truth, &world, "ben", (from, direction, 10), &page, false);
        }
    }
    assert_eq!(truth.head(world.user("ben")), 31);
}

#[test]
fn a_page_is_cut_to_the_credit_from_the_end_that_was_asked_for() {
    let (mut world, _, group) = group();
    let truth = Truth::of(&world, group);
    for direction in [Direction::Forward, Direction::Backward] {
        for (entries, bytes) in
            [(3, 1 << 20), (100, 1), (100, 300), (100, 1_000), (1, 1 << 20), (0, 1 << 20), (5, 0)]
        {
            for from in [1, 7, 14, 25, 30] {
                let ada = world.session_of("ada", 1, Credit { entries, bytes });
                match world.ask(ada, history(group, from, direction, 20)) {
                    ServerFrame::HistoryPage(page) => {
                        assert!(!page.entries.is_empty() && page.entries.len() as u64 <= entries);
                        check_page(&truth, &world, "ada", (from, direction, 20), &page, true);
                    }
                    refused => {
                        assert_eq!(code(&refused), Some(ErrorCode::NoCredit));
                        assert!(entries == 0 || bytes < 200);
                    }
                }
            }
        }
    }
}

#[test]
fn a_page_ends_with_the_entry_that_fills_it() {
    let mut world = World::default();
    let ada = world.session("ada");
    let conversation = world.direct_of(ada, "ada");
    let said = "x".repeat(60_000);
    for number in 2..10 {
        world.sent(ada, send(conversation, number, &said));
    }
    let forward = world.page_of(ada, history(conversation, 2, Direction::Forward, 200));
    let in_a_page = PAGE_BYTES_MAX / said.len() + 1;
    assert_eq!(forward.entries.len(), in_a_page);
    assert!(forward.more);
    let backward = world.page_of(ada, history(conversation, 0, Direction::Backward, 200));
    assert_eq!(backward.entries.len(), in_a_page);
    assert_eq!(backward.entries.last().map(|entry| entry.seq), Some(9));
    // Delivered in pages of the same kind.
    let again = world.session_of("ada", 1, PLENTY);
    world.resume(again, conversation, talaria_protocol::message::Cursor::START);
    world.settle();
    assert_eq!(world.heard(again).len(), 10);
}

#[test]
fn two_pages_at_once_share_the_credit() {
    let (mut world, _, group) = group();
    let ada = world.session_of("ada", 1, Credit { entries: 5, bytes: 1 << 20 });
    let first = world.begin(ada, history(group, 1, Direction::Forward, 4));
    let second = world.begin(ada, history(group, 5, Direction::Forward, 4));
    let third = world.begin(ada, history(group, 9, Direction::Forward, 4));
    world.settle();
    let mut lengths = [first, second, third].map(|request_id| match world.reply(ada, request_id) {
        Some(ServerFrame::HistoryPage(page)) => page.entries.len(),
        Some(refused) if code(&refused) == Some(ErrorCode::NoCredit) => 0,
        other => panic!("{other:?}"),
    });
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 1, 4], "whichever was read first");
}

#[test]
fn nobody_learns_what_is_not_theirs() {
    let mut world = World::default();
    let (ada, eve) = (world.session("ada"), world.session("eve"));
    let (group, ..) = world.changed(ada, create_group(1, &["ben"]));
    world.sent(ada, send(group, 2, "secret"));
    let nothing = ConversationId::new([0x77; 16]);
    let requests = |conversation: ConversationId| {
        [
            send(conversation, 10, "x"),
            add(conversation, 11, &["eve"]),
            remove(conversation, 12, &["ada"]),
            crate::support::requests::leave(conversation, 13),
            members(conversation),
            Request::ListMembers { conversation, page: Bytes::from_static(b"bad") },
            history(conversation, 0, Direction::Backward, 10),
            history(conversation, 99, Direction::Forward, 10),
            // Of a bad id too: it is the first thing that is looked at.
            send(conversation, 1 << 40, "from the future"),
        ]
    };
    for (of_others, of_none) in requests(group).into_iter().zip(requests(nothing)) {
        let answers = [of_others, of_none].map(|request| match world.ask(eve, request) {
            ServerFrame::Error { conversation, code, message, retry_after_ms, .. } => {
                (conversation, ErrorCode::from_wire(code), message, retry_after_ms)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].1, Some(ErrorCode::NotFound));
    }
    // While something is on its way there, too.
    world.begin(ada, add(group, 3, &["cleo"]));
    assert_eq!(world.ask_code_now(eve, send(group, 20, "x")), Some(ErrorCode::NotFound));
    assert_eq!(world.ask_code_now(eve, members(group)), Some(ErrorCode::NotFound));
    let unknown = [world.user("nobody"), talaria_protocol::ids::UserId::new([1; 16])];
    let answers = unknown.map(|user| {
        let user = talaria_protocol::message::UserRef::Id(user);
        let client_message_id = crate::support::requests::id(30);
        let answer = world.ask(eve, Request::DirectWith { user, client_message_id });
        format!("{answer:?}").split("code").nth(1).map(str::to_owned)
    });
    assert_eq!(answers[0], answers[1]);
}

// Lists.

fn synced(
    world: &mut World,
    session: SessionKey,
    token: Option<SyncToken>,
) -> (SyncToken, bool, Vec<ConversationState>) {
    let (mut page, mut all, mut first) = (Bytes::new(), Vec::new(), None);
    loop {
        match world.ask(session, Request::Sync { token, page }) {
            ServerFrame::SyncResult { token, reset, conversations, next_page, .. } => {
                assert!(conversations.len() <= PAGE_CONVERSATIONS_MAX);
                let (first_token, first_reset) = *first.get_or_insert((token, reset));
                assert_eq!((token, reset), (first_token, first_reset), "the pages of a sync are one");
                all.extend(conversations);
                page = next_page;
                if page.is_empty() {
                    return (first_token, first_reset, all);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sync_lists_what_changed_since_the_token() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let (token, reset, all) = synced(&mut world, ben, None);
    assert!(reset && all.is_empty());
    let chats = ["ben", "cleo"].map(|name| world.changed(ada, direct_with(name, 1)).0);
    let (group, ..) = world.changed(ada, create_group(2, &["ben"]));
    let (token, reset, changed) = synced(&mut world, ben, Some(token));
    let mut listed: Vec<_> = changed.iter().map(|state| state.conversation).collect();
    listed.sort();
    let mut expected = vec![chats[0], group];
    expected.sort();
    assert_eq!((reset, listed), (false, expected));
    let direct = changed.iter().find(|state| state.conversation == chats[0]).expect("listed");
    assert_eq!(direct.peer.as_ref().map(|peer| peer.subject.as_str()), Some("ada"));
    world.sent(ada, send(group, 3, "x"));
    let (token, reset, changed) = synced(&mut world, ben, Some(token));
    assert_eq!((reset, changed.len(), changed[0].conversation, changed[0].head), (false, 1, group, 2));
    assert_eq!(synced(&mut world, ben, Some(token)), (token, false, vec![]));
    // It outlives the node; one of a boot that is not known, or that the log does not reach, does not.
    world.restart();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    world.sent(ada, send(chats[0], 4, "x"));
    let (_, reset, changed) = synced(&mut world, ben, Some(token));
    assert_eq!((reset, changed.len(), changed[0].conversation), (false, 1, chats[0]));
    let boot = world.info.boots[0];
    let last = world.info.boots[1].first_commit - 1;
    for (boot_id, commit, expected) in [
        (boot.boot_id, last, false),
        (boot.boot_id, last + 1, true),
        (boot.boot_id, u64::MAX, true),
        (BootId::new([0xee; 16]), 1, true),
    ] {
        let (_, reset, all) = synced(&mut world, ben, Some(SyncToken { boot_id, commit }));
        assert_eq!(reset, expected, "commit {commit}");
        assert!(!reset || all.len() == 2);
    }
}

#[test]
fn a_token_of_what_the_log_lost_is_of_another_history() {
    let mut world = World::default();
    let ada = world.session("ada");
    let conversation = world.direct_of(ada, "ben");
    let snapshot = world.log.inner().reopen();
    let (kept, ..) = synced(&mut world, ada, None);
    world.sent(ada, send(conversation, 2, "lost"));
    let (lost, ..) = synced(&mut world, ada, None);
    world.restart_over(snapshot);
    let ada = world.session("ada");
    assert!(!synced(&mut world, ada, Some(kept)).1);
    assert!(synced(&mut world, ada, Some(lost)).1);
}

#[test]
fn long_lists_come_in_pages() {
    let conversations = PAGE_CONVERSATIONS_MAX + 50;
    let mut world = World::default();
    let ada = world.session("ada");
    let (token, ..) = synced(&mut world, ada, None);
    let mut made: Vec<_> = (0..conversations as u64)
        .map(|number| world.changed(ada, create_group(number, &["ben"])).0)
        .collect();
    let sorted: std::collections::BTreeSet<_> = made.iter().copied().collect();
    for token in [None, Some(token)] {
        let (_, reset, mut all) = synced(&mut world, ada, token);
        all.sort_by_key(|state| state.conversation);
        assert_eq!(reset, token.is_none());
        assert!(all.iter().map(|state| state.conversation).eq(sorted.iter().copied()));
    }
    let mut listed = Vec::new();
    let mut page = Bytes::new();
    loop {
        match world.ask(ada, Request::ListConversations { page }) {
            ServerFrame::ConversationList { conversations, next_page, .. } => {
                listed.extend(conversations.iter().map(|state| state.conversation));
                page = next_page;
            }
            other => panic!("{other:?}"),
        }
        if page.is_empty() {
            break;
        }
    }
    made.reverse();
    assert_eq!(listed, made, "the most recent first");
    for bad in [Bytes::from_static(b"x"), Bytes::from(vec![0; 63])] {
        for request in [
            Request::Sync { token: None, page: bad.clone() },
            Request::ListConversations { page: bad.clone() },
            Request::ListMembers { conversation: made[0], page: bad.clone() },
        ] {
            assert_eq!(world.ask_code(ada, request), Some(ErrorCode::Invalid));
        }
    }
}

#[test]
fn members_come_in_pages_and_without_those_who_left() {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, ..) = world.changed(ada, create_group(1, &[]));
    let names: Vec<String> = (0..PAGE_MEMBERS_MAX + 30).map(|number| format!("user{number}")).collect();
    for (number, chunk) in (2..).zip(names.chunks(100)) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        world.changed(ada, add(group, number, &chunk));
    }
    world.changed(ada, remove(group, 50, &["user7", "user8"]));
    let (mut listed, mut page) = (Vec::new(), Bytes::new());
    loop {
        match world.ask(ada, Request::ListMembers { conversation: group, page }) {
            ServerFrame::MemberList { members, next_page, .. } => {
                assert!(members.len() <= PAGE_MEMBERS_MAX);
                listed.extend(members.into_iter().map(|member| member.peer.subject));
                page = next_page;
            }
            other => panic!("{other:?}"),
        }
        if page.is_empty() {
            break;
        }
    }
    listed.sort();
    let mut expected: Vec<String> = names
        .into_iter()
        .chain(["ada".to_owned()])
        .filter(|name| name != "user7" && name != "user8")
        .collect();
    expected.sort();
    assert_eq!(listed, expected);
    let gone = world.session("user7");
    assert_eq!(world.ask_code(gone, members(group)), Some(ErrorCode::Forbidden));
}
