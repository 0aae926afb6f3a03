//! `entries`: slot ‖ conversation ‖ seq (u64 BE).

use talaria_protocol::ids::ConversationId;

use super::{Family, ID, Parts, SLOT, concat, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + ID + 8;

/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryKey {
    /// Where.
    pub conversation: ConversationId,
    /// Its number.
    pub seq: u64,
}

impl EntryKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        concat(&[&Self::prefix(self.conversation), &self.seq.to_be_bytes()])
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the conversation's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut parts = Parts::new(Family::Entries, key, LEN)?;
        Ok(Self { conversation: parts.conversation()?, seq: u64::from_be_bytes(parts.array()) })
    }
    /// All of a conversation, in the order of their seqs.
    pub fn prefix(conversation: ConversationId) -> [u8; SLOT + ID] {
        slot_and_id(conversation.slot(), conversation.as_bytes())
    }
}
