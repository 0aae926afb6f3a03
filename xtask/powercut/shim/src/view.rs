//! Reads, seeks and sizes: the program sees its own held writes.
//!
//! In: the call as the program made it. Out: its result, which is the kernel's for every file of
//! which nothing is held.

use std::os::fd::RawFd;

use libc::{iovec, off_t, ssize_t};

use crate::gate;
use crate::hold::{self, Place};
use crate::inode::State;
use crate::sys::{self, Errno};
use crate::table::{self, InodeId};

/// Reads the file with what is held of it, or lets the kernel do it. Either way under the inode's
/// lock: without it the kernel could show half of a write that is being torn.
///
/// The buffers must be writable, as read(2) demands.
pub(crate) fn read(
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
    // Who moves the cursor needs the file alone.
    match place {
        Place::Cursor => read_held(&inode.lock(), fd, place, buffers).unwrap_or_else(by_kernel),
        Place::At(_) => {
            let state = inode.lock_shared();
            read_held(&state, fd, place, buffers).unwrap_or_else(by_kernel)
        }
    }
}

/// `None`: the kernel shall do it, which also means to refuse it.
fn read_held(state: &State, fd: RawFd, place: Place, buffers: &[iovec]) -> Option<ssize_t> {
    let size = state.held_size()?;
    hold::total(buffers)?;
    if !sys::may_read(sys::open_flags(fd)) {
        return None;
    }
    let offset = place.offset(fd)?;
    let mut count = 0;
    for buffer in buffers.iter().filter(|buffer| buffer.iov_len > 0) {
        match read_one(state, fd, *buffer, offset + count as i64, size) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if count == 0 => return Some(error.report() as ssize_t),
            Err(_) => break,
        }
    }
    place.moved(fd, offset, count);
    Some(count as ssize_t)
}

/// One buffer: the file's bytes, zeros where the file is still too short, what is held on top.
fn read_one(state: &State, fd: RawFd, buffer: iovec, offset: i64, size: i64) -> Result<usize, Errno> {
    let left = usize::try_from(size - offset).unwrap_or(0);
    let count = left.min(buffer.iov_len);
    if count == 0 {
        return Ok(0);
    }
    let from_file = sys::read_at(fd, buffer, offset)?.min(count);
    // SAFETY: the C caller promises iov_len writable bytes, and count is at most that.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.iov_base.cast::<u8>(), count) };
    bytes[from_file..].fill(0);
    state.overlay(offset, bytes);
    Ok(count)
}

/// lseek from the end, or to data and holes. `None`: the kernel shall do it.
pub(crate) fn seek(fd: RawFd, offset: off_t, whence: i32) -> Option<off_t> {
    if whence == libc::SEEK_SET || whence == libc::SEEK_CUR {
        return None;
    }
    if whence != libc::SEEK_END {
        hold::settle(fd);
        return None;
    }
    let _inside = gate::enter()?;
    let inode = table::of_fd(fd)?;
    let state = inode.lock();
    let target = state.size(fd)?.checked_add(offset);
    let moved = match target {
        Some(target) if target >= 0 => sys::seek(fd, target, libc::SEEK_SET),
        _ => Err(Errno(libc::EINVAL)),
    };
    Some(moved.unwrap_or_else(|error| error.report().into()))
}

/// Corrects what the kernel said about a file. `again` asks the kernel once more: what it said
/// before the lock may be the middle of a settle.
pub(crate) fn correct(status: &mut libc::stat, again: impl FnOnce(&mut libc::stat)) {
    let Some(id) = InodeId::of(status) else {
        return;
    };
    correct_size(id, |held| match held {
        Some(size) => status.st_size = size,
        None => again(status),
    });
}

/// As [`correct`].
pub(crate) fn correct_extended(status: &mut libc::statx, again: impl FnOnce(&mut libc::statx)) {
    let file_type = u32::from(status.stx_mode) & libc::S_IFMT;
    if file_type != libc::S_IFREG {
        return;
    }
    let id =
        InodeId { device: libc::makedev(status.stx_dev_major, status.stx_dev_minor), number: status.stx_ino };
    correct_size(id, |held| match held {
        Some(size) => status.stx_size = size as u64,
        None => again(status),
    });
}

fn correct_size(id: InodeId, correct: impl FnOnce(Option<i64>)) {
    if let Some(_inside) = gate::enter()
        && let Some(inode) = table::get(id)
    {
        let state = inode.lock_shared();
        correct(state.held_size());
    }
}
