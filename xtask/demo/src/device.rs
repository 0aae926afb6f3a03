//! A device that plays: an app on the public SDK, with a store that outlives it. It can be cut off, and killed and
//! started again.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use talaria_client::{
    Client, ClientConfig, Connection, ConversationId, DeviceId, Event, MemoryStore, Outgoing, Shown, Stats,
    Store, TokenProvider,
};
use talaria_protocol::message::content::Content;
use tokio::{
    sync::{Mutex, Notify},
    task::JoinHandle,
};

use crate::{
    cast::{self, DeviceRole, USERS},
    history::{History, OpId},
    remains::{self, OP_KEY},
    report::SdkCounts,
};

/// What all devices share.
pub struct Stage {
    /// What happened.
    pub history: RefCell<History>,
    /// Said → shown on another device, µs.
    pub latency_us: RefCell<hdrhistogram::Histogram<u64>>,
    /// Messages that an SDK could not queue, or that went wrong otherwise, in words.
    pub troubles: RefCell<Vec<String>>,
}

/// How stores are made: the demo's are as they are, its negative controls wrap them.
pub type WrapStore = fn(Arc<MemoryStore>) -> Arc<dyn Store>;

/// See the module.
pub struct Device {
    /// Its place among the devices.
    pub index: usize,
    /// Whose it is.
    pub role: DeviceRole,
    /// What it holds.
    pub store: Arc<MemoryStore>,
    stage: Rc<Stage>,
    id: DeviceId,
    server: String,
    ca: PathBuf,
    token: String,
    wrap: WrapStore,
    app: RefCell<Option<App>>,
    counts: Cell<SdkCounts>,
    /// Connections cut.
    pub cuts: Cell<u64>,
    /// Changes of its network.
    pub moves: Cell<u64>,
    /// Apps killed, and started again.
    pub kills: Cell<u64>,
    /// Messages of the play that it showed, and news of it.
    seen: RefCell<HashSet<OpId>>,
    news: Notify,
    /// Whose turn it is to say something: what is said first goes first, also over an app's death.
    mouth: Mutex<()>,
}

struct App {
    client: Client,
    listener: JoinHandle<()>,
}

/// Where and as whom a device connects.
pub struct Account {
    /// "host:port".
    pub server: String,
    /// The CA to trust.
    pub ca: PathBuf,
    /// Of its user.
    pub token: String,
}

impl Device {
    /// A device whose app has not been started.
    pub fn new(
        index: usize,
        role: DeviceRole,
        account: Account,
        wrap: WrapStore,
        stage: Rc<Stage>,
    ) -> Rc<Self> {
        let Account { server, ca, token } = account;
        Rc::new(Self {
            index,
            role,
            store: Arc::new(MemoryStore::new()),
            stage,
            id: talaria_client::new_device_id(),
            server,
            ca,
            token,
            wrap,
            app: RefCell::new(None),
            counts: Cell::default(),
            cuts: Cell::new(0),
            moves: Cell::new(0),
            kills: Cell::new(0),
            seen: RefCell::default(),
            news: Notify::new(),
            mouth: Mutex::new(()),
        })
    }

    /// Starts the app on what its store holds.
    pub async fn start(self: &Rc<Self>) -> anyhow::Result<()> {
        let config = ClientConfig::new(&self.server, self.id, TokenProvider::fixed(self.token.clone()))
            .ca_file(&self.ca)?
            .transport(cast::transport(self.index))
            .store((self.wrap)(self.store.clone()));
        let client = Client::start(config).await?;
        let mut events = client.events();
        let device = Rc::clone(self);
        let listener = tokio::task::spawn_local(async move {
            while let Some(event) = events.next().await {
                device.on_event(event);
            }
        });
        *self.app.borrow_mut() = Some(App { client, listener });
        Ok(())
    }

