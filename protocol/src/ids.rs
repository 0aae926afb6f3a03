//! Ids: 16 bytes each, of a type each. Derived ids (user, conversation) come from the deployment's key; the
//! others are UUIDv7 made by clients. Nothing here draws randomness or reads a clock: both are arguments.

use std::fmt;

/// Slots that conversations and users are spread over.
pub const SLOTS: u16 = 16_384;

/// Bytes of another length than an id's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 16 bytes, got {0}")]
pub struct IdLengthError(pub usize);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id of these bytes.
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
            /// A copy for a wire message.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }
        }
        impl TryFrom<&[u8]> for $name {
            type Error = IdLengthError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdLengthError> {
                bytes.try_into().map(Self).map_err(|_| IdLengthError(bytes.len()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id!(
    /// A person, within a tenant: keyed BLAKE3 of (tenant, JWT subject).
    UserId
);
id!(
    /// One installation of an app: a UUIDv7 that it made.
    DeviceId
);
id!(
    /// A conversation. See [`IdKey`] for how each kind's is derived.
    ConversationId
);
id!(
    /// A request to append, named by its client: a UUIDv7 whose time places it in the dedup window ([DLV-2]).
    ClientMessageId
);
id!(
    /// One authenticated connection, drawn by the server.
    SessionId
);
id!(
    /// One opening of a log, drawn by the server.
    BootId
);

/// Why bytes are no UUIDv7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Uuid7Error {
    /// Not 16 bytes.
    #[error(transparent)]
    Length(#[from] IdLengthError),
    /// Version or variant bits of another kind of UUID.
    #[error("not a version 7 UUID")]
    Version,
}

fn uuid7(unix_ms: u64, random: [u8; 10]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&random);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    bytes
}

fn is_uuid7(bytes: &[u8; 16]) -> bool {
    bytes[6] >> 4 == 7 && bytes[8] >> 6 == 0b10
}

macro_rules! uuid7_id {
    ($name:ident) => {
        impl $name {
            /// A UUIDv7 of this time (ms since 1970) and randomness.
            pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid7(unix_ms, random))
            }
            /// Parses 16 bytes that must be a UUIDv7.
            ///
            /// # Errors
            /// Another length, version or variant.
            pub fn parse(bytes: &[u8]) -> Result<Self, Uuid7Error> {
                let id = Self::try_from(bytes)?;
                if is_uuid7(&id.0) { Ok(id) } else { Err(Uuid7Error::Version) }
            }
            /// The time inside, ms since 1970.
            pub fn unix_ms(&self) -> u64 {
                let b = &self.0;
                u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
            }
        }
    };
}
uuid7_id!(DeviceId);
uuid7_id!(ClientMessageId);

/// hash(id): which part of the deployment a conversation or user belongs to, `0..SLOTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// First 14 bits of BLAKE3(id).
    fn of(id: &[u8; 16]) -> Self {
        let hash = blake3::hash(id);
        let head = hash.as_bytes();
        Self(u16::from_be_bytes([head[0], head[1]]) >> 2)
    }
    /// The number, below [`SLOTS`].
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl ConversationId {
    /// The slot that owns it.
    pub fn slot(&self) -> Slot {
        Slot::of(&self.0)
    }
}

impl UserId {
    /// The slot that owns it; its account conversation's too.
    pub fn slot(&self) -> Slot {
        Slot::of(&self.0)
    }
    /// The user's account conversation: of the same bytes.
    pub fn account(&self) -> ConversationId {
        ConversationId(self.0)
    }
}

/// The deployment's key: makes derived ids that leak no social graph. Never rotated, in every backup.
#[derive(Clone)]
pub struct IdKey([u8; 32]);

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey(..)")
    }
}

impl IdKey {
    /// The key of these bytes, drawn once per deployment.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Its bytes, for the log's `meta`.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, domain: &str, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(domain.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        id
    }

    /// The user whom `subject` of a token names, in this tenant.
    pub fn user(&self, tenant: &str, subject: &str) -> UserId {
        UserId(self.derive("talaria/1 user", &[tenant.as_bytes(), subject.as_bytes()]))
    }

    /// The direct conversation of two users, whoever asks; of one user: the notes to oneself.
    pub fn direct(&self, a: UserId, b: UserId) -> ConversationId {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        ConversationId(self.derive("talaria/1 direct", &[&low.0, &high.0]))
    }

    /// The group that this creator's request made: a retried create makes one group.
    pub fn group(&self, creator: UserId, request: ClientMessageId) -> ConversationId {
        ConversationId(self.derive("talaria/1 group", &[&creator.0, &request.0]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn uuid7_round_trips_its_time_and_refuses_others() {
        let id = ClientMessageId::from_parts(1_700_000_000_123, [0xff; 10]);
        assert_eq!(id.unix_ms(), 1_700_000_000_123);
        assert_eq!(ClientMessageId::parse(id.as_bytes()).unwrap(), id);
        assert_eq!(ClientMessageId::parse(&[0; 16]), Err(Uuid7Error::Version));
        assert_eq!(ClientMessageId::parse(&[0; 15]), Err(Uuid7Error::Length(IdLengthError(15))));
    }

    #[test]
    fn derived_ids_depend_on_key_order_free_pair_and_exact_parts() {
        let (key, other) = (IdKey::new([1; 32]), IdKey::new([2; 32]));
        let (a, b) = (key.user("", "alice"), key.user("", "bob"));
        assert_eq!(key.direct(a, b), key.direct(b, a));
        assert_ne!(key.direct(a, b), other.direct(a, b));
        assert_ne!(key.user("ab", "c"), key.user("a", "bc"));
        assert_eq!(a.account().slot(), a.slot());
    }

    #[test]
    fn slots_stay_in_range() {
        for n in 0..1000u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            assert!(ConversationId::new(id).slot().get() < SLOTS);
        }
    }
}
