//! The client's heart: one engine per device. Frames, commands, tokens, the store's answers and the time come in by
//! `handle_*`; frames to write come out by `poll_transmit`, things to do by `poll_effect`, things to show by
//! `poll_event`, the next deadline by `poll_timeout`. A driver polls all of them after every `handle_*`.
//!
//! An entry's way: frame → timeline (order, proof) → batch → store → `Ack` and event. A message's way: command →
//! outbox → batch → store → frame → `Sent` or own entry. Nothing is acknowledged, shown or sent before its batch is
//! committed. Events are polled only when the app has room for them: what is not polled holds credit back, so an app
//! that does not keep up slows the server down and costs bounded memory.

mod batch;
mod commands;
mod entries;
mod forks;
mod frames;
mod link;
mod pump;
mod stored;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use talaria_protocol::{
    entry::Entry,
    ids::{ConversationId, DeviceId},
    limits::{CREDIT_BYTES_DEFAULT, CREDIT_ENTRIES_DEFAULT},
    message::{
        Credit, Cursor, RequestId, SyncToken,
        client::{ClientInfo, Token},
        server::Welcome,
    },
    session::{
        Millis,
        client::{ClientSession, CloseReason},
    },
};

use crate::{
    ask::{Answer, AskError, AskId, Asks},
    backoff::Backoff,
    event::{Acknowledged, Event, SendFailure, Stats},
    mint::IdMint,
    outbox::Outbox,
    rng::Rng,
    store::{Loaded, LocalId, StoreBatch},
    timeline::{GAP_MS_MAX, Streams, Timeline},
};
use batch::Batches;
use forks::Rewinds;
use sync::Sync;

/// While entries come at all, what is missing may still be on its way behind them: a gap is asked for again after
/// this time at the latest.
const GAP_IN_TRAFFIC_MS_MAX: u64 = 60_000;

/// Who this device is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Empty: the default tenant.
    pub tenant: String,
    /// Made once per installation.
    pub device: DeviceId,
    /// For the operator's logs.
    pub client: ClientInfo,
    /// Entries and entry bytes that may be on their way or wait for the app.
    pub window: Credit,
}

impl Config {
    /// Of a device, with the defaults.
    pub fn new(device: DeviceId) -> Self {
        Self {
            tenant: String::new(),
            device,
            client: ClientInfo::default(),
            window: Credit { entries: CREDIT_ENTRIES_DEFAULT, bytes: CREDIT_BYTES_DEFAULT },
        }
    }
}

/// Something for the driver to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Get a token for this user and give it to [`Engine::handle_token`].
    NeedToken,
    /// Connect now, anew if that is under way; then [`Engine::handle_connected`] or
    /// [`Engine::handle_disconnected`].
    Connect,
    /// Drop the connection. With a reason, the server broke a rule or fell silent: report it.
    Disconnect(Option<CloseReason>),
    /// Commit this; then [`Engine::handle_stored`]. One at a time.
    Store(StoreBatch),
    /// Read held entries; then [`Engine::handle_read`].
    Read {
        /// Of this conversation.
        conversation: ConversationId,
        /// From this seq on.
        from: u64,
        /// At most so many.
        entries_max: usize,
    },
    /// The message is in the outbox, and the outbox in the store.
    Queued(LocalId),
    /// The message is in the log.
    Acknowledged(Acknowledged),
    /// The message will not be in the log.
    Failed(LocalId, SendFailure),
    /// Of an ask.
    Answer(AskId, Result<Answer, AskError>),
    /// Show it.
    Connection(Connection),
}

/// How it stands with the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// On its way.
    #[default]
    Connecting,
    /// Messages flow.
    Online,
    /// The next attempt is at `until`.
    Backoff {
        /// In the engine's time.
        until: Millis,
    },
    /// No token is accepted: log in, then [`Engine::handle_retry`].
    AuthRequired,
    /// For good.
    Stopped(StopReason),
}

/// Why an engine does nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A newer session of this device took over. Two processes share a device id: let one of them end.
    #[error(
        "another session of this device took over: two programs at once need a device id of their own each"
    )]
    TakenOver,
    /// The user logged out. Start again after a log-in.
    #[error("logged out")]
    LoggedOut,
    /// The app asked for it.
    #[error("shut down")]
    ShutDown,
    /// The server will not have this device, whatever the token. Fix what the message says.
    #[error("the server refuses this device: {} ({message})", crate::event::code_name(*code))]
    Refused {
        /// A number of spec/errors.md.
        code: u32,
        /// For a developer.
        message: String,
    },
    /// The store failed: what it holds is not known. Repair it, then start again.
    #[error("the store failed: {0}")]
    StoreFailed(String),
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// For now: asked again after a while.
    #[error("no token can be had now")]
    Unavailable,
    /// The user must log in.
    #[error("the user must log in")]
    LogInRequired,
}

