//! Requests that are refused one by one, while their session goes on.

use bytes::Bytes;
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    limits::{BODY_BYTES_MAX, DEDUP_WINDOW, ID_FUTURE_MAX},
    message::{
        Direction, UserRef,
        client::{ChangeMembers, ClientFrame, History, Request, Send},
        content::Content,
        server::ServerFrame,
    },
};
use talaria_server::clock::unix_ms;

use crate::support::{
    client::{Client, message_id_at, new_message_id, send_with, text_to},
    honest::Honest,
    node::TestNode,
};

fn everything_about(conversation: ConversationId) -> Vec<Request> {
    let change = || ChangeMembers {
        client_message_id: new_message_id(),
        conversation,
        users: vec![UserRef::Subject("mallory".to_owned())],
    };
    vec![
        text_to(conversation, "let me in"),
        Request::History(History { conversation, from: 1, direction: Direction::Forward, entries_max: 10 }),
        Request::ListMembers { conversation, page: Bytes::new() },
        Request::AddMembers(change()),
        Request::RemoveMembers(change()),
        Request::Leave { client_message_id: new_message_id(), conversation },
    ]
}

/// Code and message of every refusal.
fn refusals(client: &mut Client, conversation: ConversationId) -> Vec<(u32, String)> {
    let answers = everything_about(conversation).into_iter().map(|request| match client.request(request) {
        ServerFrame::Error { code, message, retry_after_ms, .. } => {
            assert_eq!(retry_after_ms, 0);
            (code, message)
        }
        other => panic!("not refused: {other:?}"),
    });
    answers.collect()
}

#[test]
fn anothers_conversation_answers_as_one_that_does_not_exist() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut mallory = node.session("mallory");
    let of_others = refusals(&mut mallory, honest.conversation);
    let of_nobody = refusals(&mut mallory, ConversationId::new([0x55; 16]));
    assert_eq!(of_others, of_nobody);
    assert!(of_others.iter().all(|(code, _)| *code == ErrorCode::NotFound as u32), "{of_others:?}");
    // Neither does Resume tell.
    let start = talaria_protocol::message::Cursor::START;
    let mut answers = Vec::new();
    for conversation in [honest.conversation, ConversationId::new([0x55; 16])] {
        mallory.send(&ClientFrame::Resume(vec![(conversation, start)]));
        answers.push(mallory.wait_for(|frame| match frame {
            ServerFrame::Error { request_id: None, code, .. } => Some(*code),
            _ => None,
        }));
    }
    assert_eq!(answers, [ErrorCode::NotFound as u32; 2]);
    honest.go_on();
}

#[test]
fn too_large_and_bad_contents() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    let conversation = client.direct_with("bob");
    let largest = "x".repeat(BODY_BYTES_MAX);
    assert_eq!(client.say(conversation, &largest), 2, "64 KiB is fine");
    let send = |content: Vec<u8>| send_with(conversation, new_message_id(), Bytes::from(content));
    let table = [
        ("64 KiB + 1", Content::text(format!("{largest}x")).encode().to_vec(), ErrorCode::TooLarge),
        ("bad UTF-8", vec![0x0a, 0x02, 0xc3, 0x28], ErrorCode::Invalid),
        ("half a character", vec![0x0a, 0x03, b'a', 0xe2, 0x82], ErrorCode::Invalid),
        ("no content", Vec::new(), ErrorCode::Invalid),
        ("no protobuf", vec![0x0a, 0x7f], ErrorCode::Invalid),
        ("a membership of a client's making", vec![0x1a, 0x02, 0x08, 0x01], ErrorCode::Invalid),
    ];
    for (name, content, code) in table {
        assert_eq!(client.refused(send(content)), code, "{name}");
    }
    assert_eq!(client.say(conversation, "the next seq: nothing was appended"), 3);
    honest.go_on();
}

#[test]
fn ids_out_of_their_time() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    let conversation = client.direct_with("bob");
    let text = |at_ms| send_with(conversation, message_id_at(at_ms), Content::text("late").encode());
    let (window, ahead) = (DEDUP_WINDOW.as_millis() as u64, ID_FUTURE_MAX.as_millis() as u64);
    assert_eq!(client.refused(text(unix_ms() - window - 1_000)), ErrorCode::IdExpired);
    assert_eq!(client.refused(text(unix_ms() + ahead + 30_000)), ErrorCode::IdFromFuture);
    for at_ms in [unix_ms() - window + 60_000, unix_ms() + ahead - 30_000] {
        assert!(matches!(client.request(text(at_ms)), ServerFrame::Sent(_)), "within the window");
    }
    assert_eq!(client.say(conversation, "x"), 4, "nothing was appended by the refused");
    honest.go_on();
}

#[test]
fn the_same_id_with_the_same_content_and_with_other() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    let conversation = client.direct_with("bob");
    let id = new_message_id();
    let send = |text: &str| send_with(conversation, id, Content::text(text).encode());
    let (ServerFrame::Sent(first), ServerFrame::Sent(again)) =
        (client.request(send("one")), client.request(send("one")))
    else {
        panic!("sent twice");
    };
    assert_eq!((first.seq, first.duplicate, again.seq, again.duplicate), (2, false, 2, true));
    assert_eq!(client.refused(send("two")), ErrorCode::Conflict);
    assert_eq!(client.say(conversation, "x"), 3);
    node.assert_metric("talaria_dedup_hits_total", 1.0);
    honest.go_on();
}

#[test]
fn a_wrong_after() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    let conversation = client.direct_with("bob");
    let after = |after| {
        let Request::Send(send) = text_to(conversation, "second") else { unreachable!() };
        Request::Send(Send { after: Some(after), ..send })
    };
    assert_eq!(client.refused(after(new_message_id())), ErrorCode::OutOfOrder);
    let first = new_message_id();
    let one = client.ask(send_with(conversation, first, Content::text("first").encode()));
    let two = client.ask(after(first));
    for (id, seq) in [(one, 2), (two, 3)] {
        assert!(matches!(client.answer(id), ServerFrame::Sent(sent) if sent.seq == seq));
    }
    honest.go_on();
}

#[test]
fn users_who_are_not_there() {
    let node = TestNode::start();
    let mut client = node.session("mallory");
    let unknown = UserRef::Id(talaria_protocol::ids::UserId::new([9; 16]));
    let request = Request::DirectWith { user: unknown, client_message_id: new_message_id() };
    assert_eq!(client.refused(request), ErrorCode::UnknownUser);
    let nobody = UserRef::Subject(String::new());
    let request = Request::DirectWith { user: nobody, client_message_id: new_message_id() };
    assert_eq!(client.refused(request), ErrorCode::Invalid);
}
