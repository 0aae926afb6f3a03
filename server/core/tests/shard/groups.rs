//! Who may be where: conversations begin, members come and go.

use talaria_core::effect::SessionKey;
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    limits::GROUP_MEMBERS_MAX,
    message::{
        ConversationKind, ConversationState, MemberRole,
        client::{ChangeMembers, Request},
        content::{Body, Content, MemberAction, Membership},
        server::ServerFrame,
    },
};

use crate::support::{
    requests::{add, create_group, direct_with, id, leave, members, remove, send, subject},
    truth::Truth,
    world::World,
};

fn said(world: &World, conversation: ConversationId, seq: u64) -> Membership {
    let truth = Truth::of(world, conversation);
    match Content::parse(&truth.at(seq).expect("an entry").content).expect("a content").body {
        Body::Membership(membership) => membership,
        other => panic!("{other:?}"),
    }
}

fn changes(world: &World, conversation: ConversationId, seq: u64) -> Vec<(String, MemberAction, MemberRole)> {
    let changes = said(world, conversation, seq).changes;
    changes.into_iter().map(|change| (change.peer.subject, change.action, change.role)).collect()
}

fn state(world: &mut World, session: SessionKey, request: Request) -> ConversationState {
    match world.ask(session, request) {
        ServerFrame::ConversationResult { conversation, .. } => conversation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_direct_conversation_is_one_whoever_asks_first() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let request = direct_with("ben", 1);
    let (conversation, seq, duplicate) = world.changed(ada, request.clone());
    assert_eq!((conversation, seq, duplicate), (world.direct("ada", "ben"), 1, false));
    assert_eq!(world.changed(ben, direct_with("ada", 1)), (conversation, 0, false));
    assert_eq!(world.changed(ada, request).0, conversation);
    let membership = said(&world, conversation, 1);
    assert!(membership.created && membership.title.is_empty());
    let member = |name: &str| (name.to_owned(), MemberAction::Added, MemberRole::Member);
    assert_eq!(changes(&world, conversation, 1), [member("ada"), member("ben")]);
    let state = state(&mut world, ben, direct_with("ada", 2));
    assert_eq!((state.kind, state.member, state.head), (ConversationKind::Direct, true, 1));
    assert_eq!(state.peer.map(|peer| peer.subject).as_deref(), Some("ada"));
    for request in
        [add(conversation, 5, &["cleo"]), remove(conversation, 6, &["ben"]), leave(conversation, 7)]
    {
        assert_eq!(world.ask_code(ada, request), Some(ErrorCode::Forbidden));
    }
}

#[test]
fn both_may_begin_it_at_once() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let first = world.begin(ada, direct_with("ben", 1));
    let again = world.begin(ada, direct_with("ben", 1));
    let other = world.begin(ben, direct_with("ada", 1));
    let said = world.begin(ben, send(world.direct("ada", "ben"), 2, "hello"));
    world.settle();
    let seq = |frame: Option<ServerFrame>| match frame {
        Some(ServerFrame::ConversationResult { seq, .. }) => seq,
        Some(ServerFrame::Sent(sent)) => sent.seq,
        other => panic!("{other:?}"),
    };
    assert_eq!(seq(world.reply(ada, first)), 1);
    assert_eq!(seq(world.reply(ada, again)), 0);
    assert_eq!(seq(world.reply(ben, other)), 0);
    assert_eq!(seq(world.reply(ben, said)), 2);
}

#[test]
fn notes_to_oneself_have_one_member() {
    let mut world = World::default();
    let ada = world.session("ada");
    let user = world.id_of("ada");
    let notes = state(&mut world, ada, Request::DirectWith { user, client_message_id: id(1) });
    assert_eq!((notes.conversation, notes.peer), (world.direct("ada", "ada"), None));
    assert_eq!(changes(&world, notes.conversation, 1).len(), 1);
    assert_eq!(world.sent(ada, send(notes.conversation, 2, "milk")).seq, 2);
}