/// An event and the credit that it holds back.
#[derive(Debug)]
struct Told {
    event: Event,
    cost: Cost,
}

/// Credit of one connection, in hand until the app has taken what came for it.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    connection: u64,
    entries: u64,
    bytes: u64,
}

/// What a request in flight is about.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Send,
    Ask(AskId),
    Sync,
    Reauth,
    /// Read what [`Timeline::on_fetching`] waits for.
    Fetch(ConversationId),
}

/// The connection, where there is one.
#[derive(Debug)]
enum Link {
    /// Waits for [`Engine::handle_token`].
    AwaitingToken,
    /// Waits for its time, which no wish of the app brings before `not_before`: the server asked for that.
    Backoff {
        until: Millis,
        not_before: Millis,
    },
    /// The driver connects.
    Dialing,
    Open(Box<Open>),
    /// Waits for [`Engine::handle_retry`].
    AuthRequired,
    Stopped(StopReason),
}

#[derive(Debug)]
struct Open {
    session: ClientSession,
    live: Option<Live>,
    /// What was asked before `Welcome`.
    early_sync: Option<(RequestId, Sync)>,
}

/// What is known since `Welcome`.
#[derive(Debug)]
struct Live {
    since: Millis,
    welcome: Welcome,
    requests: HashMap<RequestId, Purpose>,
    sync: Sync,
    reauth_at: Option<Millis>,
}

/// See the module's words.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    link: Link,
    token: Option<Token>,
    /// No session was opened with the token yet.
    token_is_new: bool,
    token_expires_at: Option<Millis>,
    connection: u64,
    streams: Streams,
    /// When an entry came last.
    last_delivery: Millis,
    /// The app is not in front.
    background: bool,
    backoff: Backoff,
    rng: Rng,
    mint: IdMint,
    outbox: Outbox,
    asks: Asks,
    next_ask: u64,
    timelines: HashMap<ConversationId, Timeline>,
    to_resume: BTreeSet<ConversationId>,
    to_fetch: BTreeMap<ConversationId, Millis>,
    rewinds: Rewinds,
    gaps: BTreeSet<ConversationId>,
    sync_token: Option<SyncToken>,
    /// Conversations whose cursor moved since that token; `None`: not known, after a start.
    moved: Option<BTreeSet<ConversationId>>,
    batches: Batches,
    /// Came and was not consumed: is with the store or waits for the app. Over all connections.
    in_hand: Credit,
    shutting_down: bool,
    effects: VecDeque<Effect>,
    events: VecDeque<Told>,
    stats: Stats,
}

