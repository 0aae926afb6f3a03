//! truncate, fallocate and their variants.

use libc::{c_char, c_int, off_t};

use super::alias;
use crate::resize;
use crate::sys::Errno;

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(fd: c_int, size: off_t) -> c_int {
    let done = resize::ftruncate(fd, size);
    done.unwrap_or_else(|| kernel!(libc::SYS_ftruncate, fd, size) as c_int)
}
alias!(ftruncate64 = ftruncate(fd: c_int, size: off_t) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn truncate(path: *const c_char, size: off_t) -> c_int {
    let done = resize::truncate(path, size);
    done.unwrap_or_else(|| kernel!(libc::SYS_truncate, path, size) as c_int)
}
alias!(truncate64 = truncate(path: *const c_char, size: off_t) -> c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    let done = resize::fallocate(fd, mode, offset, length);
    done.unwrap_or_else(|| kernel!(libc::SYS_fallocate, fd, mode, offset, length) as c_int)
}
alias!(fallocate64 = fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int);

/// Returns the errno. Without glibc's fallback for file systems that cannot allocate.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> c_int {
    let errno_before = Errno::last();
    // SAFETY: fallocate takes no pointers.
    if unsafe { fallocate(fd, 0, offset, length) } == 0 {
        return 0;
    }
    let error = Errno::last();
    errno_before.report();
    error.0
}
alias!(posix_fallocate64 = posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> c_int);
