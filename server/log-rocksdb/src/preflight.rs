//! What is proven of a directory before RocksDB opens it, file by file: `CURRENT` is there, its manifest and the
//! write-ahead logs are whole, without gaps, and as long as they were (`mark`). A torn tail, which a power
//! cut leaves, is cut off and kept beside it; nothing else is changed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    dir::{LogFile, LogFileKind, files, sync_dir},
    error::OpenError,
    mark::Mark,
    wal::{End, LogKind, scan},
};

/// A last write that a crash tore: never acknowledged under `Fsync`. Its bytes are kept in `<file>.torn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: String,
    /// Length of its good part.
    pub at: u64,
    /// Length of the torn part.
    pub bytes: u64,
    /// Not just a write that is not all there, but one with other bytes in it.
    pub is_garbled: bool,
}

/// What may be opened.
#[derive(Debug)]
pub(crate) struct Preflight {
    /// There is no log yet.
    pub(crate) create: bool,
    /// Torn tails, in a manifest or a write-ahead log.
    pub(crate) torn: Vec<TornTail>,
}

/// Proves a directory. Changes nothing.
pub(crate) fn check(dir: &Path) -> Result<Preflight, OpenError> {
    let files = files(dir).map_err(|error| OpenError::io(dir, &error))?;
    let of = |kind| files.iter().filter(move |file| file.kind == kind);
    let mark = Mark::load(dir)?;
    let mut torn = Vec::new();
    let Some(current) = of(LogFileKind::Current).next() else {
        let begun = [LogFileKind::Wal, LogFileKind::Table, LogFileKind::Mark];
        if files.iter().any(|file| begun.contains(&file.kind)) {
            return Err(OpenError::damaged("CURRENT", "it is missing, but files that it leads to are there"));
        }
        return Ok(Preflight { create: true, torn });
    };
    torn.extend(check_manifest(dir, current, mark.as_ref())?);
    let wals: Vec<&LogFile> = of(LogFileKind::Wal).collect();
    if wals.is_empty() && (mark.is_some() || of(LogFileKind::Table).next().is_some()) {
        return Err(OpenError::damaged("*.log", "there is no write-ahead log; an open log always has one"));
    }
    let closed = mark.and_then(|mark| mark.wals);
    if let Some(closed) = &closed {
        check_closed(&wals, closed)?;
    }
    torn.extend(check_wals(&wals, closed.is_some())?);
    Ok(Preflight { create: false, torn })
}

/// No file of a log is there.
pub(crate) fn is_empty(dir: &Path) -> bool {
    files(dir).is_ok_and(|files| files.iter().all(|file| file.kind == LogFileKind::Other)) || !dir.exists()
}

fn read(file: &LogFile) -> Result<Vec<u8>, OpenError> {
    fs::read(&file.path).map_err(|error| OpenError::io(&file.path, &error))
}

fn check_manifest(dir: &Path, current: &LogFile, mark: Option<&Mark>) -> Result<Option<TornTail>, OpenError> {
    let content = read(current)?;
    let name = str::from_utf8(&content).ok().and_then(|text| text.strip_suffix('\n'));
    let number = |name: &str| name.strip_prefix("MANIFEST-").and_then(|digits| digits.parse::<u64>().ok());
    let Some((name, named)) = name.and_then(|name| Some((name, number(name)?))) else {
        return Err(OpenError::damaged("CURRENT", "it does not name a manifest"));
    };
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::damaged(name, "it is missing, but CURRENT names it"));
        }
        Err(error) => return Err(OpenError::io(&path, &error)),
    };
    let marked = mark.and_then(|mark| mark.manifest.as_ref());
    if let Some((marked, _)) = marked.filter(|(marked, _)| number(marked) > Some(named)) {
        return Err(OpenError::damaged("CURRENT", format!("it names {name}, but {marked} was in use later")));
    }
    let least = marked.filter(|(marked, _)| marked == name).map_or(0, |(_, len)| *len);
    let (whole, is_garbled) = match scan(&bytes, LogKind::Manifest).end {
        End::Whole => (bytes.len(), false),
        End::Torn { at, is_garbled } => (at, is_garbled),
        End::Damaged { at, what } => return Err(OpenError::damaged(name, format!("at offset {at}: {what}"))),
    };
    if (whole as u64) < least || whole == 0 {
        let detail = format!("only {whole} of {} bytes are whole, at least {least} must be", bytes.len());
        return Err(OpenError::damaged(name, detail));
    }
    Ok(torn_tail(name, whole, bytes.len(), is_garbled))
}

