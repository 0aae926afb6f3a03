//! Clients that come back, as an SDK does: a sender that says the same again until it is acknowledged, and a reader that
//! resumes from its cursor. Both notice a lost, doubled or reordered message.

use std::time::Duration;

use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm},
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId},
    message::{
        Credit, Cursor,
        client::ClientFrame,
        content::{Body, Content},
        server::ServerFrame,
    },
};

use super::{
    client::{Client, Received, new_message_id, send_with},
    node::TestNode,
};

/// A pause before the next try.
const PAUSE: Duration = Duration::from_millis(10);

/// The next session of a user's device: one that is refused because its shard begins anew comes again.
fn session_again(node: &TestNode, subject: &str, device: u8) -> Client {
    loop {
        let mut client = node.connect();
        client.send(&ClientFrame::Hello(Box::new(Client::hello_frame(&node.token(subject), device))));
        match client.receive() {
            Received::Frame(frame) => match *frame {
                ServerFrame::Welcome(_) => return client,
                ServerFrame::Refused(refused) => {
                    assert!(ErrorCode::from_wire(refused.code).unwrap().retryable(), "{refused:?}");
                    std::thread::sleep(PAUSE);
                }
                other => panic!("{other:?}"),
            },
            Received::Closed => std::thread::sleep(PAUSE),
        }
    }
}

/// Device 1 of a user, who says things until they are acknowledged.
pub(crate) struct Sender<'a> {
    node: &'a TestNode,
    subject: String,
    client: Client,
    /// Before it comes back.
    pub(crate) pause: Duration,
    /// Seqs and texts that were acknowledged.
    pub(crate) sent: Vec<(u64, String)>,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(node: &'a TestNode, subject: &str) -> Self {
        let client = session_again(node, subject, 1);
        Self { node, subject: subject.to_owned(), client, pause: Duration::ZERO, sent: Vec::new() }
    }

    pub(crate) fn say(&mut self, conversation: ConversationId, text: &str) {
        let id = new_message_id();
        loop {
            if let Some(seq) = self.try_say(conversation, id, text) {
                return self.sent.push((seq, text.to_owned()));
            }
        }
    }

    fn try_say(&mut self, conversation: ConversationId, id: ClientMessageId, text: &str) -> Option<u64> {
        let request = send_with(conversation, id, Content::text(text).encode());
        let Some(asked) = self.client.try_ask(request) else { return self.come_again() };
        loop {
            let Received::Frame(frame) = self.client.receive() else { return self.come_again() };
            match *frame {
                ServerFrame::Sent(sent) if sent.request_id == asked => return Some(sent.seq),
                ServerFrame::Error { request_id, code, .. } if request_id == Some(asked) => {
                    assert!(ErrorCode::from_wire(code).unwrap().retryable(), "{code}");
                    std::thread::sleep(PAUSE);
                    return None;
                }
                ServerFrame::GoAway(go_away) => {
                    assert_eq!(ErrorCode::from_wire(go_away.code), Some(ErrorCode::Internal));
                    assert!(go_away.reconnect_after_ms > 0);
                }
                _ => {}
            }
        }
    }

    fn come_again(&mut self) -> Option<u64> {
        std::thread::sleep(self.pause);
        self.client = session_again(self.node, &self.subject, 1);
        None
    }
}

/// Device 2 of a user, which reads one conversation, from its beginning to a text that ends it.
pub(crate) struct Reader<'a> {
    node: &'a TestNode,
    subject: String,
    conversation: ConversationId,
    cursor: Cursor,
    /// Seqs and texts that came.
    pub(crate) read: Vec<(u64, String)>,
    /// Sessions that it took.
    pub(crate) sessions: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: &'a TestNode, subject: &str, conversation: ConversationId) -> Self {
        let (subject, cursor) = (subject.to_owned(), Cursor::START);
        Self { node, subject, conversation, cursor, read: Vec::new(), sessions: 0 }
    }

    /// Until this text has come.
    pub(crate) fn read_until(&mut self, last: &str) {
        let has_ended = |reader: &Self| reader.read.last().is_some_and(|(_, text)| text == last);
        while !has_ended(self) {
            let mut client = session_again(self.node, &self.subject, 2);
            self.sessions += 1;
            client.send(&ClientFrame::Credit(Credit { entries: 2_000, bytes: 4 * 1024 * 1024 }));
            client.send(&ClientFrame::Resume(vec![(self.conversation, self.cursor)]));
            while !has_ended(self)
                && let Received::Frame(frame) = client.receive()
            {
                if let ServerFrame::Deliver { conversation, entry } = *frame
                    && conversation == self.conversation
                {
                    self.take(&entry);
                    let _gone = client.try_send(&ClientFrame::Ack { conversation, up_to: self.cursor.seq });
                }
            }
        }
    }

    fn take(&mut self, entry: &Entry) {
        assert_eq!(entry.seq, self.cursor.seq + 1, "dense, each once");
        let EntryForm::Full { header, content: Some(content), .. } = &entry.form else { panic!("{entry:?}") };
        let epoch = talaria_protocol::entry::EntryHeader::parse(header).unwrap().epoch;
        let chain: Chain = self.cursor.chain.next(self.conversation, entry.seq, &entry.leaf().unwrap());
        self.cursor = Cursor { epoch, seq: entry.seq, chain };
        if let Body::Text(text) = Content::parse(content).unwrap().body {
            self.read.push((entry.seq, text));
        }
    }
}
