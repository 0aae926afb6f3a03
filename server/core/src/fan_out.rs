//! An entry on its way to many sessions: encoded once for all, once more, without the content, for the device that sent
//! it, and not at all when nobody is there. A shard gets it once, with the list of its users who see it.

use bytes::Bytes;
use talaria_protocol::{
    entry::{Entry, EntryForm},
    ids::{ConversationId, UserId},
    message::server::encode_deliver,
};

use crate::log::{StoredBody, StoredEntry};

/// How much of an entry a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All.
    Full,
    /// All; the reader's device sent it and has the content.
    Own,
    /// That there is one.
    Stub,
}

/// The wire's view of a stored entry.
pub(crate) fn entry_for(stored: &StoredEntry, sight: Sight) -> Entry {
    let form = match (&stored.body, sight) {
        (_, Sight::Stub) => EntryForm::Hidden { leaf: stored.leaf() },
        (StoredBody::Erased { commitment }, _) => {
            EntryForm::Erased { header: stored.header.clone(), commitment: *commitment }
        }
        (StoredBody::Kept { content, salt }, _) => EntryForm::Full {
            header: stored.header.clone(),
            content: (sight == Sight::Full).then(|| content.clone()),
            salt: *salt,
        },
    };
    Entry { seq: stored.seq, form }
}

/// An encoded `Deliver` and what it costs in entry bytes.
pub(crate) type Encoded = (Bytes, u64);

/// A device, by its user and its small number.
pub(crate) type Author = (UserId, u32);

fn encode(conversation: ConversationId, stored: &StoredEntry, sight: Sight) -> Encoded {
    let entry = entry_for(stored, sight);
    (encode_deliver(conversation, &entry), entry.encoded_len() as u64)
}

/// A durable entry, encoded. Clones share the frames.
#[derive(Clone, Debug)]
pub(crate) struct LiveEntry {
    pub(crate) conversation: ConversationId,
    pub(crate) seq: u64,
    /// In which it became durable.
    pub(crate) commit: u64,
    full: Encoded,
    /// Of a message: for the device that has the content already.
    own: Option<(Author, Encoded)>,
}

impl LiveEntry {
    /// `author`: of a message, when that device may be there.
    pub(crate) fn new(
        conversation: ConversationId,
        stored: &StoredEntry,
        commit: u64,
        author: Option<Author>,
    ) -> Self {
        Self {
            conversation,
            seq: stored.seq,
            commit,
            full: encode(conversation, stored, Sight::Full),
            own: author.map(|author| (author, encode(conversation, stored, Sight::Own))),
        }
    }

    /// The frame for a device of a user who sees the entry.
    pub(crate) fn encoded(&self, user: UserId, device: u32) -> &Encoded {
        match &self.own {
            Some((author, own)) if *author == (user, device) => own,
            _ => &self.full,
        }
    }
}

/// An entry for the sessions of one shard.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) entry: LiveEntry,
    /// Those who see it and may have sessions there.
    pub(crate) users: Vec<UserId>,
}
