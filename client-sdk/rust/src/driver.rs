//! The one task of a client: it gives the engine bytes, commands, the store's answers and the time, and does what
//! the engine asks for. Every future that it selects over is cancel-safe, or lives in a field; partial bytes live in
//! the decoder and in the output buffer. It decides nothing.

use std::{
    collections::HashMap,
    future::{Future, pending},
    io,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use talaria_client_core::{
    ask::{Answer, Ask, AskError, AskId},
    engine::{Config, Connection as EngineConnection, Effect, Engine, StopReason, TokenError},
    event::{Acknowledged, Event},
    outbox::{self, Draft},
    store::{LocalId, Store, StoreError, StoredEntry},
};
use talaria_protocol::{
    frame::FrameDecoder, ids::ConversationId, limits::FRAME_BYTES_MAX_BEFORE_WELCOME, message::client::Token,
    session::Millis,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until},
};
use tokio_rustls::client::TlsStream;

use crate::{
    client::{Connection, Me, Shared},
    config::{ClientConfig, TokenProvider},
    error::{ConnectError, SendError},
    events::Room,
    tls::Dialer,
};

/// Bytes that wait to be written; more stay in the session, which is bounded by its requests in flight.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Events kept for the first listener, while credit allows; older ones are only counted.
const EVENTS_KEPT_MAX: usize = 512;
/// How long a shutdown waits for the server's farewell and the store.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

type Stream = TlsStream<TcpStream>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Entries = Result<Vec<StoredEntry>, StoreError>;
type ReadJob = (ConversationId, JoinHandle<Entries>);

/// What handles ask of the task.
pub(crate) enum Command {
    Send {
        draft: Draft,
        queued: oneshot::Sender<Result<LocalId, outbox::QueueError>>,
        acknowledged: oneshot::Sender<Result<Acknowledged, SendError>>,
    },
    Ask {
        ask: Ask,
        timeout: Duration,
        answer: oneshot::Sender<Result<Answer, AskError>>,
    },
    Retry,
    DropConnection,
    Shutdown(oneshot::Sender<()>),
}

/// Bytes of the system's randomness.
///
/// # Panics
/// When the system has none: nothing can be done safely then.
#[allow(clippy::expect_used, reason = "a system without randomness cannot run this")]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

struct Reader {
    half: ReadHalf<Stream>,
    decoder: FrameDecoder,
}

struct Writer {
    half: WriteHalf<Stream>,
    output: BytesMut,
    unflushed: bool,
}

/// What the task waits for; each at most once at a time.
#[derive(Default)]
struct Jobs {
    token: Option<Boxed<Result<String, TokenError>>>,
    dial: Option<Boxed<io::Result<Box<Stream>>>>,
    commit: Option<JoinHandle<Result<(), StoreError>>>,
    reads: Vec<ReadJob>,
    /// A listener without room.
    full: Option<mpsc::Sender<Event>>,
}

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    queued: HashMap<LocalId, oneshot::Sender<Result<LocalId, outbox::QueueError>>>,
    acknowledged: HashMap<LocalId, oneshot::Sender<Result<Acknowledged, SendError>>>,
    answers: HashMap<AskId, oneshot::Sender<Result<Answer, AskError>>>,
    shutdown: Vec<oneshot::Sender<()>>,
}

/// See the module's words.
pub(crate) struct Driver {
    engine: Engine,
    dialer: Dialer,
    tokens: TokenProvider,
    store: Arc<dyn Store>,
    commands: mpsc::Receiver<Command>,
    connection: watch::Sender<Connection>,
    shared: Arc<Shared>,
    origin: Instant,
    reader: Option<Reader>,
    writer: Option<Writer>,
    jobs: Jobs,
    waiting: Waiting,
    missed: u64,
    /// Shutting down; the end at the latest.
    end: Option<Instant>,
}

/// Something happened.
enum Input {
    Command(Option<Command>),
    Read(io::Result<usize>),
    Wrote(io::Result<()>),
    Token(Result<String, TokenError>),
    Dialed(io::Result<Box<Stream>>),
    Committed(Result<(), StoreError>),
    Entries(ConversationId, Entries),
    /// A listener has room, or somebody new listens.
    Room,
    Time,
}

