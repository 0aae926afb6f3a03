//! What an opening does before anything else is read or written: checks the format, creates what a new log needs,
//! and appends this boot to the list, durably. A sync token (boot id, commit) of a client is good as long as its boot
//! is in the list. The list keeps the last [`BOOTS_MAX`] openings: a token of an older one is of an unknown boot, so
//! that its client is told to start over (`reset`), which costs it a comparison of all its cursors and nothing else.

use talaria_core::log::{Boot, LogInfo};
use talaria_protocol::ids::{BootId, IdKey};

use crate::{
    Batch, Family,
    commit_log::{CommitLog, CommitResult, Scan, View, Visit},
    error::{ReadError, RecordError},
    keys::MetaKey,
    record,
};

/// Version of keys and records that this program writes. Before 1.0 every change bumps it. Format 1 is read too: its
/// rows are rows of format 2, in which nothing was cut yet. An opening for writing raises its number, with the boot.
pub const FORMAT_VERSION: u32 = 2;
/// Openings kept in the list.
pub const BOOTS_MAX: usize = 1_000;

/// What an opening must not draw itself.
#[derive(Clone, Copy, Debug)]
pub struct OpenSeeds {
    /// Random.
    pub boot_id: BootId,
    /// Random; becomes the deployment's key if the log is new, else it is not used.
    pub id_key_if_new: [u8; 32],
    /// Ms since 1970.
    pub now_ms: u64,
}

/// Why a log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Written by a newer version.
    #[error(
        "the log has format {found}, this version of talaria knows {FORMAT_VERSION}: start the version that wrote it, or \
         a newer one; nothing was changed"
    )]
    NewerFormat {
        /// In the log.
        found: u32,
    },
    /// Rows are there, but not what every log has.
    #[error("the log is damaged: {what}; restore the data directory from a backup")]
    Damaged {
        /// What is missing or contradicts itself.
        what: String,
    },
    /// The caller drew an id that was drawn before.
    #[error("boot id {0} was used before: the source of randomness is broken")]
    BootIdReused(BootId),
    /// It could not be read.
    #[error("cannot read the log: {0}; keep a copy of the data directory, then restore it from a backup")]
    Read(ReadError),
    /// This opening could not be written.
    #[error(
        "cannot write this opening to the log: {why}; if that names damage, restore the data directory from a backup, \
         else look at the disk (space, health, permissions)"
    )]
    Write {
        /// In the store's words.
        why: String,
    },
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<RecordError> for OpenError {
    fn from(error: RecordError) -> Self {
        Self::Read(error.into())
    }
}

/// Opens a log for writing. To be called once per opening, before any commit.
///
/// # Errors
/// A newer format, damage, or a store that cannot be read or written. Nothing was changed, except that a failed
/// write may have added the boot.
pub fn open(log: &dyn CommitLog, seeds: OpenSeeds) -> Result<LogInfo, OpenError> {
    let mut batch = Batch::default();
    let info = match stored(&*log.view())? {
        Some(mut info) => {
            add_boot(&mut info, seeds)?;
            batch.put(Family::Meta, MetaKey::Format.encode(), record::meta::encode_format(FORMAT_VERSION));
            info
        }
        None => create(&*log.view(), seeds, &mut batch)?,
    };
    batch.put(Family::Meta, MetaKey::Boots.encode(), record::meta::encode_boots(&info.boots));
    match log.commit(&batch) {
        CommitResult::Committed => Ok(info),
        CommitResult::NotCommitted { why } | CommitResult::Unknown { why } => Err(OpenError::Write { why }),
        CommitResult::Fenced => Err(OpenError::Write { why: "another owner writes this log".to_owned() }),
    }
}

/// What a log says of itself, without opening it; `None` when it is empty and new.
///
/// # Errors
/// A newer format, damage, or a store that cannot be read.
pub fn stored(view: &dyn View) -> Result<Option<LogInfo>, OpenError> {
    let Some(format) = view.get(Family::Meta, MetaKey::Format.encode())? else {
        return Ok(None);
    };
    let found = record::meta::decode_format(format)?;
    if found > FORMAT_VERSION {
        return Err(OpenError::NewerFormat { found });
    }
    let must = |key: MetaKey| {
        let name = String::from_utf8_lossy(key.encode()).into_owned();
        let missing = || OpenError::Damaged { what: format!("meta {name:?} is missing") };
        view.get(Family::Meta, key.encode())?.ok_or_else(missing)
    };
    let id_key = record::meta::decode_deployment(must(MetaKey::Deployment)?)?;
    let boots = record::meta::decode_boots(must(MetaKey::Boots)?)?;
    let commit = record::meta::decode_commit(&must(MetaKey::Commit)?)?;
    if boots.last().is_some_and(|last| last.first_commit > commit + 1) {
        let what = format!("the last boot began after commit {commit}, the last one");
        return Err(OpenError::Damaged { what });
    }
    Ok(Some(LogInfo { boots, commit, id_key }))
}

