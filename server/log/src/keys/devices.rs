//! `devices`: slot ‖ user ‖ device id.

use talaria_protocol::ids::{DeviceId, UserId};

use super::{Family, ID, Parts, SLOT, concat, slot_and_id};
use crate::error::RecordError;

const LEN: usize = SLOT + 2 * ID;

/// Names a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
}

impl DeviceKey {
    /// Its bytes.
    pub fn encode(&self) -> [u8; LEN] {
        concat(&[&Self::prefix(self.user), self.device.as_bytes()])
    }
    /// Parses a key.
    ///
    /// # Errors
    /// Another length, or a slot that is not the user's.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut parts = Parts::new(Family::Devices, key, LEN)?;
        Ok(Self { user: parts.user()?, device: DeviceId::new(parts.id()) })
    }
    /// All of a user.
    pub fn prefix(user: UserId) -> [u8; SLOT + ID] {
        slot_and_id(user.slot(), user.as_bytes())
    }
}