impl Driver {
    pub(crate) async fn new(
        config: ClientConfig,
        commands: mpsc::Receiver<Command>,
        connection: watch::Sender<Connection>,
        shared: Arc<Shared>,
    ) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(&config.server, config.server_name.as_deref(), &config.roots)?;
        let store = Arc::clone(&config.store);
        let loaded = tokio::task::spawn_blocking(move || store.load())
            .await
            .map_err(|error| StoreError(error.into()))??;
        let engine_config =
            Config { tenant: config.tenant, client: config.info, ..Config::new(config.device) };
        Ok(Self {
            engine: Engine::new(engine_config, loaded, random()),
            dialer,
            tokens: config.token,
            store: config.store,
            commands,
            connection,
            shared,
            origin: Instant::now(),
            reader: None,
            writer: None,
            jobs: Jobs::default(),
            waiting: Waiting::default(),
            missed: 0,
            end: None,
        })
    }

    /// Until the client has stopped for good or nobody holds it.
    pub(crate) async fn run(mut self) {
        loop {
            self.perform();
            if self.is_over() {
                break;
            }
            let input = self.next_input().await;
            self.on_input(input);
        }
        self.shared.listeners.end();
        for (_, waiter) in self.waiting.acknowledged.drain() {
            let _ = waiter.send(Err(SendError::Stopped));
        }
        for waiter in self.waiting.shutdown.drain(..) {
            let _ = waiter.send(());
        }
    }

    fn now(&self) -> Millis {
        Millis::default().after(self.origin.elapsed())
    }

    fn instant(&self, at: Millis) -> Instant {
        // Far enough for any timer.
        self.origin + Duration::from_millis(at.0.min(u64::from(u32::MAX) * 1_000))
    }

    fn is_stopped(&self) -> bool {
        matches!(*self.connection.borrow(), Connection::Stopped(_))
    }

    /// The client has stopped, the store has everything that it takes, the app was told everything; or the time for
    /// that is over.
    fn is_over(&self) -> bool {
        let store_done = match &*self.connection.borrow() {
            Connection::Stopped(StopReason::StoreFailed(_)) => true,
            Connection::Stopped(_) => self.engine.is_store_idle(),
            _ => false,
        };
        (store_done && (self.engine.events_waiting() == 0 || self.end.is_some()))
            || self.end.is_some_and(|end| Instant::now() >= end)
    }

    // ---- in ----

    async fn next_input(&mut self) -> Input {
        let now = self.now();
        let deadline = self.engine.poll_timeout(now).map(|at| self.instant(at));
        let deadline = [deadline, self.end].into_iter().flatten().min();
        let Jobs { token, dial, commit, reads, full } = &mut self.jobs;
        tokio::select! {
            read = read(&mut self.reader) => Input::Read(read),
            wrote = write(&mut self.writer) => Input::Wrote(wrote),
            committed = optional(commit) => Input::Committed(joined(committed)),
            command = self.commands.recv(), if self.end.is_none() => Input::Command(command),
            dialed = optional(dial) => Input::Dialed(dialed),
            token = optional(token) => Input::Token(token),
            (conversation, entries) = first_read(reads) => Input::Entries(conversation, joined(entries)),
            () = has_room(full) => Input::Room,
            () = self.shared.listeners.came() => Input::Room,
            () = until(deadline) => Input::Time,
        }
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Command(Some(command)) => self.on_command(command),
            Input::Command(None) => self.begin_end(),
            Input::Read(Ok(1..)) => self.on_read(),
            Input::Read(_) => self.on_lost(),
            Input::Wrote(Ok(())) => {}
            // The server may have said why before it closed: that is still to be read.
            Input::Wrote(Err(_)) => self.writer = None,
            Input::Token(token) => {
                self.jobs.token = None;
                self.engine.handle_token(now, token.map(Token));
            }
            Input::Dialed(dialed) => {
                self.jobs.dial = None;
                self.on_dialed(dialed);
            }
            Input::Committed(committed) => {
                self.jobs.commit = None;
                self.engine.handle_stored(now, committed);
            }
            Input::Entries(conversation, entries) => self.engine.handle_read(now, conversation, entries),
            Input::Room => self.jobs.full = None,
            Input::Time => self.engine.handle_timeout(now),
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Send { draft, queued, acknowledged } => match self.engine.handle_send(now, draft) {
                Ok(local_id) => {
                    self.waiting.queued.insert(local_id, queued);
                    if self.is_stopped() {
                        // Kept for the next start.
                        let _ = acknowledged.send(Err(SendError::Stopped));
                    } else {
                        self.waiting.acknowledged.insert(local_id, acknowledged);
                    }
                }
                Err(error) => {
                    let _ = queued.send(Err(error));
                }
            },
            Command::Ask { ask, timeout, answer } => {
                let id = self.engine.handle_ask(now, ask, timeout);
                self.waiting.answers.insert(id, answer);
            }
            Command::Retry => self.engine.handle_retry(now),
            Command::DropConnection => self.on_lost(),
            Command::Shutdown(done) => {
                self.waiting.shutdown.push(done);
                self.begin_end();
            }
        }
    }

    fn begin_end(&mut self) {
        self.end.get_or_insert(Instant::now() + SHUTDOWN_TIMEOUT);
        self.engine.handle_shutdown(self.now());
    }

    fn on_read(&mut self) {
        let now = self.now();
        while let Some(Reader { decoder, .. }) = &mut self.reader {
            decoder.set_frame_bytes_max(self.engine.frame_bytes_max());
            match decoder.poll_frame() {
                Ok(Some(payload)) => self.engine.handle_frame(now, payload),
                Ok(None) => return,
                Err(error) => return self.engine.handle_frame_error(now, error),
            }
        }
    }

    fn on_dialed(&mut self, dialed: io::Result<Box<Stream>>) {
        match dialed {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(*stream);
                let decoder = FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_WELCOME);
                self.reader = Some(Reader { half: reader, decoder });
                self.writer = Some(Writer { half: writer, output: BytesMut::new(), unflushed: false });
                self.shared.on_failure(None);
                self.engine.handle_connected(self.now());
            }
            Err(error) => {
                tracing::debug!(%error, "could not connect");
                self.shared.on_failure(Some(error.to_string()));
                self.engine.handle_disconnected(self.now());
            }
        }
    }

    fn on_lost(&mut self) {
        self.jobs.dial = None;
        (self.reader, self.writer) = (None, None);
        self.engine.handle_disconnected(self.now());
    }

    // ---- out ----

    /// Does all that the engine asks for now.
    fn perform(&mut self) {
        self.tell();
        while let Some(effect) = self.engine.poll_effect() {
            self.take_output();
            self.on_effect(effect);
        }
        self.take_output();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.engine.stats();
    }

    fn take_output(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        while writer.output.len() < OUTPUT_BYTES_MAX
            && let Some(frame) = self.engine.poll_transmit()
        {
            writer.output.extend_from_slice(&frame);
        }
    }

    /// Tells listeners what they have room for. The rest waits in the engine, and holds credit back.
    fn tell(&mut self) {
        let now = self.now();
        while self.engine.events_waiting() > 0 {
            match self.shared.listeners.room() {
                Room::Yes => {
                    if self.missed > 0 {
                        self.shared.listeners.tell(&Event::Missed { events: self.missed });
                        self.missed = 0;
                    } else if let Some(event) = self.engine.poll_event(now) {
                        self.shared.listeners.tell(&event);
                    }
                }
                Room::Full(sender) => {
                    self.jobs.full = Some(sender);
                    return;
                }
                Room::NotBegun
                    if self.engine.is_pressed() || self.engine.events_waiting() > EVENTS_KEPT_MAX =>
                {
                    self.engine.poll_event(now);
                    self.missed += 1;
                }
                Room::NotBegun => return,
            }
        }
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::NeedToken => self.jobs.token = Some(self.tokens.ask()),
            Effect::Connect => {
                let dial = self.dialer.clone().dial();
                self.jobs.dial = Some(Box::pin(async { dial.await.map(Box::new) }));
            }
            Effect::Disconnect(reason) => {
                if let Some(reason) = reason {
                    tracing::warn!(%reason, "the connection was given up");
                    self.shared.on_failure(Some(reason.to_string()));
                }
                (self.reader, self.writer) = (None, None);
            }
            Effect::Store(batch) => {
                let store = Arc::clone(&self.store);
                self.jobs.commit = Some(tokio::task::spawn_blocking(move || store.commit(&batch)));
            }
            Effect::Read { conversation, from, entries_max } => {
                let store = Arc::clone(&self.store);
                let read = move || store.entries(conversation, from, entries_max);
                self.jobs.reads.push((conversation, tokio::task::spawn_blocking(read)));
            }
            Effect::Queued(local_id) => {
                if let Some(waiter) = self.waiting.queued.remove(&local_id) {
                    let _ = waiter.send(Ok(local_id));
                }
            }
            Effect::Acknowledged(acknowledged) => {
                if let Some(waiter) = self.waiting.acknowledged.remove(&acknowledged.local_id) {
                    let _ = waiter.send(Ok(acknowledged));
                }
            }
            Effect::Failed(local_id, failure) => {
                if let Some(waiter) = self.waiting.acknowledged.remove(&local_id) {
                    let _ = waiter.send(Err(failure.into()));
                }
            }
            Effect::Answer(ask_id, answer) => {
                if let Some(waiter) = self.waiting.answers.remove(&ask_id) {
                    let _ = waiter.send(answer);
                }
            }
            Effect::Connection(connection) => self.show(connection),
        }
    }

    fn show(&mut self, connection: EngineConnection) {
        let connection = match connection {
            EngineConnection::Connecting => Connection::Connecting,
            EngineConnection::Online => {
                let me = self.engine.welcome().map(|welcome| Me {
                    user: welcome.user,
                    subject: welcome.subject.clone(),
                    device_number: welcome.device_number,
                });
                *self.shared.me.lock().unwrap_or_else(PoisonError::into_inner) = me;
                Connection::Online
            }
            EngineConnection::Backoff { until } => Connection::Backoff { until: self.instant(until) },
            EngineConnection::AuthRequired => Connection::AuthRequired,
            EngineConnection::Stopped(reason) => {
                for (_, waiter) in self.waiting.acknowledged.drain() {
                    let _ = waiter.send(Err(SendError::Stopped));
                }
                Connection::Stopped(reason)
            }
        };
        tracing::debug!(?connection, "connection");
        self.connection.send_replace(connection);
    }
}

