//! Both ends of a session on a virtual clock, joined by two links that delay bytes, chop them at will and can be
//! cut. The node behind the server's end is a few fields: it welcomes or refuses, and answers pings. One seed gives
//! one run.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameDecoder,
    hlc::Hlc,
    ids::{DeviceId, SessionId, UserId},
    limits,
    message::{
        Credit, Durability, RequestId, Role,
        client::{ClientFrame, ClientInfo, Hello, Token},
        server::{Limits, Refused, ServerFrame, Welcome},
    },
    session::{
        Millis,
        client::{self, ClientEvent, ClientSession},
        server::{self, ServerEvent, ServerSession},
    },
};

/// The server's clock when a pair begins, ms since 1970.
pub(crate) const START_UNIX_MS: u64 = 1_790_000_000_000;

/// A hello that a server welcomes.
pub(crate) fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        tenant: String::new(),
        token: Token("token".into()),
        device: DeviceId::from_parts(START_UNIX_MS, [1; 10]),
        role: Role::Main,
        client: ClientInfo::default(),
        capabilities: Vec::new(),
        credit: Credit { entries: limits::CREDIT_ENTRIES_DEFAULT, bytes: limits::CREDIT_BYTES_DEFAULT },
        background: false,
    }
}

/// What a node says to [`hello`] at `now`.
pub(crate) fn welcome(now: Millis) -> Welcome {
    Welcome {
        session: SessionId::new([1; 16]),
        user: UserId::new([2; 16]),
        subject: "alice".into(),
        device_number: 1,
        protocol: 1,
        limits: Limits::default(),
        keepalive_ms: u32::try_from(limits::KEEPALIVE.as_millis()).unwrap(),
        hlc: Hlc::from_ms(START_UNIX_MS + now.0),
        node: "n1".into(),
        token_expires_ms: 0,
        durability: Durability::Fsync,
    }
}

/// SplitMix64: small, seeded, good enough to spread tests.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Uniform in `0..bound`, nearly.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

struct Link {
    chunks: VecDeque<(Millis, Bytes)>,
    decoder: FrameDecoder,
    cut: bool,
}

impl Link {
    fn new() -> Self {
        let decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX_BEFORE_WELCOME);
        Self { chunks: VecDeque::new(), decoder, cut: false }
    }

    /// Chops a frame and delays its parts, in order.
    fn push(&mut self, now: Millis, mut bytes: Bytes, random: &mut Random) {
        while !bytes.is_empty() {
            let chunk = bytes.split_to((1 + random.below(400) as usize).min(bytes.len()));
            let arrival = now.after(Duration::from_millis(random.below(50)));
            let last = self.chunks.back().map_or(arrival, |(last, _)| *last);
            self.chunks.push_back((arrival.max(last), chunk));
        }
    }

    fn arrived(&mut self, now: Millis) -> Option<Bytes> {
        let (at, _) = self.chunks.front()?;
        if *at > now { None } else { Some(self.chunks.pop_front()?.1) }
    }
}

