//! An entry as it is kept and forwarded: raw header and content bytes, with what is needed to prove its place
//! in the chain. Parsing a header gives [`EntryHeader`]; the raw bytes stay what is hashed and sent.

mod codec;

pub use codec::{EntryError, HeaderError};

use std::fmt;

use bytes::Bytes;

use crate::{
    chain::{Commitment, Leaf, Salt},
    hlc::Hlc,
    ids::{ClientMessageId, UserId},
};

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Counted by the ordinal; all others are not.
    Message,
    /// Reserved for later.
    Edit,
    /// Reserved for later.
    Deletion,
    /// Reserved for later.
    Reaction,
    /// Someone joined, left, was removed, or the conversation began.
    Membership,
    /// Reserved for later.
    Settings,
    /// Of a newer protocol: kept, proven and skipped in display.
    Unknown(i32),
}

/// How a recipient's device should take notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// As the app's settings say.
    #[default]
    Normal,
    /// Ring.
    Urgent,
    /// No notification.
    Silent,
}

/// A parsed `EntryHeader`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Dense number in its conversation, from 1.
    pub seq: u64,
    /// Messages up to and including this entry.
    pub ordinal: u64,
    /// Who assigned the seq.
    pub epoch: u64,
    /// For display.
    pub hlc: Hlc,
    /// Who sent it.
    pub sender: UserId,
    /// The sender's device, by its small number.
    pub device: u32,
    /// What it is.
    pub kind: EntryKind,
    /// The entry that an edit, deletion or reaction is about; 0: none.
    pub target_seq: u64,
    /// The request that made it.
    pub client_message_id: ClientMessageId,
    /// Of a message.
    pub urgency: Urgency,
    /// When a message is of no more use, ms since 1970; 0: never.
    pub expires_ms: u64,
}

/// What of an entry a reader gets. Header, content and the rest are raw bytes, shared by reference. Its `Debug`
/// shows sizes, never content.
#[derive(Clone, PartialEq, Eq)]
pub enum EntryForm {
    /// Header, content and salt. `content: None` when the receiving device sent it and has the content.
    Full {
        /// Encoded `EntryHeader`.
        header: Bytes,
        /// Encoded `Content`.
        content: Option<Bytes>,
        /// Of the commitment.
        salt: Salt,
    },
    /// The content is gone.
    Erased {
        /// Encoded `EntryHeader`.
        header: Bytes,
        /// Of the content that was.
        commitment: Commitment,
    },
    /// This reader may not see it.
    Hidden {
        /// Keeps the chain provable.
        leaf: Leaf,
    },
}

impl fmt::Debug for EntryForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { content: Some(content), .. } => write!(f, "Full({} bytes)", content.len()),
            Self::Full { content: None, .. } => f.write_str("Full(content omitted)"),
            Self::Erased { commitment, .. } => write!(f, "Erased({commitment:?})"),
            Self::Hidden { leaf } => write!(f, "Hidden({leaf:?})"),
        }
    }
}

/// An entry and its seq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Equal to the header's, where there is one.
    pub seq: u64,
    /// What this reader gets.
    pub form: EntryForm,
}

impl Entry {
    /// The entry's leaf, for the chain; `None` for an own entry whose content was omitted: give it to
    /// [`Entry::leaf_with`].
    pub fn leaf(&self) -> Option<Leaf> {
        match &self.form {
            EntryForm::Full { header, content: Some(content), salt } => {
                Some(Leaf::of(header, &Commitment::of(salt, content)))
            }
            EntryForm::Full { content: None, .. } => None,
            EntryForm::Erased { header, commitment } => Some(Leaf::of(header, commitment)),
            EntryForm::Hidden { leaf } => Some(*leaf),
        }
    }

    /// The leaf of an own entry whose omitted content is `content`.
    pub fn leaf_with(&self, content: &[u8]) -> Option<Leaf> {
        match &self.form {
            EntryForm::Full { header, content: None, salt } => {
                Some(Leaf::of(header, &Commitment::of(salt, content)))
            }
            _ => self.leaf(),
        }
    }
}
