//! A client as the specification wants it: a store with cursors, an outbox that pipelines and retries under the
//! same ids, credit, acknowledgements, resume and sync. It checks all that a client must check.

#[path = "hearing.rs"]
mod hearing;

use std::collections::{BTreeMap, HashMap, VecDeque};

use talaria_core::effect::SessionKey;
use talaria_protocol::{
    chain::Leaf,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        Credit, Cursor, RequestId, Role, SyncToken,
        client::{History, Request},
    },
};

use super::{book::Book, world::World};

/// What a client has put on its connection.
#[derive(Clone, Debug)]
pub(crate) enum ToServer {
    Request(RequestId, Request),
    Ack(ConversationId, u64),
    Resume(Vec<(ConversationId, Cursor)>),
    Credit(Credit),
}

/// How a device stands to the delivery of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscribed {
    /// There may be something: resume it.
    Wanted,
    No,
    Yes,
}

/// A conversation in a device's store.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) cursor: Cursor,
    /// seq → leaf, and whether it was hidden.
    pub(crate) entries: BTreeMap<u64, (Leaf, bool)>,
    pub(crate) subscribed: Subscribed,
    /// Told by `Truncated` that these are gone.
    pub(crate) gone: Vec<std::ops::RangeInclusive<u64>>,
    /// `CaughtUp` has come since it was resumed.
    caught_up: bool,
    offered: u64,
    acked: u64,
}

impl Default for Held {
    fn default() -> Self {
        let cursor = Cursor::START;
        let subscribed = Subscribed::Wanted;
        Self {
            cursor,
            entries: BTreeMap::new(),
            subscribed,
            gone: Vec::new(),
            caught_up: false,
            offered: 0,
            acked: 0,
        }
    }
}

/// Something to be appended, until its answer is definite.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: ClientMessageId,
    pub(crate) request: Request,
    pub(crate) in_flight: Option<RequestId>,
}

#[derive(Debug)]
enum Asked {
    Item(ClientMessageId),
    Sync,
    History(History, u64),
    Other,
}

/// A sync whose listed conversations are not all held yet.
#[derive(Debug)]
struct Syncing {
    token: Option<SyncToken>,
    listed: HashMap<ConversationId, u64>,
    complete: bool,
    reset: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) user: UserId,
    pub(crate) number: u8,
    pub(crate) role: Role,
    pub(crate) session: Option<SessionKey>,
    pub(crate) opened: bool,
    /// Its peer has proved that it is there now.
    pub(crate) confirmed: bool,
    /// The session that the one that opens takes over.
    replaced: Option<SessionKey>,
    pub(crate) outbox: Vec<Item>,
    pub(crate) held: HashMap<ConversationId, Held>,
    pub(crate) to_server: VecDeque<ToServer>,
    requests: HashMap<RequestId, Asked>,
    last_request: u64,
    granted: Credit,
    received: Credit,
    token: Option<SyncToken>,
    syncing: Option<Syncing>,
    needs_sync: bool,
    /// The server's time at `mono_ms`, as the session was told.
    clock: (u64, u64),
    last_minted_ms: u64,
}

fn conversation_of(request: &Request) -> Option<ConversationId> {
    match request {
        Request::Send(send) => Some(send.conversation),
        _ => None,
    }
}

impl Device {
    pub(crate) fn new(world: &World, name: &'static str, number: u8, role: Role) -> Self {
        Self {
            name,
            user: world.user(name),
            number,
            role,
            session: None,
            opened: false,
            confirmed: false,
            replaced: None,
            outbox: Vec::new(),
            held: HashMap::new(),
            to_server: VecDeque::new(),
            requests: HashMap::new(),
            last_request: 0,
            granted: Credit::default(),
            received: Credit::default(),
            token: None,
            syncing: None,
            needs_sync: false,
            clock: (super::world::BEGIN_MS, 0),
            last_minted_ms: 0,
        }
    }

    // Connection.

    /// A new connection, which takes an old one over.
    pub(crate) fn connect(&mut self, world: &mut World, window: Credit, shard: u16, confirmed: bool) {
        self.replaced = self.session.filter(|_| self.opened);
        self.lose_connection();
        self.granted = window;
        self.confirmed = confirmed;
        let identity = world.identity(self.name, self.number, self.role);
        self.session = Some(world.open_at(shard, identity, window, confirmed));
    }

    /// Its handshake is complete.
    pub(crate) fn confirm(&mut self, world: &mut World, book: &mut Book) {
        if let Some(session) = self.session
            && !std::mem::replace(&mut self.confirmed, true)
        {
            let identity = world.identity(self.name, self.number, self.role);
            world.confirm(session, &identity);
            if self.opened {
                self.check_taken_over(world, book);
            }
        }
    }

    /// Of one shard that is so at once; of many in the end.
    fn check_taken_over(&mut self, world: &World, book: &mut Book) {
        if let Some(old) = self.replaced.take() {
            assert!(world.shards.len() > 1 || !world.is_open(old), "two sessions of one device and role");
            book.saw("take-over");
        }
    }

    pub(crate) fn disconnect(&mut self, world: &mut World) {
        if let Some(session) = self.session {
            self.lose_connection();
            world.close(session);
        }
    }

