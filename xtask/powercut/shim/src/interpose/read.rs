//! read and its variants, and lseek.

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};

use super::{alias, buffer, buffers};
use crate::hold::Place;
use crate::view;

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, data: *mut c_void, count: size_t) -> ssize_t {
    view::read(fd, Place::Cursor, &buffer(data, count), || {
        kernel!(libc::SYS_read, fd, data, count) as ssize_t
    })
}

/// What read becomes under _FORTIFY_SOURCE. A buffer that is too small ends the process.
#[unsafe(no_mangle)]
unsafe extern "C" fn __read_chk(fd: c_int, data: *mut c_void, count: size_t, size: size_t) -> ssize_t {
    check(count, size);
    // SAFETY: promised by the caller.
    unsafe { read(fd, data, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread(fd: c_int, data: *mut c_void, count: size_t, offset: off_t) -> ssize_t {
    view::read(fd, Place::At(offset), &buffer(data, count), || {
        kernel!(libc::SYS_pread64, fd, data, count, offset) as ssize_t
    })
}
alias!(pread64 = pread(fd: c_int, data: *mut c_void, count: size_t, offset: off_t) -> ssize_t);

/// What pread becomes under _FORTIFY_SOURCE.
#[unsafe(no_mangle)]
unsafe extern "C" fn __pread_chk(
    fd: c_int,
    data: *mut c_void,
    count: size_t,
    offset: off_t,
    size: size_t,
) -> ssize_t {
    check(count, size);
    // SAFETY: promised by the caller.
    unsafe { pread(fd, data, count, offset) }
}
alias!(__pread64_chk = __pread_chk(
    fd: c_int, data: *mut c_void, count: size_t, offset: off_t, size: size_t
) -> ssize_t);

#[unsafe(no_mangle)]
unsafe extern "C" fn readv(fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: promised by the caller of readv.
    view::read(fd, Place::Cursor, unsafe { buffers(list, count) }, || {
        kernel!(libc::SYS_readv, fd, list, count) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn preadv(fd: c_int, list: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // SAFETY: promised by the caller of preadv.
    view::read(fd, Place::At(offset), unsafe { buffers(list, count) }, || {
        kernel!(libc::SYS_preadv, fd, list, count, offset, 0) as ssize_t
    })
}
alias!(preadv64 = preadv(fd: c_int, list: *const iovec, count: c_int, offset: off_t) -> ssize_t);

/// The flags (RWF_HIPRI, RWF_NOWAIT) do not change what is read.
#[unsafe(no_mangle)]
unsafe extern "C" fn preadv2(
    fd: c_int,
    list: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    let place = if offset == -1 { Place::Cursor } else { Place::At(offset) };
    // SAFETY: promised by the caller of preadv2.
    view::read(fd, place, unsafe { buffers(list, count) }, || {
        kernel!(libc::SYS_preadv2, fd, list, count, offset, 0, flags) as ssize_t
    })
}
alias!(preadv64v2 = preadv2(
    fd: c_int, list: *const iovec, count: c_int, offset: off_t, flags: c_int
) -> ssize_t);

#[unsafe(no_mangle)]
unsafe extern "C" fn lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t {
    let moved = view::seek(fd, offset, whence);
    moved.unwrap_or_else(|| kernel!(libc::SYS_lseek, fd, offset, whence))
}
alias!(lseek64 = lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t);

fn check(count: size_t, size: size_t) {
    if count > size {
        std::process::abort();
    }
}
