//! `users`: slot ‖ user.

use talaria_protocol::ids::UserId;

use super::{Family, ID, Parts, SLOT, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + ID;

/// Names a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserKey {
    /// Who.
    pub user: UserId,
}

impl UserKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        slot_and_id(self.user.slot(), self.user.as_bytes())
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the user's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        Ok(Self { user: Parts::new(Family::Users, key, LEN)?.user()? })
    }
}
