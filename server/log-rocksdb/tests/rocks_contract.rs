//! The contract suite of `talaria-log`, on RocksDB.

#![allow(clippy::unwrap_used)]

use talaria_log::{
    CommitLog,
    contract::{Reopen, contract},
};
use talaria_log_rocksdb::{Options, RocksLog};
use tempfile::TempDir;

struct Rocks {
    log: Option<RocksLog>,
    dir: TempDir,
    /// Rows go to tables before each reopening.
    flush: bool,
}

impl Rocks {
    fn new(flush: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = RocksLog::open(dir.path(), &Options::default()).unwrap();
        Self { log: Some(log), dir, flush }
    }
}

impl Reopen for Rocks {
    fn log(&self) -> &dyn CommitLog {
        self.log.as_ref().unwrap()
    }
    fn reopen(&mut self) {
        let log = self.log.take().unwrap();
        if self.flush {
            log.flush().unwrap();
        }
        drop(log);
        self.log = Some(RocksLog::open(self.dir.path(), &Options::default()).unwrap());
    }
}

#[test]
fn rocks_log_keeps_the_contract() {
    contract(&|| Box::new(Rocks::new(false)));
}

#[test]
fn rocks_log_keeps_the_contract_from_tables() {
    contract(&|| Box::new(Rocks::new(true)));
}
