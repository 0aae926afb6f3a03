//! Connecting, staying connected, and when to give up: tokens, backoff, the session's beginning and end.

use std::time::Duration;

use bytes::Bytes;
use talaria_protocol::{
    error_code::ErrorCode,
    frame::FrameError,
    limits::PROTOCOL_VERSION,
    message::{
        RequestId, Role,
        client::{Hello, Token},
        server::{GoAway, Refused, Welcome},
    },
    session::{
        Millis,
        client::{ClientEvent, ClientSession, CloseReason, Config as SessionConfig},
    },
};

use super::{
    Connection, Effect, Engine, Link, Live, Open, Purpose, StopReason, Sync, TokenError, renewal_delay,
};
use crate::{backoff::STABLE_AFTER, timeline::Streams};

/// How often the server hears of a client in the foreground over UDP.
const PING_EVERY_OVER_UDP: Duration = Duration::from_secs(15);
/// A renewal that failed is tried again after this.
const REAUTH_RETRY: Duration = Duration::from_secs(10);

impl Engine {
    /// A token, asked for by [`Effect::NeedToken`], or why there is none.
    pub fn handle_token(&mut self, now: Millis, token: Result<Token, TokenError>) {
        match (&self.link, token) {
            (Link::AwaitingToken, Ok(token)) => {
                self.token = Some(token);
                self.token_is_new = true;
                self.token_expires_at = None;
                self.dial();
            }
            (Link::AwaitingToken, Err(TokenError::Unavailable)) => self.back_off(now, 0),
            (Link::AwaitingToken, Err(TokenError::LogInRequired)) => self.require_auth(),
            (Link::Open(_), Ok(token)) => self.renew(now, token),
            (Link::Open(_), Err(_)) => self.postpone_reauth(now),
            (Link::Stopped(_), _) => {}
            (_, Ok(token)) => self.token = Some(token),
            (_, Err(_)) => {}
        }
        self.pump(now);
    }

    /// The user has logged in, or the app knows that a new attempt is worth it.
    pub fn handle_retry(&mut self, now: Millis) {
        match self.link {
            Link::AuthRequired => self.ask_token(),
            _ => self.hurry(now),
        }
    }

    /// The device's network is another one now, or came back: what is open is probed, what is dialled is dialled
    /// anew, and a wait ends. In the background, with nothing to send or to ask, the wait goes on.
    pub fn handle_network_changed(&mut self, now: Millis) {
        let stays_idle = self.background && self.outbox.is_empty() && self.asks.is_empty();
        match &mut self.link {
            Link::Backoff { .. } if stays_idle => {}
            Link::Backoff { .. } => {
                // The failures were the old network's.
                self.backoff.on_stable();
                self.hurry(now);
            }
            Link::Dialing => self.dial(),
            Link::Open(open) if open.live.is_some() => open.session.probe(now),
            Link::Open(_) => {
                self.lose(now);
                self.effects.push_back(Effect::Disconnect(None));
                self.try_again(now);
            }
            Link::AwaitingToken | Link::AuthRequired | Link::Stopped(_) => {}
        }
    }

    /// The app came to the front or left it. The server is told by the next `Hello`. To the front: what is open is
    /// probed, for the system may have frozen the app, and a wait ends.
    pub fn handle_foreground(&mut self, now: Millis, foreground: bool) {
        self.background = !foreground;
        self.set_pings();
        if foreground {
            match &mut self.link {
                Link::Open(open) => open.session.probe(now),
                _ => self.hurry(now),
            }
        }
    }

    /// What forgets silent senders: between this device and a server over UDP, address translators do after half a
    /// minute; and a server that was killed does, without a word, for which who looks at the app is not to wait. In the
    /// background the battery counts for more.
    fn set_pings(&mut self) {
        let is_watched = self.streams == Streams::Many && !self.background;
        if let Link::Open(open) = &mut self.link {
            open.session.watch(is_watched);
            open.session.set_ping_every(if is_watched { PING_EVERY_OVER_UDP } else { Duration::MAX });
        }
    }

    /// Ends a wait, but not before the time that the server asked for ([SES-32]).
    fn hurry(&mut self, now: Millis) {
        match self.link {
            Link::Backoff { not_before, .. } if not_before <= now => self.try_again(now),
            Link::Backoff { until, not_before } if not_before < until => {
                self.link = Link::Backoff { until: not_before, not_before };
                self.show(Connection::Backoff { until: not_before });
            }
            _ => {}
        }
    }

