//! A raw client over QUIC: quinn and the protocol's own codec, no session machine, so that it can say what it must not.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt,
    ZeroRttAccepted, crypto::rustls::QuicClientConfig,
};
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameDecoder,
    ids::ConversationId,
    limits::{ALPN, FRAME_BYTES_MAX},
    message::{
        RequestId, UserRef,
        client::{ClientFrame, Hello, Request},
        server::{ServerFrame, Welcome},
    },
    session::Lane,
};

use crate::tcp_support::{
    client::{Client, Tls, new_message_id, text_to},
    node::TestNode,
};

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for it, not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("nothing came in time")
}

/// The metric has, or soon gets, this value: counters follow what a client can see.
pub(crate) async fn assert_metric(node: &TestNode, name: &str, value: f64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while node.metric(name) != value {
        assert!(tokio::time::Instant::now() < deadline, "{name} is {}, not {value}", node.metric(name));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client's configuration: it trusts the node, and resumes sessions with early data.
pub(crate) fn config(ca: &Path) -> ClientConfig {
    config_with(ca, vec![ALPN.to_vec()], |_| {})
}

pub(crate) fn config_with(
    ca: &Path,
    alpn: Vec<Vec<u8>>,
    change: impl FnOnce(&mut TransportConfig),
) -> ClientConfig {
    let mut tls = (*Tls::with_alpn(ca, alpn).0).clone();
    tls.enable_early_data = true;
    let mut transport = TransportConfig::default();
    change(&mut transport);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

/// An endpoint on loopback.
pub(crate) fn endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// See the module.
pub(crate) struct QuicClient {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    /// Control, live, bulk.
    streams: [Option<(RecvStream, FrameDecoder)>; 3],
    unnamed: Vec<RecvStream>,
    /// Frames that came, the last ones not yet parsed.
    payloads: VecDeque<(Lane, Bytes)>,
    pub(crate) inbox: VecDeque<(Lane, ServerFrame)>,
    /// A stream is read only if this is set for its lane.
    pub(crate) reads: [bool; 3],
    last_request: u64,
}

impl QuicClient {
    /// A connection with its control stream, without Hello.
    pub(crate) async fn connect(node: &TestNode) -> Self {
        Self::connect_with(node, config(&node.ca)).await
    }

    pub(crate) async fn connect_with(node: &TestNode, config: ClientConfig) -> Self {
        Self::connect_to(endpoint(), node.tcp_addr, config).await
    }

    pub(crate) async fn connect_to(endpoint: Endpoint, address: SocketAddr, config: ClientConfig) -> Self {
        let connection = soon(endpoint.connect_with(config, address, "localhost").unwrap()).await.unwrap();
        Self::over(endpoint, connection).await
    }

    /// A resumed connection whose handshake has only begun.
    pub(crate) async fn connect_early(
        endpoint: Endpoint,
        address: SocketAddr,
        config: ClientConfig,
    ) -> (Self, ZeroRttAccepted) {
        let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
        let (connection, accepted) = connecting.into_0rtt().expect("a session to resume");
        (Self::over(endpoint, connection).await, accepted)
    }

    pub(crate) async fn over(endpoint: Endpoint, connection: Connection) -> Self {
        let (mut send, receive) = soon(connection.open_bi()).await.unwrap();
        send.write_all(&[1]).await.unwrap();
        Self {
            endpoint,
            connection,
            send,
            streams: [Some((receive, FrameDecoder::new(FRAME_BYTES_MAX))), None, None],
            unnamed: Vec::new(),
            payloads: VecDeque::new(),
            inbox: VecDeque::new(),
            reads: [true; 3],
            last_request: 0,
        }
    }

    /// A session of this user's device 1.
    pub(crate) async fn session(node: &TestNode, subject: &str) -> Self {
        let mut client = Self::connect(node).await;
        client.hello(&node.token(subject), 1).await;
        client
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        soon(self.send.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(&frame.encode()).await;
    }

    /// The next frame of any stream that is read, or why there is none.
    pub(crate) async fn receive(&mut self) -> Result<(Lane, ServerFrame), ConnectionError> {
        if let Some(next) = self.inbox.pop_front() {
            return Ok(next);
        }
        let (lane, payload) = self.receive_payload().await?;
        Ok((lane, ServerFrame::parse(payload).unwrap()))
    }

    /// The payload of the next frame.
    pub(crate) async fn payload(&mut self) -> Bytes {
        self.receive_payload().await.expect("the connection was closed").1
    }

    async fn receive_payload(&mut self) -> Result<(Lane, Bytes), ConnectionError> {
        soon(async {
            loop {
                if let Some(next) = self.payloads.pop_front() {
                    return Ok(next);
                }
                let Self { connection, streams, unnamed, payloads, reads, .. } = self;
                tokio::select! {
                    biased;
                    () = poll_fn(|cx| poll_streams(streams, unnamed, payloads, *reads, cx)) => {}
                    stream = connection.accept_uni() => unnamed.push(stream?),
                }
            }
        })
        .await
    }

    /// The first frame that `wanted` takes; others stay for later.
    pub(crate) async fn wait_for<T>(&mut self, mut wanted: impl FnMut(Lane, &ServerFrame) -> Option<T>) -> T {
        let mut passed = VecDeque::new();
        loop {
            let (lane, frame) = self.receive().await.expect("the connection was closed");
            if let Some(found) = wanted(lane, &frame) {
                passed.append(&mut self.inbox);
                self.inbox = passed;
                return found;
            }
            passed.push_back((lane, frame));
        }
    }

    pub(crate) fn hello_frame(token: &str, device: u8) -> Hello {
        Client::hello_frame(token, device)
    }

    pub(crate) async fn hello(&mut self, token: &str, device: u8) -> Welcome {
        self.send(&ClientFrame::Hello(Box::new(Self::hello_frame(token, device)))).await;
        self.welcome().await
    }

    pub(crate) async fn welcome(&mut self) -> Welcome {
        match self.receive().await.unwrap() {
            (Lane::Control, ServerFrame::Welcome(welcome)) => *welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Sends a request without waiting.
    pub(crate) async fn ask(&mut self, request: Request) -> RequestId {
        self.last_request += 1;
        let id = RequestId::new(self.last_request).unwrap();
        self.send(&ClientFrame::Request(id, request)).await;
        id
    }

    pub(crate) async fn answer(&mut self, id: RequestId) -> ServerFrame {
        self.wait_for(|_, frame| (frame.request_id() == Some(id)).then(|| frame.clone())).await
    }

    pub(crate) async fn request(&mut self, request: Request) -> ServerFrame {
        let id = self.ask(request).await;
        self.answer(id).await
    }

    pub(crate) async fn direct_with(&mut self, subject: &str) -> ConversationId {
        let user = UserRef::Subject(subject.to_owned());
        let request = Request::DirectWith { user, client_message_id: new_message_id() };
        match self.request(request).await {
            ServerFrame::ConversationResult { conversation, .. } => conversation.conversation,
            other => panic!("no conversation: {other:?}"),
        }
    }

    /// Sends a text and gives its seq.
    pub(crate) async fn say(&mut self, conversation: ConversationId, text: &str) -> u64 {
        match self.request(text_to(conversation, text)).await {
            ServerFrame::Sent(sent) => sent.seq,
            other => panic!("not sent: {other:?}"),
        }
    }

    /// Waits for a conversation's entry, and gives the lane that it came by.
    pub(crate) async fn entry(&mut self, conversation: ConversationId, seq: u64) -> Lane {
        self.wait_for(|lane, frame| match frame {
            ServerFrame::Deliver { conversation: of, entry } if *of == conversation && entry.seq == seq => {
                Some(lane)
            }
            _ => None,
        })
        .await
    }

    /// The code of the `Refused` or `GoAway` that the session ends with, said on the control stream.
    pub(crate) async fn end(&mut self) -> ErrorCode {
        let code = self
            .wait_for(|lane, frame| match frame {
                ServerFrame::Refused(refused) => Some((lane, refused.code)),
                ServerFrame::GoAway(go_away) => Some((lane, go_away.code)),
                _ => None,
            })
            .await;
        assert_eq!(code.0, Lane::Control);
        ErrorCode::from_wire(code.1).unwrap()
    }

    /// The code that the node closes the connection with.
    pub(crate) async fn close_code(&self) -> u64 {
        application_code(&soon(self.connection.closed()).await)
    }

    /// Closes as a client does.
    pub(crate) fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// The code of an application's close.
pub(crate) fn application_code(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("not closed by the node: {other:?}"),
    }
}

type Streams = [Option<(RecvStream, FrameDecoder)>; 3];

/// Ready when bytes came, or a stream ended.
fn poll_streams(
    streams: &mut Streams,
    unnamed: &mut Vec<RecvStream>,
    payloads: &mut VecDeque<(Lane, Bytes)>,
    reads: [bool; 3],
    cx: &mut std::task::Context<'_>,
) -> Poll<()> {
    for index in (0..unnamed.len()).rev() {
        let mut first = [0];
        if let Poll::Ready(Ok(1)) = unnamed[index].poll_read(cx, &mut first) {
            let lane = usize::from(first[0]) - 1;
            assert!(lane == 1 || lane == 2, "a stream of type {}", first[0]);
            assert!(streams[lane].is_none(), "a second stream of type {}", first[0]);
            streams[lane] = Some((unnamed.swap_remove(index), FrameDecoder::new(FRAME_BYTES_MAX)));
        }
    }
    for lane in Lane::ALL {
        let Some((stream, decoder)) = streams[lane as usize].as_mut().filter(|_| reads[lane as usize]) else {
            continue;
        };
        let mut buffer = [0; 8 * 1024];
        match stream.poll_read(cx, &mut buffer) {
            Poll::Pending => {}
            Poll::Ready(Ok(0) | Err(_)) if lane == Lane::Control => {
                streams[0] = None;
                // The connection's end follows, and says why.
                return Poll::Ready(());
            }
            Poll::Ready(Ok(0) | Err(_)) => streams[lane as usize] = None,
            Poll::Ready(Ok(count)) => {
                decoder.extend(&buffer[..count]);
                while let Some(payload) = decoder.poll_frame().unwrap() {
                    payloads.push_back((lane, payload));
                }
                return Poll::Ready(());
            }
        }
    }
    Poll::Pending
}
