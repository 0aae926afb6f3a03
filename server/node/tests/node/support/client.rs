//! A raw client: blocking TLS, the protocol's own codec, no session machine, so that it can say what it must not.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameDecoder,
    ids::{ClientMessageId, ConversationId, DeviceId},
    limits::{ALPN, CREDIT_BYTES_DEFAULT, CREDIT_ENTRIES_DEFAULT, FRAME_BYTES_MAX},
    message::{
        Credit, RequestId, Role, UserRef,
        client::{ClientFrame, ClientInfo, Hello, Request, Send, Token},
        content::Content,
        server::{ServerFrame, Welcome},
    },
};
use talaria_server::clock::unix_ms;

/// How long a test waits for a frame.
const PATIENCE: Duration = Duration::from_secs(15);

/// A TLS configuration.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) Arc<ClientConfig>);

impl Tls {
    pub(crate) fn trusting(ca: &Path) -> Self {
        Self::with_alpn(ca, vec![ALPN.to_vec()])
    }

    pub(crate) fn with_alpn(ca: &Path, alpn: Vec<Vec<u8>>) -> Self {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_file_iter(ca).unwrap() {
            roots.add(cert.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn;
        Self(Arc::new(config))
    }
}

/// What came, or that nothing will.
#[derive(Debug)]
pub(crate) enum Received {
    Frame(Box<ServerFrame>),
    Closed,
}

/// See the module.
pub(crate) struct Client {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: FrameDecoder,
    put_back: VecDeque<ServerFrame>,
    last_request: u64,
    /// Where its session is, once it is welcome.
    pub(crate) shard: u16,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, tls: &Tls) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), tls)
    }

    /// Over a connection that the test made.
    pub(crate) fn over(tcp: TcpStream, tls: &Tls) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        let connection =
            ClientConnection::new(tls.0.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        Self {
            stream: StreamOwned::new(connection, tcp),
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            put_back: VecDeque::new(),
            last_request: 0,
            shard: 0,
        }
    }

    /// Completes the handshake.
    pub(crate) fn handshake(&mut self) -> io::Result<()> {
        while self.stream.conn.is_handshaking() {
            self.stream.conn.complete_io(&mut self.stream.sock)?;
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(&frame.encode());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next frame. Panics when none comes in time.
    pub(crate) fn receive(&mut self) -> Received {
        if let Some(frame) = self.put_back.pop_front() {
            return Received::Frame(Box::new(frame));
        }
        loop {
            if let Some(payload) = self.decoder.poll_frame().unwrap() {
                return Received::Frame(Box::new(ServerFrame::parse(payload).unwrap()));
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::Closed,
                Ok(count) => self.decoder.extend(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("nothing came in {PATIENCE:?}")
                }
                Err(_) => return Received::Closed,
            }
        }
    }

    pub(crate) fn frame(&mut self) -> ServerFrame {
        match self.receive() {
            Received::Frame(frame) => *frame,
            Received::Closed => panic!("the connection was closed"),
        }
    }

    /// The first frame that `wanted` takes; others stay for later.
    pub(crate) fn wait_for<T>(&mut self, mut wanted: impl FnMut(&ServerFrame) -> Option<T>) -> T {
        let mut passed = VecDeque::new();
        loop {
            let frame = self.frame();
            if let Some(found) = wanted(&frame) {
                passed.append(&mut self.put_back);
                self.put_back = passed;
                return found;
            }
            passed.push_back(frame);
        }
    }

    /// A Hello as an honest client says it.
    pub(crate) fn hello_frame(token: &str, device: u8) -> Hello {
        Hello {
            protocol_min: 1,
            protocol_max: 1,
            tenant: String::new(),
            token: Token(token.to_owned()),
            device: device_id(device),
            role: Role::Main,
            client: ClientInfo::default(),
            capabilities: Vec::new(),
            credit: Credit { entries: CREDIT_ENTRIES_DEFAULT, bytes: CREDIT_BYTES_DEFAULT },
            background: false,
        }
    }

    pub(crate) fn hello(&mut self, token: &str, device: u8) -> Welcome {
        self.send(&ClientFrame::Hello(Box::new(Self::hello_frame(token, device))));
        match self.frame() {
            ServerFrame::Welcome(welcome) => {
                self.shard = shard_of(&welcome);
                *welcome
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Sends a request without waiting.
    pub(crate) fn ask(&mut self, request: Request) -> RequestId {
        self.last_request += 1;
        let id = RequestId::new(self.last_request).unwrap();
        self.send(&ClientFrame::Request(id, request));
        id
    }

    /// Sends a request; `None` when the connection is gone.
    pub(crate) fn try_ask(&mut self, request: Request) -> Option<RequestId> {
        self.last_request += 1;
        let id = RequestId::new(self.last_request)?;
        self.try_send(&ClientFrame::Request(id, request)).then_some(id)
    }

    /// Sends a frame; `false` when the connection is gone.
    pub(crate) fn try_send(&mut self, frame: &ClientFrame) -> bool {
        self.stream.write_all(&frame.encode()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// The answer to a request.
    pub(crate) fn answer(&mut self, id: RequestId) -> ServerFrame {
        self.wait_for(|frame| (frame.request_id() == Some(id)).then(|| frame.clone()))
    }

    pub(crate) fn request(&mut self, request: Request) -> ServerFrame {
        let id = self.ask(request);
        self.answer(id)
    }

    /// The direct conversation with a user.
    pub(crate) fn direct_with(&mut self, subject: &str) -> ConversationId {
        let user = UserRef::Subject(subject.to_owned());
        let request = Request::DirectWith { user, client_message_id: new_message_id() };
        match self.request(request) {
            ServerFrame::ConversationResult { conversation, .. } => conversation.conversation,
            other => panic!("no conversation: {other:?}"),
        }
    }

    /// Sends a text and gives its seq.
    pub(crate) fn say(&mut self, conversation: ConversationId, text: &str) -> u64 {
        match self.request(text_to(conversation, text)) {
            ServerFrame::Sent(sent) => sent.seq,
            other => panic!("not sent: {other:?}"),
        }
    }

    /// The code of a request that is refused.
    pub(crate) fn refused(&mut self, request: Request) -> ErrorCode {
        let id = self.ask(request);
        self.error_of(id)
    }

    /// The code of the error that answers a request.
    pub(crate) fn error_of(&mut self, id: RequestId) -> ErrorCode {
        match self.answer(id) {
            ServerFrame::Error { code, .. } => ErrorCode::from_wire(code).unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The code of the `Refused` or `GoAway` that the connection ends with; other frames before it are skipped.
    pub(crate) fn end(&mut self) -> ErrorCode {
        let code = self.wait_for(|frame| match frame {
            ServerFrame::Refused(refused) => Some(refused.code),
            ServerFrame::GoAway(go_away) => Some(go_away.code),
            _ => None,
        });
        self.closed();
        ErrorCode::from_wire(code).unwrap()
    }

    /// The end of the connection; frames before it are skipped.
    pub(crate) fn wait_for_close(&mut self) {
        self.put_back.clear();
        while let Received::Frame(_) = self.receive() {}
    }

    /// Nothing comes any more but the end of the connection.
    pub(crate) fn closed(&mut self) {
        self.put_back.clear();
        assert!(matches!(self.receive(), Received::Closed), "the connection ends after that");
    }
}

/// The shard of a session, as its id says: behind the node's own half stands its number, above which is the shard's.
pub(crate) fn shard_of(welcome: &Welcome) -> u16 {
    let bytes = welcome.session.as_bytes();
    u16::from_be_bytes([bytes[8], bytes[9]])
}

/// The id of a user's n-th device in these tests.
pub(crate) fn device_id(number: u8) -> DeviceId {
    DeviceId::from_parts(1_700_000_000_000, [number; 10])
}

/// An id of now.
pub(crate) fn new_message_id() -> ClientMessageId {
    message_id_at(unix_ms())
}

/// An id of this time, ms since 1970; each call gives another.
pub(crate) fn message_id_at(at_ms: u64) -> ClientMessageId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ClientMessageId::from_parts(at_ms, random)
}

/// A text as a request.
pub(crate) fn text_to(conversation: ConversationId, text: &str) -> Request {
    send_with(conversation, new_message_id(), Content::text(text).encode())
}

/// Any content as a request.
pub(crate) fn send_with(conversation: ConversationId, id: ClientMessageId, content: Bytes) -> Request {
    Request::Send(Send {
        conversation,
        client_message_id: id,
        content,
        after: None,
        seen: 0,
        urgency: talaria_protocol::entry::Urgency::Normal,
        expires_ms: 0,
    })
}
