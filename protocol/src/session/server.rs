//! The server's end of a session: one per connection, from its first byte to its last frame. Keeps the rules that
//! need no knowledge of users or conversations: order of frames, deadlines, requests in flight, credit. What it
//! lets through comes out as a [`ServerEvent`]; the node answers by the methods here. spec/session.md.
//!
//! ```text
//! AwaitingHello ──Hello──▶ Authenticating ──handle_welcome──▶ Live
//!       │ timeout, violation     │ handle_refusal, violation    │ go_away, Logout, violation, timeout
//!       ▼                        ▼                              ▼
//!     Ending (Refused is the last frame)              Ending (GoAway is the last frame)
//!                          └──── last frame taken by poll_transmit ────▶ Closed
//! ```

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{Lane, Millis, lanes::Lanes};
use crate::{
    error_code::ErrorCode,
    frame::FrameError,
    hlc::Hlc,
    ids::ConversationId,
    limits::{
        CLIENT_FRAME_BYTES_MAX, CREDIT_BYTES_MAX, CREDIT_ENTRIES_MAX, FRAME_BYTES_MAX_BEFORE_WELCOME,
        HELLO_TIMEOUT, KEEPALIVE, KEEPALIVE_MISSED_MAX, PROTOCOL_VERSION, REQUESTS_IN_FLIGHT_MAX,
    },
    message::{
        Credit, Cursor, ParseError, RequestId,
        client::{ClientFrame, Hello, Request, Token},
        server::{GoAway, Refused, ServerFrame, Welcome},
    },
};

/// What a node may tune. `Default`: the constants of [`crate::limits`].
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `Hello` is complete within this time ([SES-3]).
    pub hello_timeout: Duration,
    /// Told to the client; twice as long a silence ends the session ([SES-12]).
    pub keepalive: Duration,
    /// Requests that may wait for their answer ([SES-20]).
    pub requests_in_flight_max: usize,
    /// Credit beyond what was sent ([DLV-24]).
    pub credit_max: Credit,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hello_timeout: HELLO_TIMEOUT,
            keepalive: KEEPALIVE,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            credit_max: Credit { entries: CREDIT_ENTRIES_MAX, bytes: CREDIT_BYTES_MAX },
        }
    }
}

/// What the client asks of the node. At most one per frame.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// Answer by [`ServerSession::handle_welcome`] or [`ServerSession::handle_refusal`].
    Hello(Box<Hello>),
    /// Answer by [`ServerSession::handle_reauthed`] or an `Error` given to [`ServerSession::reply`].
    Reauth {
        /// In flight until answered.
        request_id: RequestId,
        /// The new token.
        token: Token,
    },
    /// Answer by [`ServerSession::reply`], exactly once.
    Request {
        /// In flight until answered.
        request_id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// Everything up to here is in the device's store. The node knows what it sent: beyond that it calls
    /// [`ServerSession::end`].
    Ack {
        /// Of this conversation.
        conversation: ConversationId,
        /// Cumulative.
        up_to: u64,
    },
    /// Deliver from these cursors on.
    Resume(Vec<(ConversationId, Cursor)>),
    /// [`ServerSession::credit_left`] has grown.
    CreditGranted,
    /// Answer by [`ServerSession::pong`].
    Ping(u64),
    /// The session ends by the client's wish; its `GoAway` is queued.
    Logout,
}

#[derive(Debug)]
enum State {
    AwaitingHello { deadline: Millis },
    Authenticating { credit: Credit },
    Live(Live),
    Ending { code: u32 },
    Closed { code: u32 },
}

#[derive(Debug)]
struct Live {
    last_heard: Millis,
    token_expires_at: Millis,
    in_flight: InFlight,
    granted: Credit,
    sent: Credit,
}

/// Requests that wait for their answer; few, so a scan is the fastest lookup.
#[derive(Debug, Default)]
struct InFlight(Vec<(RequestId, Wanted)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Yes,
    /// Cancelled: its place is kept until the work is done, its answer is dropped ([SES-21]).
    No,
}

impl InFlight {
    fn contains(&self, request_id: RequestId) -> bool {
        self.0.iter().any(|(id, _)| *id == request_id)
    }

    fn cancel(&mut self, request_id: RequestId) {
        if let Some((_, wanted)) = self.0.iter_mut().find(|(id, _)| *id == request_id) {
            *wanted = Wanted::No;
        }
    }

    fn release(&mut self, request_id: RequestId) -> Option<Wanted> {
        let index = self.0.iter().position(|(id, _)| *id == request_id)?;
        Some(self.0.swap_remove(index).1)
    }
}

