//! A live message on a connection whose peer reads slowly, while much that was read from the log waits for it.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use talaria_protocol::{
    ids::ConversationId,
    limits::{CREDIT_BYTES_MAX, CREDIT_ENTRIES_MAX, PAGE_BYTES_MAX},
    message::{
        Credit, Cursor, Direction,
        client::{ClientFrame, History, Request},
        content::Content,
        server::ServerFrame,
    },
};

use crate::support::{
    client::{Client, new_message_id, send_with},
    node::TestNode,
};

/// What the slow client's system holds for it: small, so that what is counted is what the node has committed to.
const RECEIVE_BUFFER: usize = 32 * 1024;
/// Of each message that is read again.
const TEXT_BYTES: usize = 12 * 1024;

fn slow_session(node: &TestNode, subject: &str) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    socket.connect(&node.tcp_addr.into()).unwrap();
    let mut client = Client::over(TcpStream::from(socket), &node.tls);
    let mut hello = Client::hello_frame(&node.token(subject), 1);
    hello.credit = Credit { entries: CREDIT_ENTRIES_MAX, bytes: CREDIT_BYTES_MAX };
    client.send(&ClientFrame::Hello(Box::new(hello)));
    client.wait_for(|frame| matches!(frame, ServerFrame::Welcome(_)).then_some(()));
    client
}

fn history(conversation: ConversationId) -> Request {
    Request::History(History { conversation, from: 1, direction: Direction::Forward, entries_max: 20 })
}

struct Scene {
    node: TestNode,
    alice: Client,
    slow: Client,
    old: ConversationId,
    live: ConversationId,
}

impl Scene {
    /// Carol reads slowly; `old` has much that she lacks, `live` is up to date.
    fn new(messages: usize) -> Self {
        let node = TestNode::start();
        let (mut alice, mut bob) = (node.session("alice"), node.session("bob"));
        let mut slow = slow_session(&node, "carol");
        let (old, live) = (bob.direct_with("carol"), alice.direct_with("carol"));
        let text = "x".repeat(TEXT_BYTES);
        for _ in 0..messages {
            let content = Content::text(text.as_str()).encode();
            let sent = bob.request(send_with(old, new_message_id(), content));
            assert!(matches!(sent, ServerFrame::Sent(_)), "{sent:?}");
        }
        slow.send(&ClientFrame::Resume(vec![(live, Cursor::START)]));
        slow.wait_for(|frame| matches!(frame, ServerFrame::CaughtUp { .. }).then_some(()));
        Self { node, alice, slow, old, live }
    }

    /// Once so many bytes wait for carol, alice says something: how many bulk bytes come before it, and in how many frames.
    fn before_live(&mut self, waiting: usize) -> (usize, usize) {
        let queued = || self.node.metric("talaria_transmit_queue_bytes");
        let deadline = Instant::now() + Duration::from_secs(10);
        while queued() < waiting as f64 {
            assert!(Instant::now() < deadline, "{}", queued());
            std::thread::sleep(Duration::from_millis(5));
        }
        let delivered = self.node.metric("talaria_entries_delivered_total");
        let live = (self.live, self.alice.say(self.live, "now"));
        self.node.assert_metric("talaria_entries_delivered_total", delivered + 1.0);
        let (mut bytes, mut frames) = (0, 0);
        loop {
            match self.slow.frame() {
                ServerFrame::Deliver { conversation, entry } if (conversation, entry.seq) == live => break,
                frame @ (ServerFrame::HistoryPage(_) | ServerFrame::Deliver { .. }) => {
                    frames += 1;
                    bytes += frame.encode().len();
                }
                _ => {}
            }
        }
        (bytes, frames)
    }
}

impl Scene {
    fn end(self) {
        drop((self.alice, self.slow));
        self.node.shutdown();
    }
}

/// What the systems of both ends hold, what TLS holds, and a chunk.
const COMMITTED_MAX: usize = 3 * RECEIVE_BUFFER + 3 * 16 * 1024;

#[test]
fn a_live_message_overtakes_a_backfill() {
    const MESSAGES: usize = 150;
    let mut scene = Scene::new(MESSAGES);
    let old = scene.old;
    scene.slow.send(&ClientFrame::Resume(vec![(old, Cursor::START)]));
    let (bytes, frames) = scene.before_live(3 * COMMITTED_MAX);
    assert!(bytes <= COMMITTED_MAX + 2 * TEXT_BYTES, "{bytes} bytes in {frames} frames");
    for _ in frames..MESSAGES {
        scene.slow.wait_for(|frame| matches!(frame, ServerFrame::Deliver { .. }).then_some(()));
    }
    scene.end();
}

/// A page is one frame, which nothing can interrupt.
#[test]
fn a_live_message_overtakes_pages_that_wait() {
    const PAGES: usize = 24;
    // A page ends with the entry that reaches the bound.
    const PAGE: usize = PAGE_BYTES_MAX + TEXT_BYTES;
    let mut scene = Scene::new(20);
    let old = scene.old;
    let asked: Vec<_> = (0..PAGES).map(|_| scene.slow.ask(history(old))).collect();
    let (bytes, pages) = scene.before_live((PAGES / 2) * PAGE_BYTES_MAX);
    assert!(bytes <= COMMITTED_MAX + 2 * PAGE, "{pages} pages, {bytes} bytes");
    for id in asked.into_iter().skip(pages) {
        assert!(matches!(scene.slow.answer(id), ServerFrame::HistoryPage(_)));
    }
    scene.end();
}
