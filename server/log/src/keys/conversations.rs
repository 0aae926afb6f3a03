//! `conversations`: slot ‖ conversation.

use talaria_protocol::ids::ConversationId;

use super::{Family, ID, Parts, SLOT, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + ID;

/// Names a conversation's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationKey {
    /// Which.
    pub conversation: ConversationId,
}

impl ConversationKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        slot_and_id(self.conversation.slot(), self.conversation.as_bytes())
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the conversation's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        Ok(Self { conversation: Parts::new(Family::Conversations, key, LEN)?.conversation()? })
    }
}