fn add_boot(info: &mut LogInfo, seeds: OpenSeeds) -> Result<(), OpenError> {
    if info.boots.iter().any(|boot| boot.boot_id == seeds.boot_id) {
        return Err(OpenError::BootIdReused(seeds.boot_id));
    }
    let surplus = (info.boots.len() + 1).saturating_sub(BOOTS_MAX);
    info.boots.drain(..surplus);
    info.boots.push(boot(info.commit, seeds));
    Ok(())
}

fn boot(last_commit: u64, seeds: OpenSeeds) -> Boot {
    Boot { boot_id: seeds.boot_id, first_commit: last_commit + 1, opened_ms: seeds.now_ms }
}

fn create(view: &dyn View, seeds: OpenSeeds, batch: &mut Batch) -> Result<LogInfo, OpenError> {
    for family in Family::ALL {
        let mut empty = true;
        view.scan(family, &Scan::all(), &mut |_, _| {
            empty = false;
            Visit::Break(())
        })?;
        if !empty {
            let what = format!("{:?} is not empty, but meta \"format\" is missing", family.name());
            return Err(OpenError::Damaged { what });
        }
    }
    let id_key = IdKey::new(seeds.id_key_if_new);
    batch.put(Family::Meta, MetaKey::Format.encode(), record::meta::encode_format(FORMAT_VERSION));
    batch.put(Family::Meta, MetaKey::Deployment.encode(), record::meta::encode_deployment(&id_key));
    batch.put(Family::Meta, MetaKey::Commit.encode(), record::meta::encode_commit(0));
    Ok(LogInfo { boots: vec![boot(0, seeds)], commit: 0, id_key })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::MemoryLog;

    fn seeds(number: u8) -> OpenSeeds {
        OpenSeeds {
            boot_id: BootId::new([number; 16]),
            id_key_if_new: [number; 32],
            now_ms: u64::from(number),
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_nothing_changes() {
        let log = MemoryLog::new();
        open(&log, seeds(1)).unwrap();
        let mut batch = Batch::default();
        batch.put(Family::Meta, MetaKey::Format.encode(), record::meta::encode_format(FORMAT_VERSION + 1));
        log.commit(&batch);
        let error = open(&log, seeds(2)).unwrap_err();
        assert_eq!(error, OpenError::NewerFormat { found: FORMAT_VERSION + 1 });
        assert!(error.to_string().contains("start the version that wrote it"));
        let boots = log.view().get(Family::Meta, MetaKey::Boots.encode()).unwrap().unwrap();
        assert_eq!(record::meta::decode_boots(boots).unwrap().len(), 1);
    }

    #[test]
    fn format_1_is_read_as_it_is_and_raised_by_an_opening() {
        let log = MemoryLog::new();
        open(&log, seeds(1)).unwrap();
        let mut batch = Batch::default();
        batch.put(Family::Meta, MetaKey::Format.encode(), record::meta::encode_format(1));
        log.commit(&batch);
        let format = || {
            let value = log.view().get(Family::Meta, MetaKey::Format.encode()).unwrap().unwrap();
            record::meta::decode_format(value).unwrap()
        };
        assert_eq!(stored(&*log.view()).unwrap().unwrap().boots.len(), 1);
        assert_eq!(format(), 1, "looking changes nothing");
        assert_eq!(open(&log, seeds(2)).unwrap().boots.len(), 2);
        assert_eq!(format(), FORMAT_VERSION);
    }

    #[test]
    fn missing_or_bad_meta_is_damage() {
        for key in MetaKey::ALL {
            for value in [None, Some(vec![0xff; 5])] {
                let log = MemoryLog::new();
                open(&log, seeds(1)).unwrap();
                let mut batch = Batch::default();
                match value {
                    None => batch.delete(Family::Meta, key.encode()),
                    Some(value) => batch.put(Family::Meta, key.encode(), value),
                }
                log.commit(&batch);
                assert!(open(&log, seeds(2)).is_err(), "{key:?}");
            }
        }
    }

    #[test]
    fn the_list_of_boots_is_bounded() {
        let log = MemoryLog::new();
        let id = |number: u16| {
            BootId::try_from(&[[0; 14].as_slice(), &number.to_be_bytes()].concat()[..]).unwrap()
        };
        for number in 0..(BOOTS_MAX as u16 + 3) {
            let info = open(&log, OpenSeeds { boot_id: id(number), ..seeds(0) }).unwrap();
            assert_eq!(info.boots.len(), (usize::from(number) + 1).min(BOOTS_MAX));
            assert_eq!(info.boots.last().unwrap().boot_id, id(number));
        }
        let again = open(&log, OpenSeeds { boot_id: id(500), ..seeds(0) }).unwrap_err();
        assert_eq!(again, OpenError::BootIdReused(id(500)));
    }
}
