//! One QUIC connection: a task that moves frames between its streams and the session's driver until either ends.
//!
//! ```text
//! Serving ──session ended──► Ending ──all written──► Lingering ──peer closed, or LINGER──► gone
//!    │ handshake failed or too long, stalled, evicted, peer closed                           ▲
//!    └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! It serves from the first packet on: early data is handled at once, and the end of the handshake only confirms that its
//! sender is there now. It waits in one `select!` of cancel-safe futures and reads nothing while much waits to be
//! written, as on TCP.

use std::{
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use quinn::{ConnectionError, VarInt, ZeroRttAccepted};
use talaria_protocol::{
    error_code::ErrorCode,
    limits::{HANDSHAKE_TIMEOUT, KEEPALIVE_MISSED_MAX},
};
use tokio::{
    sync::watch,
    time::{Sleep, sleep_until},
};

use super::{
    gate::HandshakePlace,
    inbound::{Arrival, Inbound},
    outbound::{Outbound, Written},
};
use crate::{
    lifecycle::Phase,
    limits::{LINGER, RECONNECT_SPREAD_MS, TRANSMIT_BYTES_HIGH},
    metrics::{DropReason, Share},
    outbox::Outbox,
    session_driver::{SessionContext, SessionDriver},
    transport::{admission::Place, stall::Stall},
};

/// Close code of a connection that ends as it should [QUI-14]; others are error codes.
const NORMAL: u32 = 0;
/// Turns that the goodbye of a connection has to leave the node in.
const GOODBYE_TURNS: usize = 16;

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// The last frames are being handed to QUIC.
    Writing { until: Instant },
    /// All streams are finished: the peer may read them in peace, and closes.
    Lingering { until: Instant },
}

/// Why the task ends.
enum Over {
    /// The session has ended, and its last frame is said.
    Ended,
    /// The peer has closed.
    Lost(ConnectionError),
    /// The connection is dropped without a session's end.
    Dropped(DropReason, u32),
    /// Its place goes to another.
    Evicted,
}

/// The handshake, while it goes on.
pub(super) struct Handshake {
    pub(super) done: ZeroRttAccepted,
    /// Given back with the handshake.
    _place: HandshakePlace,
    pub(super) until: Instant,
    /// What its address may have was counted when it came: that was proven then.
    is_charged: bool,
}

/// See the module.
pub(super) struct Connection {
    context: Rc<SessionContext>,
    link: quinn::Connection,
    handshake: Option<Handshake>,
    driver: SessionDriver,
    outbox: Outbox,
    place: Place,
    phase: watch::Receiver<Phase>,
    inbound: Inbound,
    outbound: Outbound,
    /// Bytes that QUIC took.
    written: u64,
    /// What of `transmit_bytes` is counted for this connection.
    waiting_bytes: Share,
    ending: Ending,
    stall: Stall,
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(
        context: Rc<SessionContext>,
        link: quinn::Connection,
        done: ZeroRttAccepted,
        handshake_place: HandshakePlace,
        (place, is_charged): (Place, bool),
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let driver = SessionDriver::new_early(context.clone());
        let now = Instant::now();
        let handshake =
            Handshake { done, _place: handshake_place, is_charged, until: now + HANDSHAKE_TIMEOUT };
        Self {
            link,
            handshake: Some(handshake),
            outbox: driver.outbox().clone(),
            place,
            phase,
            inbound: Inbound::default(),
            outbound: Outbound::new(),
            written: 0,
            waiting_bytes: Share::new(&context.metrics.transmit_bytes),
            ending: Ending::No,
            stall: Stall::new(context.keepalive * KEEPALIVE_MISSED_MAX),
            timer: Box::pin(sleep_until(now.into())),
            driver,
            context,
        }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self) {
        let over = loop {
            if self.is_stranger() {
                self.context.turns.step().await;
            }
            if let Err(over) = self.turn() {
                break over;
            }
            if let Err(over) = self.wait().await {
                break over;
            }
        };
        self.close(over).await;
    }

    /// No session yet: what it makes the shard do waits behind those who have one.
    fn is_stranger(&self) -> bool {
        self.ending == Ending::No && !self.driver.is_open()
    }

    /// Until something has happened, which is handled.
    async fn wait(&mut self) -> Result<(), Over> {
        self.arm();
        let reads = self.wants_read();
        tokio::select! {
            arrival = self.inbound.next(&self.link, reads) => self.on_arrival(arrival)?,
            written = self.outbound.write(&self.link, &mut self.driver, &self.context.metrics) => {
                self.on_written(written)?;
            }
            () = handshake_done(&mut self.handshake) => self.on_handshake()?,
            () = self.outbox.woken() => self.driver.handle_effects(),
            () = self.place.evicted() => return Err(Over::Evicted),
            () = self.timer.as_mut() => {}
            changed = self.phase.changed() => if changed.is_err() {
                return Err(Over::Dropped(DropReason::Drain, ErrorCode::Draining as u32));
            },
        }
        Ok(())
    }

