//! Calls that give a file's content to the kernel or to stdio, past read and write: what is held
//! is written out first, see the limits in the crate's docs.

use std::ffi::CStr;

use libc::{FILE, c_char, c_int, c_uint, c_void, off_t, size_t, ssize_t};

use super::alias;
use crate::{gate, hold, table};

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if fd >= 0 && flags & libc::MAP_ANONYMOUS == 0 {
        hold::retire(fd);
    }
    let mapped = kernel!(libc::SYS_mmap, address, length, protection, flags, fd, offset);
    mapped as *mut c_void
}
alias!(mmap64 = mmap(
    address: *mut c_void, length: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t
) -> *mut c_void);

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    hold::settle(from);
    hold::settle(to);
    kernel!(libc::SYS_sendfile, to, from, offset, count) as ssize_t
}
alias!(sendfile64 = sendfile(
    to: c_int, from: c_int, offset: *mut off_t, count: size_t
) -> ssize_t);

#[unsafe(no_mangle)]
unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    hold::settle(from);
    hold::settle(to);
    let number = libc::SYS_copy_file_range;
    kernel!(number, from, from_offset, to, to_offset, length, flags) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    hold::settle(from);
    hold::settle(to);
    kernel!(libc::SYS_splice, from, from_offset, to, to_offset, length, flags) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    // SAFETY: promised by the caller of fdopen.
    if unsafe { is_writing(mode) } {
        hold::retire(fd);
    } else {
        hold::settle(fd);
    }
    match next(c"fdopen") {
        // SAFETY: this is the C library's fdopen, and the caller promises what it asks for.
        Some(next) => unsafe { std::mem::transmute::<*mut c_void, Fdopen>(next)(fd, mode) },
        None => std::ptr::null_mut(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: promised by the caller of fopen.
    let writing = unsafe { is_writing(mode) };
    before_fopen(path, writing);
    match next(c"fopen") {
        // SAFETY: this is the C library's fopen, and the caller promises what it asks for.
        Some(next) => unsafe { std::mem::transmute::<*mut c_void, Fopen>(next)(path, mode) },
        None => std::ptr::null_mut(),
    }
}
alias!(fopen64 = fopen(path: *const c_char, mode: *const c_char) -> *mut FILE);

type Fdopen = unsafe extern "C" fn(c_int, *const c_char) -> *mut FILE;
type Fopen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;

fn before_fopen(path: *const c_char, writing: bool) {
    if let Some(_inside) = gate::enter()
        && let Some(inode) = table::of_path(path)
    {
        let mut state = inode.lock();
        // After an error the stream sees the file without the held bytes.
        let _ = if writing { state.retire() } else { state.settle() };
    }
}

/// # Safety
/// `mode` is null or a C string.
unsafe fn is_writing(mode: *const c_char) -> bool {
    if mode.is_null() {
        return false;
    }
    // SAFETY: promised by the caller.
    let mode = unsafe { CStr::from_ptr(mode) }.to_bytes();
    !mode.starts_with(b"r") || mode.contains(&b'+')
}

/// The C library's own function.
fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!function.is_null()).then_some(function)
}