/// One session, as a server sees it. See the module's diagram.
#[derive(Debug)]
pub struct ServerSession {
    config: Config,
    state: State,
    events: VecDeque<ServerEvent>,
    lanes: Lanes,
    /// The last frame, once all others are taken.
    farewell: Option<Bytes>,
}

impl ServerSession {
    /// Of a connection that is open since `now`.
    pub fn new(now: Millis, config: Config) -> Self {
        Self {
            config,
            state: State::AwaitingHello { deadline: now.after(config.hello_timeout) },
            events: VecDeque::new(),
            lanes: Lanes::default(),
            farewell: None,
        }
    }

    // ---- in ----

    /// The payload of one frame. Whatever it says, this cannot fail: a breach ends the session with a code.
    pub fn handle_frame(&mut self, now: Millis, payload: Bytes) {
        if let State::Live(live) = &mut self.state {
            live.last_heard = now;
        } else if matches!(self.state, State::Ending { .. } | State::Closed { .. }) {
            return;
        }
        match ClientFrame::parse(payload) {
            Ok(frame) => self.on_frame(frame),
            Err(error) => self.on_parse_error(error),
        }
    }

    /// The bytes are no frames.
    pub fn handle_frame_error(&mut self, error: FrameError) {
        self.end(error.code(), error.to_string());
    }

    /// The hello was accepted. Ignored when the session has ended meanwhile.
    pub fn handle_welcome(&mut self, now: Millis, welcome: Welcome, token_expires_at: Millis) {
        let State::Authenticating { credit } = self.state else { return };
        self.lanes.push(Lane::Control, ServerFrame::Welcome(Box::new(welcome)).encode());
        self.state = State::Live(Live {
            last_heard: now,
            token_expires_at,
            in_flight: InFlight::default(),
            granted: credit,
            sent: Credit::default(),
        });
    }

    /// The hello was not accepted. Ignored when the session has ended meanwhile.
    pub fn handle_refusal(&mut self, refused: Refused) {
        if matches!(self.state, State::AwaitingHello { .. } | State::Authenticating { .. }) {
            self.begin_end(refused.code, ServerFrame::Refused(refused).encode());
        }
    }

    /// The new token is good: `token_expires_ms` (since 1970) is told, `token_expires_at` is obeyed.
    pub fn handle_reauthed(
        &mut self,
        request_id: RequestId,
        token_expires_ms: u64,
        token_expires_at: Millis,
    ) {
        if let State::Live(live) = &mut self.state {
            live.token_expires_at = token_expires_at;
            self.reply(ServerFrame::Reauthed { request_id, token_expires_ms });
        }
    }

