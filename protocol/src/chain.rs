//! The hash chain of a conversation: commitment, leaf, chain. Pure functions of the bytes as kept; nothing
//! here re-encodes a message. spec/delivery.md, "Chain".

use std::fmt;

use crate::ids::ConversationId;

const DOMAIN_COMMITMENT: &[u8] = b"talaria/1 commitment";
const DOMAIN_LEAF: &[u8] = b"talaria/1 leaf";
const DOMAIN_CHAIN: &[u8] = b"talaria/1 chain";

/// 16 bytes that the server draws per entry, so that a commitment cannot be guessed.
pub type Salt = [u8; 16];

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);
        impl $name {
            /// The hash of these bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// A copy for a wire message.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }
            /// Parses 32 bytes; `None` for another length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("..)")
            }
        }
    };
}

hash!(
    /// BLAKE3(domain ‖ salt ‖ content): stands for a content that may be erased later ([DLV-12]).
    Commitment
);
hash!(
    /// BLAKE3(domain ‖ header ‖ commitment): stands for an entry that a reader may not see ([DLV-13]).
    Leaf
);
hash!(
    /// The conversation's hash up to a seq ([DLV-14]).
    Chain
);

impl Commitment {
    /// Of a content, under its salt. The salt has a fixed length, so nothing is ambiguous.
    pub fn of(salt: &Salt, content: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN_COMMITMENT).update(salt).update(content);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Leaf {
    /// Of an encoded header and its content's commitment. The commitment ends it with a fixed length.
    pub fn of(header: &[u8], commitment: &Commitment) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN_LEAF).update(header).update(&commitment.0);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Chain {
    /// chain(0).
    pub const ZERO: Self = Self([0; 32]);

    /// chain(seq), where `self` is chain(seq − 1).
    #[must_use]
    pub fn next(&self, conversation: ConversationId, seq: u64, leaf: &Leaf) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(DOMAIN_CHAIN)
            .update(conversation.as_bytes())
            .update(&seq.to_be_bytes())
            .update(&self.0)
            .update(&leaf.0);
        Self(*hasher.finalize().as_bytes())
    }
}
