//! A client as the specification wants it: a store with cursors, an outbox that pipelines and retries under the
//! same ids, credit, acknowledgements, resume and sync. It checks all that a client must check.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use talaria_core::effect::SessionKey;
use talaria_protocol::{
    chain::Leaf,
    entry::{Entry, EntryForm, EntryHeader},
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        ConversationState, Credit, Cursor, RequestId, Role, SyncToken,
        client::{History, Request},
        server::{HistoryPage, ServerFrame},
    },
};

use super::{
    book::Book,
    world::{Out, World},
};

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

    // What it hears.

    pub(crate) fn on_out(&mut self, out: Out, world: &mut World, book: &mut Book) {
        match out {
            Out::Opened(_) => {
                if self.confirmed {
                    self.check_taken_over(world, book);
                }
                self.opened = true;
                self.clock = (world.hlc().unix_ms(), world.now.mono_ms);
                self.needs_sync = true;
                self.sync();
            }
            Out::Refused(code) => {
                assert!(code.retryable(), "refused for good: {code:?}");
                self.lose_connection();
            }
            // A session of before, of another shard, was admitted after it.
            Out::End(ErrorCode::TakenOver) if world.shards.len() > 1 => {
                book.saw("taken over by an older one");
                self.lose_connection();
            }
            Out::End(code) => panic!("{} {}: the session ended: {code:?}", self.name, self.number),
            Out::Frame(frame) => self.on_frame(frame, world, book),
        }
    }

    fn on_frame(&mut self, frame: ServerFrame, world: &World, book: &mut Book) {
        match frame {
            ServerFrame::Deliver { conversation, entry } => self.on_entry(conversation, &entry, world, book),
            ServerFrame::Sent(sent) => {
                let Some(Asked::Item(id)) = self.requests.remove(&sent.request_id) else {
                    panic!("{sent:?}")
                };
                let session = self.session.expect("a session");
                book.on_sent(world, self.user, id, &sent, session);
                self.outbox.retain(|item| item.id != id);
            }
            ServerFrame::ConversationResult { request_id, conversation, seq, .. } => {
                let Some(Asked::Item(id)) = self.requests.remove(&request_id) else { panic!("{seq}") };
                book.on_changed(world, self.user, id, conversation.conversation, seq);
                self.outbox.retain(|item| item.id != id);
                self.want(&conversation);
            }
            ServerFrame::Error { request_id: Some(request_id), code, .. } => {
                self.on_refused(request_id, ErrorCode::from_wire(code).expect("a known code"), book);
            }
            ServerFrame::Error { conversation: Some(id), code, .. } => {
                self.on_stopped(id, ErrorCode::from_wire(code).expect("a known code"), book);
            }
            ServerFrame::SyncResult { request_id, token, reset, conversations, next_page } => {
                self.requests.remove(&request_id).expect("a request");
                self.on_sync(token, reset, &conversations, next_page, book);
            }
            ServerFrame::Changed(state) => {
                book.saw("changed");
                self.want(&state);
            }
            ServerFrame::CaughtUp { conversation, head, chain } => {
                let held = self.held.entry(conversation).or_default();
                if book.rollbacks > 0 && held.cursor.seq != head {
                    // Of a resume before it was told that the conversation is gone.
                    return;
                }
                held.caught_up = true;
                assert_eq!(held.cursor.seq, head, "{} {}: caught up", self.name, self.number);
                assert!(chain.is_none_or(|chain| chain == held.cursor.chain));
                self.keep_token();
            }
            ServerFrame::Skipped { conversation, from, to, chain } => {
                let held = self.held.get_mut(&conversation).expect("resumed");
                if to > held.cursor.seq {
                    assert_eq!(from, held.cursor.seq + 1);
                    held.cursor = Cursor { epoch: held.cursor.epoch, seq: to, chain };
                    book.on_skipped(world, self.user, conversation, from, to, chain);
                }
            }
            ServerFrame::Truncated { conversation, first_seq, chain } => {
                self.on_truncated(conversation, first_seq, chain, world, book);
            }
            ServerFrame::EpochChanged { conversation, first_seq, chain, epoch } => {
                book.saw("fork");
                assert!(book.rollbacks > 0, "a fork, but the log never went back");
                self.drop_from(conversation, first_seq, book);
                let held = self.held.get_mut(&conversation).expect("resumed");
                held.cursor = Cursor { epoch, seq: first_seq - 1, chain };
                held.subscribed = Subscribed::Wanted;
            }
            ServerFrame::HistoryPage(page) => self.on_page(&page, world, book),
            ServerFrame::MemberList { request_id, .. } | ServerFrame::ConversationList { request_id, .. } => {
                self.requests.remove(&request_id).expect("a request");
            }
            other => panic!("{other:?}"),
        }
    }

    fn on_truncated(
        &mut self,
        id: ConversationId,
        first_seq: u64,
        chain: talaria_protocol::chain::Chain,
        world: &World,
        book: &mut Book,
    ) {
        book.saw("truncated");
        let held = self.held.get_mut(&id).expect("resumed");
        if first_seq > held.cursor.seq + 1 {
            assert!(first_seq <= world.cuts.first_seq(id), "what is there is not truncated");
            assert_eq!(world.stored(id, first_seq - 1).expect("it was there").chain, chain);
            held.gone.push(held.cursor.seq + 1..=first_seq - 1);
            held.cursor = Cursor { epoch: held.cursor.epoch, seq: first_seq - 1, chain };
            self.keep_token();
        }
    }

    fn want(&mut self, state: &ConversationState) {
        let held = self.held.entry(state.conversation).or_default();
        if held.subscribed == Subscribed::No {
            held.subscribed = Subscribed::Wanted;
        }
    }

    fn on_refused(&mut self, request_id: RequestId, code: ErrorCode, book: &mut Book) {
        book.saw(code.name());
        match self.requests.remove(&request_id).expect("a request") {
            Asked::Item(id) if code.retryable() => {
                let item = self.outbox.iter_mut().find(|item| item.id == id).expect("an item");
                item.in_flight = None;
            }
            Asked::Item(id) => {
                book.on_failed(self.user, id, code);
                self.outbox.retain(|item| item.id != id);
            }
            Asked::Sync => self.needs_sync = true,
            Asked::History(..) | Asked::Other => {}
        }
    }

    fn on_stopped(&mut self, id: ConversationId, code: ErrorCode, book: &mut Book) {
        book.saw("delivery stopped");
        // Told before, by the answer to another resume.
        let Some(held) = self.held.get_mut(&id) else { return };
        match code {
            ErrorCode::Busy | ErrorCode::ReadFailed => held.subscribed = Subscribed::Wanted,
            ErrorCode::NotFound => {
                assert!(book.rollbacks > 0, "a conversation is gone, but the log never went back");
                self.drop_from(id, 1, book);
                self.held.remove(&id);
                if let Some(syncing) = &mut self.syncing {
                    syncing.listed.remove(&id);
                }
                self.keep_token();
            }
            other => panic!("{} {}: {other:?} for {id}", self.name, self.number),
        }
    }

    /// Forgets a fork; own messages of it are sent again under their ids.
    fn drop_from(&mut self, id: ConversationId, first_seq: u64, book: &mut Book) {
        let held = self.held.get_mut(&id).expect("held");
        held.entries.split_off(&first_seq);
        held.acked = held.acked.min(first_seq - 1);
        for (id, request) in book.lost_of(self.user, (self.number, self.role), id) {
            if !self.outbox.iter().any(|item| item.id == id) {
                self.outbox.push(Item { id, request, in_flight: None });
            }
        }
    }

    fn on_sync(
        &mut self,
        token: SyncToken,
        reset: bool,
        conversations: &[ConversationState],
        next_page: bytes::Bytes,
        book: &mut Book,
    ) {
        let Some(syncing) = &mut self.syncing else { return };
        book.saw(if reset && self.token.is_some() { "reset" } else { "sync" });
        assert!(!reset || self.token.is_none() || book.rollbacks > 0, "reset, but the log never went back");
        // Opened again, the log may have gone back behind the token and its list ([DLV-79]).
        let reopened = self.token.is_some_and(|kept| kept.boot_id != token.boot_id);
        syncing.reset |= reset || reopened;
        syncing.token.get_or_insert(token);
        syncing.listed.extend(conversations.iter().map(|state| (state.conversation, state.head)));
        syncing.complete = next_page.is_empty();
        let everything = syncing.reset && syncing.complete;
        for state in conversations {
            self.held.entry(state.conversation).or_default();
        }
        let behind: HashSet<ConversationId> = conversations.iter().map(|state| state.conversation).collect();
        for (id, held) in &mut self.held {
            if held.subscribed == Subscribed::No && (everything || behind.contains(id)) {
                held.subscribed = Subscribed::Wanted;
            }
        }
        if !next_page.is_empty() {
            self.ask(Asked::Sync, Request::Sync { token: self.token, page: next_page });
        }
        self.keep_token();
    }

    /// Once everything listed is held, and on a reset everything was offered, the token stands for it.
    fn keep_token(&mut self) {
        let Some(syncing) = &self.syncing else { return };
        let is_held = |(id, head): (&ConversationId, &u64)| {
            self.held.get(id).is_some_and(|held| held.cursor.seq >= *head)
        };
        let offered = self.held.values().all(|held| held.caught_up);
        if syncing.complete && syncing.listed.iter().all(is_held) && (!syncing.reset || offered) {
            self.token = syncing.token;
            self.syncing = None;
        }
    }

    fn on_entry(&mut self, id: ConversationId, entry: &Entry, world: &World, book: &mut Book) {
        self.received.entries += 1;
        self.received.bytes += entry.encoded_len() as u64;
        let Some(held) = self.held.get_mut(&id) else {
            // Gone, it was told to an earlier resume; a later one found it again.
            assert!(book.rollbacks > 0, "only what was resumed is delivered");
            self.held.entry(id).or_default();
            return;
        };
        assert!(held.subscribed != Subscribed::No, "not resumed, or stopped");
        let leaf = leaf_of(entry, book);
        let hidden = matches!(entry.form, EntryForm::Hidden { .. });
        book.on_delivered(world, self.user, id, entry);
        if entry.seq <= held.cursor.seq {
            if let Some((known, was_hidden)) = held.entries.get(&entry.seq) {
                assert_eq!((*known, *was_hidden), (leaf, hidden), "another entry under the same seq");
            }
            return;
        }
        if book.rollbacks > 0 && entry.seq > held.cursor.seq + 1 {
            // Likewise.
            return;
        }
        assert_eq!(entry.seq, held.cursor.seq + 1, "{} {}: a gap in {id}", self.name, self.number);
        let chain = held.cursor.chain.next(id, entry.seq, &leaf);
        let epoch = header_of(entry).map_or(held.cursor.epoch, |header| header.epoch);
        held.cursor = Cursor { epoch, seq: entry.seq, chain };
        held.entries.insert(entry.seq, (leaf, hidden));
        self.keep_token();
    }

    fn on_page(&mut self, page: &HistoryPage, world: &World, book: &mut Book) {
        let Some(Asked::History(asked, begun)) = self.requests.remove(&page.request_id) else {
            panic!("not asked for: {page:?}")
        };
        let id = asked.conversation;
        for pair in page.entries.windows(2) {
            assert_eq!(pair[0].seq + 1, pair[1].seq, "a page is dense");
        }
        let mut chain = page.chain_before;
        for entry in &page.entries {
            self.received.entries += 1;
            self.received.bytes += entry.encoded_len() as u64;
            let leaf = entry.leaf().expect("a page omits nothing");
            chain = chain.next(id, entry.seq, &leaf);
            let stored = world.stored(id, entry.seq);
            if book.rollbacks == 0 {
                assert_eq!(Some(chain), stored.map(|stored| stored.chain), "the page's chain");
                let known = self.held.get(&id).and_then(|held| held.entries.get(&entry.seq));
                assert!(known.is_none_or(|(known, _)| *known == leaf), "history differs from delivery");
            }
        }
        book.on_history(self.user, &asked, begun, page);
    }
}

pub(crate) fn header_of(entry: &Entry) -> Option<EntryHeader> {
    match &entry.form {
        EntryForm::Full { header, .. } | EntryForm::Erased { header, .. } => {
            Some(EntryHeader::parse(header).expect("a header"))
        }
        EntryForm::Hidden { .. } => None,
    }
}

/// Own content that was omitted is known.
fn leaf_of(entry: &Entry, book: &Book) -> Leaf {
    entry.leaf().unwrap_or_else(|| {
        let header = header_of(entry).expect("content was omitted from it");
        let content = book.content(header.sender, header.client_message_id);
        entry.leaf_with(&content).expect("now it is complete")
    })
}