    /// What is due by the clock or by what has happened.
    fn turn(&mut self) -> Result<(), Over> {
        let host = &self.context.host;
        if self.driver.is_open() && host.faults().take_session(host.shard()) {
            std::panic::panic_any("a fault that a test brings about");
        }
        self.waiting_bytes.set(self.unwritten());
        let now = Instant::now();
        if let Ending::Lingering { until } = self.ending {
            let stopped = *self.phase.borrow_and_update() == Phase::Stopped;
            return if stopped || now >= until { Err(Over::Ended) } else { Ok(()) };
        }
        self.on_time(now)?;
        if self.driver.is_open() && self.handshake.is_none() {
            self.place.has_session();
        }
        self.check_stall(now)?;
        self.on_ending(now)
    }

    fn on_arrival(&mut self, arrival: Arrival) -> Result<(), Over> {
        match arrival {
            Arrival::Control(stream) => self.outbound.set_control(stream),
            Arrival::Bytes(bytes) if self.ending == Ending::No => self.driver.handle_bytes(&bytes),
            Arrival::Bytes(_) => {}
            // A client that says no more is gone; what was for it is in the log.
            Arrival::Finished if self.ending == Ending::No && !self.driver.has_ended() => {
                return Err(Over::Dropped(DropReason::Peer, NORMAL));
            }
            Arrival::Finished => {}
            Arrival::SecondControl => self.violation("a second control stream"),
            Arrival::Lost(error) => return Err(Over::Lost(error)),
        }
        Ok(())
    }

    fn on_written(&mut self, written: Written) -> Result<(), Over> {
        match written {
            Written::Bytes(bytes) => self.written += bytes as u64,
            Written::Stopped(lane) => {
                tracing::debug!(?lane, "a client stops a stream of its session");
                self.violation("a stream of the session was stopped");
            }
            Written::Lost(error) => return Err(Over::Lost(error)),
        }
        Ok(())
    }

    fn violation(&mut self, message: &str) {
        self.driver.end(ErrorCode::ProtocolViolation, message, 0);
    }

    /// The handshake is complete, or has failed.
    fn on_handshake(&mut self) -> Result<(), Over> {
        if let Some(error) = self.link.close_reason() {
            return Err(Over::Lost(error));
        }
        let is_charged = self.handshake.take().is_none_or(|handshake| handshake.is_charged);
        self.place.has_shaken_hands();
        if !is_charged && !self.place.has_proved(self.link.remote_address().ip()) {
            let retry_ms = self.driver.jitter(RECONNECT_SPREAD_MS).max(1);
            self.driver.end(ErrorCode::Busy, "your address has as many new connections as it may", retry_ms);
            return Ok(());
        }
        self.driver.confirm();
        Ok(())
    }

    fn unwritten(&self) -> usize {
        self.driver.transmit_bytes() + self.outbound.waiting_bytes()
    }

    /// Not while much waits to be written, nor once the node drains, nor while frames wait for Welcome.
    fn wants_read(&self) -> bool {
        self.ending == Ending::No
            && self.unwritten() < TRANSMIT_BYTES_HIGH
            && !self.driver.is_paused()
            && *self.phase.borrow() == Phase::Serving
    }

    /// The session's deadlines, the handshake's, the drain.
    fn on_time(&mut self, now: Instant) -> Result<(), Over> {
        if self.handshake.as_ref().is_some_and(|handshake| now >= handshake.until) {
            return Err(Over::Dropped(DropReason::HandshakeTimeout, ErrorCode::HelloTimeout as u32));
        }
        let now_ms = self.context.clock.now().mono_ms;
        if self.session_due().is_some_and(|due| due <= now_ms) {
            self.driver.handle_timeout();
        }
        let phase = *self.phase.borrow_and_update();
        match phase {
            Phase::Serving => Ok(()),
            Phase::Draining { until } if self.handshake.is_none() => {
                // What was asked is answered first; nothing more is read meanwhile.
                if self.driver.requests_in_flight() == 0 || now >= until {
                    let after_ms = self.driver.jitter(self.context.reconnect_spread_ms());
                    self.driver.end(ErrorCode::Draining, "the node goes down", after_ms.max(1));
                }
                Ok(())
            }
            Phase::Draining { .. } | Phase::Stopped => {
                Err(Over::Dropped(DropReason::Drain, ErrorCode::Draining as u32))
            }
        }
    }

