//! write and its variants.

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};

use super::{alias, buffer, buffers};
use crate::hold::{self, Place};

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, data: *const c_void, count: size_t) -> ssize_t {
    hold::write(fd, Place::Cursor, &buffer(data, count), || {
        kernel!(libc::SYS_write, fd, data, count) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, data: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    hold::write(fd, Place::At(offset), &buffer(data, count), || {
        kernel!(libc::SYS_pwrite64, fd, data, count, offset) as ssize_t
    })
}
alias!(pwrite64 = pwrite(fd: c_int, data: *const c_void, count: size_t, offset: off_t) -> ssize_t);

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: promised by the caller of writev.
    hold::write(fd, Place::Cursor, unsafe { buffers(list, count) }, || {
        kernel!(libc::SYS_writev, fd, list, count) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, list: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // SAFETY: promised by the caller of pwritev.
    hold::write(fd, Place::At(offset), unsafe { buffers(list, count) }, || {
        kernel!(libc::SYS_pwritev, fd, list, count, offset, 0) as ssize_t
    })
}
alias!(pwritev64 = pwritev(fd: c_int, list: *const iovec, count: c_int, offset: off_t) -> ssize_t);

/// With flags (RWF_DSYNC, RWF_APPEND, ...) the kernel writes, behind what is held.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev2(
    fd: c_int,
    list: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    let place = if offset == -1 { Place::Cursor } else { Place::At(offset) };
    let by_kernel = || kernel!(libc::SYS_pwritev2, fd, list, count, offset, 0, flags) as ssize_t;
    if flags == 0 {
        // SAFETY: promised by the caller of pwritev2.
        hold::write(fd, place, unsafe { buffers(list, count) }, by_kernel)
    } else {
        hold::write_through(fd, by_kernel)
    }
}
alias!(pwritev64v2 = pwritev2(
    fd: c_int, list: *const iovec, count: c_int, offset: off_t, flags: c_int
) -> ssize_t);
