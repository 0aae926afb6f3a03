//! What an app does in one conversation.

use std::sync::Arc;

use bytes::Bytes;
use talaria_client_core::{
    ask::{Answer, Ask},
    event::{Acknowledged, EntryView},
    history,
    outbox::Draft,
    store::{LocalId, Store, StoreError, StoredEntry},
};
use talaria_protocol::{
    entry::Urgency,
    ids::{ConversationId, UserId},
    message::{
        Direction, Member, UserRef,
        content::{Body, Content},
    },
};
use tokio::sync::oneshot;

use crate::{
    client::{Client, wrong_answer},
    error::{HistoryError, QueueError, RequestError, SendError},
};

/// A user, by the subject of their tokens or by id.
pub trait IntoUser {
    /// As requests name them.
    fn into_user(self) -> UserRef;
}

impl IntoUser for &str {
    fn into_user(self) -> UserRef {
        UserRef::Subject(self.to_string())
    }
}

impl IntoUser for String {
    fn into_user(self) -> UserRef {
        UserRef::Subject(self)
    }
}

impl IntoUser for &String {
    fn into_user(self) -> UserRef {
        UserRef::Subject(self.clone())
    }
}

impl IntoUser for UserId {
    fn into_user(self) -> UserRef {
        UserRef::Id(self)
    }
}

impl IntoUser for UserRef {
    fn into_user(self) -> UserRef {
        self
    }
}

/// A message to send, where text alone is not enough.
#[derive(Clone, Debug)]
pub struct Outgoing {
    content: Content,
    urgency: Urgency,
    expires_ms: u64,
    seen: u64,
}

impl Outgoing {
    /// Text, at most 64 KiB.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(Body::Text(text.into()))
    }

    /// Bytes of a media type, at most 64 KiB together.
    pub fn blob(content_type: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self::of(Body::Blob { content_type: content_type.into(), data: data.into() })
    }

    fn of(body: Body) -> Self {
        let content = Content { body, metadata: Vec::new() };
        Self { content, urgency: Urgency::Normal, expires_ms: 0, seen: 0 }
    }

    /// Adds a small pair of the app's own, shown to every reader; at most 4 KiB and 32 pairs together.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.content.metadata.push((key.into(), value.into()));
        self
    }

    /// How recipients' devices should take notice.
    #[must_use]
    pub fn urgency(mut self, urgency: Urgency) -> Self {
        self.urgency = urgency;
        self
    }

    /// When the message is of no more use, ms since 1970.
    #[must_use]
    pub fn expires_ms(mut self, expires_ms: u64) -> Self {
        self.expires_ms = expires_ms;
        self
    }

    /// The seq up to which the user has read the conversation.
    #[must_use]
    pub fn seen(mut self, seq: u64) -> Self {
        self.seen = seq;
        self
    }
}

/// A queued message. It is sent whatever becomes of this handle.
#[derive(Debug)]
pub struct SendHandle {
    local_id: LocalId,
    end: oneshot::Receiver<Result<Acknowledged, SendError>>,
}

impl SendHandle {
    pub(crate) fn new(local_id: LocalId, end: oneshot::Receiver<Result<Acknowledged, SendError>>) -> Self {
        Self { local_id, end }
    }

    /// Names the message in [`Event`](crate::Event)s of this device.
    pub fn local_id(&self) -> LocalId {
        self.local_id
    }

    /// Waits until the message is in the server's log, as durable as the answer says. That may take as long as the
    /// device is offline.
    ///
    /// # Errors
    /// It will not be, or the client stopped first.
    pub async fn acknowledged(self) -> Result<Acknowledged, SendError> {
        self.end.await.unwrap_or(Err(SendError::Stopped))
    }
}

/// A verified page of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Ascending, dense.
    pub entries: Vec<EntryView>,
    /// Oldest seq that the server keeps.
    pub first_seq: u64,
    /// The conversation's last seq.
    pub head: u64,
    /// There is more in the asked direction.
    pub more: bool,
}

/// A part of what this device holds of a conversation, see [`Conversation::timeline`].
#[derive(Clone, Debug, PartialEq)]
pub enum TimelineItem {
    /// An entry.
    Entry(EntryView),
    /// These are not here.
    Gap {
        /// First.
        from: u64,
        /// Last.
        to: u64,
    },
}

/// One conversation. Cheap to clone; keeps its client running.
#[derive(Clone, Debug)]
pub struct Conversation {
    client: Client,
    id: ConversationId,
}

impl Conversation {
    pub(crate) fn new(client: Client, id: ConversationId) -> Self {
        Self { client, id }
    }

    /// Its id, to keep.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// Queues a text. Returns when it is in the store: from then on it is sent, whatever happens.
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
    /// use talaria_client::SendError;
    ///
    /// let conversation = client.direct_with("bob").await?;
    /// let message = conversation.send_text("Nay, answer me.").await?;
    /// match message.acknowledged().await {
    ///     Ok(sent) => println!("in the log as {}, {:?}", sent.seq, sent.durability),
    ///     Err(SendError::Stopped) => println!("kept for the next start"),
    ///     Err(SendError::Failed(failure)) => println!("not sent: {failure}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It was not queued.
    pub async fn send_text(&self, text: impl Into<String>) -> Result<SendHandle, QueueError> {
        self.send(Outgoing::text(text)).await
    }

    /// Queues bytes of a media type. As [`send_text`](Self::send_text).
    ///
    /// # Errors
    /// It was not queued.
    pub async fn send_blob(
        &self,
        content_type: impl Into<String>,
        data: impl Into<Bytes>,
    ) -> Result<SendHandle, QueueError> {
        self.send(Outgoing::blob(content_type, data)).await
    }

