//! The LD_PRELOAD library that turns `kill -9` into a power cut for the files under one folder.
//!
//! A write to a regular file under TALARIA_POWERCUT_DIR stays in this process (per inode, in
//! order) until fsync or fdatasync of that inode, through whichever descriptor. Reads, sizes and
//! truncations of the same process see the held bytes. A normal exit writes everything out;
//! SIGKILL, abort and `_exit` do not. With a seed, some writes let a prefix of what is pending
//! through, cut at any byte. A file is known by its inode, so dup, rename, link and close need no
//! care. The environment variables are in `talaria_powercut::env`; without a folder all calls
//! pass through.
//!
//! How a call flows: `interpose` (the C symbols) → `gate` (is this ours?) → `table` (which
//! inode?) → `hold`, `view`, `resize` (what happens) → `inode` (the queue and its file). `kernel!`
//! is the only way out: no call is resolved by dlsym (but for stdio), so nothing recurses. The
//! library never holds a lock during fsync, and never two inodes' locks at once.
//!
//! Limits, most of them because the kernel's own order is stricter or laxer:
//! - Folders are durable at once: create, rename, link and unlink are not held back, and fsync of
//!   a folder is a plain one. Shrinking a file (truncate, O_TRUNC) and preallocated blocks too.
//! - mmap of a file, fopen for writing, and fdopen for writing write its held bytes out, and from
//!   then on the file is not held back. sendfile, splice, copy_file_range, SEEK_DATA/HOLE, fopen
//!   and fdopen for reading write out what is held at that time; bytes that copy_file_range and
//!   the like put into a file are not held; a `FILE*` does not see what is held later.
//! - Passed through unseen: direct syscalls, io_uring, AIO, what stdio itself reads and writes,
//!   O_TMPFILE, descriptors inherited over exec, lockf, RocksDB's info log (`LOG`, `LOG.old*`).
//!   Other processes see the file without the held bytes; a forked child holds nothing back.
//! - O_DSYNC and O_SYNC writes go straight to the file, behind what is held. An O_DIRECT write is
//!   held like any other, and later written without O_DIRECT.
//! - ENOSPC and EIO come from fsync, not from write. A bad buffer is a SIGSEGV, not EFAULT. exec
//!   loses what is held. Above `hold::HELD_BYTES_MAX` a file is written out, as by the kernel.
//! - A signal handler that interrupts the library writes straight through.
// The whole crate is a C library: raw system calls and exported symbols.
#![allow(unsafe_code)]

/// A system call with the arguments of the C caller. Sets errno and returns -1 on errors.
macro_rules! kernel {
    ($number:expr $(, $arg:expr)* $(,)?) => {{
        // SAFETY: the kernel checks each argument; that a pointer covers what the call writes is
        // promised by the C caller for its own, and visible at the call for ours.
        unsafe { libc::syscall($number $(, $arg as libc::c_long)*) }
    }};
}

mod config;
mod counters;
mod gate;
mod hold;
mod inode;
mod interpose;
mod resize;
mod sys;
mod table;
mod view;

/// Runs before `main` and before the constructors of the program.
extern "C" fn start() {
    if config::load() {
        gate::open();
    }
}

/// Runs in `exit`, after the program's own handlers: a clean exit is no power cut.
extern "C" fn finish() {
    if let Some(_inside) = gate::enter_last() {
        table::retire_all();
    }
    gate::close();
}

// SAFETY: the sections hold pointers to functions that the loader calls without looking at
// results; both functions are of the C ABI and ignore the arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

// SAFETY: as for START.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = finish;
