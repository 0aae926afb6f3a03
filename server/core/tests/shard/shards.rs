//! Many shards: homes and sessions apart, queues that are full, shards that begin anew.

use talaria_core::{
    effect::{Input, SessionKey},
    peer::PeerClass,
    placement::shard_of,
};
use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ConversationId, UserId},
    message::{Credit, Cursor, Role, server::ServerFrame},
};

use crate::support::{
    mail::CLASSES,
    requests::{PLENTY, code, create_group, direct_with, history, members, send, sync},
    world::{Out, World},
};

const SHARDS: u16 = 4;

fn open(world: &mut World, shard: u16, name: &str, device: u8, role: Role) -> SessionKey {
    let identity = world.identity(name, device, role);
    let session = world.open_at(shard, identity, PLENTY, true);
    world.settle();
    assert!(matches!(world.take_out(session)[..], [Out::Opened(_)]));
    session
}

fn home(id: ConversationId) -> u16 {
    shard_of(id.slot(), SHARDS)
}

fn home_of_user(user: UserId) -> u16 {
    shard_of(user.slot(), SHARDS)
}

/// A shard that is none of these.
fn another(than: &[u16]) -> u16 {
    (0..SHARDS).find(|shard| !than.contains(shard)).expect("one is left")
}

/// A chat of Ada and Ben, whose sessions are on other shards than its home, and apart.
fn chat() -> (World, SessionKey, SessionKey, ConversationId) {
    let mut world = World::of(SHARDS, usize::MAX);
    let id = world.direct("ada", "ben");
    let adas = another(&[home(id)]);
    let bens = another(&[home(id), adas]);
    let ada = open(&mut world, adas, "ada", 1, Role::Main);
    let ben = open(&mut world, bens, "ben", 1, Role::Main);
    assert_eq!(world.direct_of(ada, "ben"), id);
    world.take_out(ada);
    world.take_out(ben);
    (world, ada, ben, id)
}

fn shard(session: SessionKey) -> u16 {
    crate::support::world::shard_of_session(session)
}

fn resumed(world: &mut World, session: SessionKey, id: ConversationId, seq: u64) -> Vec<String> {
    let cursor = world.cursor_at(id, seq);
    world.resume(session, id, cursor);
    world.settle();
    world.heard(session)
}

#[test]
fn all_that_a_session_asks_is_answered_from_another_shard() {
    let (mut world, ada, ben, id) = chat();
    assert_eq!(resumed(&mut world, ben, id, 0), ["1", "caught up 1"]);
    assert_eq!(resumed(&mut world, ada, id, 0), ["1", "caught up 1"]);
    world.begin(ada, send(id, 2, "hello"));
    world.settle();
    assert_eq!(world.heard(ben), ["2"]);
    let heard = world.heard(ada);
    assert!(heard.contains(&"2 own".to_owned()), "{heard:?}");
    assert!(
        matches!(world.ask(ben, members(id)), ServerFrame::MemberList { members, .. } if members.len() == 2)
    );
    let direction = talaria_protocol::message::Direction::Backward;
    assert_eq!(world.page_of(ben, history(id, 0, direction, 10)).entries.len(), 2);
    let listed = world.ask(ben, sync(None));
    assert!(matches!(listed, ServerFrame::SyncResult { conversations, .. } if conversations.len() == 1));
    let cleo = open(&mut world, 0, "cleo", 1, Role::Main);
    assert_eq!(world.ask_code(cleo, send(id, 9, "x")), Some(ErrorCode::NotFound));
    assert_eq!(resumed(&mut world, cleo, id, 0), ["NotFound"]);
    world.assert_at_rest();
}

#[test]
fn one_that_has_not_resumed_is_told_once_from_another_shard() {
    let (mut world, ada, _, id) = chat();
    let tablet = open(&mut world, another(&[home(id), shard(ada)]), "ben", 2, Role::Main);
    for number in 2..5 {
        world.sent(ada, send(id, number, "x"));
    }
    assert_eq!(world.heard(tablet), ["changed 2"]);
    world.assert_at_rest();
}

