//! `meta`: format version, the deployment's key, all openings, and the number of the last commit (8 bytes BE, no
//! protobuf: it is written with every batch).

use bytes::Bytes;
use prost::Message;
use talaria_core::log::Boot;
use talaria_protocol::ids::{BootId, IdKey};

use super::{
    At,
    generated::{Boot as BootRecord, BootsRecord, DeploymentRecord, FormatRecord},
    owned,
};
use crate::{
    error::RecordError,
    keys::{Family, MetaKey},
};

fn at(key: MetaKey) -> At<'static> {
    At { family: Family::Meta, key: key.encode() }
}

/// The value of `format`.
pub fn encode_format(version: u32) -> Vec<u8> {
    FormatRecord { version }.encode_to_vec()
}

/// Parses `format`.
///
/// # Errors
/// Bytes that are no record, or version 0.
pub fn decode_format(value: Bytes) -> Result<u32, RecordError> {
    let record: FormatRecord = at(MetaKey::Format).parse(value)?;
    at(MetaKey::Format).ensure(record.version > 0, "no version")?;
    Ok(record.version)
}

/// The value of `deployment`.
pub fn encode_deployment(key: &IdKey) -> Vec<u8> {
    DeploymentRecord { id_key: owned(key.as_bytes()) }.encode_to_vec()
}

/// Parses `deployment`.
///
/// # Errors
/// A key of another length.
pub fn decode_deployment(value: Bytes) -> Result<IdKey, RecordError> {
    let record: DeploymentRecord = at(MetaKey::Deployment).parse(value)?;
    Ok(IdKey::new(at(MetaKey::Deployment).fixed("id_key", &record.id_key)?))
}

/// The value of `boots`.
pub fn encode_boots(boots: &[Boot]) -> Vec<u8> {
    let boots = boots.iter().map(|boot| BootRecord {
        boot_id: boot.boot_id.to_bytes(),
        first_commit: boot.first_commit,
        opened_ms: boot.opened_ms,
    });
    BootsRecord { boots: boots.collect() }.encode_to_vec()
}

/// Parses `boots`.
///
/// # Errors
/// None at all, an id of another length, or first commits that go back.
pub fn decode_boots(value: Bytes) -> Result<Vec<Boot>, RecordError> {
    let at = at(MetaKey::Boots);
    let record: BootsRecord = at.parse(value)?;
    let parse = |boot: &BootRecord| {
        let boot_id = BootId::new(at.fixed("boot_id", &boot.boot_id)?);
        Ok(Boot { boot_id, first_commit: boot.first_commit, opened_ms: boot.opened_ms })
    };
    let boots: Vec<Boot> = record.boots.iter().map(parse).collect::<Result<_, _>>()?;
    at.ensure(!boots.is_empty(), "no boots")?;
    let ascending = boots.windows(2).all(|pair| pair[0].first_commit <= pair[1].first_commit);
    at.ensure(ascending, "first commits of boots go back")?;
    Ok(boots)
}

/// The value of `commit`.
pub fn encode_commit(commit: u64) -> Vec<u8> {
    commit.to_be_bytes().to_vec()
}

/// Parses `commit`.
///
/// # Errors
/// Another length than 8 bytes.
pub fn decode_commit(value: &[u8]) -> Result<u64, RecordError> {
    at(MetaKey::Commit).fixed("the commit number", value).map(u64::from_be_bytes)
}
