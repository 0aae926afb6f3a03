//! One tracked file: its queue of held writes, and the descriptor that writes them out.
//!
//! ```text
//! Idle ── begin ──▶ Holding ── settle ──▶ Idle        (a lock of fcntl keeps the descriptor)
//!   └──────────── retire ────────────▶ Retired        (mapped, unlinked, or the process ends)
//! ```

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use talaria_powercut::Counter;
use talaria_powercut::pending::{Pending, Step};

use crate::sys::{self, Errno};
use crate::{config, counters};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    state: RwLock<State>,
}

/// See the module. The invariant: if something is pending there is a writer, and it is not retired.
#[derive(Debug, Default)]
pub(crate) struct State {
    pending: Pending,
    writer: Option<OwnedFd>,
    /// The program holds (or held) a lock of fcntl on the file: closing *any* descriptor of the
    /// file drops it, so the writer stays open.
    locked: bool,
    retired: bool,
}

impl Inode {
    /// For what changes the queue, the file or a cursor.
    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what only looks.
    pub(crate) fn lock_shared(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if another thread has it.
    pub(crate) fn try_lock(&self) -> Option<RwLockWriteGuard<'_, State>> {
        self.state.try_write().ok()
    }
}

impl State {
    pub(crate) fn is_holding(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The descriptor that writes the file, while something is held.
    pub(crate) fn writer(&self) -> Option<RawFd> {
        self.writer.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The size that the program sees, if it is not the kernel's.
    pub(crate) fn held_size(&self) -> Option<i64> {
        self.is_holding().then(|| self.pending.size() as i64)
    }

    /// The size that the program sees; `fd` is any descriptor of the file.
    pub(crate) fn size(&self, fd: RawFd) -> Option<i64> {
        self.held_size().or_else(|| sys::fstat(fd).map(|status| status.st_size))
    }

    /// Makes the state ready to hold; `false` if the call must pass through.
    pub(crate) fn begin(&mut self, fd: RawFd) -> bool {
        if self.retired {
            return false;
        }
        if self.is_holding() {
            return true;
        }
        if self.writer.is_none() {
            self.writer = sys::second_writer(fd);
        }
        match sys::fstat(fd) {
            Some(status) if self.writer.is_some() => {
                self.pending.start(status.st_size as u64);
                true
            }
            _ => false,
        }
    }

    /// Holds a write back, after [`State::begin`].
    pub(crate) fn hold(&mut self, offset: i64, data: &[u8]) {
        self.change(|pending| pending.write(offset as u64, data));
    }

    /// Holds a longer size back, after [`State::begin`].
    pub(crate) fn hold_size(&mut self, size: i64) {
        self.pending.grow(size as u64);
        self.rest();
    }

    /// Drops what is at or beyond `size`, the file having `file_size` bytes.
    pub(crate) fn clip(&mut self, size: i64, file_size: i64) {
        self.change(|pending| pending.clip(size as u64, file_size as u64));
        self.rest();
    }

    /// Lays what is held over bytes that were read at `offset`.
    pub(crate) fn overlay(&self, offset: i64, read: &mut [u8]) {
        self.pending.overlay(offset as u64, read);
    }

    /// Writes everything that is held into the file, without a sync. After an error the rest
    /// stays held.
    pub(crate) fn settle(&mut self) -> Result<(), Errno> {
        self.let_through(u64::MAX)
    }

    /// Lets a random prefix through, as a kernel that wrote back at a bad time.
    pub(crate) fn tear(&mut self) {
        let bytes = self.pending.bytes();
        if bytes > 0 && self.let_through(config::roll() % bytes + 1).is_ok() && self.is_holding() {
            counters::add(Counter::TornWrites, 1);
        }
    }

    /// Puts one pending sector into the file out of order. It stays pending.
    pub(crate) fn scramble(&mut self) {
        if let Some((offset, data)) = self.pending.sector(config::roll())
            && let Some(writer) = self.writer()
        {
            // An error here is one more sector that did not reach the disk.
            let _ = sys::write_at(writer, data, offset);
        }
    }

    /// Writes everything out and holds nothing back any more. After an error it still holds.
    pub(crate) fn retire(&mut self) -> Result<(), Errno> {
        self.settle()?;
        self.retired = true;
        Ok(())
    }

    /// The file has no name any more: as [`State::retire`], but what cannot be written is dropped.
    pub(crate) fn forget(&mut self) {
        if self.retire().is_err() {
            self.change(|pending| *pending = Pending::new());
            self.retired = true;
        }
        self.writer = None;
    }

    /// The program took a lock of fcntl.
    pub(crate) fn set_locked(&mut self) {
        self.locked = true;
    }

    fn let_through(&mut self, mut bytes_max: u64) -> Result<(), Errno> {
        while let Some(step) = self.pending.front(bytes_max) {
            let Some(writer) = self.writer() else {
                return Err(Errno(libc::EIO));
            };
            let done = match step {
                Step::Write { offset, data } => {
                    sys::write_at(writer, data, offset)?;
                    data.len()
                }
                Step::Grow { size } => {
                    grow_file(writer, size as i64)?;
                    0
                }
            };
            self.change(|pending| pending.advance(done));
            bytes_max -= done as u64;
        }
        self.rest();
        Ok(())
    }

    /// Closes the writer if nothing needs it.
    fn rest(&mut self) {
        if !self.is_holding() && !self.locked {
            self.writer = None;
        }
    }

    /// Changes the queue and the counter of held bytes together.
    fn change(&mut self, change: impl FnOnce(&mut Pending)) {
        let before = self.pending.bytes();
        change(&mut self.pending);
        let after = self.pending.bytes();
        if after > before {
            counters::add(Counter::HeldBytes, after - before);
        } else {
            counters::subtract(Counter::HeldBytes, before - after);
        }
    }
}

fn grow_file(fd: RawFd, size: i64) -> Result<(), Errno> {
    match sys::fstat(fd) {
        Some(status) if status.st_size >= size => Ok(()),
        _ => sys::truncate(fd, size),
    }
}
