//! One session between its bytes and the shard: bytes go into the frame decoder, payloads into the protocol's session
//! machine, what that lets through into the shard; the shard's effects come back as frames. No socket and no waiting
//! in here; tokens are verified here, since the machine knows no users.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use talaria_core::effect::{Identity, Input, SessionKey};
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameDecoder,
    ids::{IdKey, SessionId},
    limits::{FRAME_BYTES_MAX_BEFORE_WELCOME, PROTOCOL_VERSION},
    message::{
        Credit, Durability, RequestId,
        client::{ClientFrame, Hello, Request, Token},
        server::{GoAway, Limits, Refused, ServerFrame, Welcome},
    },
    session::{
        Lane, Millis,
        server::{Config, ServerEvent, ServerSession},
    },
};

use crate::{
    auth::{Keyring, TokenError, Verified},
    clock::Clock,
    limits::{RECONNECT_SPREAD_MS, RECONNECT_SPREAD_MS_MAX, RESTART_RETRY_AFTER_MS},
    metrics::Metrics,
    outbox::{Outbox, SessionEffect},
    pace::{Openings, Turns},
    shard_host::ShardHost,
    transport::Admission,
};

/// What all sessions of a shard share.
pub(crate) struct SessionContext {
    pub(crate) host: Rc<ShardHost>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) id_key: IdKey,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) node: String,
    pub(crate) keepalive: Duration,
    pub(crate) durability: Durability,
    /// Drawn at the start; makes session ids and spreads reconnects.
    pub(crate) seed: u64,
    /// How fast sessions are opened.
    pub(crate) openings: Openings,
    /// Turns of those without a session.
    pub(crate) turns: Turns,
    pub(crate) admission: Rc<Admission>,
    /// Connections that the node takes in a second, all shards.
    pub(crate) node_handshakes_per_second: u32,
}

impl SessionContext {
    /// Over how long the clients of a node that goes come back: as long as it takes to let them all in, within bounds.
    pub(crate) fn reconnect_spread_ms(&self) -> u32 {
        spread_ms(self.admission.node_connections(), self.node_handshakes_per_second)
    }
}

fn spread_ms(connections: usize, per_second: u32) -> u32 {
    let needed_ms = connections as u64 * 1000 / u64::from(per_second.max(1));
    u32::try_from(needed_ms).unwrap_or(u32::MAX).clamp(RECONNECT_SPREAD_MS, RECONNECT_SPREAD_MS_MAX)
}

/// Where a session is with its identity.
enum Stage {
    /// No valid Hello yet.
    Unknown,
    /// The shard opens it.
    Opening(Box<Opening>),
    /// Welcome was said.
    Open { identity: Box<Identity> },
}

struct Opening {
    identity: Identity,
    expires_ms: u64,
}

/// See the module.
pub(crate) struct SessionDriver {
    context: Rc<SessionContext>,
    session: ServerSession,
    decoder: FrameDecoder,
    stage: Stage,
    key: SessionKey,
    outbox: Outbox,
    /// Credit that entries took.
    taken: Credit,
    /// The shard was told that it is gone.
    closed: Cell<bool>,
    end_counted: bool,
    early: Early,
}

/// What a transport with early data adds: frames that come before the peer has proved that it is there now.
#[derive(Debug, Default)]
struct Early {
    /// The client may go on after its Hello without waiting for Welcome.
    pipelined: bool,
    /// The peer has not yet proved that these are no replayed bytes.
    unconfirmed: bool,
    /// A frame that waits for that proof, and everything behind it.
    held: Option<Bytes>,
}

impl SessionDriver {
    /// Of a connection just accepted whose first bytes may be early data: to be followed by [`Self::confirm`]. Its client need
    /// not wait for Welcome either: what comes behind Hello is kept until then.
    pub(crate) fn new_early(context: Rc<SessionContext>) -> Self {
        let mut driver = Self::new(context);
        driver.early = Early { pipelined: true, unconfirmed: true, held: None };
        driver
    }

