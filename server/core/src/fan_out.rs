//! An entry on its way to many sessions: encoded once for all, once more, without the content, for the device
//! that sent it, and never more often than someone needs it.

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

/// See the module.
pub(crate) struct FanOut<'a> {
    pub(crate) conversation: ConversationId,
    pub(crate) entry: &'a StoredEntry,
    /// Of a message: the device that has the content already.
    author: Option<(UserId, u32)>,
    full: Option<Encoded>,
    own: Option<Encoded>,
}

impl<'a> FanOut<'a> {
    pub(crate) fn new(
        conversation: ConversationId,
        entry: &'a StoredEntry,
        author: Option<(UserId, u32)>,
    ) -> Self {
        Self { conversation, entry, author, full: None, own: None }
    }

    /// The frame for a device of a user who sees the entry.
    pub(crate) fn encoded(&mut self, user: UserId, device: u32) -> &Encoded {
        let own = self.author == Some((user, device));
        let (sight, cached) = if own { (Sight::Own, &mut self.own) } else { (Sight::Full, &mut self.full) };
        cached.get_or_insert_with(|| {
            let entry = entry_for(self.entry, sight);
            (encode_deliver(self.conversation, &entry), entry.encoded_len() as u64)
        })
    }
}
