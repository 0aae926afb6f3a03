//! What a read of the log can end with. Every error names the family and the key, conversation or file, so that an
//! operator can find it; none holds a message's text.

use std::fmt;

use talaria_protocol::ids::ConversationId;

use crate::keys::Family;

/// Bytes in hexadecimal, for messages.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A key or value that no version of this program writes: damage, or a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad record in {} at key {}: {what}", family.name(), Hex(key))]
pub struct RecordError {
    /// Where.
    pub family: Family,
    /// The key.
    pub key: Vec<u8>,
    /// The field and what is wrong with it.
    pub what: String,
}

impl RecordError {
    /// A bad key or value at `key`.
    pub fn new(family: Family, key: &[u8], what: impl Into<String>) -> Self {
        Self { family, key: key.to_vec(), what: what.into() }
    }
}

/// Why the log could not be read. Nothing is served of what it concerns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A value was read whole, but it makes no sense.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Entries `first_seq..=head` are dense by definition; one is not there.
    #[error("conversation {conversation} lacks entry {seq}, its head is {head}")]
    MissingEntry {
        /// Which.
        conversation: ConversationId,
        /// The first seq that is missing.
        seq: u64,
        /// Of the conversation.
        head: u64,
    },
    /// Rows that are written together are not there together.
    #[error("conversation {conversation}: {what}")]
    Inconsistent {
        /// Which.
        conversation: ConversationId,
        /// The rows.
        what: String,
    },
    /// The store failed: a checksum, or I/O.
    #[error("cannot read {}{}{}: {detail}", family.name(), Keys(keys), File(file.as_deref()))]
    Store {
        /// What was being read.
        family: Family,
        /// Of the keys being read: the first, and the end where it was a range.
        keys: (Vec<u8>, Option<Vec<u8>>),
        /// The damaged file, when the store names it.
        file: Option<String>,
        /// In the store's words.
        detail: String,
    },
}

struct Keys<'a>(&'a (Vec<u8>, Option<Vec<u8>>));

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            (key, None) => write!(f, " at key {}", Hex(key)),
            (start, Some(end)) => write!(f, " in keys {}..{}", Hex(start), Hex(end)),
        }
    }
}

struct File<'a>(Option<&'a str>);

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |file| write!(f, ", file {file}"))
    }
}
