//! `cursors`: the delivered cursor of a device.

use bytes::Bytes;
use prost::Message;

use super::{At, generated::CursorRecord};
use crate::{
    error::RecordError,
    keys::{CursorKey, Family},
};

/// The value of a cursor.
pub fn encode(epoch: u64, seq: u64) -> Vec<u8> {
    CursorRecord { epoch, seq }.encode_to_vec()
}

/// Parses the value of a cursor: (epoch, seq).
///
/// # Errors
/// Bytes that are no record, or a cursor at seq 0.
pub fn decode(key: &CursorKey, value: Bytes) -> Result<(u64, u64), RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Cursors, key: &bytes };
    let record: CursorRecord = at.parse(value)?;
    at.ensure(record.seq > 0, "a cursor at seq 0")?;
    Ok((record.epoch, record.seq))
}
