//! Sessions come, take over, and go.

use talaria_core::effect::SessionKey;
use talaria_log::CommitResult;
use talaria_protocol::{error_code::ErrorCode, limits::DEVICES_PER_USER_MAX, message::Role};

use crate::support::{
    requests::{PLENTY, members, send, sync},
    world::{Out, World},
};

fn open(world: &mut World, name: &str, device: u8, role: Role) -> SessionKey {
    let identity = world.identity(name, device, role);
    world.open(identity, PLENTY)
}

fn opened(world: &mut World, name: &str, device: u8, role: Role) -> Vec<Out> {
    let session = open(world, name, device, role);
    world.settle();
    world.take_out(session)
}

#[test]
fn devices_are_numbered_in_the_order_they_are_seen_and_keep_their_numbers() {
    let mut world = World::default();
    for (device, number) in [(5, 1), (3, 2), (9, 3), (5, 1)] {
        assert_eq!(opened(&mut world, "ada", device, Role::Main), [Out::Opened(number)]);
    }
    assert_eq!(opened(&mut world, "ben", 5, Role::Main), [Out::Opened(1)]);
    world.restart();
    assert_eq!(opened(&mut world, "ada", 3, Role::Main), [Out::Opened(2)]);
    assert_eq!(opened(&mut world, "ada", 4, Role::Main), [Out::Opened(4)]);
}

#[test]
fn several_that_open_at_once_get_numbers_of_their_own() {
    let mut world = World::default();
    let sessions = [1, 2, 1, 3].map(|device| open(&mut world, "ada", device, Role::Main));
    world.settle();
    let out = sessions.map(|session| world.take_out(session));
    assert_eq!(out[0], [Out::Opened(1), Out::End(ErrorCode::TakenOver)]);
    assert_eq!(out[1..], [vec![Out::Opened(2)], vec![Out::Opened(1)], vec![Out::Opened(3)]]);
    assert_eq!(world.sessions(), 3);
    world.assert_at_rest();
}

#[test]
fn a_number_is_given_when_it_is_durable() {
    let mut world = World::default();
    let ada = open(&mut world, "ada", 1, Role::Main);
    world.settle_reads();
    world.commit(1);
    assert_eq!(world.take_out(ada), []);
    world.complete_op();
    assert_eq!(world.take_out(ada), [Out::Opened(1)]);
}

#[test]
fn a_user_has_only_so_many_devices() {
    let mut world = World::default();
    for device in 1..=DEVICES_PER_USER_MAX as u8 {
        assert_eq!(opened(&mut world, "ada", device, Role::Main), [Out::Opened(u32::from(device))]);
    }
    assert_eq!(opened(&mut world, "ada", 200, Role::Main), [Out::Refused(ErrorCode::TooManyDevices)]);
    assert_eq!(opened(&mut world, "ada", 17, Role::Main), [Out::Opened(17)]);
    world.assert_at_rest();
}

#[test]
fn a_session_is_taken_over_by_one_of_the_same_device_and_role_only() {
    let mut world = World::default();
    let main = open(&mut world, "ada", 1, Role::Main);
    world.settle();
    let request_id = world.begin(main, sync(None));
    let others = [(1, Role::PushFetch), (2, Role::Main), (1, Role::Main)];
    let [fetch, tablet, again] = others.map(|(device, role)| open(&mut world, "ada", device, role));
    world.settle();
    assert!(world.is_open(fetch) && world.is_open(tablet) && world.is_open(again));
    assert!(!world.is_open(main));
    assert!(world.take_out(main).ends_with(&[Out::End(ErrorCode::TakenOver)]));
    // Its late close, and what it had asked for, touch nobody.
    world.handle(talaria_core::effect::Input::Close { session: main });
    assert_eq!(world.reply(main, request_id), None);
    assert_eq!(world.sessions(), 3);
    world.assert_at_rest();
}

#[test]
fn one_that_closes_while_it_opens_is_never_open() {
    let mut world = World::default();
    let sessions = [1, 2, 3].map(|device| open(&mut world, "ada", device, Role::Main));
    world.close(sessions[0]);
    world.close(sessions[1]);
    world.settle();
    assert_eq!(world.take_out(sessions[2]), [Out::Opened(1)], "those that closed got no number");
    assert_eq!(world.sessions(), 1);
    world.close(sessions[2]);
    world.assert_at_rest();
}

/// Coming and going while a reader is slow leaves nothing behind.
#[test]
fn those_that_gave_up_do_not_wait() {
    let mut world = World::default();
    let first = open(&mut world, "ada", 1, Role::Main);
    for _ in 0..1_000 {
        let session = open(&mut world, "ada", 1, Role::Main);
        world.close(session);
    }
    let last = open(&mut world, "ada", 1, Role::Main);
    assert_eq!(world.queues().opening, 2);
    world.complete_read(0);
    world.settle();
    assert!(!world.is_open(first) && world.is_open(last));
    assert_eq!(world.reads_done, 2, "nothing is read for those that gave up");
    world.assert_at_rest();
}

#[test]
fn what_fails_refuses_only_the_one() {
    let mut world = World::default();
    assert_eq!(opened(&mut world, "ada", 1, Role::Main), [Out::Opened(1)]);
    let [one, two] = [1, 1].map(|device| open(&mut world, "ben", device, Role::Main));
    world.fail_read(0);
    world.complete_read(0);
    assert_eq!(world.take_out(one), [Out::Refused(ErrorCode::ReadFailed)]);
    world.settle();
    assert_eq!(world.take_out(two), [Out::Opened(1)]);
    // Without the log a known device may come in, a new one may not.
    world.log.fail_next_commit(CommitResult::Unknown { why: "told to".to_owned() }, false);
    assert_eq!(opened(&mut world, "ada", 2, Role::Main), [Out::Refused(ErrorCode::ReadOnly)]);
    assert_eq!(opened(&mut world, "ada", 3, Role::Main), [Out::Refused(ErrorCode::ReadOnly)]);
    assert_eq!(opened(&mut world, "ada", 1, Role::Main), [Out::Opened(1)]);
    world.assert_at_rest();
}

#[test]
fn one_that_is_gone_hears_nothing() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let conversation = world.direct_of(ada, "ben");
    // All of it is under way when they go: the world objects to an answer.
    world.begin(ada, send(conversation, 2, "x"));
    world.begin(ada, members(conversation));
    world.begin(ben, sync(None));
    world.resume(ben, conversation, talaria_protocol::message::Cursor::START);
    let by_id = talaria_protocol::message::client::Request::DirectWith {
        user: world.id_of("ada"),
        client_message_id: crate::support::requests::id(9),
    };
    world.begin(ben, by_id);
    world.close(ada);
    world.close(ben);
    world.settle();
    assert_eq!((world.sessions(), world.queues().resolving), (0, 0));
    world.assert_at_rest();
}