/// Whatever queue the entry and the page come by, in whatever order.
#[test]
fn an_entry_that_overtakes_the_last_page_is_not_lost() {
    for entry_first in [false, true] {
        let (mut world, ada, ben, id) = chat();
        let cursor = world.cursor_at(id, 1);
        world.resume(ben, id, cursor);
        let (home, bens) = (home(id), shard(ben));
        let answers = (home, bens, PeerClass::Answer);
        let entries = (home, bens, PeerClass::FanOut);
        // The home has said that this is all, but nobody has heard it yet.
        world.move_mail((bens, home, PeerClass::Ask));
        while world.reads_waiting() > 0 {
            world.complete_read(0);
        }
        world.move_mail(answers);
        world.move_mail((bens, home, PeerClass::Ask));
        world.mail.held.extend([answers, entries]);
        world.begin(ada, send(id, 2, "between"));
        world.settle();
        assert_eq!((world.mail.waiting_at(bens, PeerClass::Answer), world.heard(ben).len()), (1, 0));
        let order = if entry_first { [entries, answers] } else { [answers, entries] };
        order.into_iter().for_each(|way| world.move_mail(way));
        world.mail.held.clear();
        world.settle();
        let heard = world.heard(ben);
        let expected = if entry_first { ["2", "caught up 2"] } else { ["caught up 1", "2"] };
        assert_eq!(heard, expected);
        world.assert_at_rest();
    }
}

/// The news of a gap, too, may overtake what was said before it.
#[test]
fn a_gap_that_overtakes_the_last_page_is_not_forgotten() {
    for gap_first in [false, true] {
        let (mut world, ada, ben, id) = chat();
        let cursor = world.cursor_at(id, 1);
        world.resume(ben, id, cursor);
        let (home, bens) = (home(id), shard(ben));
        let (answers, gaps) = ((home, bens, PeerClass::Answer), (home, bens, PeerClass::FanOut));
        world.move_mail((bens, home, PeerClass::Ask));
        world.complete_read(0);
        world.move_mail(answers);
        world.move_mail((bens, home, PeerClass::Ask));
        world.mail.held.extend([answers, gaps]);
        world.mail.full.insert((bens, PeerClass::FanOut));
        world.begin(ada, send(id, 2, "left out"));
        world.settle();
        world.mail.full.clear();
        world.settle();
        assert_eq!(world.mail.waiting_at(bens, PeerClass::FanOut), 1, "the gap");
        let order = if gap_first { [gaps, answers] } else { [answers, gaps] };
        order.into_iter().for_each(|way| world.move_mail(way));
        world.mail.held.clear();
        world.settle();
        let expected = if gap_first { ["2", "caught up 2"] } else { ["caught up 1", "2"] };
        assert_eq!(world.heard(ben), expected);
        world.assert_at_rest();
    }
}

// Sessions.

#[test]
fn a_session_is_taken_over_from_another_shard() {
    let mut world = World::of(SHARDS, usize::MAX);
    let sessions: Vec<SessionKey> =
        (0..SHARDS).map(|shard| open(&mut world, shard, "ada", 1, Role::Main)).collect();
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(world.is_open(*session), number == 3);
    }
    assert_eq!(world.take_out(sessions[0]), [Out::End(ErrorCode::TakenOver)]);
    let fetch = open(&mut world, 0, "ada", 1, Role::PushFetch);
    assert!(world.is_open(sessions[3]) && world.is_open(fetch));
    world.assert_at_rest();
    // Devices are numbered by their user's home.
    for (shard, device) in [(0, 1), (1, 2), (2, 3), (3, 2)] {
        let identity = world.identity("ben", device, Role::Main);
        let session = world.open_at(shard, identity, PLENTY, true);
        world.settle();
        assert_eq!(world.take_out(session), [Out::Opened(u32::from(device))]);
    }
    world.assert_at_rest();
}

