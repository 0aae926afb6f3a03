//! Values of the log: conversions between the generated records and the domain's types, one module per family. An
//! encoder is total; a decoder trusts nothing and says which key and field is bad ([`RecordError`]). Records and
//! their field numbers: spec/proto/talaria/storage/v1/storage.proto.

pub mod client_id;
pub mod conversation;
pub mod cursor;
pub mod entry;
pub mod member;
pub mod meta;
pub mod user;

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod generated;

use bytes::Bytes;
use prost::Message;

use crate::{error::RecordError, keys::Family};

/// What a decoder knows of the value's place, to name it.
#[derive(Clone, Copy)]
struct At<'a> {
    family: Family,
    key: &'a [u8],
}

impl At<'_> {
    fn bad(self, what: impl Into<String>) -> RecordError {
        RecordError::new(self.family, self.key, what)
    }

    fn parse<M: Message + Default>(self, value: Bytes) -> Result<M, RecordError> {
        M::decode(value).map_err(|error| self.bad(format!("not a record: {error}")))
    }

    fn fixed<const N: usize>(self, name: &str, bytes: &[u8]) -> Result<[u8; N], RecordError> {
        bytes.try_into().map_err(|_| self.bad(format!("{name} has {} bytes, must have {N}", bytes.len())))
    }

    fn ensure(self, holds: bool, what: &str) -> Result<(), RecordError> {
        if holds { Ok(()) } else { Err(self.bad(what)) }
    }
}

fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Parses any row; for vectors, fuzzing and tests.
///
/// # Errors
/// What the family's decoders refuse.
pub fn check(family: Family, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
    use crate::keys;
    let value = owned(value);
    match family {
        Family::Entries => {
            let key = keys::EntryKey::decode(key)?;
            let stored = entry::decode(&key, value)?;
            entry::header(&key, &stored.header).map(drop)
        }
        Family::Conversations => conversation::decode(&keys::ConversationKey::decode(key)?, value).map(drop),
        Family::Members => member::decode(&keys::MemberKey::decode(key)?, value).map(drop),
        Family::Cursors => cursor::decode(&keys::CursorKey::decode(key)?, value).map(drop),
        Family::ClientIds => client_id::decode(&keys::ClientIdKey::decode(key)?, value).map(drop),
        Family::Users => user::decode(&keys::UserKey::decode(key)?, value).map(drop),
        Family::Devices => user::decode_device(&keys::DeviceKey::decode(key)?, value).map(drop),
        Family::MembersByUser => {
            keys::MemberByUserKey::decode(key)?;
            At { family, key }.ensure(value.is_empty(), "the value is not empty")
        }
        Family::Meta => match keys::MetaKey::decode(key)? {
            keys::MetaKey::Format => meta::decode_format(value).map(drop),
            keys::MetaKey::Deployment => meta::decode_deployment(value).map(drop),
            keys::MetaKey::Boots => meta::decode_boots(value).map(drop),
            keys::MetaKey::Commit => meta::decode_commit(&value).map(drop),
        },
    }
}

/// What people say is not printed.
impl std::fmt::Debug for generated::EntryRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntryRecord(..)")
    }
}

#[cfg(test)]
mod tests;
