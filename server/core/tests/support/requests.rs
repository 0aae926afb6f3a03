//! Requests in short, and what comes back.

use bytes::Bytes;
use talaria_core::effect::{Input, SessionKey};
use talaria_protocol::{
    entry::Urgency,
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        Credit, Cursor, Direction, RequestId, Role, SyncToken, UserRef,
        client::{ChangeMembers, History, Request, Send},
        content::Content,
        server::{HistoryPage, Sent, ServerFrame},
    },
};

use super::world::{BEGIN_MS, Out, World};

/// More than any test uses.
pub(crate) const PLENTY: Credit = Credit { entries: 1_000_000, bytes: 1 << 40 };

/// The `number`-th id of the second in which the world begins.
pub(crate) fn id(number: u64) -> ClientMessageId {
    id_at(BEGIN_MS + number, 0)
}

pub(crate) fn id_at(unix_ms: u64, random: u8) -> ClientMessageId {
    ClientMessageId::from_parts(unix_ms, [random; 10])
}

pub(crate) fn text(text: &str) -> Bytes {
    Content::text(text).encode()
}

pub(crate) fn send(conversation: ConversationId, number: u64, said: &str) -> Request {
    send_after(conversation, id(number), None, said)
}

pub(crate) fn send_after(
    conversation: ConversationId,
    client_message_id: ClientMessageId,
    after: Option<ClientMessageId>,
    said: &str,
) -> Request {
    let urgency = Urgency::Normal;
    let content = text(said);
    Request::Send(Send { conversation, client_message_id, content, after, seen: 0, urgency, expires_ms: 0 })
}

pub(crate) fn subject(name: &str) -> UserRef {
    UserRef::Subject(name.to_owned())
}

pub(crate) fn direct_with(name: &str, number: u64) -> Request {
    Request::DirectWith { user: subject(name), client_message_id: id(number) }
}

pub(crate) fn create_group(number: u64, members: &[&str]) -> Request {
    let members = members.iter().map(|name| subject(name)).collect();
    Request::CreateGroup { client_message_id: id(number), title: "a group".to_owned(), members }
}

fn change(conversation: ConversationId, number: u64, names: &[&str]) -> ChangeMembers {
    let users = names.iter().map(|name| subject(name)).collect();
    ChangeMembers { client_message_id: id(number), conversation, users }
}

pub(crate) fn add(conversation: ConversationId, number: u64, names: &[&str]) -> Request {
    Request::AddMembers(change(conversation, number, names))
}

pub(crate) fn remove(conversation: ConversationId, number: u64, names: &[&str]) -> Request {
    Request::RemoveMembers(change(conversation, number, names))
}

pub(crate) fn leave(conversation: ConversationId, number: u64) -> Request {
    Request::Leave { client_message_id: id(number), conversation }
}

pub(crate) fn history(
    conversation: ConversationId,
    from: u64,
    direction: Direction,
    entries_max: usize,
) -> Request {
    Request::History(History { conversation, from, direction, entries_max })
}

pub(crate) fn members(conversation: ConversationId) -> Request {
    Request::ListMembers { conversation, page: Bytes::new() }
}

pub(crate) fn sync(token: Option<SyncToken>) -> Request {
    Request::Sync { token, page: Bytes::new() }
}

pub(crate) fn code(frame: &ServerFrame) -> Option<ErrorCode> {
    match frame {
        ServerFrame::Error { code, .. } => ErrorCode::from_wire(*code),
        _ => None,
    }
}

/// What directed tests do with a world.
impl World {
    /// An open session of the user's device 1.
    pub(crate) fn session(&mut self, name: &str) -> SessionKey {
        self.session_of(name, 1, PLENTY)
    }

    pub(crate) fn session_of(&mut self, name: &str, device: u8, credit: Credit) -> SessionKey {
        let identity = self.identity(name, device, Role::Main);
        let session = self.open(identity, credit);
        self.settle();
        let opened = self.take_out(session);
        assert!(matches!(opened[..], [Out::Opened(_)]), "{opened:?}");
        session
    }

    /// Asks without waiting. Ids are `1_000_000 +` the number of requests so far.
    pub(crate) fn begin(&mut self, session: SessionKey, request: Request) -> RequestId {
        self.asked += 1;
        let request_id = RequestId::new(1_000_000 + self.asked).expect("not 0");
        self.request(session, request_id, request);
        request_id
    }

