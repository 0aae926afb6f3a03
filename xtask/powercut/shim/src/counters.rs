//! The counters that `talaria_powercut::Stats` reads, in a mapped file if one is asked for.
//!
//! The first tracked file claims the counters' file with a flock that lasts as long as the process; a
//! process that finds it taken counts for itself.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use talaria_powercut::{Counter, STATS_MAGIC, STATS_WORDS};

use crate::config;

type Words = [AtomicU64; STATS_WORDS];

const FILE_BYTES: usize = size_of::<Words>();

static LOCAL: Words = [const { AtomicU64::new(0) }; STATS_WORDS];
static MAPPED: AtomicPtr<Words> = AtomicPtr::new(ptr::null_mut());
static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Claims the file, on the first call. Must come before anything is counted.
pub(crate) fn claim() {
    if !CLAIMED.swap(true, Ordering::AcqRel)
        && let Some(words) = map_file()
    {
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        words[0].store(STATS_MAGIC, Ordering::Release);
        MAPPED.store(ptr::from_ref(words).cast_mut(), Ordering::Release);
    }
}

fn map_file() -> Option<&'static Words> {
    let path = config::stats_file()?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
    let dir = libc::AT_FDCWD;
    // Not closed: the flock is the claim.
    let fd = kernel!(libc::SYS_openat, dir, path.as_ptr(), flags, 0o644);
    if fd < 0
        || kernel!(libc::SYS_flock, fd, libc::LOCK_EX | libc::LOCK_NB) < 0
        || kernel!(libc::SYS_ftruncate, fd, FILE_BYTES) < 0
    {
        return None;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let shared = libc::MAP_SHARED;
    let start = kernel!(libc::SYS_mmap, 0, FILE_BYTES, protection, shared, fd, 0);
    if start == -1 {
        return None;
    }
    // SAFETY: the kernel mapped FILE_BYTES zeroed or older bytes there, page-aligned, and the
    // mapping is never removed; every bit pattern is a valid word.
    Some(unsafe { &*(start as *const Words) })
}

fn word(counter: Counter) -> &'static AtomicU64 {
    let mapped = MAPPED.load(Ordering::Acquire);
    // SAFETY: the pointer is null or that of a mapping that is never removed.
    let words = unsafe { mapped.as_ref() }.unwrap_or(&LOCAL);
    &words[counter as usize]
}

pub(crate) fn add(counter: Counter, count: u64) {
    word(counter).fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn subtract(counter: Counter, count: u64) {
    word(counter).fetch_sub(count, Ordering::Relaxed);
}

pub(crate) fn read(counter: Counter) -> u64 {
    word(counter).load(Ordering::Relaxed)
}
