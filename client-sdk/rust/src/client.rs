//! The handle that apps hold.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use talaria_client_core::{
    ask::{Answer, Ask},
    engine::StopReason,
    event::Stats,
    outbox::Draft,
    store::Store,
};
use talaria_protocol::{
    ids::{ConversationId, UserId},
    message::ConversationState,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    config::ClientConfig,
    conversation::{Conversation, IntoUser, SendHandle},
    driver::{Command, Driver},
    error::{ConnectError, QueueError, RequestError},
    events::{Events, Listeners},
    transport::Transport,
};

/// Commands on their way to the client's task.
const COMMANDS_MAX: usize = 64;
/// How long [`Client::connect`] waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How it stands with the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// On its way.
    #[default]
    Connecting,
    /// Messages flow, over [`Client::transport`].
    Online,
    /// The server cannot be reached; the next attempt is at `until`.
    Backoff {
        /// When.
        until: Instant,
    },
    /// No token is accepted: let the user log in, then call [`Client::retry`].
    AuthRequired,
    /// For good.
    Stopped(StopReason),
}

/// Whom the server knows this client as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// The user.
    pub user: UserId,
    /// The token's subject, which others name this user by.
    pub subject: String,
    /// Stands for this device in headers of entries.
    pub device_number: u32,
}

/// What the task and the handles share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) listeners: Listeners,
    pub(crate) stats: Mutex<Stats>,
    pub(crate) me: Mutex<Option<Me>>,
    /// What carries the connection, while online.
    pub(crate) transport: Mutex<Option<Transport>>,
    /// Hellos in first packets that the server took, and that it did not.
    pub(crate) early_data_taken: AtomicU64,
    pub(crate) early_data_refused: AtomicU64,
    /// Why the last attempt to connect failed.
    pub(crate) last_failure: Mutex<Option<String>>,
    /// History pages that did not fit.
    pub(crate) history_mismatches: AtomicU64,
}

