//! `MARK`: our own note beside RocksDB's files of how far they reach, since a file that was cut short at the end of a
//! record cannot be told from one that never had more. It holds the manifest's name and length at a time when both
//! were synced, and after a clean close also every write-ahead log with its length. A file that is shorter, or gone
//! without a successor, has lost something that was acknowledged.
//!
//! Between two marks the end of the live write-ahead log is not covered, by anything: a cut there is a torn tail.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    crc32c,
    dir::{LogFile, LogFileKind, files, sync_dir},
    error::OpenError,
    wal::{End, LogKind, scan},
};

pub(crate) const NAME: &str = "MARK";
const NAME_NEW: &str = "MARK.new";
const TITLE: &str = "talaria log mark 1";

/// What the note says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The manifest's name and the least length it has.
    pub(crate) manifest: Option<(String, u64)>,
    /// After a clean close: names and exact lengths of all write-ahead logs.
    pub(crate) wals: Option<Vec<(String, u64)>>,
}

impl Mark {
    /// The note of a directory; `None`: there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(NAME);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .ok_or_else(|| OpenError::damaged(NAME, "it is not as we wrote it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(OpenError::damaged(NAME, "it is no text"))
            }
            Err(error) => Err(OpenError::io(&path, &error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, checksum) = text.trim_end().rsplit_once('\n')?;
        let body = format!("{body}\n");
        if checksum != format!("checksum {:08x}", crc32c::value(body.as_bytes())) {
            return None;
        }
        let mut mark = Self::default();
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return None;
        }
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["manifest", name, len] => mark.manifest = Some((name.to_owned(), len.parse().ok()?)),
                ["closed"] => mark.wals = Some(Vec::new()),
                ["wal", name, len] => mark.wals.as_mut()?.push((name.to_owned(), len.parse().ok()?)),
                _ => return None,
            }
        }
        Some(mark)
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        if let Some((name, len)) = &self.manifest {
            let _ = writeln!(text, "manifest {name} {len}");
        }
        if let Some(wals) = &self.wals {
            text.push_str("closed\n");
            for (name, len) in wals {
                let _ = writeln!(text, "wal {name} {len}");
            }
        }
        let checksum = crc32c::value(text.as_bytes());
        let _ = writeln!(text, "checksum {checksum:08x}");
        text
    }

    /// Puts the note in place of the one before, durably.
    pub(crate) fn store(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(NAME_NEW);
        let mut file = File::create(&new)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, dir.join(NAME))?;
        sync_dir(dir)
    }
}

/// Keeps the note of an open log up to date, and closes it when it is dropped: after RocksDB.
#[derive(Debug)]
pub(crate) struct MarkKeeper {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mark: Mark,
    manifest: PathBuf,
    /// Its length when it was marked.
    seen: u64,
    /// Whether the next drop is a clean close.
    clean: bool,
}

impl MarkKeeper {
    /// Of a log that RocksDB has just opened.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let mut state = State { mark: Mark::default(), manifest: PathBuf::new(), seen: 0, clean: true };
        state.follow(dir)?;
        Ok(Self { dir: dir.to_owned(), state: Mutex::new(state) })
    }

    /// To be called after each commit: when the manifest has changed, what it says is marked. That is rare; a failure
    /// leaves the note before, which still holds.
    pub(crate) fn refresh(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if fs::metadata(&state.manifest).ok().map(|metadata| metadata.len()) != Some(state.seen) {
            let _ = state.follow(&self.dir);
        }
    }

    /// The log is in doubt: the end of its write-ahead log is not to be marked.
    pub(crate) fn in_doubt(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clean = false;
    }
}

impl State {
    /// Marks the manifest that `CURRENT` names, once it is synced.
    fn follow(&mut self, dir: &Path) -> io::Result<()> {
        let name = fs::read_to_string(dir.join("CURRENT"))?.trim_end().to_owned();
        self.manifest = dir.join(&name);
        let mut manifest = File::open(&self.manifest)?;
        let mut bytes = Vec::new();
        manifest.read_to_end(&mut bytes)?;
        // A record that is being written at this moment does not count.
        let whole = match scan(&bytes, LogKind::Manifest).end {
            End::Whole | End::Damaged { .. } => bytes.len(),
            End::Torn { at, .. } => at,
        };
        manifest.sync_all()?;
        self.seen = bytes.len() as u64;
        self.mark.manifest = Some((name, whole as u64));
        self.mark.store(dir)
    }

    fn close(&mut self, dir: &Path) -> io::Result<()> {
        self.mark.wals = None;
        self.follow(dir)?;
        let wals: Vec<LogFile> =
            files(dir)?.into_iter().filter(|file| file.kind == LogFileKind::Wal).collect();
        for wal in &wals {
            File::open(&wal.path)?.sync_all()?;
        }
        self.mark.wals = Some(wals.into_iter().map(|wal| (wal.name, wal.len)).collect());
        self.mark.store(dir)
    }
}

impl Drop for MarkKeeper {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.clean {
            // Without the note the next opening takes the end as a crash would have left it.
            let _ = state.close(&self.dir);
        }
    }
}
