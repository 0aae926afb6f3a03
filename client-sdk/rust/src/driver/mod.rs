//! The one task of a client: it gives the engine bytes, commands, the store's answers and the time, and does what
//! the engine asks for. Every future that it selects over is cancel-safe, or lives in a field; partial bytes live in
//! the link's decoders and output buffer. It decides nothing but which of two connections is used while both are new.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | what comes in |
//! | `perform.rs` | what the engine asks for |
//! | `jobs.rs` | what is waited for |

mod jobs;
mod perform;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quinn::Endpoint;
use talaria_client_core::{
    ask::{Answer, Ask, AskError, AskId},
    engine::{Config, Engine, StopReason, TokenError},
    event::Acknowledged,
    outbox::{self, Draft},
    store::{LocalId, Store, StoreError},
};
use talaria_protocol::{ids::ConversationId, message::client::Token, session::Millis};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use self::jobs::{Entries, Jobs, first_read, has_room, joined, optional, until};
use crate::{
    client::{Connection, Shared},
    config::{ClientConfig, TokenProvider},
    error::{ConnectError, SendError},
    transport::{Dialer, Link, Lost, Progress, Transport},
};

/// Bytes that wait to be written; more stay in the session, which is bounded by its requests in flight.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Events kept for the first listener, while credit allows; older ones are only counted.
const EVENTS_KEPT_MAX: usize = 512;
/// How long the last packet of a QUIC connection has to leave, at the end of the task.
const PARTING_TIMEOUT: Duration = Duration::from_millis(20);
/// How long a shutdown waits for the server's farewell and the store.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

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
    NetworkChanged(Option<String>),
    Foreground(bool),
    /// A new socket, as when a phone's address changes; false when there is no QUIC connection or no socket.
    Rebind(oneshot::Sender<bool>),
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
    link: Option<Link>,
    /// At the end: the last connection's farewell may not have left.
    parting: Option<Endpoint>,
    jobs: Jobs,
    waiting: Waiting,
    missed: u64,
    /// Shutting down; the end at the latest.
    end: Option<Instant>,
}

/// Something happened.
enum Input {
    Command(Option<Command>),
    Link(Progress),
    Token(Result<String, TokenError>),
    Dialled(io::Result<Link>),
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
        let dialer = Dialer::new(&config)?;
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
            link: None,
            parting: None,
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
        self.drop_link();
        if let Some(endpoint) = self.parting.take() {
            let _ = timeout(PARTING_TIMEOUT, endpoint.wait_idle()).await;
        }
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
        let Jobs { token, race, commit, reads, full } = &mut self.jobs;
        tokio::select! {
            progress = jobs::next_of_link(&mut self.link) => Input::Link(progress),
            committed = optional(commit) => Input::Committed(joined(committed)),
            command = self.commands.recv(), if self.end.is_none() => Input::Command(command),
            dialled = jobs::next_of_race(race) => Input::Dialled(dialled),
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
            Input::Link(progress) => self.on_progress(progress),
            Input::Token(token) => {
                self.jobs.token = None;
                self.engine.handle_token(now, token.map(Token));
            }
            Input::Dialled(dialled) => self.on_dialled(dialled),
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
            Command::NetworkChanged(network) => self.on_network_changed(network),
            Command::Foreground(foreground) => self.engine.handle_foreground(now, foreground),
            Command::Rebind(done) => {
                let quic = self.link.as_ref().filter(|link| link.transport() == Transport::Quic);
                let _ = done.send(quic.is_some_and(|link| link.rebind().is_ok()));
            }
            Command::DropConnection => self.give_up_link(),
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

    // ---- the connection ----

    fn on_progress(&mut self, progress: Progress) {
        let now = self.now();
        match progress {
            Progress::Read => self.on_read(),
            Progress::Wrote => {}
            Progress::Confirmed => {
                self.shared.early_data_taken.fetch_add(1, Ordering::Relaxed);
                self.on_won();
            }
            Progress::BeginAgain => {
                tracing::debug!("the server did not take the early data");
                self.shared.early_data_refused.fetch_add(1, Ordering::Relaxed);
                self.on_won();
                if let Some(link) = &self.link {
                    self.engine.handle_connected(now, link.streams());
                }
            }
            Progress::Lost(lost) => self.on_lost(lost),
        }
    }

    fn on_read(&mut self) {
        let now = self.now();
        let mut index = 0;
        // A frame may end the session, and with it the link.
        while let Some(decoder) = self.link.as_mut().and_then(|link| link.decoder(index)) {
            decoder.set_frame_bytes_max(self.engine.frame_bytes_max());
            match decoder.poll_frame() {
                Ok(Some(payload)) => self.engine.handle_frame(now, payload),
                Ok(None) => index += 1,
                Err(error) => return self.engine.handle_frame_error(now, error),
            }
        }
    }

    /// A link that works, or one that may; or no link at all.
    fn on_dialled(&mut self, dialled: io::Result<Link>) {
        let now = self.now();
        if self.link.as_ref().is_some_and(Link::is_answered) {
            // Just in time. A second hello could arrive before the end of the first one's handshake, and the device would
            // be taken over by itself.
            self.jobs.race = None;
            return;
        }
        self.drop_link();
        match dialled {
            Ok(link) => {
                let (streams, is_provisional) = (link.streams(), link.is_provisional());
                self.link = Some(link);
                if !is_provisional {
                    self.on_won();
                }
                self.engine.handle_connected(now, streams);
            }
            Err(error) => {
                tracing::debug!(%error, "could not connect");
                self.jobs.race = None;
                self.dialer.on_failed();
                self.shared.on_failure(Some(error.to_string()));
                self.engine.handle_disconnected(now);
            }
        }
    }

    /// The server is there: the race is over.
    fn on_won(&mut self) {
        self.jobs.race = None;
        self.shared.on_failure(None);
        if let Some(link) = &self.link {
            self.dialer.on_won(link.transport());
        }
    }

    fn on_lost(&mut self, Lost { why, code }: Lost) {
        let now = self.now();
        tracing::debug!(%why, "the connection is lost");
        let link = self.link.take();
        if self.engine.welcome().is_none() {
            self.shared.on_failure(Some(why.clone()));
            if link.is_some_and(|link| link.transport() == Transport::Quic) {
                self.dialer.on_quic_broken();
            }
        }
        match (&mut self.jobs.race, code) {
            (Some(race), None) => race.on_quic_failed(&why),
            (_, Some(code)) => {
                self.jobs.race = None;
                self.engine.handle_closed(now, code, why);
            }
            (None, None) => self.engine.handle_disconnected(now),
        }
    }

    /// As if it were lost, whatever there is.
    fn give_up_link(&mut self) {
        self.jobs.race = None;
        self.drop_link();
        self.engine.handle_disconnected(self.now());
    }

    fn drop_link(&mut self) {
        self.parting = self.link.take().and_then(Link::close).filter(|_| self.end.is_some());
    }

    fn on_network_changed(&mut self, network: Option<String>) {
        self.dialer.on_network(network);
        if let Some(Err(error)) = self.link.as_ref().map(Link::rebind) {
            tracing::debug!(%error, "no socket in the new network");
            self.give_up_link();
        }
        self.engine.handle_network_changed(self.now());
    }
}
