//! What the damage tests share: logs to damage, copies of them, and all rows of one.

#![allow(dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use talaria_log::{
    CommitLog, Family, GroupCommit, OpenSeeds, ReadError, Scan, commit_log::Visit, open, testing::Scenario,
};
use talaria_log_rocksdb::{LogFileKind, OpenError, Options, RocksLog, files};
use talaria_protocol::ids::BootId;
use tempfile::TempDir;

pub(crate) type Rows = Vec<(Family, Vec<u8>, Vec<u8>)>;

pub(crate) const SEEDS: OpenSeeds =
    OpenSeeds { boot_id: BootId::new([1; 16]), id_key_if_new: [2; 32], now_ms: 3 };

pub(crate) fn open_log(dir: &Path) -> Result<RocksLog, OpenError> {
    RocksLog::open(dir, &Options::default())
}

/// A directory in memory where there is one: what is tested here is not the disk's speed.
pub(crate) fn temp() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// All rows, or the first error.
pub(crate) fn rows(log: &dyn CommitLog) -> Result<Rows, ReadError> {
    let (view, mut rows) = (log.view(), Rows::new());
    for family in Family::ALL {
        view.scan(family, &Scan::all(), &mut |key, value| {
            rows.push((family, key.to_vec(), value.to_vec()));
            Visit::Continue(())
        })?;
    }
    Ok(rows)
}

/// A log that grows.
pub(crate) struct Growing {
    pub(crate) dir: TempDir,
    pub(crate) log: RocksLog,
    pub(crate) chats: Vec<Scenario>,
    group: GroupCommit,
}

impl Growing {
    pub(crate) fn new() -> Self {
        let dir = temp();
        let log = open_log(dir.path()).unwrap();
        let info = open(&log, SEEDS).unwrap();
        let mut growing = Self { dir, log, chats: Vec::new(), group: GroupCommit::new(info.commit) };
        for number in 0..4 {
            let mut chat = Scenario::new(number);
            growing.group.push(chat.create());
            growing.chats.push(chat);
        }
        growing.commit();
        growing
    }

    fn commit(&mut self) {
        let outcomes = self.group.commit(&self.log);
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, talaria_core::log::Outcome::Committed { .. }))
        );
    }

    /// So many commits, one message each.
    pub(crate) fn messages(&mut self, count: usize) -> &mut Self {
        for n in 0..count {
            let chat = n % self.chats.len();
            let text: String =
                (0..40 + n % 50).map(|k| char::from(b'a' + ((n * 31 + k * 7) % 26) as u8)).collect();
            let op = self.chats[chat].message((n % 2) as u8, &text);
            self.group.push(op);
            self.commit();
        }
        self
    }

    pub(crate) fn flush(&mut self) -> &mut Self {
        self.log.flush().unwrap();
        self
    }

    pub(crate) fn rows(&self) -> Rows {
        rows(&self.log).unwrap()
    }

    /// What the disk has when the process is killed now.
    pub(crate) fn killed(&self) -> TempDir {
        copy(self.dir.path())
    }

    /// What the disk has after a clean close.
    pub(crate) fn closed(self) -> TempDir {
        drop(self.log);
        self.dir
    }
}

pub(crate) fn copy(dir: &Path) -> TempDir {
    let to = temp();
    for file in files(dir).unwrap() {
        if file.name != "LOCK" && file.name != "talaria.lock" {
            fs::copy(&file.path, to.path().join(&file.name)).unwrap();
        }
    }
    to
}

/// The files of a kind that hold something, ascending.
pub(crate) fn of_kind(dir: &Path, kind: LogFileKind) -> Vec<PathBuf> {
    files(dir)
        .unwrap()
        .into_iter()
        .filter(|file| file.kind == kind && file.len > 0)
        .map(|file| file.path)
        .collect()
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

pub(crate) fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

pub(crate) fn truncate(path: &Path, len: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Opens a damaged copy and reads all of it: identical rows, or an error, never anything else.
pub(crate) fn refused_or_same(dir: &Path, whole: &Rows) -> Option<String> {
    let log = match open_log(dir) {
        Ok(log) => log,
        Err(error) => return Some(error.to_string()),
    };
    match rows(&log) {
        Err(error) => Some(error.to_string()),
        Ok(found) => {
            assert!(found == *whole, "other rows were served: {} instead of {}", found.len(), whole.len());
            None
        }
    }
}