    /// To be called at or after [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Millis) {
        match &self.state {
            State::AwaitingHello { deadline } if now >= *deadline => {
                self.end(ErrorCode::HelloTimeout, "no hello in time");
            }
            State::Live(live) if now >= live.token_expires_at => {
                self.end(ErrorCode::TokenExpired, "the token has expired");
            }
            State::Live(live) if now >= live.last_heard.after(self.silence_max()) => {
                self.end(ErrorCode::KeepaliveTimeout, "nothing was heard for two keepalive periods");
            }
            _ => {}
        }
    }

    // ---- what the node says ----

    /// Answers a request and releases its id. Dropped silently when the request was cancelled, was answered
    /// already, or the session has ended.
    #[allow(clippy::needless_pass_by_value, reason = "an answer is given away")]
    pub fn reply(&mut self, frame: ServerFrame) {
        let State::Live(live) = &mut self.state else { return };
        if frame.request_id().and_then(|id| live.in_flight.release(id)) == Some(Wanted::Yes) {
            let lane = if matches!(frame, ServerFrame::HistoryPage(_)) { Lane::Bulk } else { Lane::Control };
            self.lanes.push(lane, frame.encode());
        }
    }

    /// Sends a frame that answers no request. Those that say where a conversation goes on leave in order with its entries.
    pub fn send(&mut self, frame: &ServerFrame) {
        debug_assert!(frame.request_id().is_none(), "an answer goes through reply");
        match frame {
            ServerFrame::Skipped { conversation, .. }
            | ServerFrame::Truncated { conversation, .. }
            | ServerFrame::CaughtUp { conversation, .. } => {
                self.send_of(*conversation, Lane::Bulk, frame.encode());
            }
            _ if self.is_live() => self.lanes.push(Lane::Control, frame.encode()),
            _ => {}
        }
    }

    /// Sends a whole `Deliver` frame that was encoded once for many, see
    /// [`encode_deliver`](crate::message::server::encode_deliver). Take credit for its entry first. The entries of a
    /// conversation leave in their order.
    pub fn send_of(&mut self, conversation: ConversationId, lane: Lane, frame: Bytes) {
        if self.is_live() {
            self.lanes.push_of(conversation, lane, frame);
        }
    }

    /// Answers a ping.
    pub fn pong(&mut self, nonce: u64, hlc: Hlc) {
        self.send(&ServerFrame::Pong { nonce, hlc });
    }

    /// Ends the session: the last frame is a `GoAway`, or a `Refused` before `Welcome`. No effect on one that has
    /// ended.
    pub fn go_away(&mut self, go_away: GoAway) {
        match self.state {
            State::Live(_) => {
                self.begin_end(go_away.code, ServerFrame::GoAway(go_away).encode());
            }
            _ => self.handle_refusal(Refused {
                code: go_away.code,
                message: go_away.message,
                retry_after_ms: go_away.reconnect_after_ms,
                redirect: go_away.redirect,
            }),
        }
    }

    /// Ends the session with this code, without a hint when to come back.
    pub fn end(&mut self, code: ErrorCode, message: impl Into<String>) {
        let message = message.into();
        self.go_away(GoAway { code: code as u32, message, redirect: String::new(), reconnect_after_ms: 0 });
    }

    /// Credit that is granted and not taken ([DLV-24]); nothing before `Welcome`.
    pub fn credit_left(&self) -> Credit {
        let State::Live(live) = &self.state else { return Credit::default() };
        Credit {
            entries: live.granted.entries.saturating_sub(live.sent.entries),
            bytes: live.granted.bytes.saturating_sub(live.sent.bytes),
        }
    }

    /// Takes credit for entries that are sent next, in [`Entry::encoded_len`](crate::entry::Entry::encoded_len)
    /// bytes. False, and nothing is taken, when it does not suffice.
    #[must_use]
    pub fn take_credit(&mut self, entries: u64, bytes: u64) -> bool {
        let left = self.credit_left();
        let State::Live(live) = &mut self.state else { return false };
        if left.entries < entries || left.bytes < bytes {
            return false;
        }
        live.sent.entries += entries;
        live.sent.bytes += bytes;
        true
    }

    // ---- out ----

    /// What the client asks, in order.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// The next whole frame to write where all lanes share one stream of bytes: the most urgent.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        Lane::ALL.into_iter().find_map(|lane| self.poll_lane(lane))
    }

    /// The next whole frame of one lane. The last one of a session comes in [`Lane::Control`], once nothing waits in the
    /// others.
    pub fn poll_lane(&mut self, lane: Lane) -> Option<Bytes> {
        let mut frame = self.lanes.pop(lane);
        if frame.is_none() && lane == Lane::Control && self.lanes.is_empty() {
            frame = self.farewell.take();
        }
        if let State::Ending { code } = self.state
            && self.lanes.is_empty()
            && self.farewell.is_none()
        {
            self.state = State::Closed { code };
        }
        frame
    }

    /// Bytes that [`poll_transmit`](Self::poll_transmit) will give. Read nothing while it is more than you want.
    pub fn transmit_bytes(&self) -> usize {
        self.lanes.bytes() + self.farewell.as_ref().map_or(0, Bytes::len)
    }

    /// Bytes that [`poll_lane`](Self::poll_lane) will give.
    pub fn lane_bytes(&self, lane: Lane) -> usize {
        let farewell = if lane == Lane::Control { self.farewell.as_ref().map_or(0, Bytes::len) } else { 0 };
        self.lanes.bytes_of(lane) + farewell
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Millis> {
        match &self.state {
            State::AwaitingHello { deadline } => Some(*deadline),
            State::Live(live) => Some(live.last_heard.after(self.silence_max()).min(live.token_expires_at)),
            State::Authenticating { .. } | State::Ending { .. } | State::Closed { .. } => None,
        }
    }

    /// When the token ends the session, whatever else is suspended.
    pub fn token_expires_at(&self) -> Option<Millis> {
        match &self.state {
            State::Live(live) => Some(live.token_expires_at),
            _ => None,
        }
    }

    /// The longest payload that the decoder may take now ([FRM-3], [FRM-4]).
    pub fn frame_bytes_max(&self) -> usize {
        if self.is_live() { CLIENT_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX_BEFORE_WELCOME }
    }

    /// Welcome was said and the end was not.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// The last frame was taken: end the connection.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// The code that the session ended with; `None` while it goes on.
    pub fn end_code(&self) -> Option<u32> {
        match self.state {
            State::Ending { code } | State::Closed { code } => Some(code),
            _ => None,
        }
    }

    /// Requests without an answer, cancelled ones included.
    pub fn requests_in_flight(&self) -> usize {
        match &self.state {
            State::Live(live) => live.in_flight.0.len(),
            _ => 0,
        }
    }

    // ---- inside ----

    fn silence_max(&self) -> Duration {
        self.config.keepalive * KEEPALIVE_MISSED_MAX
    }

    fn begin_end(&mut self, code: u32, farewell: Bytes) {
        self.state = State::Ending { code };
        self.farewell = Some(farewell);
    }

    fn violation(&mut self, message: &str) {
        self.end(ErrorCode::ProtocolViolation, message);
    }

    fn on_frame(&mut self, frame: ClientFrame) {
        match (&mut self.state, frame) {
            (_, ClientFrame::Ignored) => {}
            (State::AwaitingHello { .. }, ClientFrame::Hello(hello)) => self.on_hello(hello),
            (State::AwaitingHello { .. }, _) => self.violation("the first frame is no Hello"),
            (State::Live(_), frame) => self.on_live_frame(frame),
            _ => self.violation("a frame between Hello and Welcome"),
        }
    }

    fn on_parse_error(&mut self, error: ParseError) {
        let ParseError { request_id, code, message } = error;
        match (&self.state, request_id) {
            (State::Live(live), Some(id)) if live.in_flight.contains(id) => {
                self.violation("a request id that is in flight");
            }
            (State::Live(_), Some(_)) => {
                self.lanes.push(Lane::Control, ServerFrame::error(request_id, code, message).encode());
            }
            (_, Some(_)) => self.violation("the first frame is no Hello"),
            (_, None) => self.end(code, message),
        }
    }

    fn on_hello(&mut self, hello: Box<Hello>) {
        if !(hello.protocol_min..=hello.protocol_max).contains(&PROTOCOL_VERSION) {
            return self.end(ErrorCode::Unsupported, format!("this node speaks protocol {PROTOCOL_VERSION}"));
        }
        if exceeds(hello.credit, Credit::default(), self.config.credit_max) {
            return self.violation("the first grant is beyond the credit limit");
        }
        self.state = State::Authenticating { credit: hello.credit };
        self.events.push_back(ServerEvent::Hello(hello));
    }

    fn on_live_frame(&mut self, frame: ClientFrame) {
        match frame {
            ClientFrame::Request(request_id, request) => {
                self.on_request(request_id, ServerEvent::Request { request_id, request });
            }
            ClientFrame::Reauth { request_id, token } => {
                self.on_request(request_id, ServerEvent::Reauth { request_id, token });
            }
            ClientFrame::Cancel(request_id) => {
                if let State::Live(live) = &mut self.state {
                    live.in_flight.cancel(request_id);
                }
            }
            ClientFrame::Credit(total) => self.on_credit(total),
            ClientFrame::Ping(nonce) => self.events.push_back(ServerEvent::Ping(nonce)),
            ClientFrame::Ack { conversation, up_to } => {
                self.events.push_back(ServerEvent::Ack { conversation, up_to });
            }
            ClientFrame::Resume(cursors) => self.events.push_back(ServerEvent::Resume(cursors)),
            ClientFrame::Logout => {
                self.events.push_back(ServerEvent::Logout);
                self.end(ErrorCode::LoggedOut, "logged out");
            }
            ClientFrame::Hello(_) => self.violation("a second Hello"),
            ClientFrame::Ignored => {}
        }
    }

    fn on_request(&mut self, request_id: RequestId, event: ServerEvent) {
        let State::Live(live) = &mut self.state else { return };
        if live.in_flight.contains(request_id) {
            return self.violation("a request id that is in flight");
        }
        if live.in_flight.0.len() >= self.config.requests_in_flight_max {
            let message = "too many requests wait for their answers";
            let refusal = ServerFrame::error(Some(request_id), ErrorCode::TooManyRequests, message);
            return self.lanes.push(Lane::Control, refusal.encode());
        }
        live.in_flight.0.push((request_id, Wanted::Yes));
        self.events.push_back(event);
    }

    /// Totals never shrink; too great a one is an abuse, since the server would have to serve it ([DLV-24]).
    fn on_credit(&mut self, total: Credit) {
        let State::Live(live) = &mut self.state else { return };
        if exceeds(total, live.sent, self.config.credit_max) {
            return self.violation("credit beyond its limit");
        }
        let before = live.granted;
        live.granted.entries = before.entries.max(total.entries);
        live.granted.bytes = before.bytes.max(total.bytes);
        if live.granted != before {
            self.events.push_back(ServerEvent::CreditGranted);
        }
    }
}

fn exceeds(total: Credit, sent: Credit, credit_max: Credit) -> bool {
    total.entries > sent.entries.saturating_add(credit_max.entries)
        || total.bytes > sent.bytes.saturating_add(credit_max.bytes)
}
