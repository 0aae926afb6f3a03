//! One TCP connection: a task that moves bytes between TLS and the session's driver until either ends.
//!
//! ```text
//! Handshaking ──► Serving ──session ended──► Ending ──all written──► Lingering ──peer closed, or LINGER──► gone
//!      │ failed, too long, evicted   │ stalled, evicted, peer closed                                       ▲
//!      └─────────────────────────────┴─────────────────────────────────────────────────────────────────────┘
//! ```
//! It waits in one `select!` of cancel-safe futures; partial bytes live in rustls, the decoder and the transmit
//! buffer, never on the future's stack. It reads nothing while much waits to be written.

use std::{pin::Pin, rc::Rc, sync::Arc, time::Instant};

use talaria_protocol::{error_code::ErrorCode, limits::KEEPALIVE_MISSED_MAX};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Sleep, sleep_until},
};

use super::{
    admission::Place,
    stall::Stall,
    tls_socket::{ReadStatus, SocketError, TlsSocket},
    transmit::TransmitBuffer,
};
use crate::{
    lifecycle::Phase,
    limits::{LINGER, TRANSMIT_BYTES_HIGH, TRANSMIT_CHUNK_BYTES},
    metrics::{DropReason, Share},
    session_driver::{SessionContext, SessionDriver},
};

/// What a turn came to.
enum Turn {
    /// Nothing more to do for now.
    Wait,
    /// There is more to read.
    Again,
    /// The connection is over.
    Over,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// The last frames are being written, then TLS' own goodbye.
    Writing { until: Instant, said_goodbye: bool },
    /// All is written and our side is closed: the peer may read it in peace.
    Lingering { until: Instant },
}

