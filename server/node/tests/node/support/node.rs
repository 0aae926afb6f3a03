//! A node in this process, on a log in memory or one that the test brings.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use talaria_log::{CommitLog, MemoryLog};
use talaria_server::{
    Node, NodeHandle,
    auth::{SigningKey, TokenRequest},
    clock::unix_ms,
    config::Config,
    dev::{DEV_KID, DevFiles},
    shard_thread::ShardError,
};
use tempfile::TempDir;

use super::{
    client::{Client, Tls},
    http::metric_in,
};

/// `TALARIA_TEST_SHARDS` runs all tests with so many shards; else nodes have their default.
pub(crate) fn shards() -> Option<String> {
    std::env::var("TALARIA_TEST_SHARDS").ok()
}

/// A running node and what its clients need.
pub(crate) struct TestNode {
    handle: Option<NodeHandle>,
    pub(crate) tcp_addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) tls: Tls,
    pub(crate) ca: PathBuf,
    key: SigningKey,
    _dir: TempDir,
}

impl TestNode {
    /// On an empty log in memory.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// On an empty log in memory, with a changed configuration.
    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(Arc::new(MemoryLog::new()), change)
    }

    /// On this log.
    pub(crate) fn start_on(log: Arc<dyn CommitLog>, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin_listen = config.listen;
        config.dev = true;
        config.drain_seconds = 5;
        // Many nodes at once, on few processors.
        config.pin = false;
        if let Some(shards) = shards() {
            config.shards = shards.parse().unwrap();
        }
        change(&mut config);
        let handle = Node::start(config, log).unwrap();
        let files = DevFiles::of(dir.path());
        Self {
            tcp_addr: handle.tcp_addr,
            admin_addr: handle.admin_addr,
            tls: Tls::trusting(&files.ca()),
            ca: files.ca(),
            key: SigningKey::read(DEV_KID, &files.token_key()).unwrap(),
            handle: Some(handle),
            _dir: dir,
        }
    }

    /// A token for a day.
    pub(crate) fn token(&self, subject: &str) -> String {
        self.token_until(subject, 24 * 3600)
    }

    /// A token that expires so many seconds from now.
    pub(crate) fn token_until(&self, subject: &str, seconds: i64) -> String {
        let now = unix_ms() / 1000;
        let expires = now.saturating_add_signed(seconds);
        self.key.sign(&TokenRequest { subject, tenant: "", issued: now, expires }).unwrap()
    }

    /// The private key that the node trusts.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A TLS connection without Hello.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.tcp_addr, &self.tls)
    }

    /// A session of this user's device 1.
    pub(crate) fn session(&self, subject: &str) -> Client {
        self.session_of(subject, 1)
    }

    /// A session of one of this user's devices.
    pub(crate) fn session_of(&self, subject: &str, device: u8) -> Client {
        let mut client = self.connect();
        client.hello(&self.token(subject), device);
        client
    }

    /// A session of this user on this shard. The system chooses a connection's shard, so it may take several.
    pub(crate) fn session_on(&self, shard: u16, subject: &str, device: u8) -> Client {
        loop {
            let client = self.session_of(subject, device);
            if client.shard == shard {
                return client;
            }
        }
    }

    /// A metric's value, by its name and labels as `/metrics` shows them.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric_in(&self.handle.as_ref().unwrap().metrics(), name)
    }

    /// The metric has, or soon gets, this value: counters follow what a client can see.
    pub(crate) fn assert_metric(&self, name: &str, value: f64) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.metric(name) != value {
            assert!(Instant::now() < deadline, "{name} is {}, not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins to drain, without waiting.
    pub(crate) fn begin_shutdown(&self) {
        self.handle.as_ref().unwrap().begin_shutdown();
    }

    /// The node itself.
    pub(crate) fn handle(&self) -> &NodeHandle {
        self.handle.as_ref().unwrap()
    }

    /// Drains and ends it.
    pub(crate) fn shutdown(self) {
        self.shutdown_result().unwrap();
    }

    /// The same, with what became of it.
    pub(crate) fn shutdown_result(mut self) -> Result<(), ShardError> {
        self.handle.take().unwrap().shutdown()
    }
}