    /// The answer, if it has come; other frames stay.
    pub(crate) fn reply(&mut self, session: SessionKey, request_id: RequestId) -> Option<ServerFrame> {
        let out = self.take_out(session);
        let mut reply = None;
        for one in out {
            match one {
                Out::Frame(frame) if frame.request_id() == Some(request_id) => reply = Some(frame),
                other => self.put_back(session, other),
            }
        }
        reply
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, session: SessionKey, request: Request) -> ServerFrame {
        let request_id = self.begin(session, request);
        self.settle();
        self.reply(session, request_id).expect("an answer")
    }

    pub(crate) fn ask_code(&mut self, session: SessionKey, request: Request) -> Option<ErrorCode> {
        code(&self.ask(session, request))
    }

    /// Of what is answered at once.
    pub(crate) fn ask_code_now(&mut self, session: SessionKey, request: Request) -> Option<ErrorCode> {
        let request_id = self.begin(session, request);
        code(&self.reply(session, request_id).expect("an answer at once"))
    }

    pub(crate) fn sent(&mut self, session: SessionKey, request: Request) -> Sent {
        match self.ask(session, request) {
            ServerFrame::Sent(sent) => sent,
            other => panic!("not sent: {other:?}"),
        }
    }

    /// The seq of the entry that a change made, and whether it is an old one.
    pub(crate) fn changed(&mut self, session: SessionKey, request: Request) -> (ConversationId, u64, bool) {
        match self.ask(session, request) {
            ServerFrame::ConversationResult { conversation, seq, duplicate, .. } => {
                (conversation.conversation, seq, duplicate)
            }
            other => panic!("not changed: {other:?}"),
        }
    }

    pub(crate) fn page_of(&mut self, session: SessionKey, request: Request) -> HistoryPage {
        match self.ask(session, request) {
            ServerFrame::HistoryPage(page) => page,
            other => panic!("no page: {other:?}"),
        }
    }

    /// A direct conversation between two users, of one entry.
    pub(crate) fn direct_of(&mut self, session: SessionKey, other: &str) -> ConversationId {
        let (conversation, seq, _) = self.changed(session, direct_with(other, 1));
        assert_eq!(seq, 1);
        conversation
    }

    pub(crate) fn resume(&mut self, session: SessionKey, conversation: ConversationId, cursor: Cursor) {
        self.handle(Input::Resume { session, cursors: vec![(conversation, cursor)] });
    }

    /// The cursor of one who holds everything up to `seq`.
    pub(crate) fn cursor_at(&self, conversation: ConversationId, seq: u64) -> Cursor {
        let Some(stored) = self.stored(conversation, seq) else { return Cursor::START };
        let header = talaria_protocol::entry::EntryHeader::parse(&stored.header).expect("a header");
        Cursor { epoch: header.epoch, seq, chain: stored.chain }
    }

    pub(crate) fn ack(&mut self, session: SessionKey, conversation: ConversationId, up_to: u64) {
        self.handle(Input::Ack { session, conversation, up_to });
    }

    /// All that has come, in short.
    pub(crate) fn heard(&mut self, session: SessionKey) -> Vec<String> {
        self.take_out(session).iter().map(in_short).collect()
    }

    /// The id of a user.
    pub(crate) fn id_of(&self, name: &str) -> UserRef {
        let user: UserId = self.user(name);
        UserRef::Id(user)
    }
}

fn in_short(out: &Out) -> String {
    use talaria_protocol::entry::EntryForm;
    match out {
        Out::Frame(ServerFrame::Deliver { entry, .. }) => match &entry.form {
            EntryForm::Full { content: Some(_), .. } => format!("{}", entry.seq),
            EntryForm::Full { content: None, .. } => format!("{} own", entry.seq),
            EntryForm::Hidden { .. } => format!("{} hidden", entry.seq),
            EntryForm::Erased { .. } => format!("{} erased", entry.seq),
        },
        Out::Frame(ServerFrame::CaughtUp { head, .. }) => format!("caught up {head}"),
        Out::Frame(ServerFrame::Truncated { .. }) => "Truncated".to_owned(),
        Out::Frame(ServerFrame::Skipped { from, to, .. }) => format!("skipped {from}..{to}"),
        Out::Frame(ServerFrame::EpochChanged { first_seq, .. }) => format!("fork at {first_seq}"),
        Out::Frame(ServerFrame::Changed(state)) => format!("changed {}", state.head),
        Out::Frame(frame @ ServerFrame::Error { .. }) => format!("{:?}", code(frame).expect("known")),
        Out::Frame(frame) => format!("{frame:?}"),
        Out::Opened(number) => format!("opened {number}"),
        Out::Refused(code) => format!("refused {code:?}"),
        Out::End(code) => format!("end {code:?}"),
    }
}
