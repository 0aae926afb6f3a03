//! What a client needs to know, checked before it starts.

use std::{fmt, future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use talaria_client_core::{
    engine::TokenError,
    store::{MemoryStore, Store},
};
use talaria_protocol::{ids::DeviceId, message::client::ClientInfo};

use crate::{
    error::ConfigError,
    transport::{Roots, TransportChoice},
};

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where tokens come from: asked at the start, ahead of each expiry, and when the server refuses the last one.
#[derive(Clone)]
pub struct TokenProvider(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenProvider {
    /// Asks `provide` for a fresh token each time.
    ///
    /// [`TokenError::Unavailable`] is asked again after a while; [`TokenError::LogInRequired`] makes the client wait
    /// in [`Connection::AuthRequired`](crate::Connection::AuthRequired) until
    /// [`Client::retry`](crate::Client::retry).
    pub fn new<F, T>(provide: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(provide())))
    }

    /// One token for all times, for tools and tests: once it has expired, the client needs a new one.
    pub fn fixed(token: impl Into<String>) -> Self {
        let token = token.into();
        Self::new(move || std::future::ready(Ok(token.clone())))
    }

    pub(crate) fn ask(&self) -> TokenFuture {
        (self.0)()
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider(..)")
    }
}

/// Who connects where, with what.
#[derive(Clone)]
pub struct ClientConfig {
    pub(crate) server: String,
    pub(crate) server_name: Option<String>,
    pub(crate) tenant: String,
    pub(crate) device: DeviceId,
    pub(crate) token: TokenProvider,
    pub(crate) roots: Roots,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) info: ClientInfo,
    pub(crate) request_timeout: Duration,
    pub(crate) transport: TransportChoice,
    pub(crate) early_data: bool,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("server", &self.server)
            .field("server_name", &self.server_name)
            .field("tenant", &self.tenant)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// A device of the token's user at a server, `"host:port"`; certificates are those that browsers trust, the
    /// store is in memory.
    pub fn new(server: impl Into<String>, device: DeviceId, token: TokenProvider) -> Self {
        Self {
            server: server.into(),
            server_name: None,
            tenant: String::new(),
            device,
            token,
            roots: Roots::WebPki,
            store: Arc::new(MemoryStore::new()),
            info: ClientInfo {
                name: "talaria-client".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                platform: std::env::consts::OS.into(),
            },
            request_timeout: Duration::from_secs(30),
            transport: TransportChoice::default(),
            early_data: true,
        }
    }

    /// The name in the server's certificate, where it is not the host of the address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The tenant, where the server has several.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Trusts only certificates of the authorities in this PEM.
    ///
    /// # Errors
    /// There is none in it.
    pub fn ca_pem(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        self.roots = Roots::from_pem(pem)?;
        Ok(self)
    }

    /// The same, from a file.
    ///
    /// # Errors
    /// It cannot be read, or there is none in it.
    pub fn ca_file(self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let pem = std::fs::read(path)
            .map_err(|error| ConfigError::CaFile { path: path.to_path_buf(), error: error.to_string() })?;
        self.ca_pem(&pem)
    }

    /// Where this device keeps its messages. With the store of an earlier run the client resumes.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// Name, version and platform of the app, for the operator's logs.
    #[must_use]
    pub fn info(mut self, info: ClientInfo) -> Self {
        self.info = info;
        self
    }

    /// Whether QUIC, TCP, or whichever works first carries the connection; the latter by default. Both go to the same
    /// port.
    ///
    /// With [`TransportChoice::Auto`] TCP starts 150 ms after QUIC, or at once in a network in which it won the last
    /// time; a network without UDP costs no more than that.
    #[must_use]
    pub fn transport(mut self, choice: TransportChoice) -> Self {
        self.transport = choice;
        self
    }

    /// Whether a QUIC connection to a server that is known from before says its hello, and asks what has changed, with
    /// the first packet (0-RTT): a round trip is saved. True by default.
    ///
    /// Whoever records that packet can send it once more. It takes no session over, for a server waits with that until
    /// the handshake proves who sent it, and nothing else goes this way: no message does. It is not forward secret: who
    /// later steals the session's keys from the memory of this device or the server can read the hello, with its token.
    #[must_use]
    pub fn early_data(mut self, early_data: bool) -> Self {
        self.early_data = early_data;
        self
    }

    /// How long a request waits for its answer, over reconnections (30 s by default). Messages wait without end.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
}