impl Engine {
    /// Goes on with what the store holds. Asks for a token first.
    pub fn new(config: Config, loaded: Loaded, seed: [u8; 32]) -> Self {
        let cursors = loaded.cursors.into_iter();
        Self {
            config,
            link: Link::AwaitingToken,
            token: None,
            token_is_new: true,
            token_expires_at: None,
            connection: 0,
            streams: Streams::One,
            last_delivery: Millis::default(),
            background: false,
            backoff: Backoff::default(),
            rng: Rng::new(seed),
            mint: IdMint::new(loaded.last_minted),
            outbox: Outbox::load(loaded.outbox, loaded.next_local_id),
            asks: Asks::default(),
            next_ask: 1,
            timelines: cursors.map(|(id, cursor)| (id, Timeline::new(id, cursor))).collect(),
            to_resume: BTreeSet::new(),
            to_fetch: BTreeMap::new(),
            rewinds: Rewinds::new(),
            gaps: BTreeSet::new(),
            sync_token: loaded.sync_token,
            moved: None,
            batches: Batches::new(),
            in_hand: Credit::default(),
            shutting_down: false,
            effects: VecDeque::from([Effect::NeedToken]),
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    // ---- out ----

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next thing to show, in order. Poll it when there is room for it.
    pub fn poll_event(&mut self, now: Millis) -> Option<Event> {
        let Told { event, cost } = self.events.pop_front()?;
        self.consume(now, cost);
        if !self.to_resume.is_empty() {
            self.pump(now);
        }
        Some(event)
    }

    /// The next whole frame to write.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        match &mut self.link {
            Link::Open(open) => open.session.poll_transmit(),
            _ => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        let link = match &self.link {
            Link::Backoff { until, .. } => Some(*until),
            Link::Open(open) => [
                open.session.poll_timeout(),
                open.live.as_ref().and_then(|live| live.reauth_at),
                open.live.as_ref().and_then(|live| live.sync.poll_timeout(now)),
                self.outbox.poll_timeout(now),
                self.to_fetch.values().copied().filter(|at| *at > now).min(),
                self.gaps.iter().filter_map(|id| self.gap_deadline(*id)).min(),
            ]
            .into_iter()
            .flatten()
            .min(),
            _ => None,
        };
        [link, self.asks.poll_timeout(now)].into_iter().flatten().min()
    }

    /// The longest payload that the decoder may take now.
    pub fn frame_bytes_max(&self) -> usize {
        match &self.link {
            Link::Open(open) => open.session.frame_bytes_max(),
            _ => talaria_protocol::limits::FRAME_BYTES_MAX_BEFORE_WELCOME,
        }
    }

    /// Counted since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Own messages on their way.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// Events that wait for [`poll_event`](Self::poll_event).
    pub fn events_waiting(&self) -> usize {
        self.events.len()
    }

    /// What came and is not off this device's hands: it waits for entries before it, for the store or for the app.
    pub fn in_hand(&self) -> Credit {
        self.in_hand
    }

    /// More than half of the credit waits for the app: the server will soon be held back.
    pub fn is_pressed(&self) -> bool {
        let window = self.config.window;
        self.in_hand.entries > window.entries / 2 || self.in_hand.bytes > window.bytes / 2
    }

    /// Who this device's user is and what the server allows, while online.
    pub fn welcome(&self) -> Option<&Welcome> {
        match &self.link {
            Link::Open(open) => open.live.as_ref().map(|live| &live.welcome),
            _ => None,
        }
    }

    /// Nothing is with the store, nor to be.
    pub fn is_store_idle(&self) -> bool {
        self.batches.is_idle()
    }

    /// The seq and chain that the store holds of a conversation.
    pub fn cursor(&self, conversation: ConversationId) -> Option<Cursor> {
        self.timelines.get(&conversation).map(Timeline::stored)
    }

    /// Entries that came and wait for those before them, of all conversations. Bounded by the credit.
    pub fn entries_waiting(&self) -> usize {
        self.timelines.values().map(Timeline::waiting).sum()
    }

    // ---- shared by the parts ----

    /// When a gap is asked for again.
    fn gap_deadline(&self, conversation: ConversationId) -> Option<Millis> {
        let late = self.timelines.get(&conversation)?.gap_deadline()?;
        let in_traffic = Millis(late.0 + GAP_IN_TRAFFIC_MS_MAX - GAP_MS_MAX);
        Some(late.max(Millis(self.last_delivery.0 + GAP_MS_MAX).min(in_traffic)))
    }

    fn live(&mut self) -> Option<(&mut ClientSession, &mut Live)> {
        match &mut self.link {
            Link::Open(open) => {
                let Open { session, live, .. } = open.as_mut();
                live.as_mut().map(|live| (session, live))
            }
            _ => None,
        }
    }

    /// Something came for credit.
    fn receive(&mut self, entries: u64, bytes: usize) -> Cost {
        let cost = Cost { connection: self.connection, entries, bytes: bytes as u64 };
        self.in_hand.entries += cost.entries;
        self.in_hand.bytes += cost.bytes;
        cost
    }

    /// It is off this device's hands.
    fn consume(&mut self, now: Millis, cost: Cost) {
        self.in_hand.entries -= cost.entries;
        self.in_hand.bytes -= cost.bytes;
        if cost.entries == 0 || cost.connection != self.connection {
            return;
        }
        if let Some((session, _)) = self.live() {
            session.consumed(now, cost.entries, cost.bytes);
        }
    }

    fn consume_all(&mut self, now: Millis, entries: &[Entry]) {
        for entry in entries {
            let cost = Cost { connection: self.connection, entries: 1, bytes: entry.encoded_len() as u64 };
            self.consume(now, cost);
        }
    }

    /// Tells the app, after everything that came before.
    fn tell(&mut self, event: Event) {
        let told = Told { event, cost: Cost::default() };
        match self.batches.behind(batch::After::Tell(told)) {
            Some(batch::After::Tell(told)) => self.events.push_back(told),
            Some(batch::After::Do(effect)) => self.effects.push_back(effect),
            None => {}
        }
    }

    fn show(&mut self, connection: Connection) {
        self.effects.push_back(Effect::Connection(connection));
    }
}

/// A token is renewed this long before it expires, or at half of a shorter life.
fn renewal_delay(lifetime: Duration) -> Duration {
    let ahead = talaria_protocol::limits::REAUTH_AHEAD;
    if lifetime > ahead * 2 { lifetime - ahead } else { lifetime / 2 }
}