/// Bytes into the decoder: `read_buf` is cancel-safe, what it has read is in the buffer.
async fn read(reader: &mut Option<Reader>) -> io::Result<usize> {
    match reader {
        Some(Reader { half, decoder }) => half.read_buf(decoder.read_buf()).await,
        None => pending().await,
    }
}

/// Bytes out of the buffer: `write_buf` is cancel-safe, what it has written is out of the buffer; so is `flush`.
async fn write(writer: &mut Option<Writer>) -> io::Result<()> {
    match writer {
        Some(Writer { half, output, unflushed }) if !output.is_empty() => {
            *unflushed = true;
            half.write_buf(output).await.map(drop)
        }
        Some(Writer { half, unflushed, .. }) if *unflushed => {
            half.flush().await?;
            *unflushed = false;
            Ok(())
        }
        _ => pending().await,
    }
}

async fn optional<T>(job: &mut Option<impl Future<Output = T> + Unpin>) -> T {
    match job {
        Some(job) => job.await,
        None => pending().await,
    }
}

fn joined<T>(job: Result<Result<T, StoreError>, JoinError>) -> Result<T, StoreError> {
    job.unwrap_or_else(|error| Err(StoreError(error.into())))
}

/// The oldest read, taken off the list when it ends.
async fn first_read(reads: &mut Vec<ReadJob>) -> (ConversationId, Result<Entries, JoinError>) {
    let Some((conversation, job)) = reads.first_mut() else { return pending().await };
    let end = (*conversation, job.await);
    reads.remove(0);
    end
}

async fn has_room(full: &mut Option<mpsc::Sender<Event>>) {
    match full {
        // The permit is given back at once: only the driver sends.
        Some(sender) => drop(sender.reserve().await),
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
