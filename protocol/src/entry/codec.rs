//! Entries and headers to and from bytes. A header is encoded once, by the server that appends it; everyone after
//! keeps those bytes and only parses them.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::{Entry, EntryForm, EntryHeader, EntryKind, Urgency};
use crate::{
    chain::{Commitment, Leaf, Salt},
    hlc::Hlc,
    ids::{ClientMessageId, IdLengthError, UserId},
    limits::{CONTENT_BYTES_MAX, HEADER_BYTES_MAX},
    wire::{self, entry::Form, put},
};

/// Why bytes are no `EntryHeader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Longer than [`HEADER_BYTES_MAX`].
    #[error("a header of {0} bytes")]
    TooLarge(usize),
    /// Not protobuf.
    #[error("a header that is no EntryHeader message")]
    Malformed,
    /// An id of another length.
    #[error("{0}: {1}")]
    Id(&'static str, IdLengthError),
    /// A seq of 0.
    #[error("seq is 0")]
    SeqZero,
}

/// Why a wire `Entry` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its header is none.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The seq beside the header is another than the one in it, or 0.
    #[error("seq {outer} beside a header of seq {inner}")]
    Seq {
        /// Beside.
        outer: u64,
        /// In the header.
        inner: u64,
    },
    /// None of full, erased, hidden.
    #[error("an entry of no known form")]
    Form,
    /// Longer than [`CONTENT_BYTES_MAX`].
    #[error("a content of {0} bytes")]
    ContentTooLarge(usize),
    /// Content that is said to be omitted.
    #[error("an omitted content that is there")]
    OmittedContent,
    /// A salt, commitment or leaf of another length.
    #[error("{0} of {1} bytes")]
    Length(&'static str, usize),
}

impl EntryHeader {
    /// Parses a header's bytes.
    ///
    /// # Errors
    /// Bytes that no server of this protocol makes.
    pub fn parse(header: &Bytes) -> Result<Self, HeaderError> {
        if header.len() > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLarge(header.len()));
        }
        let wire = wire::EntryHeader::decode(header.clone()).map_err(|_| HeaderError::Malformed)?;
        if wire.seq == 0 {
            return Err(HeaderError::SeqZero);
        }
        Ok(Self {
            seq: wire.seq,
            ordinal: wire.ordinal,
            epoch: wire.epoch,
            hlc: Hlc(wire.hlc),
            sender: UserId::try_from(&wire.sender[..]).map_err(|error| HeaderError::Id("sender", error))?,
            device: wire.device,
            kind: EntryKind::from_wire(wire.kind),
            target_seq: wire.target_seq,
            client_message_id: ClientMessageId::try_from(&wire.client_message_id[..])
                .map_err(|error| HeaderError::Id("client_message_id", error))?,
            urgency: Urgency::from_wire(wire.urgency).unwrap_or_default(),
            expires_ms: wire.expires_ms,
        })
    }

    /// The bytes that are kept, hashed and sent; at most [`HEADER_BYTES_MAX`].
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES_MAX);
        put::uint(1, self.seq, &mut out);
        put::uint(2, self.ordinal, &mut out);
        put::uint(3, self.epoch, &mut out);
        put::fixed64(4, self.hlc.0, &mut out);
        put::bytes(5, self.sender.as_bytes(), &mut out);
        put::uint(6, u64::from(self.device), &mut out);
        put::uint(7, i64::from(self.kind.to_wire()).cast_unsigned(), &mut out);
        put::uint(8, self.target_seq, &mut out);
        put::bytes(9, self.client_message_id.as_bytes(), &mut out);
        put::uint(10, i64::from(self.urgency.to_wire()).cast_unsigned(), &mut out);
        put::uint(11, self.expires_ms, &mut out);
        Bytes::copy_from_slice(&out)
    }
}

