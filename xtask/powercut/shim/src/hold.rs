//! Writes: every variant of write(2) ends here.
//!
//! In: a descriptor, a place, the caller's buffers, and the call itself for the kernel. The bytes go into the inode's queue; the file is not touched, unless the
//! dice say so.

use std::os::fd::RawFd;

use libc::{c_int, iovec, ssize_t};
use talaria_powercut::Counter;

use crate::inode::State;
use crate::sys::{self, Errno};
use crate::{config, counters, gate, table};

/// In all files together; above it the file that is written next is written out.
pub(crate) const HELD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What the kernel takes in one call (MAX_RW_COUNT).
pub(crate) const CALL_BYTES_MAX: usize = 0x7fff_f000;

/// Where a read or a write happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// At the descriptor's offset, which then moves.
    Cursor,
    /// At this offset.
    At(i64),
}

impl Place {
    pub(crate) fn offset(self, fd: RawFd) -> Option<i64> {
        match self {
            Self::Cursor => sys::seek(fd, 0, libc::SEEK_CUR).ok(),
            Self::At(offset) => (offset >= 0).then_some(offset),
        }
    }

    /// After `count` bytes at `offset`.
    pub(crate) fn moved(self, fd: RawFd, offset: i64, count: usize) {
        if let Self::Cursor = self {
            // Cannot fail: the descriptor is open on a regular file.
            let _ = sys::seek(fd, offset + count as i64, libc::SEEK_SET);
        }
    }
}

/// The bytes of all buffers, if one call may transfer them.
pub(crate) fn total(buffers: &[iovec]) -> Option<usize> {
    let lengths = buffers.iter().map(|buffer| buffer.iov_len);
    let total = lengths.fold(0usize, usize::saturating_add);
    (1..=CALL_BYTES_MAX).contains(&total).then_some(total)
}

/// Holds a write back, or lets the kernel do it.
///
/// The buffers must be readable, as write(2) demands.
pub(crate) fn write(
    fd: RawFd,
    place: Place,
    buffers: &[iovec],
    by_kernel: impl FnOnce() -> ssize_t,
) -> ssize_t {
    let Some(_inside) = gate::enter() else {
        return by_kernel();
    };
    let Some(inode) = table::of_fd(fd) else {
        return by_kernel();
    };
    let flags = sys::open_flags(fd);
    let mut state = inode.lock();
    if flags & libc::O_DSYNC != 0 {
        return behind_held(&mut state, by_kernel);
    }
    hold(&mut state, fd, flags, place, buffers).unwrap_or_else(by_kernel)
}

/// A write that the kernel must do, with flags that the shim does not know.
pub(crate) fn write_through(fd: RawFd, by_kernel: impl FnOnce() -> ssize_t) -> ssize_t {
    let Some(_inside) = gate::enter() else {
        return by_kernel();
    };
    match table::of_fd(fd) {
        Some(inode) => behind_held(&mut inode.lock(), by_kernel),
        None => by_kernel(),
    }
}

/// Behind what is held and, under the lock, before what will be.
fn behind_held(state: &mut State, by_kernel: impl FnOnce() -> ssize_t) -> ssize_t {
    match state.settle() {
        Ok(()) => by_kernel(),
        Err(error) => error.report() as ssize_t,
    }
}

/// `None`: the kernel shall do it, which also means to refuse it.
fn hold(state: &mut State, fd: RawFd, flags: c_int, place: Place, buffers: &[iovec]) -> Option<ssize_t> {
    let count = total(buffers)?;
    if !sys::may_write(flags) || !state.begin(fd) {
        return None;
    }
    let offset = if flags & libc::O_APPEND != 0 { state.size(fd)? } else { place.offset(fd)? };
    offset.checked_add(count as i64)?;
    let mut next = offset;
    for buffer in buffers.iter().filter(|buffer| buffer.iov_len > 0) {
        // SAFETY: the C caller promises iov_len readable bytes, and the length is not 0.
        let data = unsafe { std::slice::from_raw_parts(buffer.iov_base.cast(), buffer.iov_len) };
        state.hold(next, data);
        next += data.len() as i64;
    }
    place.moved(fd, offset, count);
    counters::add(Counter::HeldWrites, 1);
    roll(state);
    Some(count as ssize_t)
}

/// What happens to the held bytes after a write, apart from nothing.
fn roll(state: &mut State) {
    if config::rolls_tear() {
        state.tear();
    }
    if config::rolls_scramble() {
        state.scramble();
    }
    if counters::read(Counter::HeldBytes) > HELD_BYTES_MAX {
        // The kernel would write back too; after an error the bytes stay held.
        let _ = state.settle();
    }
}

/// What is held reaches the file, so that the kernel can sync it.
pub(crate) fn before_sync(fd: RawFd) -> Result<(), Errno> {
    let Some(_inside) = gate::enter() else {
        return Ok(());
    };
    let Some(inode) = table::of_fd(fd) else {
        return Ok(());
    };
    counters::add(Counter::Syncs, 1);
    let pause_us = config::roll_sync_us();
    if pause_us > 0 && inode.lock_shared().is_holding() {
        inode.lock().tear();
        sys::sleep_us(pause_us);
    }
    inode.lock().settle()
}

/// What is held of a file reaches it, because a call follows that only the kernel can do.
pub(crate) fn settle(fd: RawFd) {
    if let Some(_inside) = gate::enter()
        && let Some(inode) = table::of_fd(fd)
    {
        // After an error the call sees the file without the held bytes.
        let _ = inode.lock().settle();
    }
}

/// As [`settle`], and from now on the file is not held back.
pub(crate) fn retire(fd: RawFd) {
    if let Some(_inside) = gate::enter()
        && let Some(inode) = table::of_fd(fd)
    {
        // After an error the call sees the file without the held bytes.
        let _ = inode.lock().retire();
    }
}

/// The program took a lock of fcntl on the file.
pub(crate) fn locked(fd: RawFd, command: c_int) {
    if (command == libc::F_SETLK || command == libc::F_SETLKW)
        && let Some(_inside) = gate::enter()
        && let Some(inode) = table::of_fd(fd)
    {
        inode.lock().set_locked();
    }
}