/// See the module's docs.
pub(crate) struct Pair {
    pub(crate) now: Millis,
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    /// Answer of the node to a hello; `None`: welcome.
    pub(crate) refusal: Option<Refused>,
    pub(crate) token_lifetime: Duration,
    /// Taken by the test.
    pub(crate) client_events: Vec<ClientEvent>,
    /// Taken by the test; `Hello` and `Ping` are answered and counted.
    pub(crate) server_events: Vec<ServerEvent>,
    pub(crate) pings: u32,
    up: Link,
    down: Link,
    random: Random,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_hello(seed, hello())
    }

    pub(crate) fn with_hello(seed: u64, hello: Hello) -> Self {
        let now = Millis(1_000);
        Self {
            now,
            client: ClientSession::new(now, hello, client::Config::default()),
            server: ServerSession::new(now, server::Config::default()),
            refusal: None,
            token_lifetime: Duration::from_secs(86_400),
            client_events: Vec::new(),
            server_events: Vec::new(),
            pings: 0,
            up: Link::new(),
            down: Link::new(),
            random: Random(seed),
        }
    }

    /// A pair whose session is open.
    pub(crate) fn live(seed: u64) -> Self {
        let mut pair = Self::new(seed);
        pair.run(1);
        assert!(pair.client.is_live() && pair.server.is_live());
        pair.client_events.clear();
        pair
    }

    /// Nothing arrives any more, either way; neither end is told.
    pub(crate) fn cut(&mut self) {
        self.cut_up();
        self.down.cut = true;
        self.down.chunks.clear();
    }

    /// Nothing of the client arrives any more.
    pub(crate) fn cut_up(&mut self) {
        self.up.cut = true;
        self.up.chunks.clear();
    }

    /// A frame that the client's machine would not send.
    pub(crate) fn inject(&mut self, frame: &ClientFrame) {
        self.inject_bytes(frame.encode());
    }

    /// Bytes that the client's machine would not send.
    pub(crate) fn inject_bytes(&mut self, bytes: Bytes) {
        self.up.push(self.now, bytes, &mut self.random);
    }

    /// Bytes that the server's machine would not send.
    pub(crate) fn inject_down(&mut self, bytes: Bytes) {
        self.down.push(self.now, bytes, &mut self.random);
    }

    /// Lets this many virtual seconds pass.
    pub(crate) fn run(&mut self, seconds: u64) {
        let end = self.now.after(Duration::from_secs(seconds));
        loop {
            self.transmit();
            self.deliver();
            self.handle_events();
            if self.client.transmit_bytes() + self.server.transmit_bytes() > 0 {
                continue;
            }
            let next = self.next_time();
            if next > end {
                break;
            }
            assert!(next >= self.now, "a timeout in the past");
            self.now = next;
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            let timeouts = [self.client.poll_timeout(), self.server.poll_timeout()];
            assert!(timeouts.into_iter().flatten().all(|at| at > self.now), "a timeout that does not pass");
        }
        self.now = end;
    }

    fn next_time(&self) -> Millis {
        let arrivals = [&self.up, &self.down].map(|link| link.chunks.front().map(|(at, _)| *at));
        let timeouts = [self.client.poll_timeout(), self.server.poll_timeout()];
        arrivals.into_iter().chain(timeouts).flatten().min().unwrap_or(Millis(u64::MAX))
    }

    fn transmit(&mut self) {
        while let Some(frame) = self.client.poll_transmit() {
            if !self.up.cut {
                self.up.push(self.now, frame, &mut self.random);
            }
        }
        while let Some(frame) = self.server.poll_transmit() {
            if !self.down.cut {
                self.down.push(self.now, frame, &mut self.random);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(chunk) = self.up.arrived(self.now) {
            self.up.decoder.extend(&chunk);
            self.up.decoder.set_frame_bytes_max(self.server.frame_bytes_max());
            match self.up.decoder.poll_frame() {
                Ok(Some(payload)) => self.server.handle_frame(self.now, payload),
                Ok(None) => continue,
                Err(error) => self.server.handle_frame_error(error),
            }
            // A welcome raises the bound for what follows in the same chunk.
            self.handle_events();
            self.up.chunks.push_front((self.now, Bytes::new()));
            if self.server.end_code().is_some() {
                self.up.chunks.clear();
            }
        }
        while let Some(chunk) = self.down.arrived(self.now) {
            self.down.decoder.extend(&chunk);
            loop {
                self.down.decoder.set_frame_bytes_max(self.client.frame_bytes_max());
                match self.down.decoder.poll_frame() {
                    Ok(Some(payload)) => self.client.handle_frame(self.now, payload),
                    Ok(None) => break,
                    Err(error) => {
                        self.client.handle_frame_error(error);
                        break;
                    }
                }
            }
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Hello(_) => match self.refusal.take() {
                    Some(refused) => self.server.handle_refusal(refused),
                    None => {
                        let expires_at = self.now.after(self.token_lifetime);
                        self.server.handle_welcome(self.now, welcome(self.now), expires_at);
                    }
                },
                ServerEvent::Ping(nonce) => {
                    self.pings += 1;
                    self.server.pong(nonce, Hlc::from_ms(START_UNIX_MS + self.now.0));
                }
                other => self.server_events.push(other),
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.client_events.push(event);
        }
    }

    /// The requests that reached the server and were not taken yet.
    pub(crate) fn take_requests(&mut self) -> Vec<RequestId> {
        let ids = self.server_events.extract_if(.., |event| {
            matches!(event, ServerEvent::Request { .. } | ServerEvent::Reauth { .. })
        });
        ids.map(|event| match event {
            ServerEvent::Request { request_id, .. } | ServerEvent::Reauth { request_id, .. } => request_id,
            _ => unreachable!(),
        })
        .collect()
    }

    /// The session has ended with this code, at both ends.
    pub(crate) fn assert_ended(&self, code: ErrorCode) {
        assert_eq!(self.server.end_code(), Some(code as u32), "{:?}", self.client_events);
        assert!(self.server.is_closed() && self.client.is_closed());
        match self.client_events.last() {
            Some(ClientEvent::GoAway(go_away)) => assert_eq!(go_away.code, code as u32),
            Some(ClientEvent::Refused(refused)) => assert_eq!(refused.code, code as u32),
            other => panic!("the client was not told: {other:?}"),
        }
    }
}

/// An answer that needs no more than an id.
pub(crate) fn answer(request_id: RequestId) -> ServerFrame {
    ServerFrame::ConversationList { request_id, conversations: Vec::new(), next_page: Bytes::new() }
}