/// See the module.
pub(super) struct Connection {
    context: Rc<SessionContext>,
    socket: TlsSocket,
    driver: SessionDriver,
    place: Place,
    phase: watch::Receiver<Phase>,
    transmit: TransmitBuffer,
    /// Bytes that the system took.
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
        tcp: TcpStream,
        tls: Arc<rustls::ServerConfig>,
        place: Place,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, SocketError> {
        let driver = SessionDriver::new(context.clone());
        Ok(Self {
            socket: TlsSocket::new(tcp, tls)?,
            place,
            phase,
            transmit: TransmitBuffer::default(),
            written: 0,
            waiting_bytes: Share::new(&context.metrics.transmit_bytes),
            ending: Ending::No,
            stall: Stall::new(context.keepalive * KEEPALIVE_MISSED_MAX),
            timer: Box::pin(sleep_until(Instant::now().into())),
            driver,
            context,
        })
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self) {
        loop {
            if self.is_stranger() {
                let context = self.context.clone();
                context.turns.step().await;
            }
            match self.turn() {
                Ok(Turn::Wait) => {}
                Ok(Turn::Again) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Turn::Over) => return,
                Err(reason) => return self.context.metrics.connection_dropped(reason),
            }
            self.arm();
            let reads = self.wants_read();
            tokio::select! {
                ready = self.socket.ready(reads) => if ready.is_err() {
                    return self.context.metrics.connection_dropped(DropReason::Peer);
                },
                () = self.driver.outbox().woken() => {}
                () = self.place.evicted() => return self.evicted(),
                () = self.timer.as_mut() => {}
                changed = self.phase.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// No session yet: what it makes the shard do waits behind those who have one.
    fn is_stranger(&self) -> bool {
        self.ending == Ending::No && !self.driver.is_open()
    }

    /// Reads, lets the session work, writes. `Err`: the connection is to be dropped at once.
    fn turn(&mut self) -> Result<Turn, DropReason> {
        self.driver.handle_effects();
        let read = if self.wants_read() { self.read()? } else { ReadStatus::Drained };
        self.driver.handle_effects();
        if let Ending::Lingering { until } = self.ending {
            return Ok(self.linger(until, read));
        }
        self.on_time()?;
        if self.socket.has_begun() {
            self.place.has_begun(1);
        }
        if !self.socket.is_handshaking() {
            self.place.has_shaken_hands();
        }
        if self.driver.is_open() {
            self.place.has_session();
        }
        self.write()?;
        self.check_stall()?;
        if read == ReadStatus::Closed {
            // A peer that says no more is gone; what was for it is in the log.
            return if self.driver.has_ended() { Ok(Turn::Over) } else { Err(DropReason::Peer) };
        }
        self.on_ending()?;
        Ok(if read == ReadStatus::More { Turn::Again } else { Turn::Wait })
    }

    /// All is said: the peer closes, or its time is over.
    fn linger(&self, until: Instant, read: ReadStatus) -> Turn {
        let stopped = *self.phase.borrow() == Phase::Stopped;
        match read {
            ReadStatus::Closed => Turn::Over,
            _ if stopped || Instant::now() >= until => Turn::Over,
            ReadStatus::More => Turn::Again,
            ReadStatus::Drained => Turn::Wait,
        }
    }

    /// Nothing waits, neither here nor in TLS.
    fn is_written(&self) -> bool {
        self.unwritten() == 0 && !self.socket.wants_write()
    }

    fn unwritten(&self) -> usize {
        self.driver.transmit_bytes() + self.transmit.bytes()
    }

    fn is_draining(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Draining { .. } | Phase::Stopped)
    }

    /// Not while much waits to be written, nor once the node drains; but to its end, so that the peer can close.
    fn wants_read(&self) -> bool {
        match self.ending {
            Ending::No if self.socket.is_handshaking() => true,
            Ending::No => self.unwritten() < TRANSMIT_BYTES_HIGH && !self.is_draining(),
            Ending::Writing { .. } | Ending::Lingering { .. } => true,
        }
    }

    fn read(&mut self) -> Result<ReadStatus, DropReason> {
        let driver = &mut self.driver;
        match self.socket.read(|bytes| driver.handle_bytes(bytes)) {
            Ok(status) => Ok(status),
            Err(SocketError::Io(_)) => Err(DropReason::Peer),
            Err(SocketError::Tls(error)) => Ok(self.on_broken_tls(&error)),
        }
    }

    /// Sends the alert that says why, and leaves the peer some time to read it.
    fn on_broken_tls(&mut self, error: &rustls::Error) -> ReadStatus {
        tracing::debug!(%error, "a peer breaks TLS");
        let reason = if self.socket.is_handshaking() { DropReason::Handshake } else { DropReason::Tls };
        self.context.metrics.connection_dropped(reason);
        let _alert = self.socket.write(&mut TransmitBuffer::default());
        let _closed = self.socket.shutdown_write();
        self.ending = Ending::Lingering { until: Instant::now() + LINGER };
        ReadStatus::More
    }

    fn write(&mut self) -> Result<(), DropReason> {
        loop {
            while self.transmit.bytes() < TRANSMIT_CHUNK_BYTES {
                let Some(frame) = self.driver.poll_transmit() else { break };
                self.context.metrics.bytes_sent.increment(frame.len() as u64);
                self.transmit.push(frame);
            }
            let written = self.socket.write(&mut self.transmit).map_err(|_| DropReason::Peer)?;
            self.written += written as u64;
            if !self.transmit.is_empty() || self.driver.transmit_bytes() == 0 {
                break;
            }
        }
        self.waiting_bytes.set(self.unwritten());
        Ok(())
    }

    /// Whatever is due by the clock: the session's deadlines, the drain.
    fn on_time(&mut self) -> Result<(), DropReason> {
        let now_ms = self.context.clock.now().mono_ms;
        if self.session_due().is_some_and(|due| due <= now_ms) {
            self.driver.handle_timeout();
            if self.socket.is_handshaking() {
                return Err(DropReason::HandshakeTimeout);
            }
        }
        let phase = *self.phase.borrow_and_update();
        match phase {
            Phase::Serving => {}
            Phase::Draining { .. } if self.socket.is_handshaking() => return Err(DropReason::Drain),
            Phase::Draining { until } => {
                // What was asked is answered first; nothing more is read meanwhile.
                if self.driver.requests_in_flight() == 0 || Instant::now() >= until {
                    let after_ms = self.driver.jitter(self.context.reconnect_spread_ms());
                    self.driver.end(ErrorCode::Draining, "the node goes down", after_ms.max(1));
                }
            }
            Phase::Stopped => return Err(DropReason::Drain),
        }
        Ok(())
    }

    /// Right after a write: what is left then, the peer does not take.
    fn check_stall(&mut self) -> Result<(), DropReason> {
        let (now, waits) = (Instant::now(), !self.is_written());
        if !self.stall.is_over(now, waits, self.written) {
            return Ok(());
        }
        self.driver.end(ErrorCode::SlowConsumer, "the client does not read what it granted credit for", 0);
        Err(DropReason::SlowConsumer)
    }

    /// When the session has something to do by the clock. A peer that we do not read is not silent: while much waits
    /// to be written, only [`Self::check_stall`] judges it. Its token's time runs all the same.
    fn session_due(&self) -> Option<u64> {
        if self.ending != Ending::No {
            None
        } else if self.unwritten() < TRANSMIT_BYTES_HIGH {
            self.driver.poll_timeout()
        } else {
            self.driver.token_expires()
        }
    }

    /// Once the session has ended: writes the rest, then closes our side.
    fn on_ending(&mut self) -> Result<(), DropReason> {
        let now = Instant::now();
        if self.ending == Ending::No && self.driver.has_ended() {
            self.ending = Ending::Writing { until: now + LINGER, said_goodbye: false };
        }
        let Ending::Writing { until, said_goodbye } = self.ending else { return Ok(()) };
        if self.is_written() && !said_goodbye {
            self.socket.send_close_notify();
            self.write()?;
            self.ending = Ending::Writing { until, said_goodbye: true };
        }
        if self.is_written() {
            let _closed = self.socket.shutdown_write();
            self.ending = Ending::Lingering { until };
        } else if now >= until {
            return Err(DropReason::SlowConsumer);
        }
        Ok(())
    }

    /// Another connection needs its place. Says why, if that can be said without waiting.
    fn evicted(mut self) {
        self.driver.end(ErrorCode::Busy, "too many connections without Hello", 1_000);
        let _unwritten = self.write();
        self.socket.send_close_notify();
        let _unwritten = self.write();
    }

    /// Sets the timer to what is due first.
    fn arm(&mut self) {
        let session = self.session_due().map(|due| self.context.clock.instant(due));
        let lingers = matches!(self.ending, Ending::Lingering { .. });
        let stall = self.stall.due().filter(|_| !lingers);
        let drain = match *self.phase.borrow() {
            // Past it the session has ended, and `ending` says what is next.
            Phase::Draining { until } if self.ending == Ending::No => Some(until),
            _ => None,
        };
        let ending = match self.ending {
            Ending::No => None,
            Ending::Writing { until, .. } | Ending::Lingering { until } => Some(until),
        };
        let far = || Instant::now() + std::time::Duration::from_secs(3600);
        let due = [session, stall, drain, ending].into_iter().flatten().min().unwrap_or_else(far);
        let armed = self.timer.deadline().into_std();
        // A timer that is early costs one turn, so one that only gets later is left alone until it fires.
        if due < armed || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due.into());
        }
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
