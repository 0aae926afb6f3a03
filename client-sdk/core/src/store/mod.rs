//! What a device keeps: entries and cursors of its conversations, the outbox, the sync token. The engine makes
//! [`StoreBatch`]es; a driver has a [`Store`] commit them one after another, each entirely or not at all, and only
//! then are their entries acknowledged and shown. [`MemoryStore`] is one; [`contract::check`] is what any other must
//! pass. Nothing here decides anything: a store that refuses, merges or reorders would break the promises above it.

pub mod contract;
mod memory;

use bytes::Bytes;
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, Urgency},
    ids::{ClientMessageId, ConversationId},
    message::{Cursor, SyncToken},
};

pub use memory::MemoryStore;

/// Names a message in this device's outbox from the moment it is queued. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u64);

/// An entry as held: with its content, also when this device sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// What the log gave.
    pub entry: Entry,
    /// chain(seq) as computed here.
    pub chain: Chain,
}

/// A message of this device that is not yet among the stored entries.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboxItem {
    /// Names it on this device.
    pub local_id: LocalId,
    /// Its place: items of a conversation go out in ascending `order`.
    pub order: u64,
    /// Where to.
    pub conversation: ConversationId,
    /// An encoded `Content`.
    pub content: Bytes,
    /// For notifications.
    pub urgency: Urgency,
    /// Ms since 1970; 0: never.
    pub expires_ms: u64,
    /// The sender had read up to here when it was queued.
    pub seen: u64,
    /// Minted just before the first transmission.
    pub id: Option<ClientMessageId>,
    /// Entries of the conversation were skipped since it was first sent: what is held does not show whether it was
    /// appended.
    pub unproven: bool,
}

impl std::fmt::Debug for OutboxItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxItem")
            .field("local_id", &self.local_id)
            .field("conversation", &self.conversation)
            .field("content_bytes", &self.content.len())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What one batch does to one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationWrite {
    /// Which.
    pub conversation: ConversationId,
    /// First of all: forget entries from this seq on, they are of a fork that the log does not have.
    pub drop_from: Option<u64>,
    /// Then add these, ascending.
    pub entries: Vec<StoredEntry>,
    /// What is held then.
    pub cursor: Cursor,
}

/// One atomic step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreBatch {
    /// Counts up from 1 within one run of the engine.
    pub number: u64,
    /// At most one write per conversation.
    pub conversations: Vec<ConversationWrite>,
    /// To insert, or to replace by local id.
    pub outbox_put: Vec<OutboxItem>,
    /// To remove; after the puts.
    pub outbox_remove: Vec<LocalId>,
    /// The last id minted, so that the next run mints greater ones.
    pub last_minted: Option<ClientMessageId>,
    /// The next local id to give out.
    pub next_local_id: Option<u64>,
    /// To keep in place of the one before.
    pub sync_token: Option<SyncToken>,
}

impl StoreBatch {
    /// There is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.conversations.is_empty()
            && self.outbox_put.is_empty()
            && self.outbox_remove.is_empty()
            && self.sync_token.is_none()
            && self.last_minted.is_none()
            && self.next_local_id.is_none()
    }
}

/// What a store holds when an engine starts, entries apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Of every conversation that was ever written.
    pub cursors: Vec<(ConversationId, Cursor)>,
    /// Ascending in `order`.
    pub outbox: Vec<OutboxItem>,
    /// The last one kept.
    pub sync_token: Option<SyncToken>,
    /// The last one kept.
    pub last_minted: Option<ClientMessageId>,
    /// The last one kept.
    pub next_local_id: Option<u64>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(pub Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Of a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into().into())
    }
}

/// Keeps what a device holds. Calls may block: a driver makes them off its event loop, one at a time.
pub trait Store: Send + Sync + 'static {
    /// Everything but the entries.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Commits all of the batch, or nothing. Returns when it is as durable as this store makes things.
    ///
    /// # Errors
    /// Nothing was committed, as far as the store can tell.
    fn commit(&self, batch: &StoreBatch) -> Result<(), StoreError>;

    /// Held entries of a conversation with seq >= `from`, ascending, at most `entries_max`. Gaps are where entries
    /// were skipped.
    ///
    /// # Errors
    /// It cannot be read.
    fn entries(
        &self,
        conversation: ConversationId,
        from: u64,
        entries_max: usize,
    ) -> Result<Vec<StoredEntry>, StoreError>;
}
