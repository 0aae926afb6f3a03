//! All tracked files, by inode.
//!
//! An inode enters when it is opened for writing under the folder and leaves when its last name
//! goes. No I/O happens under the table's lock, but for the last one.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use libc::{c_char, c_int};
use talaria_powercut::Counter;

use crate::inode::Inode;
use crate::{config, counters, sys};

/// Device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InodeId {
    pub(crate) device: u64,
    pub(crate) number: u64,
}

impl InodeId {
    /// `None` for what is no regular file.
    pub(crate) fn of(status: &libc::stat) -> Option<Self> {
        sys::is_regular(status).then_some(Self { device: status.st_dev, number: status.st_ino })
    }
}

/// How often, 1 ms apart, the end of the process tries to get a lock that another thread has.
const LAST_TRIES: u32 = 2000;

static TABLE: RwLock<BTreeMap<InodeId, Arc<Inode>>> = RwLock::new(BTreeMap::new());

/// The length of the table, so that a program that tracks nothing pays nothing.
static TRACKED: AtomicUsize = AtomicUsize::new(0);

fn is_idle() -> bool {
    TRACKED.load(Ordering::Acquire) == 0
}

/// The tracked file with this id.
pub(crate) fn get(id: InodeId) -> Option<Arc<Inode>> {
    if is_idle() {
        return None;
    }
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    table.get(&id).cloned()
}

/// The tracked file behind a descriptor.
pub(crate) fn of_fd(fd: RawFd) -> Option<Arc<Inode>> {
    if is_idle() {
        return None;
    }
    get(InodeId::of(&sys::fstat(fd)?)?)
}

/// The tracked file behind a path.
pub(crate) fn of_path(path: *const c_char) -> Option<Arc<Inode>> {
    if is_idle() {
        return None;
    }
    get(InodeId::of(&sys::fstatat(libc::AT_FDCWD, path, 0)?)?)
}

/// A tracked file that loses its last name when this name (not followed) goes.
pub(crate) fn last_name(dir: RawFd, path: *const c_char) -> Option<InodeId> {
    if is_idle() {
        return None;
    }
    let status = sys::fstatat(dir, path, libc::AT_SYMLINK_NOFOLLOW)?;
    let id = InodeId::of(&status).filter(|_| status.st_nlink == 1)?;
    get(id).map(|_| id)
}

/// Tracks the file that was just opened, if it is one to hold back.
pub(crate) fn opened(fd: RawFd, flags: c_int) {
    let truncated = flags & libc::O_TRUNC != 0;
    if !sys::may_write(flags) && !truncated {
        return;
    }
    let Some(status) = sys::fstat(fd) else {
        return;
    };
    let Some(id) = InodeId::of(&status).filter(|_| status.st_nlink > 0) else {
        return;
    };
    if let Some(known) = get(id) {
        if truncated {
            known.lock().clip(0, 0);
        }
    } else if config::covers(fd) {
        counters::claim();
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        table.entry(id).or_insert_with(|| {
            counters::add(Counter::Files, 1);
            Arc::default()
        });
        TRACKED.store(table.len(), Ordering::Release);
    }
}

/// The file lost its last name: its number may soon be that of another one.
pub(crate) fn forget(id: InodeId) {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    let inode = table.remove(&id);
    TRACKED.store(table.len(), Ordering::Release);
    drop(table);
    if let Some(inode) = inode {
        inode.lock().forget();
    }
}

/// Writes out what is held of every file.
pub(crate) fn settle_all() {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<_> = table.values().cloned().collect();
    drop(table);
    for inode in all {
        // What cannot be written stays held; sync(2) has no way to say so.
        let _ = inode.lock().settle();
    }
}

/// The end of the process: as [`settle_all`], and nothing is held any more. Waits for other
/// threads, but not for ever.
pub(crate) fn retire_all() {
    let Some(table) = patiently(|| TABLE.try_read().ok()) else {
        return;
    };
    for inode in table.values() {
        if let Some(mut state) = patiently(|| inode.try_lock()) {
            // Nobody is left to whom an error could be reported.
            let _ = state.retire();
        }
    }
}

fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..LAST_TRIES {
        if let Some(done) = attempt() {
            return Some(done);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}