fn torn_tail(file: &str, at: usize, len: usize, is_garbled: bool) -> Option<TornTail> {
    (at < len).then(|| TornTail {
        file: file.to_owned(),
        at: at as u64,
        bytes: (len - at) as u64,
        is_garbled,
    })
}

/// After a clean close every write-ahead log is there as it was.
fn check_closed(wals: &[&LogFile], closed: &[(String, u64)]) -> Result<(), OpenError> {
    for (name, len) in closed {
        match wals.iter().find(|wal| wal.name == *name) {
            None => {
                return Err(OpenError::damaged(name, "it is missing, but was there when the log was closed"));
            }
            Some(wal) if wal.len != *len => {
                let detail = format!("it has {} bytes, but had {len} when the log was closed", wal.len);
                return Err(OpenError::damaged(name, detail));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Every write is there, from the first log's first to the last one's last.
fn check_wals(wals: &[&LogFile], closed: bool) -> Result<Option<TornTail>, OpenError> {
    let mut sequence = None;
    let mut torn: Option<TornTail> = None;
    for wal in wals {
        let bytes = read(wal)?;
        let scanned = scan(&bytes, LogKind::Wal { sequence });
        if let Some(torn) = torn.as_ref().filter(|_| scanned.records > 0) {
            let detail =
                format!("at offset {}: bytes there are no record, yet {} has later ones", torn.at, wal.name);
            return Err(OpenError::damaged(&torn.file, detail));
        }
        match scanned.end {
            End::Whole => {}
            End::Torn { at, .. } if closed => {
                let detail =
                    format!("at offset {at}: bytes there are no record, yet the log was closed cleanly");
                return Err(OpenError::damaged(&wal.name, detail));
            }
            End::Torn { at, is_garbled } => torn = torn.or(torn_tail(&wal.name, at, bytes.len(), is_garbled)),
            End::Damaged { at, what } => {
                return Err(OpenError::damaged(&wal.name, format!("at offset {at}: {what}")));
            }
        }
        sequence = scanned.next_sequence.or(sequence);
    }
    Ok(torn)
}

impl Preflight {
    /// RocksDB reads past an incomplete write at the end, but chokes on other bytes there, so without the right to cut
    /// them off the log cannot be read.
    pub(crate) fn readable_uncut(&self) -> Result<(), OpenError> {
        let garbled = self.torn.iter().find(|tail| tail.is_garbled);
        garbled.map_or(Ok(()), |tail| Err(OpenError::Torn { file: tail.file.clone(), at: tail.at }))
    }

    /// Cuts torn tails off, and keeps their bytes beside.
    pub(crate) fn cut(&self, dir: &Path) -> Result<(), OpenError> {
        for tail in &self.torn {
            let path = dir.join(&tail.file);
            cut_file(&path, tail.at).map_err(|error| OpenError::io(&path, &error))?;
        }
        Ok(())
    }
}

fn cut_file(path: &Path, at: u64) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let mut kept = path.as_os_str().to_owned();
    kept.push(".torn");
    let kept = PathBuf::from(kept);
    fs::write(&kept, &bytes[usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len())..])?;
    File::open(&kept)?.sync_all()?;
    let file = File::options().write(true).open(path)?;
    file.set_len(at)?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), sync_dir)
}
