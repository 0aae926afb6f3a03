//! What the tests share: a node with a directory of its own, and devices whose stores outlive their apps. Kills here are
//! plain ones, without the power-cut shim: what is on the disk is what the node wrote, until a test changes it.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use talaria_client::{
    Client, ClientConfig, Conversation, ConversationId, DeviceId, EntryView, Event, Events, MemoryStore,
    TokenProvider, new_device_id,
};
use talaria_demo::node::{Node, NodeConfig, program};
use tempfile::TempDir;

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where a node lives.
pub(crate) struct Place {
    dir: TempDir,
    config: NodeConfig,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("node");
        let config = NodeConfig {
            program: program("talaria").unwrap(),
            args: vec![],
            shards: None,
            data_dir,
            power_cut: None,
        };
        Self { dir, config }
    }

    pub(crate) fn start(&self) -> Node {
        self.config.start("127.0.0.1:0", 0).unwrap()
    }

    /// What a node says that does not start.
    pub(crate) fn refusal(&self) -> String {
        let started = self.config.start("127.0.0.1:0", 0);
        started.map(drop).unwrap_err().to_string()
    }

    pub(crate) fn token(&self, user: &str) -> String {
        self.config.token(&self.config.program, user).unwrap()
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.config.ca()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone()
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.config.data_dir.join("log")
    }

    /// What its nodes wrote to stderr.
    pub(crate) fn node_log(&self) -> String {
        std::fs::read_to_string(self.config.data_dir.join("node.log")).unwrap()
    }

    /// For files of a test.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A device: its store is kept while no app runs on it.
pub(crate) struct Device {
    id: DeviceId,
    store: Arc<MemoryStore>,
    token: String,
    ca: PathBuf,
}

impl Device {
    pub(crate) fn new(place: &Place, user: &str) -> Self {
        Self { id: new_device_id(), store: Arc::default(), token: place.token(user), ca: place.ca() }
    }

    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Starts an app on it, and waits until it is online.
    pub(crate) async fn open(&self, node: &Node) -> App {
        let app = self.start(node).await;
        assert!(tokio::time::timeout(PATIENCE, app.client.online()).await.unwrap());
        app
    }

    /// Starts an app on it.
    pub(crate) async fn start(&self, node: &Node) -> App {
        let config = ClientConfig::new(&node.address, self.id, TokenProvider::fixed(self.token.clone()))
            .ca_file(&self.ca)
            .unwrap()
            .store(self.store.clone());
        let client = Client::start(config).await.unwrap();
        App { events: client.events(), client, seen: Vec::new() }
    }
}

/// A running app, and what it was told.
pub(crate) struct App {
    pub(crate) client: Client,
    events: Events,
    pub(crate) seen: Vec<Event>,
}

impl App {
    /// Says something, and waits until it is in the log; its seq.
    pub(crate) async fn say(&mut self, conversation: &Conversation, text: &str) -> u64 {
        let handle = conversation.send_text(text).await.unwrap();
        let sent = handle.acknowledged().await.unwrap();
        while let Some(event) = self.events.try_next() {
            self.seen.push(event);
        }
        sent.seq
    }

    /// Waits until it was told something, or has been already; where in `seen` that is.
    pub(crate) async fn told(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            if let Some(found) = self.seen[next..].iter().position(&wanted) {
                return next + found;
            }
            next = self.seen.len();
            match tokio::time::timeout_at(deadline, self.events.next()).await {
                Ok(Some(event)) => self.seen.push(event),
                end => panic!("never told {what} ({end:?}); told: {:#?}", self.seen),
            }
        }
    }

    /// Waits until it has shown an entry.
    pub(crate) async fn has(&mut self, conversation: ConversationId, seq: u64) {
        let wanted = |entry: &EntryView| (entry.conversation, entry.seq) == (conversation, seq);
        self.told("of the entry", |event| matches!(event, Event::Entry(entry) if wanted(entry))).await;
    }

    /// Listens for a while.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.events.next()).await {
            self.seen.push(event);
        }
    }

    /// Texts that it has shown, in order.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.seen
            .iter()
            .filter_map(|event| if let Event::Entry(entry) = event { entry.text() } else { None })
            .collect()
    }

    pub(crate) async fn close(self) {
        self.client.shutdown().await;
    }
}