impl Entry {
    /// The entry of a wire message; header and content stay slices of the frame.
    ///
    /// # Errors
    /// Lengths that cannot be, a header that cannot be parsed, or one of another seq.
    pub fn from_wire(wire: wire::Entry) -> Result<Self, EntryError> {
        let seq = wire.seq;
        let form = match wire.form.ok_or(EntryError::Form)? {
            Form::Full(full) => {
                check_header(seq, &full.header)?;
                let salt = Salt::try_from(&full.salt[..])
                    .map_err(|_| EntryError::Length("a salt", full.salt.len()))?;
                EntryForm::Full { content: content(&full)?, header: full.header, salt }
            }
            Form::Erased(erased) => {
                check_header(seq, &erased.header)?;
                let commitment = Commitment::from_slice(&erased.commitment)
                    .ok_or(EntryError::Length("a commitment", erased.commitment.len()))?;
                EntryForm::Erased { header: erased.header, commitment }
            }
            Form::Hidden(hidden) => {
                let leaf =
                    Leaf::from_slice(&hidden.leaf).ok_or(EntryError::Length("a leaf", hidden.leaf.len()))?;
                EntryForm::Hidden { leaf }
            }
        };
        if seq == 0 {
            return Err(HeaderError::SeqZero.into());
        }
        Ok(Self { seq, form })
    }

    /// The wire message.
    pub fn to_wire(&self) -> wire::Entry {
        let form = match &self.form {
            EntryForm::Full { header, content, salt } => Form::Full(wire::FullEntry {
                header: header.clone(),
                content: content.clone().unwrap_or_default(),
                salt: Bytes::copy_from_slice(salt),
                content_omitted: content.is_none(),
            }),
            EntryForm::Erased { header, commitment } => {
                Form::Erased(wire::ErasedEntry { header: header.clone(), commitment: commitment.to_bytes() })
            }
            EntryForm::Hidden { leaf } => Form::Hidden(wire::HiddenEntry { leaf: leaf.to_bytes() }),
        };
        wire::Entry { seq: self.seq, form: Some(form) }
    }

    /// The length of the encoded `Entry`, bytes: what credit counts ([DLV-24]).
    pub fn encoded_len(&self) -> usize {
        put::uint_len(self.seq) + put::nested_len(self.form_len())
    }

    /// The header, parsed; `None` for a hidden entry.
    ///
    /// # Errors
    /// Never for an entry that [`Entry::from_wire`] gave.
    pub fn header(&self) -> Result<Option<EntryHeader>, HeaderError> {
        match &self.form {
            EntryForm::Full { header, .. } | EntryForm::Erased { header, .. } => {
                EntryHeader::parse(header).map(Some)
            }
            EntryForm::Hidden { .. } => Ok(None),
        }
    }

    fn form_len(&self) -> usize {
        match &self.form {
            EntryForm::Full { header, content, salt } => {
                let content_len = content.as_ref().map_or(2, |content| put::bytes_len(content.len()));
                put::bytes_len(header.len()) + content_len + put::bytes_len(salt.len())
            }
            EntryForm::Erased { header, .. } => put::bytes_len(header.len()) + put::bytes_len(32),
            EntryForm::Hidden { .. } => put::bytes_len(32),
        }
    }

    /// Appends the encoded `Entry`.
    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        put::uint(1, self.seq, out);
        let form_len = self.form_len();
        match &self.form {
            EntryForm::Full { header, content, salt } => {
                put::nested(2, form_len, out);
                put::bytes(1, header, out);
                put::bytes(2, content.as_deref().unwrap_or_default(), out);
                put::bytes(3, salt, out);
                put::uint(4, u64::from(content.is_none()), out);
            }
            EntryForm::Erased { header, commitment } => {
                put::nested(3, form_len, out);
                put::bytes(1, header, out);
                put::bytes(2, commitment.as_bytes(), out);
            }
            EntryForm::Hidden { leaf } => {
                put::nested(4, form_len, out);
                put::bytes(1, leaf.as_bytes(), out);
            }
        }
    }
}

fn check_header(outer: u64, header: &Bytes) -> Result<(), EntryError> {
    let inner = EntryHeader::parse(header)?.seq;
    if outer == inner { Ok(()) } else { Err(EntryError::Seq { outer, inner }) }
}

fn content(full: &wire::FullEntry) -> Result<Option<Bytes>, EntryError> {
    match (full.content_omitted, full.content.len()) {
        (true, 0) => Ok(None),
        (true, _) => Err(EntryError::OmittedContent),
        (false, len) if len > CONTENT_BYTES_MAX => Err(EntryError::ContentTooLarge(len)),
        (false, _) => Ok(Some(full.content.clone())),
    }
}