    /// The connection is gone; the store and the outbox stay.
    pub(crate) fn lose_connection(&mut self) {
        self.session = None;
        self.opened = false;
        self.to_server.clear();
        self.requests.clear();
        self.received = Credit::default();
        self.syncing = None;
        self.outbox.iter_mut().for_each(|item| item.in_flight = None);
        for held in self.held.values_mut() {
            // What Sync does not list has nothing new, unless it was left in the middle.
            held.subscribed = Subscribed::No;
            held.caught_up = false;
        }
    }

    /// The store is gone too.
    pub(crate) fn wipe(&mut self) {
        self.held.clear();
        self.token = None;
    }

    /// A new id, of the server's time as this device knows it.
    pub(crate) fn mint(&mut self, world: &World, random: [u8; 10]) -> ClientMessageId {
        let (server_ms, mono_ms) = self.clock;
        let at = (server_ms + world.now.mono_ms - mono_ms).max(self.last_minted_ms + 1);
        self.last_minted_ms = at;
        ClientMessageId::from_parts(at, random)
    }

    fn ask(&mut self, asked: Asked, request: Request) -> RequestId {
        self.last_request += 1;
        let request_id = RequestId::new(self.last_request).expect("not 0");
        self.requests.insert(request_id, asked);
        self.to_server.push_back(ToServer::Request(request_id, request));
        request_id
    }

    // What it does.

    pub(crate) fn sync(&mut self) {
        if self.opened && self.syncing.is_none() {
            self.needs_sync = false;
            let reset = self.token.is_none();
            self.syncing = Some(Syncing { token: None, listed: HashMap::new(), complete: false, reset });
            self.ask(Asked::Sync, Request::Sync { token: self.token, page: bytes::Bytes::new() });
        }
    }

    pub(crate) fn needs_sync(&self) -> bool {
        self.opened && (self.needs_sync || self.syncing.is_some())
    }

    pub(crate) fn retry_sync(&mut self) {
        if self.needs_sync {
            self.syncing = None;
            self.sync();
        }
    }

    /// Sends what waits, in order; `after` links a send to the one before that is unanswered.
    pub(crate) fn flush(&mut self, book: &mut Book, count: usize) {
        if !self.opened {
            return;
        }
        let mut previous: HashMap<ConversationId, ClientMessageId> = HashMap::new();
        let mut begun = 0;
        for index in 0..self.outbox.len() {
            let item = &self.outbox[index];
            let conversation = conversation_of(&item.request);
            let id = item.id;
            if item.in_flight.is_none() && begun < count && self.requests.len() < 60 {
                let mut request = item.request.clone();
                if let Request::Send(send) = &mut request {
                    send.after = previous.get(&send.conversation).copied();
                }
                let request_id = self.ask(Asked::Item(id), request);
                self.outbox[index].in_flight = Some(request_id);
                book.on_invoked(self.user, id);
                begun += 1;
            }
            if self.outbox[index].in_flight.is_none() {
                // Nothing of this conversation overtakes it.
                if conversation.is_some() {
                    return;
                }
                continue;
            }
            if let Some(conversation) = conversation {
                previous.insert(conversation, id);
            }
        }
    }

    pub(crate) fn resume(&mut self, conversations: &[ConversationId]) {
        let mut cursors = Vec::new();
        for id in conversations {
            if let Some(held) = self.held.get_mut(id)
                && self.opened
            {
                held.subscribed = Subscribed::Yes;
                held.caught_up = false;
                held.offered = held.cursor.seq;
                held.acked = held.acked.max(held.cursor.seq);
                cursors.push((*id, held.cursor));
            }
        }
        if !cursors.is_empty() {
            self.to_server.push_back(ToServer::Resume(cursors));
        }
    }

    pub(crate) fn wanted(&self) -> Vec<ConversationId> {
        let wanted = self.held.iter().filter(|(_, held)| held.subscribed == Subscribed::Wanted);
        let mut wanted: Vec<_> = wanted.map(|(id, _)| *id).collect();
        wanted.sort();
        wanted
    }

    pub(crate) fn known(&self) -> Vec<ConversationId> {
        let mut known: Vec<_> = self.held.keys().copied().collect();
        known.sort();
        known
    }

    pub(crate) fn ack(&mut self, conversation: ConversationId) {
        if let Some(held) = self.held.get_mut(&conversation)
            && self.opened
            && held.subscribed == Subscribed::Yes
            && held.cursor.seq > held.offered.max(held.acked)
        {
            held.acked = held.cursor.seq;
            self.to_server.push_back(ToServer::Ack(conversation, held.cursor.seq));
        }
    }

    /// Received + a window.
    pub(crate) fn grant(&mut self, window: Credit) {
        if self.opened {
            self.granted.entries = self.granted.entries.max(self.received.entries + window.entries);
            self.granted.bytes = self.granted.bytes.max(self.received.bytes + window.bytes);
            self.to_server.push_back(ToServer::Credit(self.granted));
        }
    }

    pub(crate) fn read_history(&mut self, history: History, t: u64) {
        if self.opened && self.requests.len() < 60 {
            self.ask(Asked::History(history, t), Request::History(history));
        }
    }

    pub(crate) fn look_around(&mut self, conversation: ConversationId) {
        if self.opened && self.requests.len() < 60 {
            self.ask(Asked::Other, super::requests::members(conversation));
            self.ask(Asked::Other, Request::ListConversations { page: bytes::Bytes::new() });
        }
    }

    /// Nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.outbox.is_empty() && self.wanted().is_empty() && self.to_server.is_empty() && !self.needs_sync()
    }
}
