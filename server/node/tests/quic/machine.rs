//! The protocol's own client session over QUIC, as a program would drive it.

use std::time::Instant;

use talaria_protocol::{
    message::{Cursor, UserRef, client::Request, server::ServerFrame},
    session::{
        Millis,
        client::{ClientEvent, ClientSession, Config},
    },
};

use crate::{
    support::client::{QuicClient, soon},
    tcp_support::{
        client::{new_message_id, text_to},
        node::TestNode,
    },
};

/// A session machine on a connection.
struct Driven {
    machine: ClientSession,
    client: QuicClient,
    began: Instant,
}

impl Driven {
    async fn start(node: &TestNode, subject: &str) -> Self {
        let hello = QuicClient::hello_frame(&node.token(subject), 1);
        let mut driven = Self {
            machine: ClientSession::new(Millis(0), hello, Config::default()),
            client: QuicClient::connect(node).await,
            began: Instant::now(),
        };
        match driven.event().await {
            ClientEvent::Welcome(welcome) => assert_eq!(welcome.subject, subject),
            other => panic!("{other:?}"),
        }
        driven
    }

    fn now(&self) -> Millis {
        Millis(self.began.elapsed().as_millis() as u64)
    }

    /// The machine's next event: writes what it has to write, reads what comes.
    async fn event(&mut self) -> ClientEvent {
        soon(async {
            loop {
                while let Some(frame) = self.machine.poll_transmit() {
                    self.client.send_bytes(&frame).await;
                }
                if let Some(event) = self.machine.poll_event() {
                    return event;
                }
                let payload = self.client.payload().await;
                self.machine.handle_frame(self.now(), payload);
            }
        })
        .await
    }

    async fn answer(&mut self, request: Request) -> ServerFrame {
        let id = self.machine.request(self.now(), request).unwrap();
        loop {
            match self.event().await {
                ClientEvent::Frame(frame) if frame.request_id() == Some(id) => return frame,
                ClientEvent::Closed { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn the_client_machine_talks_over_quic() {
    let node = TestNode::start();
    let (mut alice, mut bob) = (Driven::start(&node, "alice").await, Driven::start(&node, "bob").await);
    let with_bob =
        Request::DirectWith { user: UserRef::Subject("bob".to_owned()), client_message_id: new_message_id() };
    let conversation = match alice.answer(with_bob).await {
        ServerFrame::ConversationResult { conversation, .. } => conversation.conversation,
        other => panic!("{other:?}"),
    };
    let now = bob.now();
    bob.machine.resume(now, &[(conversation, Cursor::START)]);
    for number in 2..10 {
        match alice.answer(text_to(conversation, "hello")).await {
            ServerFrame::Sent(sent) => assert_eq!(sent.seq, number),
            other => panic!("{other:?}"),
        }
    }
    let mut seen = Vec::new();
    while seen.len() < 9 {
        if let ClientEvent::Frame(ServerFrame::Deliver { entry, .. }) = bob.event().await {
            let now = bob.now();
            seen.push(entry.seq);
            bob.machine.consumed(now, 1, entry.encoded_len() as u64);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..10).collect::<Vec<u64>>(), "each once, by two streams");
    let now = alice.now();
    alice.machine.logout(now);
    assert!(matches!(alice.event().await, ClientEvent::GoAway(_)));
}