/// Who cannot prove to be there now, as one who replays another's first flight, changes nothing.
#[test]
fn an_unconfirmed_session_takes_nobody_over() {
    for shards in [1, SHARDS] {
        let mut world = World::of(shards, usize::MAX);
        let main = open(&mut world, 0, "ada", 1, Role::Main);
        let identity = world.identity("ada", 1, Role::Main);
        let replayed = world.open_at(shards - 1, identity.clone(), PLENTY, false);
        world.settle();
        let early = world.open_at(shards / 2, identity.clone(), PLENTY, false);
        world.settle();
        assert!(world.is_open(main) && world.is_open(replayed) && world.is_open(early));
        world.confirm(early, &identity);
        world.settle();
        assert!(!world.is_open(main) && !world.is_open(replayed) && world.is_open(early));
        // Confirmed while it opens.
        let last = world.open_at(0, identity.clone(), PLENTY, false);
        world.confirm(last, &identity);
        world.settle();
        assert!(!world.is_open(early) && world.is_open(last));
        world.assert_at_rest();
    }
}

/// What a home says of a session comes by two queues.
#[test]
fn a_session_that_is_taken_over_before_it_knows_that_it_is_open() {
    let mut world = World::of(SHARDS, usize::MAX);
    let home = home_of_user(world.user("ada"));
    let (one, two) = (another(&[home]), another(&[home, another(&[home])]));
    let identity = world.identity("ada", 1, Role::Main);
    let first = world.open_at(one, identity.clone(), PLENTY, true);
    world.mail.held.insert((home, one, PeerClass::Answer));
    world.settle();
    let second = world.open_at(two, identity, PLENTY, true);
    world.settle();
    assert_eq!(world.take_out(first), []);
    world.mail.held.clear();
    world.settle();
    assert_eq!(world.take_out(first), [Out::Opened(1), Out::End(ErrorCode::TakenOver)]);
    assert!(world.is_open(second));
    world.assert_at_rest();
}

/// Its shard hears that it has closed before its home hears that it wants to be opened, or after.
#[test]
fn a_session_that_closes_while_it_opens_on_another_shard() {
    for held in [PeerClass::Ask, PeerClass::Control, PeerClass::Answer] {
        let mut world = World::of(SHARDS, usize::MAX);
        let home = home_of_user(world.user("ada"));
        let at = another(&[home]);
        let way = if held == PeerClass::Answer { (home, at, held) } else { (at, home, held) };
        world.mail.held.insert(way);
        let identity = world.identity("ada", 1, Role::Main);
        let session = world.open_at(at, identity, PLENTY, true);
        if held != PeerClass::Ask {
            world.settle();
        }
        world.close(session);
        world.settle();
        world.mail.held.clear();
        world.settle();
        assert_eq!(world.sessions(), 0);
        assert_eq!(world.registered(), 0, "{held:?}");
        world.assert_at_rest();
    }
}

// Acknowledgements.

#[test]
fn acknowledgements_of_two_shards_never_move_a_cursor_back() {
    let (mut world, ada, main, id) = chat();
    for number in 2..10 {
        world.sent(ada, send(id, number, "x"));
    }
    let fetch = open(&mut world, another(&[home(id), shard(main)]), "ben", 1, Role::PushFetch);
    for session in [main, fetch] {
        resumed(&mut world, session, id, 0);
    }
    // The world objects to a cursor that goes back.
    for (session, up_to) in [(main, 4), (fetch, 6), (main, 5), (main, 9), (fetch, 7)] {
        world.ack(session, id, up_to);
        world.tick(60);
        world.settle();
        world.tick(120);
        world.settle();
    }
    assert_eq!(world.delivered(id, "ben", 1), 9);
    // Nor does a home that has forgotten what it knew.
    world.restart_shard(home(id));
    world.settle();
    world.ack(fetch, id, 8);
    world.tick(200);
    world.settle();
    world.tick(200);
    world.settle();
    let again = open(&mut world, home(id), "ben", 1, Role::PushFetch);
    resumed(&mut world, again, id, 3);
    world.ack(again, id, 5);
    world.tick(200);
    world.assert_at_rest();
    assert_eq!(world.delivered(id, "ben", 1), 9);
}

