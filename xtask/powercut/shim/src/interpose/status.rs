//! stat and its variants, with the names that glibc had before 2.33 (`__xstat`).

use libc::{c_char, c_int, c_uint, stat as Status};

use super::alias;
use crate::view;

fn stat_at(dir: c_int, path: *const c_char, status: *mut Status, flags: c_int) -> c_int {
    corrected(status, |status| kernel!(libc::SYS_newfstatat, dir, path, status, flags) as c_int)
}

/// What `ask` says, which fills the status in if it returns 0.
fn corrected(status: *mut Status, ask: impl Fn(*mut Status) -> c_int) -> c_int {
    let result = ask(status);
    if result == 0 {
        // SAFETY: the kernel filled the status in, so it is one.
        let status = unsafe { &mut *status };
        // A file that is gone by now keeps what was said first.
        view::correct(status, |status| {
            ask(status);
        });
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fstatat(dir: c_int, path: *const c_char, status: *mut Status, flags: c_int) -> c_int {
    stat_at(dir, path, status, flags)
}
alias!(fstatat64 = fstatat(
    dir: c_int, path: *const c_char, status: *mut Status, flags: c_int
) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn stat(path: *const c_char, status: *mut Status) -> c_int {
    stat_at(libc::AT_FDCWD, path, status, 0)
}
alias!(stat64 = stat(path: *const c_char, status: *mut Status) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn lstat(path: *const c_char, status: *mut Status) -> c_int {
    stat_at(libc::AT_FDCWD, path, status, libc::AT_SYMLINK_NOFOLLOW)
}
alias!(lstat64 = lstat(path: *const c_char, status: *mut Status) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn fstat(fd: c_int, status: *mut Status) -> c_int {
    corrected(status, |status| kernel!(libc::SYS_fstat, fd, status) as c_int)
}
alias!(fstat64 = fstat(fd: c_int, status: *mut Status) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn __xstat(_version: c_int, path: *const c_char, status: *mut Status) -> c_int {
    // SAFETY: promised by the caller.
    unsafe { stat(path, status) }
}
alias!(__xstat64 = __xstat(version: c_int, path: *const c_char, status: *mut Status) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn __lxstat(_version: c_int, path: *const c_char, status: *mut Status) -> c_int {
    // SAFETY: promised by the caller.
    unsafe { lstat(path, status) }
}
alias!(__lxstat64 = __lxstat(version: c_int, path: *const c_char, status: *mut Status) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn __fxstat(_version: c_int, fd: c_int, status: *mut Status) -> c_int {
    // SAFETY: promised by the caller.
    unsafe { fstat(fd, status) }
}
alias!(__fxstat64 = __fxstat(version: c_int, fd: c_int, status: *mut Status) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn __fxstatat(
    _version: c_int,
    dir: c_int,
    path: *const c_char,
    status: *mut Status,
    flags: c_int,
) -> c_int {
    stat_at(dir, path, status, flags)
}
alias!(__fxstatat64 = __fxstatat(
    version: c_int, dir: c_int, path: *const c_char, status: *mut Status, flags: c_int
) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    status: *mut libc::statx,
) -> c_int {
    let ask = |status| kernel!(libc::SYS_statx, dir, path, flags, mask, status) as c_int;
    let result = ask(status);
    if result == 0 {
        // SAFETY: the kernel filled the status in, so it is one.
        let status = unsafe { &mut *status };
        view::correct_extended(status, |status| {
            ask(status);
        });
    }
    result
}
