//! `entries`: header, content and salt (or what an erased one leaves) and the chain.

use bytes::Bytes;
use prost::Message;
use talaria_core::log::{StoredBody, StoredEntry};
use talaria_protocol::{
    chain::{Chain, Commitment},
    entry::{EntryHeader, EntryKind, Urgency},
    hlc::Hlc,
    ids::{ClientMessageId, UserId},
    wire,
};

use super::{At, generated::EntryRecord, owned};
use crate::{
    error::RecordError,
    keys::{EntryKey, Family},
};

/// The value of an entry.
pub fn encode(entry: &StoredEntry) -> Vec<u8> {
    let (content, salt, commitment) = match &entry.body {
        StoredBody::Kept { content, salt } => (content.clone(), owned(salt), Bytes::new()),
        StoredBody::Erased { commitment } => (Bytes::new(), Bytes::new(), commitment.to_bytes()),
    };
    let header = entry.header.clone();
    EntryRecord { header, content, salt, commitment, chain: entry.chain.to_bytes() }.encode_to_vec()
}

/// Parses the value of an entry; header and content share its memory.
///
/// # Errors
/// A missing field, one of another length, or fields of both a kept and an erased entry.
pub fn decode(key: &EntryKey, value: Bytes) -> Result<StoredEntry, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Entries, key: &bytes };
    let record: EntryRecord = at.parse(value)?;
    at.ensure(!record.header.is_empty(), "no header")?;
    let body = if record.commitment.is_empty() {
        StoredBody::Kept { salt: at.fixed("salt", &record.salt)?, content: record.content }
    } else {
        at.ensure(record.salt.is_empty() && record.content.is_empty(), "erased, yet with content or salt")?;
        StoredBody::Erased { commitment: Commitment::new(at.fixed("commitment", &record.commitment)?) }
    };
    let chain = Chain::new(at.fixed("chain", &record.chain)?);
    Ok(StoredEntry { seq: key.seq, header: record.header, body, chain })
}

/// Parses the header of a stored entry.
///
/// # Errors
/// Bytes that are no header, ids of another length, or a seq that is not the key's.
pub fn header(key: &EntryKey, header: &Bytes) -> Result<EntryHeader, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Entries, key: &bytes };
    let wire: wire::EntryHeader = at.parse(header.clone())?;
    at.ensure(wire.seq == key.seq, "the header's seq is not the key's")?;
    let sender = UserId::try_from(&wire.sender[..]).map_err(|error| at.bad(format!("sender: {error}")))?;
    let client_message_id = ClientMessageId::parse(&wire.client_message_id)
        .map_err(|error| at.bad(format!("client message id: {error}")))?;
    let urgency = match wire.urgency {
        0 => Urgency::Normal,
        1 => Urgency::Urgent,
        2 => Urgency::Silent,
        other => return Err(at.bad(format!("urgency {other}"))),
    };
    Ok(EntryHeader {
        seq: wire.seq,
        ordinal: wire.ordinal,
        epoch: wire.epoch,
        hlc: Hlc(wire.hlc),
        sender,
        device: wire.device,
        kind: kind(wire.kind),
        target_seq: wire.target_seq,
        client_message_id,
        urgency,
        expires_ms: wire.expires_ms,
    })
}

fn kind(kind: i32) -> EntryKind {
    match kind {
        0 => EntryKind::Message,
        1 => EntryKind::Edit,
        2 => EntryKind::Deletion,
        3 => EntryKind::Reaction,
        4 => EntryKind::Membership,
        5 => EntryKind::Settings,
        other => EntryKind::Unknown(other),
    }
}
