//! truncate and fallocate of tracked files.
//!
//! Shrinking reaches the file at once and drops what is held beyond; growing is held like a
//! write; blocks are allocated at once, but without a change of the size.

use std::os::fd::RawFd;

use libc::{c_char, c_int, off_t};

use crate::inode::{Inode, State};
use crate::sys::{self, Errno};
use crate::{gate, table};

/// ftruncate. `None`: the kernel shall do it.
pub(crate) fn ftruncate(fd: RawFd, size: off_t) -> Option<c_int> {
    let _inside = gate::enter()?;
    let inode = table::of_fd(fd)?;
    if size < 0 || !sys::may_write(sys::open_flags(fd)) {
        return None;
    }
    let mut state = inode.lock();
    if size > state.size(fd)? {
        if !state.begin(fd) {
            return None;
        }
        state.hold_size(size);
        return Some(0);
    }
    Some(result(shrink(&mut state, fd, size)))
}

/// truncate. `None`: the kernel shall do it, which is also so if nothing is held.
pub(crate) fn truncate(path: *const c_char, size: off_t) -> Option<c_int> {
    let _inside = gate::enter()?;
    let inode = table::of_path(path)?;
    if size < 0 {
        return None;
    }
    truncate_held(&inode, size)
}

fn truncate_held(inode: &Inode, size: off_t) -> Option<c_int> {
    let mut state = inode.lock();
    let held_size = state.held_size()?;
    if size > held_size {
        state.hold_size(size);
        return Some(0);
    }
    let writer = state.writer()?;
    Some(result(shrink(&mut state, writer, size)))
}

fn shrink(state: &mut State, fd: RawFd, size: off_t) -> Result<(), Errno> {
    let file_size = sys::fstat(fd).map_or(0, |status| status.st_size);
    // Also at the same size: that is how RocksDB gives preallocated blocks back.
    if size <= file_size {
        sys::truncate(fd, size)?;
    }
    state.clip(size, file_size.min(size));
    Ok(())
}

/// fallocate. `None`: the kernel shall do it.
pub(crate) fn fallocate(fd: RawFd, mode: c_int, offset: off_t, length: off_t) -> Option<c_int> {
    let _inside = gate::enter()?;
    let inode = table::of_fd(fd)?;
    let mut state = inode.lock();
    let size = state.size(fd)?;
    let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
        // Holes and shifts of what is held: the kernel does them on the file. Beyond the end
        // (RocksDB gives blocks back so) nothing is held.
        if !keeps_size || offset < size {
            return state.settle().err().map(Errno::report);
        }
        return None;
    }
    let end = offset.checked_add(length)?;
    if keeps_size || end <= size || offset < 0 || length <= 0 || !state.begin(fd) {
        return None;
    }
    let keep_size = libc::FALLOC_FL_KEEP_SIZE;
    if kernel!(libc::SYS_fallocate, fd, keep_size, offset, length) < 0 {
        return Some(-1);
    }
    state.hold_size(end);
    Some(0)
}

fn result(done: Result<(), Errno>) -> c_int {
    done.map_or_else(Errno::report, |()| 0)
}
