//! One of the herd: a user with one device and one conversation, with itself. It does what an app does when it comes
//! back (Sync, then Resume from its cursor), with the SDK's own way of waiting between tries.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use talaria_client_core::{backoff::Backoff, rng::Rng};
use talaria_protocol::{
    ids::ConversationId,
    message::{Cursor, PageToken, SyncToken, UserRef, client::Request, server::ServerFrame},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};

use crate::{
    client::{Account, Client, Dialer, Ended},
    time::since_start,
};

/// How long one try may take from the first packet to being resumed.
const TRY_MAX: Duration = Duration::from_secs(30);
/// After so long a member gives up.
const GIVE_UP: Duration = Duration::from_secs(300);

/// What all are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing yet.
    Rest,
    /// Come, make the conversation, and go.
    Register,
    /// Come back and stay, a few at a time.
    Open,
    /// Go without a word.
    Drop,
    /// Come back and stay, all at once.
    Storm,
}

impl Order {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Register, "register"), (Self::Open, "open"), (Self::Drop, "drop"), (Self::Storm, "storm")];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(order, _)| *order)
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = Self::ALL.iter().find(|(order, _)| order == self);
        f.write_str(named.map_or("rest", |(_, name)| name))
    }
}

/// How one carried out an order.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// From the order until it was resumed.
    pub(crate) took: Duration,
    /// What went wrong on the way.
    pub(crate) failures: Vec<String>,
    pub(crate) succeeded: bool,
    pub(crate) tls_resumed: bool,
    /// Connections that were lost unasked since the last order.
    pub(crate) lost: u64,
}

/// See the module.
pub(crate) struct Member {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) account: Account,
    pub(crate) orders: watch::Receiver<Order>,
    /// Those who come at once when nothing is to be shown.
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) done: mpsc::Sender<Done>,
    pub(crate) remembered: Remembered,
}

/// What the device's store holds.
#[derive(Default)]
pub(crate) struct Remembered {
    conversation: Option<ConversationId>,
    cursor: Option<Cursor>,
    token: Option<SyncToken>,
}

impl Member {
    /// Until the herd ends.
    pub(crate) async fn run(mut self) {
        let mut client: Option<Client> = None;
        let mut lost = 0;
        loop {
            tokio::select! {
                ended = idle(client.as_mut()) => {
                    tracing::debug!(%ended, "a member");
                    lost += 1;
                    client = None;
                }
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let order = *self.orders.borrow_and_update();
                    let mut done = Done { lost: std::mem::take(&mut lost), ..Done::default() };
                    client = self.obey(order, client.take(), &mut done).await;
                    if self.done.send(done).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn obey(&mut self, order: Order, client: Option<Client>, done: &mut Done) -> Option<Client> {
        let gate = self.gate.clone();
        match order {
            Order::Rest => client,
            Order::Drop => {
                done.succeeded = true;
                None
            }
            Order::Storm => self.come(done).await,
            Order::Register | Order::Open => {
                let _place = gate.acquire().await;
                self.come(done).await.filter(|_| order == Order::Open)
            }
        }
    }

    /// Tries until it is resumed, as the SDK would.
    async fn come(&mut self, done: &mut Done) -> Option<Client> {
        let mut seed = [0; 32];
        let _unlikely = getrandom::fill(&mut seed);
        let (mut backoff, mut rng) = (Backoff::default(), Rng::new(seed));
        let began = since_start();
        while since_start() - began < GIVE_UP {
            let at_least_ms = match timeout(TRY_MAX, self.come_once()).await {
                Ok(Ok(client)) => {
                    done.took = since_start() - began;
                    done.succeeded = true;
                    done.tls_resumed = client.tls_resumed;
                    return Some(client);
                }
                Ok(Err(error)) => {
                    let ended = error.downcast_ref::<Ended>();
                    done.failures.push(ended.map_or_else(|| error.to_string(), Ended::kind));
                    ended.map_or(0, Ended::retry_after_ms)
                }
                Err(_) => {
                    done.failures.push("no answer".to_owned());
                    0
                }
            };
            tokio::time::sleep(backoff.next_delay(at_least_ms, &mut rng)).await;
        }
        None
    }

    async fn come_once(&mut self) -> anyhow::Result<Client> {
        let (mut client, welcome) = Client::open(&self.dialer, &self.account).await?;
        let conversation = match self.remembered.conversation {
            Some(conversation) => conversation,
            None => self.make_conversation(&mut client, UserRef::Id(welcome.user)).await?,
        };
        let mut page = PageToken::new();
        let mut epoch = None;
        loop {
            let request = Request::Sync { token: self.remembered.token, page };
            let ServerFrame::SyncResult { token, conversations, next_page, .. } = client.ask(request).await?
            else {
                bail!("no sync");
            };
            epoch = conversations.first().map(|state| state.epoch).or(epoch);
            if next_page.is_empty() {
                self.remembered.token = Some(token);
                break;
            }
            page = next_page;
        }
        client.resume(&[(conversation, self.remembered.cursor.unwrap_or(Cursor::START))]);
        loop {
            match client.next().await? {
                ServerFrame::CaughtUp { head, chain, .. } => {
                    if let (Some(chain), Some(epoch)) = (chain, epoch) {
                        self.remembered.cursor = Some(Cursor { epoch, seq: head, chain });
                    }
                    return Ok(client);
                }
                ServerFrame::Error { code, message, .. } => bail!("not resumed: {code} {message}"),
                _ => {}
            }
        }
    }

    async fn make_conversation(
        &mut self,
        client: &mut Client,
        user: UserRef,
    ) -> anyhow::Result<ConversationId> {
        let request = Request::DirectWith { user, client_message_id: client.new_message_id() };
        match client.ask(request).await? {
            ServerFrame::ConversationResult { conversation, .. } => {
                self.remembered.conversation = Some(conversation.conversation);
                Ok(conversation.conversation)
            }
            ServerFrame::Error { code, message, .. } => bail!("no conversation: {code} {message}"),
            other => bail!("no conversation: {other:?}"),
        }
    }
}

/// Keeps the connection alive, until it ends.
async fn idle(client: Option<&mut Client>) -> Ended {
    let Some(client) = client else { return std::future::pending().await };
    loop {
        if let Err(ended) = client.next().await {
            return ended;
        }
    }
}
