//! `client_ids`: what an accepted client message id stands for.

use bytes::Bytes;
use prost::Message;
use talaria_core::log::Accepted;
use talaria_protocol::hlc::Hlc;

use super::{At, generated::ClientIdRecord, owned};
use crate::{
    error::RecordError,
    keys::{ClientIdKey, Family},
};

/// The value of an accepted id.
pub fn encode(accepted: &Accepted) -> Vec<u8> {
    let Accepted { seq, epoch, hlc, digest } = accepted;
    ClientIdRecord { seq: *seq, epoch: *epoch, hlc: hlc.0, digest: owned(digest) }.encode_to_vec()
}

/// Parses the value of an accepted id.
///
/// # Errors
/// No seq, or a digest of another length.
pub fn decode(key: &ClientIdKey, value: Bytes) -> Result<Accepted, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::ClientIds, key: &bytes };
    let record: ClientIdRecord = at.parse(value)?;
    at.ensure(record.seq > 0, "no seq")?;
    let digest = at.fixed("digest", &record.digest)?;
    Ok(Accepted { seq: record.seq, epoch: record.epoch, hlc: Hlc(record.hlc), digest })
}
