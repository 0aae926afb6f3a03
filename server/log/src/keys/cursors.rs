//! `cursors`: slot ‖ conversation ‖ user ‖ device.

use talaria_protocol::ids::{ConversationId, DeviceId, UserId};

use super::{Family, ID, Parts, SLOT, concat, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + 3 * ID;

/// Names a device's delivered cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorKey {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
}

impl CursorKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        concat(&[&Self::prefix(self.conversation), self.user.as_bytes(), self.device.as_bytes()])
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the conversation's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut parts = Parts::new(Family::Cursors, key, LEN)?;
        let conversation = parts.conversation()?;
        Ok(Self { conversation, user: UserId::new(parts.id()), device: DeviceId::new(parts.id()) })
    }
    /// All of a conversation.
    pub fn prefix(conversation: ConversationId) -> [u8; SLOT + ID] {
        slot_and_id(conversation.slot(), conversation.as_bytes())
    }
}
