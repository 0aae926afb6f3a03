//! The counters that outlive the killed process.
//!
//! The shim maps a small file and counts in it; the file's pages belong to the kernel, so they
//! stay when the process is killed. The file is [`STATS_WORDS`] native u64, the first one
//! [`STATS_MAGIC`]. One process at a time owns it (the first that opens a file under the folder
//! for writing; it holds a flock on it), and an owner starts from zero.

use std::path::Path;
use std::{fmt, fs, io};

/// The first word of the file once a process has claimed it.
pub const STATS_MAGIC: u64 = 0x5441_4c50_4355_5431;

/// How many u64 the file holds, the magic included.
pub const STATS_WORDS: usize = 6;

/// The word of each counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// See [`Stats::held_bytes`].
    HeldBytes = 1,
    /// See [`Stats::held_writes`].
    HeldWrites = 2,
    /// See [`Stats::torn_writes`].
    TornWrites = 3,
    /// See [`Stats::syncs`].
    Syncs = 4,
    /// See [`Stats::files`].
    Files = 5,
}

const _: () = assert!(Counter::Files as usize == STATS_WORDS - 1);

/// What the shim has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes held back now, in all files. After the kill: the bytes that the power cut lost.
    pub held_bytes: u64,
    /// Write calls held back since the start.
    pub held_writes: u64,
    /// How often a part of the pending bytes was let through, the rest held.
    pub torn_writes: u64,
    /// Calls of fsync and fdatasync on files under the folder.
    pub syncs: u64,
    /// Files under the folder that were opened for writing, each inode once.
    pub files: u64,
}

/// Why [`Stats::read`] has no counters.
#[derive(Debug)]
pub enum StatsError {
    /// The file cannot be read. `NotFound`: no process under the shim opened a file yet.
    Io(io::Error),
    /// The file is not one of the shim, or no process has claimed it.
    NotStats,
}

impl fmt::Display for StatsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(out, "the power cut's counters: {error}"),
            Self::NotStats => out.write_str("not a file of the power cut's counters"),
        }
    }
}

impl std::error::Error for StatsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::NotStats => None,
        }
    }
}

impl Stats {
    /// Reads the counters, while the process runs or after it was killed.
    ///
    /// Wait for the process (`Child::wait`) before you call the held bytes lost.
    ///
    /// # Errors
    /// See [`StatsError`]; each of them means that no process ran under the shim with this file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, StatsError> {
        let bytes = fs::read(path).map_err(StatsError::Io)?;
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        if words.len() < STATS_WORDS || words[0] != STATS_MAGIC {
            return Err(StatsError::NotStats);
        }
        Ok(Self {
            held_bytes: words[Counter::HeldBytes as usize],
            held_writes: words[Counter::HeldWrites as usize],
            torn_writes: words[Counter::TornWrites as usize],
            syncs: words[Counter::Syncs as usize],
            files: words[Counter::Files as usize],
        })
    }
}
