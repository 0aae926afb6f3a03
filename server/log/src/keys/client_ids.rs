//! `client_ids`: slot ‖ conversation ‖ user ‖ client message id. The ids are UUIDv7, so a user's last one in a
//! conversation is the one of the latest time: one reverse seek finds it.

use talaria_protocol::ids::{ClientMessageId, ConversationId, UserId};

use super::{Family, ID, Parts, SLOT, concat, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + 3 * ID;
/// Length of the part that stands for one user in one conversation.
pub const USER_PREFIX_LEN: usize = SLOT + 2 * ID;

/// Names an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIdKey {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// The request's id.
    pub id: ClientMessageId,
}

impl ClientIdKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        concat(&[&Self::user_prefix(self.conversation, self.user), self.id.as_bytes()])
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, a slot that is not the conversation's, or an id that is no UUIDv7.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut parts = Parts::new(Family::ClientIds, key, LEN)?;
        let (conversation, user) = (parts.conversation()?, UserId::new(parts.id()));
        let id = ClientMessageId::parse(&parts.id()).map_err(|error| {
            RecordError::new(Family::ClientIds, key, format!("client message id: {error}"))
        })?;
        Ok(Self { conversation, user, id })
    }
    /// All of a conversation.
    pub fn prefix(conversation: ConversationId) -> [u8; SLOT + ID] {
        slot_and_id(conversation.slot(), conversation.as_bytes())
    }
    /// All of a user in a conversation, in the order of their times.
    pub fn user_prefix(conversation: ConversationId, user: UserId) -> [u8; USER_PREFIX_LEN] {
        concat(&[&Self::prefix(conversation), user.as_bytes()])
    }
}
