//! The commit log without a disk: byte-exact keys and records, the batch that a commit writes, the trait that a
//! store implements, reads and verification over it, and an implementation in memory. Operations of the domain
//! ([`talaria_core::log`]) come in, outcomes and answers go out. Nothing here does I/O, starts a thread, reads a
//! clock or draws randomness, and nothing read from a store is trusted: a bad value is an error that names its key.

pub mod batch;
pub mod commit_log;
pub mod contract;
pub mod error;
pub mod keys;
pub mod memory;
pub mod open;
pub mod read;
pub mod record;
pub mod retention;
pub mod testing;
pub mod verify;
pub mod writer;

pub use batch::Batch;
pub use commit_log::{CommitLog, CommitResult, Order, Scan, View};
pub use error::{ReadError, RecordError};
pub use keys::Family;
pub use memory::MemoryLog;
pub use open::{OpenError, OpenSeeds, open};
pub use read::read;
pub use verify::{Finding, Report, verify};
pub use writer::GroupCommit;