    /// Queues a message. As [`send_text`](Self::send_text).
    ///
    /// # Errors
    /// It was not queued.
    pub async fn send(&self, outgoing: Outgoing) -> Result<SendHandle, QueueError> {
        let content = outgoing.content.encode();
        Content::parse_from_client(&content)?;
        let Outgoing { urgency, expires_ms, seen, .. } = outgoing;
        self.client.send(Draft { conversation: self.id, content, urgency, expires_ms, seen }).await
    }

    /// Adds users to a group.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn add_members<U: IntoUser>(
        &self,
        users: impl IntoIterator<Item = U>,
    ) -> Result<(), RequestError> {
        let users = users.into_iter().map(IntoUser::into_user).collect();
        self.client.ask_conversation(Ask::AddMembers(self.id, users)).await.map(drop)
    }

    /// Removes users from a group.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn remove_members<U: IntoUser>(
        &self,
        users: impl IntoIterator<Item = U>,
    ) -> Result<(), RequestError> {
        let users = users.into_iter().map(IntoUser::into_user).collect();
        self.client.ask_conversation(Ask::RemoveMembers(self.id, users)).await.map(drop)
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn leave(&self) -> Result<(), RequestError> {
        self.client.ask_conversation(Ask::Leave(self.id)).await.map(drop)
    }

    /// Who is in it now.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn members(&self) -> Result<Vec<Member>, RequestError> {
        let (mut all, mut page) = (Vec::new(), Bytes::new());
        loop {
            let Answer::Members(members, next) = self.client.ask(Ask::ListMembers(self.id, page)).await?
            else {
                return Err(wrong_answer());
            };
            all.extend(members);
            if next.is_empty() {
                return Ok(all);
            }
            page = next;
        }
    }

    /// A page of the server's history, verified against itself and against what this device holds. `from` is the
    /// first seq of a forward page and the last of a backward one; backward with 0 begins at the head. At most
    /// `entries_max` entries; 0: as many as the server puts in a page.
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
    /// use talaria_client::Direction;
    ///
    /// let conversation = client.direct_with("bob").await?;
    /// let (mut from, mut pages) = (0, 0);
    /// loop {
    ///     let page = conversation.history(from, Direction::Backward, 100).await?;
    ///     pages += 1;
    ///     match page.entries.first() {
    ///         Some(first) if page.more => from = first.seq - 1,
    ///         _ => break,
    ///     }
    /// }
    /// assert_eq!(pages, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No answer, or one that does not fit: see [`HistoryError`].
    pub async fn history(
        &self,
        from: u64,
        direction: Direction,
        entries_max: usize,
    ) -> Result<History, HistoryError> {
        let ask = Ask::History { conversation: self.id, from, direction, entries_max };
        let Answer::History(page) = self.client.ask(ask).await? else { return Err(wrong_answer().into()) };
        let first = page.entries.first().map_or(1, |entry| entry.seq);
        // With the one before and the one after, which prove it.
        let held = self.held(first.saturating_sub(1), page.entries.len() + 2).await?;
        let entries = history::verify(self.id, &page, &held).inspect_err(|_| {
            self.client.shared.history_mismatches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })?;
        Ok(History { entries, first_seq: page.first_seq, head: page.head, more: page.more })
    }

    /// Entries that this device holds, from a seq on, without asking the server.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn stored(&self, from: u64, entries_max: usize) -> Result<Vec<EntryView>, StoreError> {
        let held = self.held(from, entries_max).await?;
        let view = |held: &StoredEntry| EntryView::new(self.id, &held.entry);
        held.iter().map(view).collect::<Result<_, _>>().map_err(|error| StoreError(error.into()))
    }

    /// What this device holds from a seq on, at most `entries_max` entries, with its gaps: entries that the server left
    /// out ([`Event::Skipped`](crate::Event::Skipped)) or no longer keeps ([`Event::Truncated`](crate::Event::Truncated)).
    /// [`history`](Self::history) brings what the server has of them, page by page from the gap's end backwards, each
    /// page proven against what is held behind it; [`History::first_seq`] says where the server's begins.
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
    /// use talaria_client::{Direction, TimelineItem};
    ///
    /// let conversation = client.direct_with("bob").await?;
    /// for item in conversation.timeline(1, 1_000).await? {
    ///     match item {
    ///         TimelineItem::Entry(entry) => println!("[{}] {:?}", entry.seq, entry.text()),
    ///         TimelineItem::Gap { from, to } => {
    ///             println!("{} entries are not here; the last of them:", to - from + 1);
    ///             let page = conversation.history(to, Direction::Backward, 50).await?;
    ///             for entry in page.entries.iter().filter(|entry| entry.seq >= from) {
    ///                 println!("[{}] {:?}", entry.seq, entry.text());
    ///             }
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn timeline(&self, from: u64, entries_max: usize) -> Result<Vec<TimelineItem>, StoreError> {
        let mut next = from.max(1);
        let mut items = Vec::new();
        for entry in self.stored(from, entries_max).await? {
            if entry.seq > next {
                items.push(TimelineItem::Gap { from: next, to: entry.seq - 1 });
            }
            next = entry.seq + 1;
            items.push(TimelineItem::Entry(entry));
        }
        Ok(items)
    }

    async fn held(&self, from: u64, entries_max: usize) -> Result<Vec<StoredEntry>, StoreError> {
        let (store, id): (Arc<dyn Store>, _) = (Arc::clone(&self.client.store), self.id);
        tokio::task::spawn_blocking(move || store.entries(id, from, entries_max))
            .await
            .map_err(|error| StoreError(error.into()))?
    }
}
