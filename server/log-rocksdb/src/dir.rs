//! The files of a log's directory, by RocksDB's names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a file is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFileKind {
    /// Write-ahead log: `000012.log`.
    Wal,
    /// Table of rows: `000034.sst`.
    Table,
    /// List of tables: `MANIFEST-000005`.
    Manifest,
    /// Names the manifest.
    Current,
    /// Our note of how far manifest and write-ahead logs reach.
    Mark,
    /// Anything else: locks, options, RocksDB's own diary.
    Other,
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Where.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LogFileKind,
    /// The number in its name, by which files of a kind are ordered; 0: none.
    pub number: u64,
    /// Length, bytes.
    pub len: u64,
}

/// The files of a log's directory, ordered by kind's number and name. For tests, `talaria log verify` and messages.
///
/// # Errors
/// The directory cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !metadata.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let (kind, number) = classify(&name);
        files.push(LogFile { path: entry.path(), name, kind, number, len: metadata.len() });
    }
    files.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
    Ok(files)
}

fn classify(name: &str) -> (LogFileKind, u64) {
    let number = |digits: &str| digits.parse::<u64>().ok();
    let found = match (name, name.rsplit_once('.'), name.strip_prefix("MANIFEST-")) {
        ("CURRENT", ..) => Some((LogFileKind::Current, 0)),
        (crate::mark::NAME, ..) => Some((LogFileKind::Mark, 0)),
        (_, Some((digits, "log")), _) => number(digits).map(|number| (LogFileKind::Wal, number)),
        (_, Some((digits, "sst")), _) => number(digits).map(|number| (LogFileKind::Table, number)),
        (.., Some(digits)) => number(digits).map(|number| (LogFileKind::Manifest, number)),
        _ => None,
    };
    found.unwrap_or((LogFileKind::Other, 0))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