#[test]
fn users_are_named_by_subject_or_once_they_are_known_by_id() {
    let mut world = World::default();
    let ada = world.session("ada");
    let by_id = |world: &World, number| Request::CreateGroup {
        client_message_id: id(number),
        title: String::new(),
        members: vec![subject("cleo"), world.id_of("ben"), world.id_of("ada")],
    };
    let request = by_id(&world, 1);
    assert_eq!(world.ask_code(ada, request.clone()), Some(ErrorCode::UnknownUser));
    world.session("ben");
    let (group, seq, _) = world.changed(ada, request);
    assert_eq!(seq, 1);
    let names: Vec<String> = changes(&world, group, 1).into_iter().map(|change| change.0).collect();
    assert_eq!(names, ["ada", "cleo", "ben"]);
    let unknown = vec![world.id_of("ben"), world.id_of("nobody")];
    let change = |users| ChangeMembers { client_message_id: id(3), conversation: group, users };
    assert_eq!(
        world.ask_code(ada, Request::AddMembers(change(unknown.clone()))),
        Some(ErrorCode::UnknownUser)
    );
    // To remove, an id is enough: of one who is not there, it is no change.
    assert_eq!(world.changed(ada, Request::RemoveMembers(change(unknown))).1, 2);
    assert_eq!(changes(&world, group, 2), [("ben".to_owned(), MemberAction::Removed, MemberRole::Member)]);
    world.assert_at_rest();
}

#[test]
fn a_retried_create_makes_one_group() {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, seq, duplicate) = world.changed(ada, create_group(1, &["ben"]));
    assert_eq!((seq, duplicate), (1, false));
    world.restart();
    let ada = world.session("ada");
    assert_eq!(world.changed(ada, create_group(1, &["ben"])), (group, 1, true));
    assert_eq!(world.ask_code(ada, create_group(1, &["cleo"])), Some(ErrorCode::Conflict));
    // Under the same id another user's group is another.
    let ben = world.session("ben");
    assert_ne!(world.changed(ben, create_group(1, &["ben"])).0, group);
}

#[test]
fn who_may_change_whom() {
    let mut world = World::default();
    let [ada, ben, cleo, dan] = ["ada", "ben", "cleo", "dan"].map(|name| world.session(name));
    let (group, ..) = world.changed(ada, create_group(1, &["ben", "cleo"]));
    let forbidden = Some(ErrorCode::Forbidden);
    // Members may neither add nor remove; strangers know of nothing.
    assert_eq!(world.ask_code(ben, add(group, 2, &["dan"])), forbidden);
    assert_eq!(world.ask_code(ben, remove(group, 3, &["cleo"])), forbidden);
    assert_eq!(world.ask_code(ben, remove(group, 4, &["ada"])), forbidden);
    assert_eq!(world.ask_code(dan, add(group, 2, &["dan"])), Some(ErrorCode::NotFound));
    // The owner may both. Naming oneself is wrong, naming twice is once, naming who is there already is no change.
    assert_eq!(world.ask_code(ada, remove(group, 5, &["ben", "ada"])), Some(ErrorCode::Invalid));
    assert_eq!(world.changed(ada, add(group, 6, &["ben", "ada"])), (group, 0, false));
    assert_eq!(world.changed(ada, remove(group, 7, &["nobody"])), (group, 0, false));
    assert_eq!(world.changed(ada, add(group, 8, &["dan", "dan", "ben"])), (group, 2, false));
    assert_eq!(changes(&world, group, 2), [("dan".to_owned(), MemberAction::Added, MemberRole::Member)]);
    assert_eq!(world.changed(ada, remove(group, 9, &["dan", "dan"])), (group, 3, false));
    assert_eq!(changes(&world, group, 3), [("dan".to_owned(), MemberAction::Removed, MemberRole::Member)]);
    // Who was removed may do nothing any more, but what was accepted stays so.
    let retry = send(group, 20, "I was here");
    world.changed(ada, add(group, 21, &["dan"]));
    world.sent(dan, retry.clone());
    world.changed(ada, remove(group, 22, &["dan"]));
    for request in [send(group, 23, "x"), leave(group, 24), add(group, 25, &["dan"]), members(group)] {
        assert_eq!(world.ask_code(dan, request), forbidden);
    }
    assert!(world.sent(dan, retry).duplicate);
    // A member leaves, and a retry of it is a retry.
    assert_eq!(world.changed(cleo, leave(group, 30)), (group, 7, false));
    assert_eq!(world.changed(cleo, leave(group, 30)), (group, 7, true));
    assert_eq!(world.ask_code(cleo, leave(group, 31)), forbidden);
    Truth::of(&world, group);
}