    /// Of a connection just accepted.
    pub(crate) fn new(context: Rc<SessionContext>) -> Self {
        let now = Millis(context.clock.now().mono_ms);
        let config = Config { keepalive: context.keepalive, ..Config::default() };
        let (key, outbox) = context.host.new_session();
        Self {
            session: ServerSession::new(now, config),
            decoder: FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_WELCOME),
            stage: Stage::Unknown,
            key,
            outbox,
            taken: Credit::default(),
            closed: Cell::new(false),
            end_counted: false,
            early: Early::default(),
            context,
        }
    }

    /// Where the shard puts what it has for this session.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Welcome was said.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// Its end is queued or written.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.end_code().is_some()
    }

    /// The code that it ended with.
    pub(crate) fn end_code(&self) -> Option<u32> {
        self.session.end_code()
    }

    /// Bytes that [`Self::poll_transmit`] will give.
    pub(crate) fn transmit_bytes(&self) -> usize {
        self.session.transmit_bytes()
    }

    /// The next whole frame.
    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.session.poll_transmit()
    }

    /// The next whole frame of one lane.
    pub(crate) fn poll_lane(&mut self, lane: Lane) -> Option<Bytes> {
        self.session.poll_lane(lane)
    }

    /// Bytes that [`Self::poll_lane`] will give.
    pub(crate) fn lane_bytes(&self, lane: Lane) -> usize {
        self.session.lane_bytes(lane)
    }

    /// Frames that have come wait for Welcome, or for [`Self::confirm`]: give it no more bytes.
    pub(crate) fn is_paused(&self) -> bool {
        self.early.held.is_some() || (self.early.pipelined && matches!(self.stage, Stage::Opening(_)))
    }

    /// The peer has proved that it is there now, and its bytes are no replay.
    pub(crate) fn confirm(&mut self) {
        if !std::mem::take(&mut self.early.unconfirmed) {
            return;
        }
        if !matches!(self.stage, Stage::Unknown) && !self.has_ended() {
            self.input(|session| Input::Confirm { session });
        }
        self.handle_frames();
        self.settle();
    }

    /// When [`Self::handle_timeout`] is due, mono ms.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.session.poll_timeout().map(|at| at.0)
    }

    /// When the token ends the session, mono ms.
    pub(crate) fn token_expires(&self) -> Option<u64> {
        self.session.token_expires_at().map(|at| at.0)
    }

    /// Requests that wait for their answers.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.session.requests_in_flight()
    }

    /// Plaintext of the connection. Ignored once the session has ended.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.has_ended() {
            return;
        }
        let host = &self.context.host;
        if self.is_open() && host.faults().take_session(host.shard()) {
            std::panic::panic_any("a fault that a test brings about");
        }
        self.context.metrics.bytes_received.increment(bytes.len() as u64);
        self.decoder.extend(bytes);
        self.handle_frames();
        self.settle();
    }

    fn handle_frames(&mut self) {
        if !self.early.unconfirmed
            && let Some(payload) = self.early.held.take()
        {
            self.handle_frame(payload);
        }
        while !self.has_ended() && !self.is_paused() {
            match self.decoder.poll_frame() {
                Ok(Some(payload)) if self.early.unconfirmed && waits_for_proof(&payload) => {
                    self.early.held = Some(payload);
                }
                Ok(Some(payload)) => self.handle_frame(payload),
                Ok(None) => break,
                Err(error) => {
                    self.session.handle_frame_error(error);
                    self.handle_events();
                }
            }
        }
    }

    fn handle_frame(&mut self, payload: Bytes) {
        let now = self.now();
        self.session.handle_frame(now, payload);
        self.handle_events();
    }

    /// What the shard has for this session.
    pub(crate) fn handle_effects(&mut self) {
        let paused = self.is_paused();
        while let Some(effect) = self.outbox.take() {
            self.on_effect(effect);
        }
        if paused {
            self.handle_frames();
        }
        self.settle();
    }

    /// To be called at or after [`Self::poll_timeout`].
    pub(crate) fn handle_timeout(&mut self) {
        let now = self.now();
        self.session.handle_timeout(now);
        self.settle();
    }

    /// Ends the session from the node's side.
    pub(crate) fn end(&mut self, code: ErrorCode, message: &str, reconnect_after_ms: u32) {
        self.session.go_away(GoAway {
            code: code as u32,
            message: message.to_owned(),
            redirect: String::new(),
            reconnect_after_ms,
        });
        self.settle();
    }

    /// A number below `bound` that differs from session to session.
    pub(crate) fn jitter(&self, bound: u32) -> u32 {
        let mixed = (self.context.seed ^ self.key.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) % u64::from(bound.max(1))) as u32
    }

    fn now(&self) -> Millis {
        Millis(self.context.clock.now().mono_ms)
    }

    /// After anything that may have ended the session: counts its end once, and tells the shard.
    fn settle(&mut self) {
        let Some(code) = self.session.end_code() else { return };
        if !self.end_counted {
            self.end_counted = true;
            let counter =
                if self.is_open() { &self.context.metrics.ended } else { &self.context.metrics.refused };
            counter.increment_wire(code);
        }
        self.close();
    }

    fn close(&self) {
        if !self.closed.replace(true) {
            self.context.host.close(self.key);
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                ServerEvent::Hello(hello) => self.on_hello(*hello),
                ServerEvent::Reauth { request_id, token } => self.on_reauth(request_id, &token),
                ServerEvent::Request { request_id, request } => self.on_request(request_id, request),
                ServerEvent::Ack { conversation, up_to } => {
                    self.input(|session| Input::Ack { session, conversation, up_to });
                }
                ServerEvent::Resume(cursors) => self.input(|session| Input::Resume { session, cursors }),
                ServerEvent::CreditGranted => self.on_credit(),
                ServerEvent::Ping(nonce) => {
                    let hlc = self.context.host.hlc();
                    self.session.pong(nonce, hlc);
                }
                ServerEvent::Logout => {}
            }
        }
    }

    fn input(&self, make: impl FnOnce(SessionKey) -> Input) {
        self.context.host.handle(make(self.key));
    }

    fn on_hello(&mut self, hello: Hello) {
        // First: a token costs more to verify than this.
        if let Err(after_ms) = self.context.openings.admit(Instant::now(), |bound| self.jitter(bound)) {
            self.context.metrics.hellos_paced.increment(1);
            return self.refuse(ErrorCode::Busy, "too many sessions are being opened".to_owned(), after_ms);
        }
        let unix_ms = self.context.clock.now().unix_ms;
        let Verified { subject, expires_ms } =
            match self.context.keyring.verify(&hello.token, &hello.tenant, unix_ms) {
                Ok(verified) => verified,
                Err(error) => return self.refuse(error.code(), error.to_string(), 0),
            };
        let user = self.context.id_key.user(&hello.tenant, &subject);
        let identity =
            Identity { tenant: hello.tenant, subject, user, device: hello.device, role: hello.role };
        tracing::debug!(
            session = self.key.0, user = %user, device = %hello.device, role = ?hello.role,
            client = hello.client.name, version = hello.client.version, platform = hello.client.platform,
            "hello"
        );
        self.stage = Stage::Opening(Box::new(Opening { identity: identity.clone(), expires_ms }));
        let confirmed = !self.early.unconfirmed;
        self.input(|session| Input::Open { session, identity, credit: hello.credit, confirmed });
    }

    fn refuse(&mut self, code: ErrorCode, message: String, retry_after_ms: u32) {
        self.session.handle_refusal(Refused {
            code: code as u32,
            message,
            retry_after_ms,
            redirect: String::new(),
        });
    }

    fn on_reauth(&mut self, request_id: RequestId, token: &Token) {
        let Stage::Open { identity } = &self.stage else { return };
        let unix_ms = self.context.clock.now().unix_ms;
        let refusal = match self.context.keyring.verify(token, &identity.tenant, unix_ms) {
            Ok(verified) if verified.subject == identity.subject => {
                let expires_at = self.mono_of(verified.expires_ms);
                return self.session.handle_reauthed(request_id, verified.expires_ms, expires_at);
            }
            Ok(_) => (ErrorCode::TokenOfAnother, "the token is of another user than the session".to_owned()),
            Err(TokenError::Tenant) => (ErrorCode::TokenOfAnother, TokenError::Tenant.to_string()),
            Err(error) => (error.code(), error.to_string()),
        };
        self.context.metrics.errors.increment(refusal.0);
        self.session.reply(ServerFrame::error(Some(request_id), refusal.0, refusal.1));
    }

    fn on_request(&mut self, request_id: RequestId, mut request: Request) {
        self.context.metrics.requests.increment(1);
        if let Request::Send(send) = &mut request {
            // It is kept in queues and tails, and must not keep the whole receive buffer alive there.
            send.content = Bytes::copy_from_slice(&send.content);
        }
        self.input(|session| Input::Request { session, request_id, request });
    }

    /// The machine tells what is left, the shard wants totals.
    fn on_credit(&self) {
        let left = self.session.credit_left();
        let credit =
            Credit { entries: left.entries + self.taken.entries, bytes: left.bytes + self.taken.bytes };
        self.input(|session| Input::Credit { session, credit });
    }

    fn on_effect(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Opened { device_number } => self.on_opened(device_number),
            SessionEffect::Refused { code, message, retry_after_ms } => {
                self.refuse(code, message, retry_after_ms);
            }
            SessionEffect::Reply { frame, cost } => {
                self.take_credit(cost);
                self.session.reply(frame);
            }
            SessionEffect::Send(frame) => self.session.send(&frame),
            SessionEffect::Deliver { conversation, lane, frame, cost } => {
                self.take_credit(cost);
                self.session.send_of(conversation, lane, frame);
            }
            SessionEffect::End { code, message } => self.session.end(code, message),
            SessionEffect::Lost => self.on_lost(),
        }
    }

    /// The core does not know this session any more. One that it never knew goes on.
    fn on_lost(&mut self) {
        if matches!(self.stage, Stage::Unknown) {
            return;
        }
        let after_ms = self.jitter(self.context.reconnect_spread_ms()).max(RESTART_RETRY_AFTER_MS);
        self.end(ErrorCode::Internal, "a part of the server begins anew", after_ms);
    }

    fn take_credit(&mut self, cost: Credit) {
        if cost == Credit::default() || !self.session.is_live() {
            return;
        }
        let enough = self.session.take_credit(cost.entries, cost.bytes);
        debug_assert!(enough, "the shard sends within the credit");
        self.taken.entries += cost.entries;
        self.taken.bytes += cost.bytes;
    }

    fn on_opened(&mut self, device_number: u32) {
        let Stage::Opening(opening) = std::mem::replace(&mut self.stage, Stage::Unknown) else { return };
        let Opening { identity, expires_ms } = *opening;
        let mut session = [0; 16];
        session[..8].copy_from_slice(&self.context.seed.to_be_bytes());
        session[8..].copy_from_slice(&self.key.0.to_be_bytes());
        let welcome = Welcome {
            session: SessionId::new(session),
            user: identity.user,
            subject: identity.subject.clone(),
            device_number,
            protocol: PROTOCOL_VERSION,
            limits: Limits::default(),
            keepalive_ms: u32::try_from(self.context.keepalive.as_millis()).unwrap_or(u32::MAX),
            hlc: self.context.host.hlc(),
            node: self.context.node.clone(),
            token_expires_ms: expires_ms,
            durability: self.context.durability,
        };
        let (now, expires_at) = (self.now(), self.mono_of(expires_ms));
        self.session.handle_welcome(now, welcome, expires_at);
        self.decoder.set_frame_bytes_max(self.session.frame_bytes_max());
        self.stage = Stage::Open { identity: Box::new(identity) };
    }

    /// A time of the wall clock on the monotonic one, as both are now.
    fn mono_of(&self, unix_ms: u64) -> Millis {
        let now = self.context.clock.now();
        Millis(now.mono_ms).after(Duration::from_millis(unix_ms.saturating_sub(now.unix_ms)))
    }
}

/// A replayed Logout would end the session's device for its user, and a replayed Reauth tell that a token holds.
fn waits_for_proof(payload: &Bytes) -> bool {
    matches!(ClientFrame::parse(payload.clone()), Ok(ClientFrame::Logout | ClientFrame::Reauth { .. }))
}

impl Drop for SessionDriver {
    fn drop(&mut self) {
        self.close();
    }
}
