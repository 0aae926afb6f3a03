//! One process opens a log at a time. Our own lock is taken before anything is looked at, since what looks like a
//! torn tail may be the write of a running process; RocksDB takes its own later.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::OpenError;

const NAME: &str = "talaria.lock";

/// Held while the log is open; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|error| OpenError::io(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(OpenError::io(&path, &error)),
        }
    }
}
