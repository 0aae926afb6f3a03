//! Key bytes, one module per family. Each key type encodes to and decodes from exactly one layout; golden tests pin
//! the bytes. All but `members_by_user` and `meta` begin with the slot (u16 BE), so that a slot can move as one
//! range. A decoder refuses another length and a slot that is not the id's.

pub mod client_ids;
pub mod conversations;
pub mod cursors;
pub mod devices;
pub mod entries;
pub mod members;
pub mod members_by_user;
pub mod meta;
pub mod users;

use talaria_protocol::ids::{ConversationId, Slot, UserId};

use crate::error::RecordError;

pub use client_ids::ClientIdKey;
pub use conversations::ConversationKey;
pub use cursors::CursorKey;
pub use devices::DeviceKey;
pub use entries::EntryKey;
pub use members::MemberKey;
pub use members_by_user::MemberByUserKey;
pub use meta::MetaKey;
pub use users::UserKey;

/// Length of a slot in a key.
const SLOT: usize = 2;
/// Length of an id in a key.
const ID: usize = 16;

/// A kind of key: a column family of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Entries, by conversation and seq.
    Entries,
    /// Heads and settings.
    Conversations,
    /// Who is or was in a conversation.
    Members,
    /// Delivered cursors of devices.
    Cursors,
    /// Accepted client message ids.
    ClientIds,
    /// Users.
    Users,
    /// Devices.
    Devices,
    /// Derived: a user's conversations.
    MembersByUser,
    /// Of the log itself.
    Meta,
}

/// Names of kinds that once were; never to be given again. None yet.
pub const RETIRED_NAMES: &[&str] = &[];

impl Family {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Entries,
        Self::Conversations,
        Self::Members,
        Self::Cursors,
        Self::ClientIds,
        Self::Users,
        Self::Devices,
        Self::MembersByUser,
        Self::Meta,
    ];

    /// The column family's name: frozen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Conversations => "conversations",
            Self::Members => "members",
            Self::Cursors => "cursors",
            Self::ClientIds => "client_ids",
            Self::Users => "users",
            Self::Devices => "devices",
            Self::MembersByUser => "members_by_user",
            Self::Meta => "meta",
        }
    }

    /// The family of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// The end (excluded) of the range of all keys that begin with `prefix`; `None`: the range has no end.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// `slot ‖ id`, which most keys begin with.
fn slot_and_id(slot: Slot, id: &[u8; ID]) -> [u8; SLOT + ID] {
    let mut prefix = [0; SLOT + ID];
    prefix[..SLOT].copy_from_slice(&slot.get().to_be_bytes());
    prefix[SLOT..].copy_from_slice(id);
    prefix
}

/// A key of fixed length, its parts one behind the other.
fn concat<const LEN: usize>(parts: &[&[u8]]) -> [u8; LEN] {
    let mut key = [0; LEN];
    let mut at = 0;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, LEN, "the parts of a key fill it");
    key
}

/// Takes a key apart; knows which key to name when it is bad.
struct Parts<'a> {
    family: Family,
    key: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    fn new(family: Family, key: &'a [u8], len: usize) -> Result<Self, RecordError> {
        if key.len() == len {
            return Ok(Self { family, key, at: 0 });
        }
        Err(RecordError::new(
            family,
            key,
            format!("a key of this family has {len} bytes, this one {}", key.len()),
        ))
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.key[self.at..self.at + N]);
        self.at += N;
        part
    }

    fn id(&mut self) -> [u8; ID] {
        self.array()
    }

    fn check_slot(&self, found: [u8; SLOT], slot: Slot) -> Result<(), RecordError> {
        let found = u16::from_be_bytes(found);
        if found == slot.get() {
            return Ok(());
        }
        Err(RecordError::new(
            self.family,
            self.key,
            format!("slot {found}, but the id's slot is {}", slot.get()),
        ))
    }

    /// `slot ‖ conversation`.
    fn conversation(&mut self) -> Result<ConversationId, RecordError> {
        let slot = self.array();
        let id = ConversationId::new(self.id());
        self.check_slot(slot, id.slot())?;
        Ok(id)
    }

    /// `slot ‖ user`.
    fn user(&mut self) -> Result<UserId, RecordError> {
        let slot = self.array();
        let id = UserId::new(self.id());
        self.check_slot(slot, id.slot())?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
