//! The client's end of a session: one per connection, from its Hello to the connection's end. Mints request ids,
//! keeps the server's limits and the connection alive, grants credit, and knows the server's time. It keeps no
//! message: outbox, store and reconnection are the engine's. spec/session.md.
//!
//! ```text
//! AwaitingWelcome ──Welcome──▶ Live ──┐ GoAway, violation, nothing heard
//!        └──── Refused, GoAway, violation, timeout ────▶ Closed
//! ```
//! The last event is always one of `Refused`, `GoAway` and `Closed`.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{Millis, TransmitQueue, credit_window::CreditWindow};
use crate::{
    error_code::ErrorCode,
    frame::FrameError,
    ids::ConversationId,
    limits::{
        FRAME_BYTES_MAX, FRAME_BYTES_MAX_BEFORE_WELCOME, HANDSHAKE_TIMEOUT, HELLO_TIMEOUT,
        KEEPALIVE_MISSED_MAX,
    },
    message::{
        Credit, Cursor, ParseError, RequestId,
        client::{ClientFrame, Hello, Request, Token},
        server::{GoAway, Refused, ServerFrame, Welcome},
    },
};

/// The least time that a probed path has to answer, however short its round trips were.
pub const PROBE_MIN: Duration = Duration::from_secs(1);
/// Beyond two round trips: what a peer may take to answer a probe.
const PROBE_MARGIN: Duration = Duration::from_millis(500);
/// The most time that a probed path has.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// After so long without anything said by either end, a watched connection is first probed; then after twice as long each
/// time, up to the period of pings.
pub const WATCH_MIN: Duration = Duration::from_secs(1);
/// The least time that such a probe has: nobody has moved, and a radio may have to wake up.
const WATCH_ANSWER_MIN: Duration = Duration::from_secs(2);

/// What a client may tune.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `Welcome` or `Refused` comes within this time of `Hello`.
    pub welcome_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { welcome_timeout: HELLO_TIMEOUT.saturating_add(HANDSHAKE_TIMEOUT) }
    }
}