#[test]
fn acknowledgements_that_find_no_room_wait() {
    let (mut world, _, ben, id) = chat();
    resumed(&mut world, ben, id, 0);
    world.mail.full.insert((home(id), PeerClass::Ask));
    world.ack(ben, id, 1);
    world.tick(60);
    assert_eq!(world.shards[usize::from(shard(ben))].queues().acks, 1, "they came back");
    world.tick(60);
    world.mail.full.clear();
    world.tick(60);
    world.settle();
    world.tick(200);
    world.settle();
    assert_eq!(world.delivered(id, "ben", 1), 1);
    world.assert_at_rest();
}

// Gaps.

/// A chat that Ben follows live, and whose entries do not get through to his shard; nor do those of a new group.
fn starved() -> (World, SessionKey, SessionKey, ConversationId, ConversationId) {
    let (mut world, ada, ben, id) = chat();
    resumed(&mut world, ben, id, 1);
    world.mail.full.insert((shard(ben), PeerClass::FanOut));
    world.sent(ada, send(id, 2, "x"));
    world.sent(ada, send(id, 3, "x"));
    // Of the home of this one alone is his shard starved, else it would be told of the other's gap for it.
    let number = (10..).find(|number| {
        let group = world.info.id_key.group(world.user("ada"), crate::support::requests::id(*number));
        home(group) == home(id)
    });
    let (group, ..) = world.changed(ada, create_group(number.expect("one"), &["ben"]));
    (world, ada, ben, id, group)
}

#[test]
fn what_is_not_fanned_out_is_caught_up_with_when_there_is_room() {
    let (mut world, _, ben, id, _) = starved();
    assert_eq!(world.heard(ben), Vec::<String>::new());
    assert_eq!(world.shards[usize::from(home(id))].queues().gaps, 2);
    world.mail.full.clear();
    world.settle();
    let mut heard = world.heard(ben);
    heard.sort();
    assert_eq!(heard, ["2", "3", "changed 1"], "and of the new group it is told");
    world.assert_at_rest();
}

#[test]
fn a_later_entry_shows_that_one_is_missing() {
    let (mut world, ada, ben, id, _) = starved();
    world.mail.full.clear();
    world.begin(ada, send(id, 4, "x"));
    let way = (home(id), shard(ben), PeerClass::FanOut);
    while world.mail.waiting_at(shard(ben), PeerClass::FanOut) == 0 {
        world.settle_once();
    }
    world.move_mail(way);
    world.settle();
    let mut heard = world.heard(ben);
    heard.sort();
    assert_eq!(heard, ["2", "3", "4", "changed 1"]);
    world.assert_at_rest();
}

/// More than can be remembered one by one: the sessions are looked after all the same.
#[test]
fn a_gap_that_is_too_large_is_of_everything() {
    let (mut world, ada, ben, id, _) = starved();
    let home_of_it = home(id);
    let mut asked = 0;
    for number in 1_000_u64.. {
        let group = world.info.id_key.group(world.user("ada"), crate::support::requests::id(number));
        if home(group) == home_of_it {
            world.begin(ada, create_group(number, &["ben"]));
            asked += 1;
        }
        if asked % 100 == 0 {
            world.settle();
            world.take_out(ada);
        }
        if asked > talaria_core::limits::GAP_CONVERSATIONS_MAX {
            break;
        }
    }
    world.settle();
    assert_eq!(world.shards[usize::from(home_of_it)].queues().gaps, 1);
    world.mail.full.clear();
    world.settle();
    let heard = world.heard(ben);
    let changed = heard.iter().filter(|heard| *heard == "changed 1").count();
    assert_eq!((changed, heard.len()), (asked + 1, asked + 3), "each group once, and 2 and 3");
    world.assert_at_rest();
}

