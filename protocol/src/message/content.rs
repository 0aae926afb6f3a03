//! What an app says in a message, and what the server says in entries of its own. A `Content` is encoded once,
//! by its author, and kept as those bytes; [`Content::parse`] checks them without changing them.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use super::{MemberRole, Peer};
use crate::{
    error_code::ErrorCode,
    ids::UserId,
    limits::{
        BODY_BYTES_MAX, CONTENT_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, METADATA_BYTES_MAX, METADATA_PAIRS_MAX,
    },
    wire,
};

/// A parsed content. Its `Debug` shows sizes, never text.
#[derive(Clone, PartialEq)]
pub struct Content {
    /// What is said.
    pub body: Body,
    /// Small key-value pairs of the app.
    pub metadata: Vec<(String, Bytes)>,
}

/// What is said.
#[derive(Clone, PartialEq)]
pub enum Body {
    /// UTF-8, at most [`BODY_BYTES_MAX`] bytes.
    Text(String),
    /// Bytes of a content type, at most [`BODY_BYTES_MAX`] together.
    Blob {
        /// A media type.
        content_type: String,
        /// The bytes.
        data: Bytes,
    },
    /// Made by the server only.
    Membership(Membership),
    /// Of a newer protocol.
    Unknown,
}

/// A change of who is in a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The entry that began the conversation.
    pub created: bool,
    /// A group's title, when created.
    pub title: String,
    /// In the order of the request.
    pub changes: Vec<MemberChange>,
}

/// What happened to one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Who.
    pub peer: Peer,
    /// What.
    pub action: MemberAction,
    /// The role since.
    pub role: MemberRole,
}

/// What happened to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// By a member who may, or as one of the first.
    Added,
    /// By a member who may.
    Removed,
    /// By oneself.
    Left,
    /// Nothing else.
    RoleChanged,
}

/// Why bytes are no content that may be sent. Never shows what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Not protobuf, or text that is not UTF-8.
    #[error("no valid Content message of UTF-8 text")]
    Malformed,
    /// A part is larger than its limit.
    #[error("{part} is {size}, at most {size_max} is allowed")]
    TooLarge {
        /// Of the content.
        part: &'static str,
        /// Bytes, or pairs of metadata.
        size: usize,
        /// Allowed.
        size_max: usize,
    },
    /// A user's id of another length in a membership change.
    #[error("a member's id of {0} bytes")]
    MemberId(usize),
    /// A client may not say this.
    #[error("only a server says who is a member")]
    ServerOnly,
    /// A client's content without a body, or of a newer protocol.
    #[error("content says nothing this server knows")]
    Unknown,
}

impl ContentError {
    /// What to answer ([DLV-8]).
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::Invalid,
        }
    }
}

fn at_most(part: &'static str, size: usize, size_max: usize) -> Result<(), ContentError> {
    if size <= size_max { Ok(()) } else { Err(ContentError::TooLarge { part, size, size_max }) }
}

impl Content {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self { body: Body::Text(text.into()), metadata: Vec::new() }
    }

    /// What a server says of who is a member.
    pub const fn membership(membership: Membership) -> Self {
        Self { body: Body::Membership(membership), metadata: Vec::new() }
    }

    /// Parses and bounds encoded content, whoever made it. A blob stays a slice of `encoded`.
    ///
    /// # Errors
    /// Bytes that are no content, or beyond a limit. A body of a newer protocol is [`Body::Unknown`].
    pub fn parse(encoded: &Bytes) -> Result<Self, ContentError> {
        at_most("content", encoded.len(), CONTENT_BYTES_MAX)?;
        let wire = wire::Content::decode(encoded.clone()).map_err(|_| ContentError::Malformed)?;
        at_most("metadata pairs", wire.metadata.len(), METADATA_PAIRS_MAX)?;
        let metadata: Vec<_> = wire.metadata.into_iter().map(|pair| (pair.key, pair.value)).collect();
        let metadata_bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        at_most("metadata", metadata_bytes, METADATA_BYTES_MAX)?;
        Ok(Self { body: Body::from_wire(wire.body)?, metadata })
    }

    /// The same for what a client sends, who may say less than a server.
    ///
    /// # Errors
    /// And a membership change, or nothing that this crate knows.
    pub fn parse_from_client(encoded: &Bytes) -> Result<Self, ContentError> {
        let content = Self::parse(encoded)?;
        match content.body {
            Body::Membership(_) => Err(ContentError::ServerOnly),
            Body::Unknown => Err(ContentError::Unknown),
            Body::Text(_) | Body::Blob { .. } => Ok(content),
        }
    }

    /// The bytes that are kept, hashed and sent.
    pub fn encode(&self) -> Bytes {
        let metadata = self
            .metadata
            .iter()
            .map(|(key, value)| wire::Metadata { key: key.clone(), value: value.clone() });
        wire::Content { body: self.body.to_wire(), metadata: metadata.collect() }.encode_to_vec().into()
    }
}

impl Body {
    fn from_wire(wire: Option<wire::content::Body>) -> Result<Self, ContentError> {
        match wire {
            None => Ok(Self::Unknown),
            Some(wire::content::Body::Text(text)) => {
                at_most("text", text.len(), BODY_BYTES_MAX)?;
                Ok(Self::Text(text))
            }
            Some(wire::content::Body::Blob(blob)) => {
                at_most("content type", blob.content_type.len(), CONTENT_TYPE_BYTES_MAX)?;
                at_most("blob", blob.content_type.len() + blob.data.len(), BODY_BYTES_MAX)?;
                Ok(Self::Blob { content_type: blob.content_type, data: blob.data })
            }
            Some(wire::content::Body::Membership(membership)) => {
                Ok(Membership::from_wire(membership)?.map_or(Self::Unknown, Self::Membership))
            }
        }
    }

    fn to_wire(&self) -> Option<wire::content::Body> {
        match self {
            Self::Text(text) => Some(wire::content::Body::Text(text.clone())),
            Self::Blob { content_type, data } => Some(wire::content::Body::Blob(wire::Blob {
                content_type: content_type.clone(),
                data: data.clone(),
            })),
            Self::Membership(membership) => Some(wire::content::Body::Membership(membership.to_wire())),
            Self::Unknown => None,
        }
    }
}

impl Membership {
    /// `None` when an action or role is of a newer protocol.
    fn from_wire(wire: wire::Membership) -> Result<Option<Self>, ContentError> {
        let mut changes = Vec::with_capacity(wire.changes.len());
        for change in wire.changes {
            let user = UserId::try_from(&change.user[..]).map_err(|error| ContentError::MemberId(error.0))?;
            let (Some(action), Some(role)) =
                (MemberAction::from_wire(change.action), MemberRole::from_wire(change.role))
            else {
                return Ok(None);
            };
            changes.push(MemberChange { peer: Peer { user, subject: change.subject }, action, role });
        }
        Ok(Some(Self { created: wire.created, title: wire.title, changes }))
    }

    fn to_wire(&self) -> wire::Membership {
        let changes = self.changes.iter().map(|change| wire::MemberChange {
            user: change.peer.user.to_bytes(),
            subject: change.peer.subject.clone(),
            action: change.action.to_wire(),
            role: change.role.to_wire(),
        });
        wire::Membership { created: self.created, title: self.title.clone(), changes: changes.collect() }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("body", &self.body)
            .field("metadata_pairs", &self.metadata.len())
            .finish()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Blob { data, .. } => write!(f, "Blob({} bytes)", data.len()),
            Self::Membership(membership) => write!(f, "Membership({} changes)", membership.changes.len()),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}