impl Shared {
    /// An attempt to connect has failed, or, without a reason, has not.
    pub(crate) fn on_failure(&self, why: Option<String>) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// One device's client. Cheap to clone; the connection ends when the last clone is dropped, or by
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    connection: watch::Receiver<Connection>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<dyn Store>,
    request_timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connection", &*self.connection.borrow()).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client and waits until it is online. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`ConnectError`]. The client is gone then.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let client = Self::start(config).await?;
        let mut connection = client.connection();
        let end = connection.wait_for(|state| {
            matches!(state, Connection::Online | Connection::AuthRequired | Connection::Stopped(_))
        });
        match tokio::time::timeout(CONNECT_TIMEOUT, end).await.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(Connection::AuthRequired)) => Err(ConnectError::AuthRequired),
            Ok(Ok(Connection::Stopped(reason))) => Err(ConnectError::Stopped(reason)),
            Ok(Ok(_)) => Ok(client),
            Ok(Err(_)) => Err(ConnectError::Stopped(StopReason::ShutDown)),
            Err(_) => Err(ConnectError::Unreachable(
                client.last_failure().unwrap_or_else(|| "it did not answer in time".to_owned()),
            )),
        }
    }

    /// Starts a client and goes on: it connects as soon as it can, and takes messages meanwhile. Must be called
    /// within a tokio runtime.
    ///
    /// ```
    /// # #[path = "../tests/support/node.rs"] mod node;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = node::Node::start();
    /// # use talaria_client::{Client, ClientConfig, TokenProvider, new_device_id};
    /// # let token = TokenProvider::fixed(node.token("alice"));
    /// # let config = ClientConfig::new(node.server(), new_device_id(), token).ca_file(node.ca())?;
    /// use talaria_client::Connection;
    ///
    /// let client = Client::start(config).await?;
    /// let mut connection = client.connection();
    /// while connection.changed().await.is_ok() {
    ///     match &*connection.borrow_and_update() {
    ///         Connection::Online => {
    ///             println!("online over {:?}", client.transport());
    ///             break;
    ///         }
    ///         Connection::Backoff { until } => println!("offline; next try in {:?}", until.duration_since(tokio::time::Instant::now())),
    ///         Connection::AuthRequired => println!("log in, please"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The configuration or the store.
    pub async fn start(config: ClientConfig) -> Result<Self, ConnectError> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (sender, connection) = watch::channel(Connection::Connecting);
        let shared = Arc::new(Shared::default());
        let store = Arc::clone(&config.store);
        let request_timeout = config.request_timeout;
        let driver = Driver::new(config, receiver, sender, Arc::clone(&shared)).await?;
        tokio::spawn(driver.run());
        Ok(Self { commands, connection, shared, store, request_timeout })
    }

    /// The direct conversation with a user (`"bob"`, or a [`UserId`]), made if need be.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn direct_with(&self, user: impl IntoUser) -> Result<Conversation, RequestError> {
        self.ask_conversation(Ask::DirectWith(user.into_user())).await
    }

    /// A new group of this user, its owner, and others.
    ///
    /// ```
    /// # #[path = "../tests/support/node.rs"] mod node;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = node::Node::start();
    /// # use talaria_client::{Client, ClientConfig, TokenProvider, new_device_id};
    /// # let token = TokenProvider::fixed(node.token("alice"));
    /// # let config = ClientConfig::new(node.server(), new_device_id(), token).ca_file(node.ca())?;
    /// # let client = Client::connect(config).await?;
    /// let group = client.create_group("The play", ["bob", "carol"]).await?;
    /// for member in group.members().await? {
    ///     println!("{} is {:?}", member.peer.subject, member.role);
    /// }
    /// group.remove_members(["carol"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn create_group<U: IntoUser>(
        &self,
        title: impl Into<String>,
        members: impl IntoIterator<Item = U>,
    ) -> Result<Conversation, RequestError> {
        let members = members.into_iter().map(IntoUser::into_user).collect();
        self.ask_conversation(Ask::CreateGroup { title: title.into(), members }).await
    }

    /// A conversation by its id; whether this user may see it shows when it is used.
    pub fn conversation(&self, id: ConversationId) -> Conversation {
        Conversation::new(self.clone(), id)
    }

    /// All conversations of this user, as the server knows them now.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn conversations(&self) -> Result<Vec<ConversationState>, RequestError> {
        let (mut all, mut page) = (Vec::new(), bytes::Bytes::new());
        loop {
            let Answer::Conversations(conversations, next) = self.ask(Ask::ListConversations(page)).await?
            else {
                return Err(wrong_answer());
            };
            all.extend(conversations);
            if next.is_empty() {
                return Ok(all);
            }
            page = next;
        }
    }

    /// What happens from now on. The first call gets what happened since the start, too.
    ///
    /// ```
    /// # #[path = "../tests/support/node.rs"] mod node;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = node::Node::start();
    /// # use talaria_client::{Client, ClientConfig, TokenProvider, new_device_id};
    /// # let token = TokenProvider::fixed(node.token("alice"));
    /// # let config = ClientConfig::new(node.server(), new_device_id(), token).ca_file(node.ca())?;
    /// # let client = Client::connect(config).await?;
    /// use talaria_client::Event;
    ///
    /// let mut events = client.events();
    /// let conversation = client.direct_with("bob").await?;
    /// conversation.send_text("Who's there?").await?;
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         Event::Entry(entry) => println!("[{}] {:?}", entry.seq, entry.text()),
    ///         Event::Acknowledged(sent) => {
    ///             println!("{:?} is in the log as {}", sent.local_id, sent.seq);
    ///             break;
    ///         }
    ///         Event::Damage { seq, kind, .. } => println!("report this: {kind:?} at {seq}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        self.shared.listeners.subscribe()
    }

    /// How it stands with the server, to watch.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Waits until messages flow. False when they never will: the client has stopped.
    pub async fn online(&self) -> bool {
        let mut connection = self.connection.clone();
        let end = connection.wait_for(|state| matches!(state, Connection::Online | Connection::Stopped(_)));
        end.await.is_ok_and(|state| *state == Connection::Online)
    }

    /// Whom the server knows this client as; `None` before it was online.
    pub fn me(&self) -> Option<Me> {
        self.shared.me.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counted since the start.
    pub fn stats(&self) -> Stats {
        let mut stats = *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.chain_mismatches += self.shared.history_mismatches.load(std::sync::atomic::Ordering::Relaxed);
        stats
    }

    /// Why the last attempt to connect failed, for a log or a person who sets things up: the system's, TLS's or the
    /// server's words. `None` when it did not fail.
    pub fn last_failure(&self) -> Option<String> {
        self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What carries the connection; `None` while there is none. It changes only on the way through
    /// [`Connection::Connecting`], so that it is asked for when [`Connection::Online`] comes.
    pub fn transport(&self) -> Option<Transport> {
        *self.shared.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries to connect now: after a log-in, or because the user asks for it. Not before the time that the server
    /// asked to wait for.
    pub async fn retry(&self) {
        let _ = self.commands.send(Command::Retry).await;
    }

    /// Tells the client that the device's network is another one, or came back. With
    /// [`set_foreground`](Self::set_foreground) this is all that an app has to tell of its life.
    ///
    /// `network` is a name of the app's own for the network (`"wifi:home"`, `"cellular:26201"`): for each it is
    /// remembered whether UDP passes. Without names all networks are one.
    ///
    /// A QUIC connection goes on from the new address, and is asked whether it does; TCP is asked likewise. Within two
    /// round trips and half a second (one second at least) an answer has come, or the client connects anew and resumes.
    /// A client that waits to try again tries now; one in the background that has nothing to send or to ask goes on
    /// waiting.
    ///
    /// ```
    /// # #[path = "../tests/support/node.rs"] mod node;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = node::Node::start();
    /// # use talaria_client::{Client, ClientConfig, TokenProvider, new_device_id};
    /// # let token = TokenProvider::fixed(node.token("alice"));
    /// # let config = ClientConfig::new(node.server(), new_device_id(), token).ca_file(node.ca())?;
    /// # let client = Client::connect(config).await?;
    /// // The system says that the phone has left the house.
    /// client.network_changed(Some("cellular:26201")).await;
    /// // The user turns to another app, and comes back.
    /// client.set_foreground(false).await;
    /// client.set_foreground(true).await;
    /// # assert!(client.online().await);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn network_changed(&self, network: Option<&str>) {
        let _ = self.commands.send(Command::NetworkChanged(network.map(str::to_owned))).await;
    }

    /// Tells the client that the app came to the front, or left it. See
    /// [`network_changed`](Self::network_changed).
    ///
    /// To the front: a connection is asked whether it still works, for the system may have frozen the app; a client that
    /// waits to try again tries now. In the background: changes of the network alone do not make an idle client try.
    /// The server is told with the next connection.
    pub async fn set_foreground(&self, foreground: bool) {
        let _ = self.commands.send(Command::Foreground(foreground)).await;
    }

    /// Moves the QUIC connection to a new UDP socket, as when a phone's address changes, and tells nobody; false when
    /// there is none. For tests.
    #[doc(hidden)]
    pub async fn rebind_udp(&self) -> bool {
        let (done, end) = oneshot::channel();
        self.commands.send(Command::Rebind(done)).await.is_ok() && end.await.unwrap_or(false)
    }

    /// How often the server took early data, and how often it refused it. For tests.
    #[doc(hidden)]
    pub fn early_data(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        (read(&self.shared.early_data_taken), read(&self.shared.early_data_refused))
    }

    /// Cuts the connection at once, as a lost network does; the client reconnects. For tests.
    pub async fn drop_connection(&self) {
        let _ = self.commands.send(Command::DropConnection).await;
    }

    /// Ends the session and the client. What is queued and not acknowledged stays in the store. Returns when the
    /// store has everything.
    pub async fn shutdown(&self) {
        let (done, end) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = end.await;
        }
    }

    pub(crate) async fn send(&self, draft: Draft) -> Result<SendHandle, QueueError> {
        let (queued, answer) = oneshot::channel();
        let (acknowledged, end) = oneshot::channel();
        let command = Command::Send { draft, queued, acknowledged };
        self.commands.send(command).await.map_err(|_| QueueError::Stopped)?;
        let local_id = answer.await.map_err(|_| QueueError::Stopped)??;
        Ok(SendHandle::new(local_id, end))
    }

    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, RequestError> {
        let (answer, end) = oneshot::channel();
        let command = Command::Ask { ask, timeout: self.request_timeout, answer };
        self.commands.send(command).await.map_err(|_| RequestError::Stopped)?;
        Ok(end.await.map_err(|_| RequestError::Stopped)??)
    }

    pub(crate) async fn ask_conversation(&self, ask: Ask) -> Result<Conversation, RequestError> {
        match self.ask(ask).await? {
            Answer::Conversation(state) => Ok(Conversation::new(self.clone(), state.conversation)),
            _ => Err(wrong_answer()),
        }
    }
}

/// The engine lets none through.
pub(crate) fn wrong_answer() -> RequestError {
    RequestError::Invalid("an answer of another kind".into())
}
