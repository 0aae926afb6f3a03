//! The writes of one file that are not synced yet, in the order in which they were made.
//!
//! A queue of bytes with offsets over a file that lags behind it: what the program sees is the
//! file with the queue laid over it ([`Pending::overlay`], [`Pending::size`]). The front of the
//! queue is what may reach the file next ([`Pending::front`], [`Pending::advance`]), at any byte.
//! Pure data: it makes no system call and takes no lock.

use std::collections::VecDeque;

/// Appends are joined into one entry of at most this many bytes, which keeps an overlay short.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// The unit of [`Pending::sector`]: what a disk writes whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug)]
enum Entry {
    /// Never empty.
    Write { offset: u64, data: Vec<u8> },
    /// The file becomes at least this long.
    Grow { size: u64 },
}

/// What has to happen to the file next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// These bytes go to this offset.
    Write {
        /// Where in the file, in bytes.
        offset: u64,
        /// Never empty.
        data: &'a [u8],
    },
    /// The file grows to this size in bytes, if it is shorter.
    Grow {
        /// The size in bytes.
        size: u64,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pending {
    entries: VecDeque<Entry>,
    bytes: u64,
    size: u64,
}

impl Pending {
    /// Nothing pending.
    pub const fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, size: 0 }
    }

    /// Whether the file is as the program sees it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes are pending.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The size that the program sees. Valid only while something is pending.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Tells the size of the file; must come before the first write onto an empty queue.
    pub fn start(&mut self, file_size: u64) {
        assert!(self.is_empty(), "the size of a queue in use is known");
        self.size = file_size;
    }

    /// Adds a write. An empty one changes nothing, as in a file.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.bytes += data.len() as u64;
        self.size = self.size.max(offset + data.len() as u64);
        if let Some(Entry::Write { offset: last_offset, data: last }) = self.entries.back_mut()
            && *last_offset + last.len() as u64 == offset
            && last.len() + data.len() <= JOINED_BYTES_MAX
        {
            last.extend_from_slice(data);
            return;
        }
        let data = data.to_vec();
        self.entries.push_back(Entry::Write { offset, data });
    }

    /// The file becomes longer without a write; a smaller size changes nothing.
    pub fn grow(&mut self, size: u64) {
        if size > self.size {
            self.size = size;
            self.entries.push_back(Entry::Grow { size });
        }
    }

    /// Drops what is at or beyond `size`, at most the size now. The caller cuts the file itself;
    /// `file_size` is its size after that.
    pub fn clip(&mut self, size: u64, file_size: u64) {
        self.size = self.size.min(size);
        let mut covered = file_size;
        self.entries.retain_mut(|entry| {
            let end = match entry {
                Entry::Write { offset, data } => {
                    let keep = size.saturating_sub(*offset).min(data.len() as u64) as usize;
                    self.bytes -= (data.len() - keep) as u64;
                    data.truncate(keep);
                    (keep > 0).then(|| *offset + keep as u64)
                }
                Entry::Grow { size: grown } => {
                    *grown = size.min(*grown);
                    (*grown > file_size).then_some(*grown)
                }
            };
            covered = covered.max(end.unwrap_or(0));
            end.is_some()
        });
        // A write beyond a hole is gone, but the hole before it still counts.
        if covered < self.size {
            self.entries.push_back(Entry::Grow { size: self.size });
        }
    }

    /// Lays what is pending over bytes that were read from the file at `offset`.
    pub fn overlay(&self, offset: u64, read: &mut [u8]) {
        let read_end = offset + read.len() as u64;
        for entry in &self.entries {
            let Entry::Write { offset: start, data } = entry else {
                continue;
            };
            let from = offset.max(*start);
            let to = read_end.min(start + data.len() as u64);
            if from < to {
                let source = &data[(from - start) as usize..(to - start) as usize];
                read[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
    }

    /// What has to reach the file next, at most `bytes_max` bytes of it; `None` if nothing is
    /// pending or `bytes_max` is 0.
    pub fn front(&self, bytes_max: u64) -> Option<Step<'_>> {
        if bytes_max == 0 {
            return None;
        }
        Some(match self.entries.front()? {
            Entry::Write { offset, data } => {
                Step::Write { offset: *offset, data: &data[..bytes_max.min(data.len() as u64) as usize] }
            }
            Entry::Grow { size } => Step::Grow { size: *size },
        })
    }

    /// Removes the [`Step`] that [`Pending::front`] returned, once it is in the file: `bytes` is
    /// the length of its data, 0 for a `Grow`.
    pub fn advance(&mut self, bytes: usize) {
        match self.entries.front_mut() {
            Some(Entry::Write { offset, data }) if bytes < data.len() => {
                data.drain(..bytes);
                *offset += bytes as u64;
            }
            _ => {
                self.entries.pop_front();
            }
        }
        self.bytes -= bytes as u64;
    }

    /// A sector of a pending write, `pick` says which; it stays pending. This is what reaches a
    /// disk out of order.
    pub fn sector(&self, pick: u64) -> Option<(u64, &[u8])> {
        let count = self.entries.len() as u64;
        let entry = self.entries.get(pick.checked_rem(count)? as usize)?;
        let Entry::Write { offset, data } = entry else {
            return None;
        };
        let sectors = data.len().div_ceil(SECTOR_BYTES);
        let start = (pick / count) as usize % sectors * SECTOR_BYTES;
        let end = data.len().min(start + SECTOR_BYTES);
        Some((offset + start as u64, &data[start..end]))
    }
}

#[cfg(test)]
mod tests;
