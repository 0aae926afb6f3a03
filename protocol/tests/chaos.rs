//! Whatever a peer sends, and whatever the node does meanwhile: neither machine panics, queues without bound, or
//! speaks after its end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "support/pair.rs"]
mod pair;
#[allow(dead_code)]
#[path = "support/strategies.rs"]
mod strategies;

use bytes::Bytes;
use pair::{answer, hello, welcome};
use proptest::{collection::vec, prelude::*};
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameDecoder,
    ids::ConversationId,
    limits,
    message::{
        RequestId,
        client::{ClientFrame, Request},
        server::ServerFrame,
    },
    session::{
        Millis,
        client::{ClientEvent, ClientSession},
        server::{ServerEvent, ServerSession},
    },
};

fn payload(frame: &Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    decoder.extend(frame);
    decoder.poll_frame().unwrap().expect("a whole frame")
}

#[derive(Clone, Debug)]
enum ServerStep {
    Frame(Bytes),
    Pass(u64),
    Reply(u64),
    Error(u64),
    Reauthed(u64),
    TakeCredit(u64, u64),
    End,
}

fn server_step() -> impl Strategy<Value = ServerStep> {
    prop_oneof![
        40 => strategies::client_frame().prop_map(|frame| ServerStep::Frame(payload(&frame.encode()))),
        1 => vec(any::<u8>(), 0..40).prop_map(|bytes| ServerStep::Frame(bytes.into())),
        4 => (0u64..20_000).prop_map(ServerStep::Pass),
        8 => (1u64..6).prop_map(ServerStep::Reply),
        2 => (1u64..6).prop_map(ServerStep::Error),
        2 => (1u64..6).prop_map(ServerStep::Reauthed),
        2 => (0u64..2_000, 0u64..1_000_000).prop_map(|(entries, bytes)| ServerStep::TakeCredit(entries, bytes)),
        1 => Just(ServerStep::End),
    ]
}

#[derive(Clone, Debug)]
enum ClientStep {
    Frame(Bytes),
    Pass(u64),
    Request(Box<Request>),
    Cancel(u64),
    Resume(usize),
    Consumed(u64, u64),
    Logout,
}

fn client_step() -> impl Strategy<Value = ClientStep> {
    prop_oneof![
        40 => strategies::server_frame().prop_map(|frame| ClientStep::Frame(payload(&frame.encode()))),
        1 => vec(any::<u8>(), 0..40).prop_map(|bytes| ClientStep::Frame(bytes.into())),
        4 => (0u64..20_000).prop_map(ClientStep::Pass),
        10 => strategies::request().prop_map(|request| ClientStep::Request(Box::new(request))),
        4 => (1u64..6).prop_map(ClientStep::Cancel),
        1 => (0usize..600).prop_map(ClientStep::Resume),
        4 => (any::<u64>(), any::<u64>()).prop_map(|(entries, bytes)| ClientStep::Consumed(entries, bytes)),
        1 => Just(ClientStep::Logout),
    ]
}

fn is_last(frame: &Bytes) -> bool {
    matches!(ServerFrame::parse(payload(frame)), Ok(ServerFrame::GoAway(_) | ServerFrame::Refused(_)))
}

fn server_run(steps: Vec<ServerStep>, open: bool) {
    let mut now = Millis(0);
    let mut server = ServerSession::new(now, Default::default());
    let (mut ended, mut bytes_before) = (false, 0);
    if open {
        server.handle_frame(now, payload(&ClientFrame::Hello(Box::new(hello())).encode()));
    }
    for step in steps {
        match step {
            ServerStep::Frame(payload) => server.handle_frame(now, payload),
            ServerStep::Pass(ms) => now = Millis(now.0 + ms),
            ServerStep::Reply(id) => server.reply(answer(RequestId::new(id).unwrap())),
            ServerStep::Error(id) => {
                server.reply(ServerFrame::error(RequestId::new(id), ErrorCode::Busy, "busy"));
            }
            ServerStep::Reauthed(id) => {
                server.handle_reauthed(RequestId::new(id).unwrap(), 1, Millis(now.0 + 50_000));
            }
            ServerStep::TakeCredit(entries, bytes) => {
                let left = server.credit_left();
                let taken = server.take_credit(entries, bytes);
                assert_eq!(taken, server.is_live() && entries <= left.entries && bytes <= left.bytes);
            }
            ServerStep::End => server.end(ErrorCode::Draining, "bye"),
        }
        let mut events = 0;
        while let Some(event) = server.poll_event() {
            events += 1;
            if let ServerEvent::Hello(_) = event {
                server.handle_welcome(now, welcome(now), Millis(now.0 + 100_000));
            }
        }
        assert!(events <= 1, "at most one event a frame");
        assert!(server.requests_in_flight() <= limits::REQUESTS_IN_FLIGHT_MAX);
        assert!(server.transmit_bytes() - bytes_before <= 1_024, "an answer for a frame is small");
        if server.poll_timeout().is_some_and(|at| at <= now) {
            server.handle_timeout(now);
            assert!(server.end_code().is_some(), "a server's timeouts are all the end");
        }
        while let Some(frame) = server.poll_transmit() {
            assert!(!ended, "a frame after the last");
            ended = is_last(&frame);
        }
        bytes_before = server.transmit_bytes();
        assert_eq!(ended, server.is_closed());
    }
}

fn client_run(steps: Vec<ClientStep>, open: bool) {
    let mut now = Millis(0);
    let mut client = ClientSession::new(now, hello(), Default::default());
    let mut ended = false;
    if open {
        client.handle_frame(now, payload(&ServerFrame::Welcome(Box::new(welcome(now))).encode()));
    }
    for step in steps {
        match step {
            ClientStep::Frame(payload) => client.handle_frame(now, payload),
            ClientStep::Pass(ms) => now = Millis(now.0 + ms),
            ClientStep::Request(request) => drop(client.request(now, *request)),
            ClientStep::Cancel(id) => client.cancel(now, RequestId::new(id).unwrap()),
            ClientStep::Resume(count) => {
                let cursor = (ConversationId::new([1; 16]), talaria_protocol::message::Cursor::START);
                client.resume(now, &vec![cursor; count]);
            }
            ClientStep::Consumed(entries, bytes) => client.consumed(now, entries, bytes),
            ClientStep::Logout => client.logout(now),
        }
        if client.poll_timeout().is_some_and(|at| at <= now) {
            client.handle_timeout(now);
            assert!(client.poll_timeout().is_none_or(|at| at > now), "a timeout that does not pass");
        }
        while let Some(event) = client.poll_event() {
            assert!(!ended, "an event after the last");
            ended = matches!(
                event,
                ClientEvent::Refused(_) | ClientEvent::GoAway(_) | ClientEvent::Closed { .. }
            );
        }
        assert_eq!(ended, client.is_closed());
        while let Some(frame) = client.poll_transmit() {
            assert!(!ended, "a frame after the end");
            ClientFrame::parse(payload(&frame)).expect("a client sends what a server takes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_server_survives_any_client(steps in vec(server_step(), 0..60), open in any::<bool>()) {
        server_run(steps, open);
    }

    #[test]
    fn a_client_survives_any_server(steps in vec(client_step(), 0..60), open in any::<bool>()) {
        client_run(steps, open);
    }
}
