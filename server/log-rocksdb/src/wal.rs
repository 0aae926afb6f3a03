//! Proves a file in RocksDB's log format (write-ahead logs, manifests): records in blocks of 32 KiB, each with a
//! checksum, a length and a type. RocksDB's own recovery ends silently at a bad length near the end of a file, even
//! when whole records follow, and can loop on a bad type; this scan tells a torn last write from damage before it.
//!
//! Bytes that are no record are a torn tail only if no record begins behind them. A record found there counts only if
//! its sequence number fits, so that no message content can pose as one.

use crate::crc32c;

const BLOCK: usize = 32 * 1024;
/// Checksum (4), length (2), type (1).
const HEADER: usize = 7;
/// Sequence (8) and count (4) at the beginning of a write batch.
const BATCH_HEADER: usize = 12;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// The types from here on are notes of RocksDB to itself; below it are those of recycled logs, which we never have.
const NOTES: u8 = 9;

/// Which of the two kinds a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// Records are write batches with running sequence numbers.
    Wal {
        /// The sequence of its first batch; `None`: not known.
        sequence: Option<u64>,
    },
    /// Records are version edits.
    Manifest,
}

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a whole record.
    Whole,
    /// What follows from here is no record, and no record follows it: a write that a crash tore.
    Torn {
        /// Where the torn write begins.
        at: usize,
        /// Not just incomplete: other bytes are in it.
        is_garbled: bool,
    },
    /// Records are there that cannot be trusted, or are missing between others.
    Damaged {
        /// Where.
        at: usize,
        /// What.
        what: String,
    },
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogScan {
    /// Whole records.
    pub(crate) records: u64,
    /// The sequence that the next batch must have; `None` if there is none yet.
    pub(crate) next_sequence: Option<u64>,
    /// How it ends.
    pub(crate) end: End,
}

struct Record<'a> {
    kind: u8,
    payload: &'a [u8],
    end: usize,
}

/// The record at `at`, if there is a whole one.
fn record(bytes: &[u8], at: usize) -> Option<Record<'_>> {
    let block_end = (at / BLOCK + 1) * BLOCK;
    let header = bytes.get(at..at + HEADER)?;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let (begin, end) = (at + HEADER, at + HEADER + length);
    let kind = header[6];
    let known = (FULL..=LAST).contains(&kind) || kind >= NOTES;
    if end > block_end.min(bytes.len()) || !known {
        return None;
    }
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    (stored == crc32c::masked(&bytes[at + 6..end])).then(|| Record { kind, payload: &bytes[begin..end], end })
}

/// Sequence and count of a batch.
fn batch_header(payload: &[u8]) -> Option<(u64, u32)> {
    let sequence = payload.get(..8)?.try_into().ok()?;
    let count = payload.get(8..BATCH_HEADER)?.try_into().ok()?;
    Some((u64::from_le_bytes(sequence), u32::from_le_bytes(count)))
}

/// Reads a whole file.
pub(crate) fn scan(bytes: &[u8], kind: LogKind) -> LogScan {
    let next_sequence = match kind {
        LogKind::Wal { sequence } => sequence,
        LogKind::Manifest => None,
    };
    let mut scanner = Scanner { bytes, kind, records: 0, next_sequence, begun: None };
    let end = scanner.run();
    LogScan { records: scanner.records, next_sequence: scanner.next_sequence, end }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    kind: LogKind,
    records: u64,
    next_sequence: Option<u64>,
    /// Where a record in pieces began, of which the last piece is not there yet.
    begun: Option<usize>,
}

impl Scanner<'_> {
    fn run(&mut self) -> End {
        let mut at = 0;
        loop {
            let left = BLOCK - at % BLOCK;
            if left < HEADER {
                // Too short for a record: the writer fills it with zeros.
                at += left;
            }
            if at >= self.bytes.len() {
                return self.begun.map_or(End::Whole, |at| End::Torn { at, is_garbled: false });
            }
            let Some(record) = record(self.bytes, at) else {
                return self.bad(at);
            };
            if let Err(what) = self.accept(at, &record) {
                return End::Damaged { at, what };
            }
            at = record.end;
        }
    }

    fn accept(&mut self, at: usize, record: &Record<'_>) -> Result<(), String> {
        match (record.kind, self.begun) {
            (FULL, None) => self.batch(record.payload)?,
            (FIRST, None) => {
                self.batch(record.payload)?;
                self.begun = Some(at);
                return Ok(());
            }
            (MIDDLE, Some(_)) => return Ok(()),
            (LAST, Some(_)) => self.begun = None,
            (FULL | FIRST, Some(begun)) => return Err(format!("the record at {begun} has no end")),
            (MIDDLE | LAST, None) => return Err("a record without a beginning".to_owned()),
            _ => return Ok(()),
        }
        self.records += 1;
        Ok(())
    }

    fn batch(&mut self, payload: &[u8]) -> Result<(), String> {
        if self.kind == LogKind::Manifest {
            return Ok(());
        }
        let (sequence, count) = batch_header(payload).ok_or("a write batch without a header")?;
        if let Some(expected) = self.next_sequence.filter(|&expected| expected != sequence) {
            return Err(format!("writes {expected}..{sequence} are missing"));
        }
        self.next_sequence = Some(sequence.saturating_add(u64::from(count)));
        Ok(())
    }

    /// No record is at `at`: the torn end, or damage.
    fn bad(&self, at: usize) -> End {
        let torn = self.begun.unwrap_or(at);
        match (at + 1..self.bytes.len()).find(|&later| self.begins_record(torn, later)) {
            Some(later) => {
                let what = format!(
                    "bytes there are no record (checksum, length or type), yet one follows at {later}"
                );
                End::Damaged { at, what }
            }
            None => End::Torn { at: torn, is_garbled: !self.is_incomplete(at) },
        }
    }

    /// What is at `at` may be the beginning of a record that goes on behind the end of the file.
    fn is_incomplete(&self, at: usize) -> bool {
        let Some(header) = self.bytes.get(at..at + HEADER) else {
            return true;
        };
        let end = at + HEADER + usize::from(u16::from_le_bytes([header[4], header[5]]));
        let block_end = (at / BLOCK + 1) * BLOCK;
        (FULL..=LAST).contains(&header[6]) && end > self.bytes.len() && end <= block_end
    }

    fn begins_record(&self, torn: usize, at: usize) -> bool {
        let begins = matches!(self.bytes.get(at + HEADER - 1), Some(&(FULL | FIRST)));
        if !begins {
            return false;
        }
        let fits = |payload: &[u8]| match (self.kind, batch_header(payload)) {
            (LogKind::Manifest, _) => !payload.is_empty(),
            (LogKind::Wal { .. }, None) => false,
            // Each write takes more than a byte, so no more sequence numbers than bytes were used in between.
            (LogKind::Wal { .. }, Some((sequence, _))) => self
                .next_sequence
                .is_none_or(|next| (next..=next.saturating_add((at - torn) as u64)).contains(&sequence)),
        };
        self.bytes.get(at + HEADER..).is_some_and(fits) && record(self.bytes, at).is_some()
    }
}

#[cfg(test)]
mod tests;