// Full queues.

/// Each class of queue of each shard is full in turn: nothing blocks, all is answered, and in the end all is there.
#[test]
fn a_full_queue_of_any_class_blocks_nobody() {
    for class in CLASSES.into_iter().filter(|class| *class != PeerClass::Answer) {
        for full in 0..SHARDS {
            let (mut world, ada, ben, id) = chat();
            resumed(&mut world, ben, id, 1);
            world.mail.full.insert((full, class));
            let asked = [send(id, 2, "x"), members(id), sync(None), direct_with("cleo", 3)]
                .map(|request| world.begin(ada, request));
            let identity = world.identity("ada", 2, Role::Main);
            let tablet = world.open_at(another(&[full]), identity, PLENTY, true);
            world.resume(ada, id, Cursor::START);
            world.ack(ben, id, 1);
            world.settle();
            world.tick(100);
            world.settle();
            for request_id in asked {
                let answer = world.reply(ada, request_id).expect("an answer");
                let refused = code(&answer);
                assert!(refused.is_none() || refused == Some(ErrorCode::Busy), "{answer:?}");
                assert!(refused.is_none() || class == PeerClass::Ask, "{class:?} at {full}: {answer:?}");
            }
            assert!(matches!(world.take_out(tablet)[..], [Out::Opened(2) | Out::Refused(ErrorCode::Busy)]));
            world.mail.full.clear();
            world.settle();
            world.sent(ada, send(id, 2, "x"));
            world.resume(ada, id, Cursor::START);
            world.settle();
            assert_eq!(world.heard(ada).last().map(String::as_str), Some("caught up 2"));
            assert_eq!(world.heard(ben), ["2"], "{class:?} at {full}");
            world.assert_at_rest();
        }
    }
}

/// As many questions as may be are under way: what asks is refused, a catch-up waits for its turn.
#[test]
fn questions_are_bounded() {
    use talaria_core::limits::PEER_ASKS_IN_FLIGHT_MAX;
    let (mut world, ada, ben, id) = chat();
    let bens = shard(ben);
    let no_credit = world.identity("ben", 2, Role::Main);
    let tablet = world.open_at(bens, no_credit, Credit { entries: 0, bytes: 0 }, true);
    world.settle();
    world.sent(ada, send(id, 2, "x"));
    world.take_out(tablet);
    resumed(&mut world, tablet, id, 1);
    world.mail.held.insert((bens, home(id), PeerClass::Ask));
    for _ in 0..PEER_ASKS_IN_FLIGHT_MAX {
        world.begin(ben, members(id));
    }
    world.credit(tablet, PLENTY);
    for request in [members(id), send(id, 50, "x")] {
        assert_eq!(world.ask_code_now(ben, request), Some(ErrorCode::Busy));
    }
    world.take_out(ben);
    world.resume(ben, id, Cursor::START);
    assert_eq!(world.heard(ben), ["Busy"]);
    assert_eq!(world.shards[usize::from(bens)].queues().waiting_to_ask, 1);
    world.mail.held.clear();
    world.settle();
    assert_eq!(world.heard(tablet), ["2", "caught up 2"]);
    world.assert_at_rest();
}

// Shards that begin anew.

