//! `members_by_user`: user ‖ slot of the conversation ‖ conversation. Derived from `members`, written in the same
//! batch, its value empty.

use talaria_protocol::ids::{ConversationId, UserId};

use super::{Family, ID, Parts, SLOT, concat, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + 2 * ID;

/// Says that a user is or was in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberByUserKey {
    /// Who.
    pub user: UserId,
    /// Where.
    pub conversation: ConversationId,
}

impl MemberByUserKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let conversation = slot_and_id(self.conversation.slot(), self.conversation.as_bytes());
        concat(&[self.user.as_bytes(), &conversation])
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the conversation's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut parts = Parts::new(Family::MembersByUser, key, LEN)?;
        Ok(Self { user: UserId::new(parts.id()), conversation: parts.conversation()? })
    }
    /// All of a user.
    pub fn prefix(user: UserId) -> [u8; ID] {
        *user.as_bytes()
    }
}