    fn check_stall(&mut self, now: Instant) -> Result<(), Over> {
        let waits = self.unwritten() > 0 && self.outbound.has_control();
        if self.stall.is_over(now, waits, self.written) {
            self.driver.end(
                ErrorCode::SlowConsumer,
                "the client does not read what it granted credit for",
                0,
            );
            return Err(Over::Dropped(DropReason::SlowConsumer, ErrorCode::SlowConsumer as u32));
        }
        Ok(())
    }

    /// When the session has something to do by the clock. A peer that we do not read is not silent: while much waits to be
    /// written, only the stall judges it. Its token's time runs all the same.
    fn session_due(&self) -> Option<u64> {
        if self.ending != Ending::No {
            None
        } else if self.unwritten() < TRANSMIT_BYTES_HIGH {
            self.driver.poll_timeout()
        } else {
            self.driver.token_expires()
        }
    }

    /// Once the session has ended: the rest is written, then all streams are finished.
    fn on_ending(&mut self, now: Instant) -> Result<(), Over> {
        if self.ending == Ending::No && self.driver.has_ended() {
            self.ending = Ending::Writing { until: now + LINGER };
        }
        let Ending::Writing { until } = self.ending else { return Ok(()) };
        if !self.outbound.has_control() {
            return Err(Over::Ended);
        }
        if self.unwritten() == 0 {
            self.outbound.finish();
            self.ending = Ending::Lingering { until };
        } else if now >= until {
            return Err(Over::Dropped(DropReason::SlowConsumer, ErrorCode::SlowConsumer as u32));
        }
        Ok(())
    }

    /// Sets the timer to what is due first.
    fn arm(&mut self) {
        let session = self.session_due().map(|due| self.context.clock.instant(due));
        let handshake = self.handshake.as_ref().map(|handshake| handshake.until);
        let drain = match *self.phase.borrow() {
            // Past it the session has ended, and `ending` says what is next.
            Phase::Draining { until } if self.ending == Ending::No => Some(until),
            _ => None,
        };
        let (stall, ending) = match self.ending {
            Ending::No => (self.stall.due(), None),
            Ending::Writing { until } => (self.stall.due(), Some(until)),
            Ending::Lingering { until } => (None, Some(until)),
        };
        let far = || Instant::now() + Duration::from_secs(3600);
        let due = [session, handshake, stall, drain, ending].into_iter().flatten().min().unwrap_or_else(far);
        let armed = self.timer.deadline().into_std();
        // A timer that is early costs one turn, so one that only gets later is left alone until it fires.
        if due < armed || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due.into());
        }
    }

    /// Says goodbye, and gives it some turns to leave the node.
    async fn close(&mut self, over: Over) {
        let metrics = self.context.metrics.clone();
        let code = match over {
            Over::Ended if self.outbound.has_control() => NORMAL,
            Over::Ended => self.driver.end_code().unwrap_or(NORMAL),
            Over::Lost(error) => {
                if let Some(reason) = self.lost_reason(&error) {
                    metrics.connection_dropped(reason);
                }
                return;
            }
            Over::Dropped(reason, code) => {
                metrics.connection_dropped(reason);
                code
            }
            Over::Evicted => {
                self.driver.end(ErrorCode::Busy, "too many connections without Hello", 1_000);
                ErrorCode::Busy as u32
            }
        };
        self.link.close(VarInt::from_u32(code), b"");
        for _ in 0..GOODBYE_TURNS {
            if self.link.stats().frame_tx.connection_close > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    /// How a lost connection is counted; `None`: its session had ended.
    fn lost_reason(&self, error: &ConnectionError) -> Option<DropReason> {
        tracing::debug!(%error, "a QUIC connection is gone");
        if self.driver.has_ended() {
            return None;
        }
        Some(match (self.handshake.is_some(), error) {
            (true, ConnectionError::TimedOut) => DropReason::HandshakeTimeout,
            (true, _) => DropReason::Handshake,
            (false, _) => DropReason::Peer,
        })
    }
}

/// Ends with the handshake. Cancel-safe.
async fn handshake_done(handshake: &mut Option<Handshake>) {
    match handshake {
        Some(handshake) => {
            // It says true on this side, or the connection is gone.
            (&mut handshake.done).await;
        }
        None => std::future::pending().await,
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.context.metrics.panics.increment(1);
            self.context.metrics.connection_dropped(DropReason::Panic);
            tracing::error!("a connection's task panicked; only its session ends");
        }
    }
}
