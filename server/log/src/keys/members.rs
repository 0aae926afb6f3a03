//! `members`: slot ‖ conversation ‖ user.

use talaria_protocol::ids::{ConversationId, UserId};

use super::{Family, ID, Parts, SLOT, concat, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + 2 * ID;

/// Names a user's row in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberKey {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
}

impl MemberKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        concat(&[&Self::prefix(self.conversation), self.user.as_bytes()])
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the conversation's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut parts = Parts::new(Family::Members, key, LEN)?;
        Ok(Self { conversation: parts.conversation()?, user: UserId::new(parts.id()) })
    }
    /// All of a conversation.
    pub fn prefix(conversation: ConversationId) -> [u8; SLOT + ID] {
        slot_and_id(conversation.slot(), conversation.as_bytes())
    }
}
