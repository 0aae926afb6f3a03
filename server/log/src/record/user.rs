//! `users` and `devices`.

use bytes::Bytes;
use prost::Message;
use talaria_core::log::{DeviceRow, UserRow};

use super::{
    At,
    generated::{DeviceRecord, UserRecord},
};
use crate::{
    error::RecordError,
    keys::{DeviceKey, Family, UserKey},
};

/// The value of a user.
pub fn encode(row: &UserRow) -> Vec<u8> {
    let UserRow { tenant, subject, last_device_number } = row.clone();
    UserRecord { tenant, subject, last_device_number }.encode_to_vec()
}

/// Parses the value of a user.
///
/// # Errors
/// Bytes that are no record, or a user without a subject.
pub fn decode(key: &UserKey, value: Bytes) -> Result<UserRow, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Users, key: &bytes };
    let UserRecord { tenant, subject, last_device_number } = at.parse(value)?;
    at.ensure(!subject.is_empty(), "no subject")?;
    Ok(UserRow { tenant, subject, last_device_number })
}

/// The value of a device.
pub fn encode_device(row: &DeviceRow) -> Vec<u8> {
    DeviceRecord { number: row.number, first_seen_ms: row.first_seen_ms }.encode_to_vec()
}

/// Parses the value of a device.
///
/// # Errors
/// Bytes that are no record, or a device without a number.
pub fn decode_device(key: &DeviceKey, value: Bytes) -> Result<DeviceRow, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Devices, key: &bytes };
    let DeviceRecord { number, first_seen_ms } = at.parse(value)?;
    at.ensure(number > 0, "no number")?;
    Ok(DeviceRow { number, first_seen_ms })
}
