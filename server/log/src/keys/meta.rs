//! `meta`: ASCII names. What each value holds is in [`crate::record::meta`].

use super::Family;
use crate::error::RecordError;

/// Names a record of the log itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// Version of keys and records.
    Format,
    /// The deployment's key.
    Deployment,
    /// All openings.
    Boots,
    /// Number of the last commit.
    Commit,
}

impl MetaKey {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Format, Self::Deployment, Self::Boots, Self::Commit];

    /// Its bytes.
    pub const fn encode(self) -> &'static [u8] {
        match self {
            Self::Format => b"format",
            Self::Deployment => b"deployment",
            Self::Boots => b"boots",
            Self::Commit => b"commit",
        }
    }
    /// Parses a key.
    ///
    /// # Errors
    /// A name that is not in the list.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        Self::ALL
            .into_iter()
            .find(|name| name.encode() == key)
            .ok_or_else(|| RecordError::new(Family::Meta, key, "no such name"))
    }
}