#[test]
fn a_home_that_begins_anew_is_asked_again() {
    for missed in [false, true] {
        let (mut world, ada, ben, id) = chat();
        resumed(&mut world, ben, id, 1);
        let request_id = world.begin(ada, send(id, 2, "under way"));
        world.move_mail((shard(ada), home(id), PeerClass::Ask));
        // Durable, but its home is gone before it has heard so.
        if missed {
            world.commit(1);
        }
        world.restart_shard(home(id));
        world.settle();
        let answer = world.reply(ada, request_id).expect("an answer");
        assert_eq!(code(&answer), Some(ErrorCode::OutcomeUnknown));
        assert_eq!(world.heard(ben), ["2"], "he lagged until he had it");
        assert!(world.sent(ada, send(id, 2, "under way")).duplicate);
        world.sent(ada, send(id, 3, "x"));
        assert_eq!(world.heard(ben), ["3"]);
        world.assert_at_rest();
    }
}

#[test]
fn a_home_that_begins_anew_tells_of_what_nobody_has_heard_of() {
    let (mut world, _, ben, id, group) = starved();
    assert_eq!(home(group), home(id));
    world.restart_shard(home(id));
    world.mail.full.clear();
    world.settle();
    let mut heard = world.heard(ben);
    heard.sort();
    assert_eq!(heard, ["2", "3", "changed 1"]);
    world.assert_at_rest();
}

#[test]
fn a_users_home_that_begins_anew_knows_their_sessions_again() {
    let mut world = World::of(SHARDS, usize::MAX);
    let home = home_of_user(world.user("ada"));
    let at = another(&[home]);
    let main = open(&mut world, at, "ada", 1, Role::Main);
    world.restart_shard(home);
    world.settle();
    assert!(world.is_open(main));
    let again = open(&mut world, home, "ada", 1, Role::Main);
    assert!(!world.is_open(main) && world.is_open(again));
    // The shard of a session is gone: so is the session, and nobody is told to take it over.
    let away = open(&mut world, at, "ada", 2, Role::Main);
    world.restart_shard(at);
    world.settle();
    assert!(!world.is_open(away));
    assert_eq!(world.registered(), 1);
    open(&mut world, at, "ada", 2, Role::Main);
    world.assert_at_rest();
}

/// What an earlier incarnation has asked or was asked is answered by nobody; a new one that hears of it does nothing.
#[test]
fn mail_of_an_earlier_incarnation_changes_nothing() {
    let (mut world, ada, ben, id) = chat();
    let (adas, homes) = (shard(ada), home(id));
    world.begin(ada, send(id, 2, "asked by one who is gone"));
    world.restart_shard(adas);
    // The home hears of it before it hears what the old one had asked.
    world.settle();
    assert!(world.stored(id, 2).is_none());
    let ada = open(&mut world, adas, "ada", 1, Role::Main);
    let request_id = world.begin(ada, send(id, 2, "asked of one who is gone"));
    world.restart_shard(homes);
    world.settle();
    assert_eq!(code(&world.reply(ada, request_id).expect("an answer")), Some(ErrorCode::OutcomeUnknown));
    assert!(world.stored(id, 2).is_none());
    // A shard that begins after another knows of that.
    world.restart_shard(adas);
    world.restart_shard(homes);
    world.settle();
    let ada = open(&mut world, adas, "ada", 1, Role::Main);
    assert_eq!(world.sent(ada, send(id, 2, "x")).seq, 2);
    assert_eq!(resumed(&mut world, ben, id, 1), ["2", "caught up 2"]);
    world.assert_at_rest();
}

#[test]
fn a_retention_of_another_shards_conversation_is_not_for_this_one() {
    let (mut world, ada, _, id) = chat();
    world.sent(ada, send(id, 2, "x"));
    let retention = crate::support::cuts::Cuts::retention(&world.log, id, 2).expect("it is there");
    world.handle_at(another(&[home(id)]), Input::Retain(retention));
    world.settle();
    assert_eq!(world.cuts.done, 0);
    world.handle_at(home(id), Input::Retain(retention));
    world.settle();
    assert_eq!(world.cuts.done, 1);
    world.assert_at_rest();
}