/// What the server says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// The session is open.
    Welcome(Box<Welcome>),
    /// It is not; the last event.
    Refused(Refused),
    /// It ends; the last event.
    GoAway(GoAway),
    /// Anything else: an answer to a request in flight that was not cancelled, or what answers none. Never
    /// `Pong`.
    Frame(ServerFrame),
    /// This end gave up; the last event.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a client's session gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Neither `Welcome` nor `Refused` came.
    #[error("the server did not answer the hello")]
    WelcomeTimeout,
    /// Nothing was heard for two keepalive periods.
    #[error("the connection is dead")]
    Dead,
    /// A probe was not answered in time, see [`ClientSession::probe`].
    #[error("the network path does not answer")]
    PathDead,
    /// The server broke a rule, or is of a newer protocol.
    #[error(transparent)]
    Violation(#[from] ParseError),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// As many requests as the server allows wait for their answers, or the session is not open. Try again after the
/// next answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more requests may wait for their answers")]
pub struct TooManyRequests;

#[derive(Debug)]
enum State {
    AwaitingWelcome { deadline: Millis },
    Live(Live),
    Closed,
}

#[derive(Debug)]
struct Live {
    keepalive: Duration,
    requests_in_flight_max: usize,
    cursors_per_resume_max: usize,
    in_flight: Vec<RequestId>,
    last_heard: Millis,
    last_sent: Millis,
    last_ping: Millis,
    /// Something was said, by either end, that was neither ping nor pong.
    last_active: Millis,
    /// From the last answered question to its answer.
    round_trip: Duration,
    probe: Option<Probe>,
    watched: bool,
    server_time: ServerTime,
}

/// A ping whose answer shows that the path works.
#[derive(Clone, Copy, Debug)]
struct Probe {
    nonce: u64,
    deadline: Millis,
}

impl Live {
    /// When something must be sent: this end is silent for a keepalive period (or for `every`, if that is shorter), or
    /// the other one is and was not asked lately.
    fn ping_at(&self, every: Duration) -> Millis {
        self.last_sent.min(self.last_heard).max(self.last_ping).after(self.keepalive.min(every))
    }

    /// When a watched connection is probed next.
    fn watch_at(&self, every: Duration) -> Millis {
        if !self.watched || self.probe.is_some() {
            return Millis(u64::MAX);
        }
        let quiet = self.last_ping.since(self.last_active);
        self.last_ping.max(self.last_active).after(quiet.max(WATCH_MIN)).min(self.ping_at(every))
    }

    fn dead_at(&self) -> Millis {
        self.last_heard.after(self.keepalive * KEEPALIVE_MISSED_MAX)
    }

    fn probe_at(&self) -> Millis {
        self.probe.map_or(Millis(u64::MAX), |probe| probe.deadline)
    }

    fn on_pong(&mut self, now: Millis, nonce: u64, last_nonce: u64) {
        if nonce == last_nonce {
            self.round_trip = now.since(self.last_ping);
        }
        if self.probe.is_some_and(|probe| nonce >= probe.nonce && nonce <= last_nonce) {
            self.probe = None;
        }
    }
}

/// The server's clock, as far as a stamp told it.
#[derive(Clone, Copy, Debug)]
struct ServerTime {
    unix_ms: u64,
    at: Millis,
}

/// One session, as a client sees it. See the module's diagram.
#[derive(Debug)]
pub struct ClientSession {
    state: State,
    began: Millis,
    ping_every: Duration,
    /// A request that was sent behind the hello.
    early: Option<RequestId>,
    protocol: (u32, u32),
    next_request_id: u64,
    next_nonce: u64,
    watched: bool,
    credit: CreditWindow,
    events: VecDeque<ClientEvent>,
    transmit: TransmitQueue,
}

impl ClientSession {
    /// Of a connection that is open since `now`: `hello` is the first frame out.
    #[allow(clippy::needless_pass_by_value, reason = "a hello holds a token, which is given away")]
    pub fn new(now: Millis, hello: Hello, config: Config) -> Self {
        let credit = CreditWindow {
            window: hello.credit,
            received: Credit::default(),
            consumed: Credit::default(),
            granted: hello.credit,
        };
        let protocol = (hello.protocol_min, hello.protocol_max);
        let mut transmit = TransmitQueue::default();
        transmit.push(ClientFrame::Hello(Box::new(hello)).encode());
        Self {
            state: State::AwaitingWelcome { deadline: now.after(config.welcome_timeout) },
            began: now,
            ping_every: Duration::MAX,
            early: None,
            protocol,
            next_request_id: 1,
            next_nonce: 1,
            watched: false,
            credit,
            events: VecDeque::new(),
            transmit,
        }
    }

    // ---- in ----

    /// The payload of one frame. Whatever it says, this cannot fail: a breach closes the session.
    pub fn handle_frame(&mut self, now: Millis, payload: Bytes) {
        if matches!(self.state, State::Closed) {
            return;
        }
        match ServerFrame::parse(payload) {
            Ok(frame) => self.on_frame(now, frame),
            Err(error) => self.close(error.into()),
        }
    }

    /// The bytes are no frames.
    pub fn handle_frame_error(&mut self, error: FrameError) {
        self.close(error.into());
    }

    /// To be called at or after [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Millis) {
        match &mut self.state {
            State::AwaitingWelcome { deadline } if now >= *deadline => {
                self.close(CloseReason::WelcomeTimeout);
            }
            State::Live(live) if now >= live.dead_at() => self.close(CloseReason::Dead),
            State::Live(live) if now >= live.probe_at() => self.close(CloseReason::PathDead),
            State::Live(live) if now >= live.watch_at(self.ping_every) => {
                self.probe_within(now, WATCH_ANSWER_MIN);
            }
            State::Live(live) if now >= live.ping_at(self.ping_every) => drop(self.ping(now)),
            _ => {}
        }
    }

    // ---- what the engine says ----

    /// Sends a request; its answer is an [`ClientEvent::Frame`] with this id.
    ///
    /// # Errors
    /// No more may wait, or the session is not open.
    pub fn request(&mut self, now: Millis, request: Request) -> Result<RequestId, TooManyRequests> {
        let request_id = self.begin_request()?;
        self.transmit_frame(now, &ClientFrame::Request(request_id, request));
        Ok(request_id)
    }

    /// Sends a request behind the hello, without waiting for `Welcome`: one, where the connection allows it ([QUI-10]).
    /// `None` when there is one, or `Welcome` came.
    pub fn request_early(&mut self, request: Request) -> Option<RequestId> {
        if !matches!(self.state, State::AwaitingWelcome { .. }) || self.early.is_some() {
            return None;
        }
        let request_id = RequestId::new(self.next_request_id)?;
        self.next_request_id += 1;
        self.early = Some(request_id);
        self.transmit.push(ClientFrame::Request(request_id, request).encode());
        Some(request_id)
    }

    /// Renews the token; answered as a request is.
    ///
    /// # Errors
    /// No more may wait, or the session is not open.
    pub fn reauth(&mut self, now: Millis, token: Token) -> Result<RequestId, TooManyRequests> {
        let request_id = self.begin_request()?;
        self.transmit_frame(now, &ClientFrame::Reauth { request_id, token });
        Ok(request_id)
    }

    /// The answer is no longer wanted and will not come out; what it began may still happen. Its place is free
    /// here at once and on the server once the work is done, so that a request right after it may be answered by
    /// `TOO_MANY_REQUESTS`.
    pub fn cancel(&mut self, now: Millis, request_id: RequestId) {
        if self.release(request_id) {
            self.transmit_frame(now, &ClientFrame::Cancel(request_id));
        }
    }

    /// Asks for deliveries from these cursors on, in as many frames as the server's limit makes it.
    pub fn resume(&mut self, now: Millis, cursors: &[(ConversationId, Cursor)]) {
        let State::Live(live) = &self.state else { return };
        for part in cursors.chunks(live.cursors_per_resume_max) {
            self.transmit_frame(now, &ClientFrame::Resume(part.to_vec()));
        }
    }

    /// Everything of the conversation up to here is in the store, committed.
    pub fn ack(&mut self, now: Millis, conversation: ConversationId, up_to: u64) {
        self.transmit_frame(now, &ClientFrame::Ack { conversation, up_to });
    }

    /// Entries that came, by `Deliver` or in a page, were taken off the client's hands: the sum of their
    /// [`Entry::encoded_len`](crate::entry::Entry::encoded_len). Grants more once enough of the window is used.
    pub fn consumed(&mut self, now: Millis, entries: u64, bytes: u64) {
        let consumed = &mut self.credit.consumed;
        consumed.entries = consumed.entries.saturating_add(entries);
        consumed.bytes = consumed.bytes.saturating_add(bytes);
        if matches!(self.state, State::Live(_))
            && let Some(total) = self.credit.renew()
        {
            self.transmit_frame(now, &ClientFrame::Credit(total));
        }
    }

    /// Pings more often than the server's keepalive asks for ([SES-12]): on a path that forgets who is silent.
    /// `Duration::MAX`: no more than that.
    pub fn set_ping_every(&mut self, every: Duration) {
        self.ping_every = every;
    }

    /// Asks whether the path to the server still works: closes with [`CloseReason::PathDead`] when nothing answers
    /// within two round trips and a half second, [`PROBE_MIN`] at least. No effect on a session that is not live.
    pub fn probe(&mut self, now: Millis) {
        self.probe_within(now, PROBE_MIN);
    }

    /// From now on, or no longer: probes the path by itself, soon after the last thing that was said and then more and more
    /// rarely. For a transport that does not tell when the other end has died, while somebody looks at the app.
    pub fn watch(&mut self, watched: bool) {
        self.watched = watched;
        if let State::Live(live) = &mut self.state {
            live.watched = watched;
        }
    }

    fn probe_within(&mut self, now: Millis, least: Duration) {
        let Some(nonce) = self.ping(now) else { return };
        if let State::Live(live) = &mut self.state {
            let within = (live.round_trip * 2 + PROBE_MARGIN).clamp(least, PROBE_MAX);
            live.probe = Some(Probe { nonce, deadline: now.after(within) });
        }
    }

    /// Ends the session: the server answers `GoAway` of `LOGGED_OUT`.
    pub fn logout(&mut self, now: Millis) {
        self.transmit_frame(now, &ClientFrame::Logout);
    }

    // ---- out ----

    /// What the server says, in order.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// The next whole frame to write, in order.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.pop()
    }

    /// Bytes that [`poll_transmit`](Self::poll_transmit) will give. Request nothing while it is more than you
    /// want.
    pub fn transmit_bytes(&self) -> usize {
        self.transmit.bytes
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Millis> {
        match &self.state {
            State::AwaitingWelcome { deadline } => Some(*deadline),
            State::Live(live) => {
                let pings = live.ping_at(self.ping_every).min(live.watch_at(self.ping_every));
                Some(pings.min(live.dead_at()).min(live.probe_at()))
            }
            State::Closed => None,
        }
    }

    /// The longest payload that the decoder may take now.
    pub fn frame_bytes_max(&self) -> usize {
        if self.is_live() { FRAME_BYTES_MAX } else { FRAME_BYTES_MAX_BEFORE_WELCOME }
    }

    /// `Welcome` came and the end did not.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// Nothing more comes or goes: end the connection.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Requests without an answer, cancelled ones apart.
    pub fn requests_in_flight(&self) -> usize {
        match &self.state {
            State::Live(live) => live.in_flight.len(),
            _ => 0,
        }
    }

    /// The server's time, ms since 1970, behind by at most a one-way delay; `None` before `Welcome`. Message ids
    /// are minted from it.
    pub fn server_unix_ms(&self, now: Millis) -> Option<u64> {
        let State::Live(live) = &self.state else { return None };
        let since_ms = u64::try_from(now.since(live.server_time.at).as_millis()).unwrap_or(u64::MAX);
        Some(live.server_time.unix_ms.saturating_add(since_ms))
    }

    // ---- inside ----

    fn close(&mut self, reason: CloseReason) {
        if !matches!(self.state, State::Closed) {
            self.end_with(ClientEvent::Closed { reason });
        }
    }

    fn end_with(&mut self, last: ClientEvent) {
        self.state = State::Closed;
        self.transmit = TransmitQueue::default();
        self.events.push_back(last);
    }

    fn violation(&mut self, message: &str) {
        let code = ErrorCode::ProtocolViolation;
        self.close(ParseError { request_id: None, code, message: message.into() }.into());
    }

    fn begin_request(&mut self) -> Result<RequestId, TooManyRequests> {
        let State::Live(live) = &mut self.state else { return Err(TooManyRequests) };
        if live.in_flight.len() >= live.requests_in_flight_max {
            return Err(TooManyRequests);
        }
        let request_id = RequestId::new(self.next_request_id).ok_or(TooManyRequests)?;
        self.next_request_id += 1;
        live.in_flight.push(request_id);
        Ok(request_id)
    }

    /// Whether it was in flight.
    fn release(&mut self, request_id: RequestId) -> bool {
        let State::Live(live) = &mut self.state else { return false };
        match live.in_flight.iter().position(|id| *id == request_id) {
            Some(index) => {
                live.in_flight.swap_remove(index);
                true
            }
            None => false,
        }
    }

    /// Sends a ping; its nonce, or `None` when the session is not live.
    fn ping(&mut self, now: Millis) -> Option<u64> {
        let State::Live(live) = &mut self.state else { return None };
        live.last_ping = now;
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        self.transmit_frame(now, &ClientFrame::Ping(nonce));
        Some(nonce)
    }

    fn transmit_frame(&mut self, now: Millis, frame: &ClientFrame) {
        if let State::Live(live) = &mut self.state {
            live.last_sent = now;
            if !matches!(frame, ClientFrame::Ping(_)) {
                live.last_active = now;
            }
            self.transmit.push(frame.encode());
        }
    }

    fn on_frame(&mut self, now: Millis, frame: ServerFrame) {
        match (&mut self.state, frame) {
            (_, ServerFrame::GoAway(go_away)) => self.end_with(ClientEvent::GoAway(go_away)),
            (State::AwaitingWelcome { .. }, ServerFrame::Welcome(welcome)) => self.on_welcome(now, welcome),
            (State::AwaitingWelcome { .. }, ServerFrame::Refused(refused)) => {
                self.end_with(ClientEvent::Refused(refused));
            }
            (State::AwaitingWelcome { .. }, ServerFrame::Ignored) => {}
            (State::AwaitingWelcome { .. }, _) => {
                self.violation("the first frame is neither Welcome nor Refused");
            }
            (State::Live(live), frame) => {
                live.last_heard = now;
                if !matches!(frame, ServerFrame::Pong { .. }) {
                    live.last_active = now;
                }
                self.on_live_frame(now, frame);
            }
            (State::Closed, _) => {}
        }
    }

    fn on_welcome(&mut self, now: Millis, welcome: Box<Welcome>) {
        let (protocol_min, protocol_max) = self.protocol;
        if !(protocol_min..=protocol_max).contains(&welcome.protocol) {
            return self.violation("a protocol that was not offered");
        }
        self.state = State::Live(Live {
            keepalive: Duration::from_millis(welcome.keepalive_ms.into()),
            requests_in_flight_max: welcome.limits.requests_in_flight_max as usize,
            cursors_per_resume_max: welcome.limits.cursors_per_resume_max as usize,
            in_flight: self.early.take().into_iter().collect(),
            last_heard: now,
            last_sent: now,
            last_ping: now,
            last_active: now,
            round_trip: now.since(self.began),
            probe: None,
            watched: self.watched,
            server_time: ServerTime { unix_ms: welcome.hlc.unix_ms(), at: now },
        });
        // A window that the server would call an abuse is cut, from the next grant on.
        let window = &mut self.credit.window;
        window.entries = window.entries.min(welcome.limits.credit_entries_max);
        window.bytes = window.bytes.min(welcome.limits.credit_bytes_max);
        self.events.push_back(ClientEvent::Welcome(welcome));
    }

    fn on_live_frame(&mut self, now: Millis, frame: ServerFrame) {
        if !self.credit.receive(&frame) {
            return self.violation("more entries than were granted");
        }
        match frame {
            ServerFrame::Welcome(_) | ServerFrame::Refused(_) => self.violation("a second Welcome"),
            ServerFrame::Pong { nonce, hlc } => {
                if let State::Live(live) = &mut self.state {
                    live.on_pong(now, nonce, self.next_nonce - 1);
                    live.server_time = ServerTime { unix_ms: hlc.unix_ms(), at: now };
                }
            }
            ServerFrame::Ignored => {}
            // An answer to a request that was cancelled, or that never was, is of no use.
            frame => {
                if frame.request_id().is_none_or(|id| self.release(id)) {
                    self.events.push_back(ClientEvent::Frame(frame));
                }
            }
        }
    }
}