    /// A connection is open; ALPN and the server's certificate are right. While one is open: it is another one, or
    /// the same without what was sent on it, before anything was received; everything is sent again.
    pub fn handle_connected(&mut self, now: Millis, streams: Streams) {
        let opens = match &self.link {
            Link::Dialing => true,
            Link::Open(open) => open.live.is_none(),
            _ => false,
        };
        let Some(token) = self.token.clone().filter(|_| opens) else { return };
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            tenant: self.config.tenant.clone(),
            token,
            device: self.config.device,
            role: Role::Main,
            client: self.config.client.clone(),
            capabilities: Vec::new(),
            credit: self.config.window,
            background: self.background,
        };
        self.connection += 1;
        self.streams = streams;
        let mut session = ClientSession::new(now, hello, SessionConfig::default());
        let early_sync = match streams {
            Streams::One => None,
            Streams::Many => early_sync(now, &mut session, Sync::new(self.sync_token)),
        };
        self.link = Link::Open(Box::new(Open { session, live: None, early_sync }));
        self.set_pings();
    }

    /// The server closed the connection with a code of spec/errors.md and no frame that says it.
    pub fn handle_closed(&mut self, now: Millis, code: u32, message: String) {
        if matches!(self.link, Link::Dialing | Link::Open(_)) {
            self.on_end(now, code, message, 0, true);
            self.pump(now);
        }
    }

    /// There is no connection any more, or it could not be made.
    pub fn handle_disconnected(&mut self, now: Millis) {
        if matches!(self.link, Link::Dialing | Link::Open(_)) {
            self.lose(now);
            self.back_off(now, 0);
            self.pump(now);
        }
    }

    /// The payload of a frame.
    pub fn handle_frame(&mut self, now: Millis, payload: Bytes) {
        if let Link::Open(open) = &mut self.link {
            open.session.handle_frame(now, payload);
            self.take_session_events(now);
        }
        self.pump(now);
    }

    /// The bytes are no frames.
    pub fn handle_frame_error(&mut self, now: Millis, error: FrameError) {
        if let Link::Open(open) = &mut self.link {
            open.session.handle_frame_error(error);
            self.take_session_events(now);
        }
        self.pump(now);
    }

    /// Ends for good: what is queued stays in the store. Online, the server is told first; the end is
    /// [`Connection::Stopped`].
    pub fn handle_shutdown(&mut self, now: Millis) {
        self.shutting_down = true;
        if let Some((session, _)) = self.live() {
            session.logout(now);
        } else if !matches!(self.link, Link::Stopped(_)) {
            self.stop(now, StopReason::ShutDown);
        }
    }

    /// It is time, see [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Millis) {
        match &mut self.link {
            Link::Backoff { until, .. } if *until <= now => self.try_again(now),
            Link::Open(open) => {
                if open.session.poll_timeout().is_some_and(|at| at <= now) {
                    open.session.handle_timeout(now);
                }
                if let Some(live) = open.live.as_mut()
                    && live.reauth_at.is_some_and(|at| at <= now)
                {
                    live.reauth_at = None;
                    self.effects.push_back(Effect::NeedToken);
                }
                self.take_session_events(now);
            }
            _ => {}
        }
        self.ask_for_gaps(now);
        self.drop_late_asks(now);
        self.pump(now);
    }

    fn take_session_events(&mut self, now: Millis) {
        while let Link::Open(open) = &mut self.link
            && let Some(event) = open.session.poll_event()
        {
            match event {
                ClientEvent::Welcome(welcome) => self.on_welcome(now, *welcome),
                ClientEvent::Frame(frame) => self.on_frame(now, frame),
                ClientEvent::Refused(refused) => self.on_refused(now, refused),
                ClientEvent::GoAway(go_away) => self.on_go_away(now, go_away),
                ClientEvent::Closed { reason } => {
                    let probed = reason == CloseReason::PathDead;
                    self.lose(now);
                    self.effects.push_back(Effect::Disconnect(Some(reason)));
                    // The app asked whether the path works: the answer is a new one, at once.
                    if probed && !self.shutting_down { self.try_again(now) } else { self.back_off(now, 0) }
                }
            }
        }
    }

    fn on_welcome(&mut self, now: Millis, welcome: Welcome) {
        let Link::Open(open) = &mut self.link else { return };
        let lifetime_ms = welcome.token_expires_ms.saturating_sub(welcome.hlc.unix_ms());
        let lifetime = Duration::from_millis(lifetime_ms);
        let early = open.early_sync.take();
        open.live = Some(Live {
            since: now,
            welcome,
            requests: early.iter().map(|(id, _)| (*id, Purpose::Sync)).collect(),
            sync: early.map_or_else(|| Sync::new(self.sync_token), |(_, sync)| sync),
            reauth_at: Some(now.after(renewal_delay(lifetime))),
        });
        self.token_is_new = false;
        self.token_expires_at = Some(now.after(lifetime));
        self.stats.sessions += 1;
        // Conversations with something to send are made live at once: their own entries come from there.
        self.to_resume.extend(self.outbox.conversations());
        self.show(Connection::Online);
    }

    fn on_refused(&mut self, now: Millis, refused: Refused) {
        let Refused { code, message, retry_after_ms, .. } = refused;
        self.on_end(now, code, message, retry_after_ms, false);
    }

    fn on_go_away(&mut self, now: Millis, go_away: GoAway) {
        let GoAway { code, message, reconnect_after_ms, .. } = go_away;
        self.on_end(now, code, message, reconnect_after_ms, true);
    }

    /// The server ended the session: reconnect by itself only where the code's row allows it ([SES-31], [ERR-5]). A
    /// `redirect` is not followed yet ([SES-34]): the configured address leads on.
    fn on_end(&mut self, now: Millis, code: u32, message: String, after_ms: u32, unknown_retryable: bool) {
        self.lose(now);
        self.effects.push_back(Effect::Disconnect(None));
        let known = ErrorCode::from_wire(code);
        match known {
            Some(ErrorCode::TokenInvalid | ErrorCode::TokenExpired | ErrorCode::TokenOfAnother) => {
                self.on_token_refused();
            }
            Some(ErrorCode::TakenOver) => self.stop(now, StopReason::TakenOver),
            Some(ErrorCode::LoggedOut) => self.stop(now, StopReason::LoggedOut),
            _ if known.map_or(unknown_retryable, ErrorCode::retryable) => self.back_off(now, after_ms),
            _ => self.stop(now, StopReason::Refused { code, message }),
        }
    }

    /// A token that once was good is replaced, once; a new one that is refused is the user's matter.
    fn on_token_refused(&mut self) {
        self.token = None;
        if self.token_is_new { self.require_auth() } else { self.ask_token() }
    }

    fn require_auth(&mut self) {
        self.link = Link::AuthRequired;
        self.show(Connection::AuthRequired);
    }

    fn ask_token(&mut self) {
        self.link = Link::AwaitingToken;
        self.effects.push_back(Effect::NeedToken);
        self.show(Connection::Connecting);
    }

    fn dial(&mut self) {
        self.link = Link::Dialing;
        self.effects.push_back(Effect::Connect);
        self.show(Connection::Connecting);
    }

    fn try_again(&mut self, now: Millis) {
        let expired = self.token_expires_at.is_some_and(|at| at <= now);
        if self.token.is_none() || expired { self.ask_token() } else { self.dial() }
    }

    fn back_off(&mut self, now: Millis, at_least_ms: u32) {
        if self.shutting_down {
            return self.stop(now, StopReason::ShutDown);
        }
        let until = now.after(self.backoff.next_delay(at_least_ms, &mut self.rng));
        let not_before = now.after(Duration::from_millis(at_least_ms.into())).min(until);
        self.link = Link::Backoff { until, not_before };
        self.show(Connection::Backoff { until });
    }

    /// What was on the connection goes back to where it came from.
    fn lose(&mut self, now: Millis) {
        self.stats.disconnects += 1;
        if let Link::Open(open) = &self.link
            && open.live.as_ref().is_some_and(|live| now.since(live.since) >= STABLE_AFTER)
        {
            self.backoff.on_stable();
        }
        self.outbox.on_disconnected();
        self.asks.on_disconnected();
        self.to_resume.clear();
        self.to_fetch.clear();
        self.rewinds.clear();
        self.gaps.clear();
        let mut dropped = Vec::new();
        for timeline in self.timelines.values_mut() {
            dropped.extend(timeline.on_disconnected());
        }
        self.consume_all(now, &dropped);
    }

    pub(super) fn stop(&mut self, now: Millis, reason: StopReason) {
        let reason = if self.shutting_down { StopReason::ShutDown } else { reason };
        if matches!(self.link, Link::Open(_)) {
            self.lose(now);
            self.effects.push_back(Effect::Disconnect(None));
        }
        for ask in self.asks.take_all() {
            self.effects.push_back(Effect::Answer(ask, Err(crate::ask::AskError::Stopped)));
        }
        self.link = Link::Stopped(reason.clone());
        self.show(Connection::Stopped(reason));
    }

    fn renew(&mut self, now: Millis, token: Token) {
        self.token = Some(token.clone());
        let renewed = match self.live() {
            Some((session, live)) => {
                session.reauth(now, token).map(|id| live.requests.insert(id, Purpose::Reauth))
            }
            // Too early: the Hello has it or the next one will.
            None => return,
        };
        if renewed.is_err() {
            self.postpone_reauth(now);
        }
    }

    pub(super) fn postpone_reauth(&mut self, now: Millis) {
        if let Some((_, live)) = self.live() {
            live.reauth_at = Some(now.after(REAUTH_RETRY));
        }
    }

    pub(super) fn on_reauthed(&mut self, now: Millis, token_expires_ms: u64) {
        let Some((session, live)) = self.live() else { return };
        let unix_ms = session.server_unix_ms(now).unwrap_or(token_expires_ms);
        let lifetime = Duration::from_millis(token_expires_ms.saturating_sub(unix_ms));
        live.reauth_at = Some(now.after(renewal_delay(lifetime)));
        self.token_expires_at = Some(now.after(lifetime));
    }
}

/// Asks what has changed with the packet that says hello: a round trip less before messages go out. It only reads, so
/// that whoever repeats the packet learns and changes nothing ([QUI-22]).
fn early_sync(now: Millis, session: &mut ClientSession, mut sync: Sync) -> Option<(RequestId, Sync)> {
    let request_id = session.request_early(sync.next_request(now)?)?;
    sync.on_asked();
    Some((request_id, sync))
}