    /// Kills the app: what it has not shown by now it will show when it is started again.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let Some(App { client, listener }) = self.app.borrow_mut().take() else { return Ok(()) };
        listener.abort();
        client.drop_connection().await;
        client.shutdown().await;
        self.count(&client.stats());
        let outbox: HashSet<u64> = self.store.load()?.outbox.iter().map(|item| item.local_id.0).collect();
        self.stage.history.borrow_mut().killed(self.index, &outbox);
        self.show_what_is_held()
    }

    /// Cuts the connection, as a network does.
    pub async fn cut(&self) {
        if let Some(client) = self.client() {
            client.drop_connection().await;
            self.cuts.set(self.cuts.get() + 1);
        }
    }

    /// Changes its network: what goes by QUIC comes from another port from now on.
    pub async fn change_network(&self) {
        if let Some(client) = self.client() {
            client.network_changed(None).await;
            self.moves.set(self.moves.get() + 1);
        }
    }

    /// It is online, and a send of it is in flight.
    pub fn is_speaking(&self) -> bool {
        let online = self.client().is_some_and(|client| *client.connection().borrow() == Connection::Online);
        online && self.stage.history.borrow().is_speaking(self.index)
    }

    /// Kills the app and starts it again.
    pub async fn restart(self: &Rc<Self>) -> anyhow::Result<()> {
        self.kill().await?;
        self.kills.set(self.kills.get() + 1);
        self.start().await
    }

    /// The running app's client.
    pub fn client(&self) -> Option<Client> {
        self.app.borrow().as_ref().map(|app| app.client.clone())
    }

    /// What its SDK has counted in all its lives.
    pub fn counts(&self) -> SdkCounts {
        if let Some(client) = self.client() {
            let before = self.counts.get();
            self.count(&client.stats());
            return self.counts.replace(before);
        }
        self.counts.get()
    }

    /// Says something. Waits while the app is down; returns when the SDK has it in its outbox.
    pub async fn say(&self, conversation: ConversationId, text: String) -> OpId {
        let _turn = self.mouth.lock().await;
        let op = self.stage.history.borrow_mut().invoke(conversation, self.index, &text);
        loop {
            let Some(client) = self.client() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let outgoing = Outgoing::text(text.clone()).metadata(OP_KEY, op.to_be_bytes().to_vec());
            match client.conversation(conversation).send(outgoing).await {
                Ok(handle) => {
                    self.stage.history.borrow_mut().queued(op, self.index, handle.local_id().0);
                    return op;
                }
                // The app was killed meanwhile. If it had queued the message, its store says so.
                Err(_) if self.is_queued_already(conversation, op) => return op,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// The message is in the outbox, or in the log already and held.
    fn is_queued_already(&self, conversation: ConversationId, op: OpId) -> bool {
        let Ok(loaded) = self.store.load() else { return false };
        let of_op = |content: &bytes::Bytes| remains::logged(0, Some(content)).op == Some(op);
        if let Some(item) = loaded.outbox.iter().find(|item| of_op(&item.content)) {
            self.stage.history.borrow_mut().queued(op, self.index, item.local_id.0);
            return true;
        }
        let held = remains::read_store(&*self.store, conversation).unwrap_or_default();
        let found = held.iter().rev().find(|logged| logged.op == Some(op));
        if let Some(logged) = found {
            self.stage.history.borrow_mut().found(op, logged.seq);
        }
        found.is_some()
    }

    /// Waits until this device has shown a message.
    pub async fn has_seen(&self, op: OpId) {
        loop {
            let news = self.news.notified();
            if self.seen.borrow().contains(&op) {
                return;
            }
            news.await;
        }
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Entry(entry) => {
                let content = match &entry.shown {
                    Shown::Content(content) => Some(content),
                    _ => None,
                };
                self.show(entry.conversation, entry.seq, content);
            }
            Event::Acknowledged(sent) => {
                self.stage.history.borrow_mut().acknowledge(self.index, sent.local_id.0, sent.seq);
            }
            Event::Failed { local_id, failure, .. } => {
                self.stage.history.borrow_mut().fail(self.index, local_id.0, failure.to_string());
            }
            Event::Damage { conversation, seq, kind } => {
                self.trouble(format!("{}: damage in {conversation} at {seq}: {kind:?}", self.role.name()));
            }
            _ => {}
        }
    }

    fn trouble(&self, what: String) {
        self.stage.troubles.borrow_mut().push(what);
    }

    fn show(&self, conversation: ConversationId, seq: u64, content: Option<&Content>) {
        let shown = match content {
            Some(content) => remains::shown(seq, content),
            None => crate::history::Shown { seq, op: None, digest: [0; 32] },
        };
        let latency = self.stage.history.borrow_mut().show(self.index, conversation, shown);
        if let Some(ms) = latency {
            let _ = self.stage.latency_us.borrow_mut().record((ms * 1_000.0) as u64);
        }
        if let Some(op) = shown.op {
            self.seen.borrow_mut().insert(op);
            self.news.notify_waiters();
        }
    }

    /// What the store got before the app could show it.
    fn show_what_is_held(&self) -> anyhow::Result<()> {
        for (conversation, _) in self.store.load()?.cursors {
            let last = self.stage.history.borrow().last_shown(self.index, conversation);
            for held in self.store.entries(conversation, last + 1, usize::MAX)? {
                let view = talaria_client::EntryView::new(conversation, &held.entry)?;
                let content = match &view.shown {
                    Shown::Content(content) => Some(content),
                    _ => None,
                };
                self.show(conversation, view.seq, content);
            }
        }
        Ok(())
    }

    fn count(&self, stats: &Stats) {
        let mut counts = self.counts.get();
        counts.dedup_hits += stats.dedup_hits;
        counts.resumes += stats.sessions;
        counts.duplicates_dropped += stats.duplicates_dropped;
        counts.chain_mismatches += stats.chain_mismatches;
        counts.rewinds += stats.rewinds;
        self.counts.set(counts);
    }

    /// Its user.
    pub fn user(&self) -> &'static str {
        USERS[self.role.user]
    }
}
