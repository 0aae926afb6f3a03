//! The commit log on RocksDB, and nothing else: batches of rows in, rows out; keys, records and their meaning belong
//! to `talaria-log`. What RocksDB by itself would accept with data missing is refused before it is opened
//! ([`RocksLog::open`]): a flipped bit in the write-ahead log, a lost or shortened file. Only what a crash leaves, a
//! torn last write, is cut off. Nothing here repairs anything, and no damaged row is ever served.

mod crc32c;
mod dir;
mod error;
mod lock;
mod log;
mod mark;
mod options;
mod preflight;
mod view;
mod wal;

pub use dir::{LogFile, LogFileKind, files};
pub use error::OpenError;
pub use log::RocksLog;
pub use options::Options;
pub use preflight::TornTail;
