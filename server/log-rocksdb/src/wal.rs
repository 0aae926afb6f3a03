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

/// A record's place; whole if its checksum holds.
struct Record<'a> {
    kind: u8,
    checksum: u32,
    /// Type and payload.
    checked: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    /// What would be the record at `at`, by its length and type.
    fn claimed(bytes: &'a [u8], at: usize) -> Option<Self> {
        let header = bytes.get(at..at + HEADER)?;
        let end = at + HEADER + usize::from(u16::from_le_bytes([header[4], header[5]]));
        let block_end = (at / BLOCK + 1) * BLOCK;
        let kind = header[6];
        let known = (FULL..=LAST).contains(&kind) || kind >= NOTES;
        if end > block_end.min(bytes.len()) || !known {
            return None;
        }
        let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        Some(Self { kind, checksum, checked: &bytes[at + HEADER - 1..end], end })
    }

    /// The record at `at`, if there is a whole one.
    fn whole(bytes: &'a [u8], at: usize) -> Option<Self> {
        Self::claimed(bytes, at).filter(|record| record.checksum == crc32c::masked(record.checked))
    }

    fn payload(&self) -> &'a [u8] {
        &self.checked[1..]
    }
}

/// Sequence and count of the batch that begins with the record at `at`, checksums apart. At the end of a block its
/// first piece may be so short that they go on in the next one.
fn batch_header(bytes: &[u8], at: usize) -> Option<(u64, u32)> {
    let first = Record::claimed(bytes, at)?;
    let mut header = [0; BATCH_HEADER];
    let here = first.payload().len().min(BATCH_HEADER);
    header[..here].copy_from_slice(&first.payload()[..here]);
    if here < BATCH_HEADER {
        let next = Record::claimed(bytes, first.end).filter(|next| matches!(next.kind, MIDDLE | LAST))?;
        header[here..].copy_from_slice(next.payload().get(..BATCH_HEADER - here)?);
    }
    let (sequence, count) = header.split_at(8);
    Some((u64::from_le_bytes(sequence.try_into().ok()?), u32::from_le_bytes(count.try_into().ok()?)))
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
            let Some(record) = Record::whole(self.bytes, at) else {
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
            (FULL, None) => self.batch(at)?,
            (FIRST, None) => {
                self.begun = Some(at);
                return Ok(());
            }
            (MIDDLE, Some(_)) => return Ok(()),
            (LAST, Some(begun)) => {
                self.batch(begun)?;
                self.begun = None;
            }
            (FULL | FIRST, Some(begun)) => return Err(format!("the record at {begun} has no end")),
            (MIDDLE | LAST, None) => return Err("a record without a beginning".to_owned()),
            _ => return Ok(()),
        }
        self.records += 1;
        Ok(())
    }

    /// A whole record began at `at`.
    fn batch(&mut self, at: usize) -> Result<(), String> {
        if self.kind == LogKind::Manifest {
            return Ok(());
        }
        let (sequence, count) = batch_header(self.bytes, at).ok_or("a write batch without a header")?;
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
        let Some(claimed) =
            Record::claimed(self.bytes, at).filter(|claimed| matches!(claimed.kind, FULL | FIRST))
        else {
            return false;
        };
        // Each write takes more than a byte, so no more sequence numbers than bytes were used in between.
        let most = (at - torn) as u64;
        let fits = |(sequence, _): (u64, u32)| {
            self.next_sequence.is_none_or(|next| (next..=next.saturating_add(most)).contains(&sequence))
        };
        let plausible = match self.kind {
            LogKind::Manifest => claimed.checked.len() > 1,
            LogKind::Wal { .. } => batch_header(self.bytes, at).is_some_and(fits),
        };
        let in_one_piece = claimed.kind == FULL || claimed.checked.len() > BATCH_HEADER;
        plausible
            && Record::whole(self.bytes, at).is_some()
            && (in_one_piece || Record::whole(self.bytes, claimed.end).is_some())
    }
}

#[cfg(test)]
mod tests;