#[test]
fn an_owner_who_leaves_is_followed_by_the_member_of_longest_standing() {
    let mut world = World::default();
    let [ada, ben, cleo] = ["ada", "ben", "cleo"].map(|name| world.session(name));
    let (group, ..) = world.changed(ada, create_group(1, &[]));
    world.changed(ada, add(group, 2, &["ben"]));
    world.changed(ada, add(group, 3, &["cleo"]));
    // Ben was there first, but not without a break.
    world.changed(ada, remove(group, 4, &["ben"]));
    world.changed(ada, add(group, 5, &["ben"]));
    assert_eq!(world.changed(ada, leave(group, 6)).1, 6);
    assert_eq!(
        changes(&world, group, 6),
        [
            ("ada".to_owned(), MemberAction::Left, MemberRole::Member),
            ("cleo".to_owned(), MemberAction::RoleChanged, MemberRole::Owner)
        ]
    );
    world.changed(cleo, remove(group, 7, &["ben"]));
    assert_eq!(world.ask_code(ben, send(group, 8, "x")), Some(ErrorCode::Forbidden));
    // Nobody is left, and nobody can come.
    world.changed(cleo, leave(group, 9));
    assert_eq!(world.ask_code(cleo, add(group, 10, &["cleo"])), Some(ErrorCode::Forbidden));
    Truth::of(&world, group);
}

#[test]
fn a_group_is_full_at_its_limit() {
    let mut world = World::default();
    let ada = world.session("ada");
    let (group, ..) = world.changed(ada, create_group(1, &[]));
    let names: Vec<String> = (0..GROUP_MEMBERS_MAX).map(|number| format!("user{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (number, chunk) in (2..).zip(names[..GROUP_MEMBERS_MAX - 2].chunks(100)) {
        world.changed(ada, add(group, number, chunk));
    }
    let [last, surplus] = [names[GROUP_MEMBERS_MAX - 2], names[GROUP_MEMBERS_MAX - 1]];
    assert_eq!(world.ask_code(ada, add(group, 100, &[last, surplus])), Some(ErrorCode::GroupFull));
    world.changed(ada, add(group, 101, &[last]));
    assert_eq!(world.ask_code(ada, add(group, 102, &[surplus])), Some(ErrorCode::GroupFull));
    assert_eq!(world.changed(ada, add(group, 103, &[last])).1, 0, "no change is never too much");
    world.changed(ada, remove(group, 104, &[last]));
    world.changed(ada, add(group, 105, &[surplus]));
}

#[test]
fn what_one_who_left_is_told_ends_with_their_leaving() {
    let mut world = World::default();
    let (ada, ben) = (world.session("ada"), world.session("ben"));
    let (group, ..) = world.changed(ada, create_group(1, &["ben"]));
    let left = state(&mut world, ben, leave(group, 2));
    assert_eq!((left.head, left.member, left.role), (2, false, MemberRole::Member));
    world.sent(ada, send(group, 3, "x"));
    world.sent(ada, send(group, 4, "x"));
    let again = state(&mut world, ben, leave(group, 2));
    assert_eq!((again.head, again.epoch), (left.head, left.epoch));
}
