//! The log itself: opening, and one write per commit.

use std::path::{Path, PathBuf};

use rocksdb::{Cache, ColumnFamily, DB, WriteBatch, WriteOptions};
use talaria_log::{Batch, CommitLog, CommitResult, Family, View, batch::Write, commit_log::WriteGate};
use talaria_protocol::message::Durability;

use crate::{
    error::OpenError,
    lock::DirLock,
    mark::{Mark, MarkKeeper},
    options::Options,
    preflight::{self, Preflight, TornTail},
    view::RocksView,
};

/// A commit log on RocksDB.
#[derive(Debug)]
pub struct RocksLog {
    // Dropped in this order: the mark is closed when RocksDB is, the lock goes last.
    db: DB,
    mark: Option<MarkKeeper>,
    gate: WriteGate,
    options: Options,
    torn: Vec<TornTail>,
    dir: PathBuf,
    _lock: DirLock,
}

impl RocksLog {
    /// Opens a log for writing, and makes it if there is none. The directory is the log's own.
    ///
    /// # Errors
    /// Another process has it open; it is damaged (no row was changed); or the system refuses.
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|error| OpenError::io(dir, &error))?;
        let lock = DirLock::take(dir)?;
        let preflight = preflight::check(dir)?;
        preflight.cut(dir)?;
        reopen_mark(dir)?;
        let db = open_db(dir, options, &preflight)?;
        let mark = MarkKeeper::new(dir).map_err(|error| OpenError::io(dir, &error))?;
        let (gate, torn) = (WriteGate::default(), preflight.torn);
        Ok(Self { db, mark: Some(mark), gate, options: *options, torn, dir: dir.to_owned(), _lock: lock })
    }

    /// Opens a log of a stopped node for reading only; not a byte of it changes. Commits are refused.
    ///
    /// # Errors
    /// There is none; a process has it open; or it is damaged.
    pub fn open_read_only(dir: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        if !dir.join("CURRENT").exists() && preflight::is_empty(dir) {
            return Err(OpenError::Missing { dir: dir.to_owned() });
        }
        let lock = DirLock::take(dir)?;
        let preflight = preflight::check(dir)?;
        preflight.readable_uncut()?;
        let (database, families) = descriptors(options, false);
        let opened = DB::open_cf_with_opts_for_read_only(&database, dir, families, false);
        let db = opened.map_err(|error| OpenError::of(dir, &error))?;
        let gate = WriteGate::new_closed("the log was opened for reading only");
        Ok(Self {
            db,
            mark: None,
            gate,
            options: *options,
            torn: preflight.torn,
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Torn last writes that this opening cut off (or, read only, left out); for the node's log.
    pub fn torn_tails(&self) -> &[TornTail] {
        &self.torn
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes all rows that are only in memory and the write-ahead log to tables. For tests and backups.
    ///
    /// # Errors
    /// In RocksDB's words.
    pub fn flush(&self) -> Result<(), String> {
        let families = Family::ALL.map(|family| family_of(&self.db, family));
        let flush = |family: &ColumnFamily| self.db.flush_cf(&family).map_err(String::from);
        families.into_iter().try_for_each(flush)
    }

    /// Merges all tables, so that what was deleted gives its space back now. For tests and operators who wait for it:
    /// it reads and writes the whole log.
    pub fn compact(&self) {
        for family in Family::ALL {
            self.db.compact_range_cf(family_of(&self.db, family), None::<&[u8]>, None::<&[u8]>);
        }
    }

    fn write(&self, batch: &Batch) -> CommitResult {
        let mut rows = WriteBatch::default();
        for write in batch.writes() {
            let of = |family: &Family| family_of(&self.db, *family);
            match write {
                Write::Put { family, key, value } => rows.put_cf(of(family), key, value),
                Write::Delete { family, key } => rows.delete_cf(of(family), key),
                Write::DeleteRange { family, start, end } => rows.delete_range_cf(of(family), start, end),
            }
        }
        let mut how = WriteOptions::default();
        how.set_sync(self.options.durability == Durability::Fsync);
        match self.db.write_opt(rows, &how) {
            Ok(()) => {
                self.mark.iter().for_each(MarkKeeper::refresh);
                CommitResult::Committed
            }
            Err(error) => {
                self.mark.iter().for_each(MarkKeeper::in_doubt);
                CommitResult::Unknown { why: error.into_string() }
            }
        }
    }
}

impl CommitLog for RocksLog {
    fn commit(&self, batch: &Batch) -> CommitResult {
        self.gate.pass(|| self.write(batch))
    }
    fn view(&self) -> Box<dyn View + '_> {
        Box::new(RocksView::new(&self.db))
    }
    fn durability(&self) -> Durability {
        self.options.durability
    }
    fn read_only(&self) -> Option<String> {
        self.gate.closed()
    }
}

/// The handle of a family. All are opened, so all are there.
pub(crate) fn family_of(db: &DB, family: Family) -> &ColumnFamily {
    let Some(handle) = db.cf_handle(family.name()) else {
        panic!("family {} is opened with the log", family.name());
    };
    handle
}

/// From now on the log is open: what the mark says of a clean close no longer holds.
fn reopen_mark(dir: &Path) -> Result<(), OpenError> {
    let Some(mark) = Mark::load(dir)?.filter(|mark| mark.wals.is_some()) else {
        return Ok(());
    };
    let open = Mark { wals: None, ..mark };
    open.store(dir).map_err(|error| OpenError::io(dir, &error))
}

type Families = Vec<(&'static str, rocksdb::Options)>;

fn descriptors(options: &Options, create: bool) -> (rocksdb::Options, Families) {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let families = Family::ALL.map(|family| (family.name(), options.family(family, &cache)));
    (options.database(create), families.into())
}

fn open_db(dir: &Path, options: &Options, preflight: &Preflight) -> Result<DB, OpenError> {
    let (database, families) = descriptors(options, preflight.create);
    DB::open_cf_with_opts(&database, dir, families).map_err(|error| OpenError::of(dir, &error))
}
