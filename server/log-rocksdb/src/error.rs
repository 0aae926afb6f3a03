//! Why a log does not open, and where a failed read hit: RocksDB's messages, taken apart so that the file is named.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the log cannot be opened. No row was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// What was written is not all there, or not as it was written.
    #[error("the log is damaged: {file}: {detail}; {what_to_do}")]
    Damaged {
        /// The file, or the directory when it is not known which.
        file: String,
        /// What is wrong, with the offset where it is known.
        detail: String,
        /// What an operator can do.
        what_to_do: &'static str,
    },
    /// Another process has it open.
    #[error("the log in {} is in use by another process: stop it first", dir.display())]
    InUse {
        /// The log's directory.
        dir: PathBuf,
    },
    /// It holds column families that this version does not know.
    #[error(
        "the log was written by a newer version of talaria ({detail}): start that version, or a newer one"
    )]
    Newer {
        /// In RocksDB's words.
        detail: String,
    },
    /// A crash tore the last write, and nothing may be changed.
    #[error(
        "{file} ends with a write that a crash tore, at offset {at}: start the node once, which cuts it off"
    )]
    Torn {
        /// The file.
        file: String,
        /// Where the torn write begins.
        at: u64,
    },
    /// There is none.
    #[error("there is no log in {}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The system refused: permissions, a full disk, a failing one.
    #[error("cannot open the log: {path}: {detail}", path = path.display())]
    Io {
        /// What was being opened.
        path: PathBuf,
        /// In the system's words.
        detail: String,
    },
}

const RESTORE: &str = "no data was changed; keep a copy of the directory, then restore it from a backup";

impl OpenError {
    pub(crate) fn damaged(file: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), detail: detail.into(), what_to_do: RESTORE }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), detail: error.to_string() }
    }

    /// What RocksDB says to an opening, after our own proof of manifest and write-ahead logs.
    pub(crate) fn of(dir: &Path, error: &rocksdb::Error) -> Self {
        let message: &str = error.as_ref();
        let missing_file = message.contains("No such file or directory");
        match error.kind() {
            rocksdb::ErrorKind::IOError if message.contains("lock ") => Self::InUse { dir: dir.to_owned() },
            rocksdb::ErrorKind::IOError if !missing_file => {
                Self::Io { path: dir.to_owned(), detail: message.to_owned() }
            }
            rocksdb::ErrorKind::InvalidArgument if message.contains("olumn families not opened") => {
                Self::Newer { detail: message.to_owned() }
            }
            // Of a file that a valid log has, whatever else RocksDB dislikes is damage.
            _ => {
                let file = file_in(message).unwrap_or_else(|| dir.display().to_string());
                let manifest = file.starts_with("MANIFEST");
                let note =
                    if manifest { " (the manifest is whole: a table that it lists is not)" } else { "" };
                Self::damaged(file, format!("{message}{note}"))
            }
        }
    }
}

/// The name of the first file of a log that a message mentions.
pub(crate) fn file_in(message: &str) -> Option<String> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | ',' | ';' | '"' | '\'' | '(' | ')');
    message.split(is_end).map(|word| word.trim_end_matches('.')).find(|word| is_file(word)).map(str::to_owned)
}

fn is_file(word: &str) -> bool {
    let digits = |stem: &str| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
    word == "CURRENT"
        || word.strip_prefix("MANIFEST-").is_some_and(digits)
        || word.strip_suffix(".sst").is_some_and(digits)
        || word.strip_suffix(".log").is_some_and(digits)
}

#[cfg(test)]
mod tests {
    use super::file_in;

    #[test]
    fn finds_files_in_messages() {
        let message = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /d/log/000012.sst \
                       offset 0 size 96";
        assert_eq!(file_in(message).as_deref(), Some("000012.sst"));
        assert_eq!(file_in("IO error: open: /d/MANIFEST-000005: gone").as_deref(), Some("MANIFEST-000005"));
        assert_eq!(file_in("Corruption: CURRENT file corrupted").as_deref(), Some("CURRENT"));
        assert_eq!(file_in("Corruption: /d/LOG said x.log"), None);
    }
}
