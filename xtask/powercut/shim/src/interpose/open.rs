//! open and its variants: here a file gets tracked. fcntl, for its locks.

use libc::{c_char, c_int, c_ulong, mode_t};

use super::alias;
use crate::{gate, hold, table};

fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let fd = kernel!(libc::SYS_openat, dir, path, flags, mode) as c_int;
    if fd >= 0
        && let Some(_inside) = gate::enter()
    {
        table::opened(fd, flags);
    }
    fd
}

/// The caller passes a mode only with these flags; without them the register holds anything.
fn mode_if_given(flags: c_int, mode: mode_t) -> mode_t {
    if flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE { mode } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode_if_given(flags, mode))
}
alias!(open64 = open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(dir, path, flags, mode_if_given(flags, mode))
}
alias!(openat64 = openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn creat(path: *const c_char, mode: mode_t) -> c_int {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    open_at(libc::AT_FDCWD, path, flags, mode)
}
alias!(creat64 = creat(path: *const c_char, mode: mode_t) -> c_int);

/// What open becomes under _FORTIFY_SOURCE, if there is no mode.
#[unsafe(no_mangle)]
unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, 0)
}
alias!(__open64_2 = __open_2(path: *const c_char, flags: c_int) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    open_at(dir, path, flags, 0)
}
alias!(__openat64_2 = __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    let result = kernel!(libc::SYS_fcntl, fd, command, argument) as c_int;
    if result >= 0 {
        hold::locked(fd, command);
    }
    result
}
alias!(fcntl64 = fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int);
