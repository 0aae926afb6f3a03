//! Thin wrappers of the system calls that the shim makes for itself.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, iovec};

/// An errno that is not reported yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    /// Of the call that just failed.
    pub(crate) fn last() -> Self {
        // SAFETY: the pointer is valid for the calling thread.
        Self(unsafe { *libc::__errno_location() })
    }

    /// Sets errno; the result is what a failed libc call returns.
    pub(crate) fn report(self) -> c_int {
        // SAFETY: the pointer is valid for the calling thread.
        unsafe { *libc::__errno_location() = self.0 };
        -1
    }
}

fn checked(result: i64) -> Result<i64, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// The status of a descriptor.
pub(crate) fn fstat(fd: RawFd) -> Option<libc::stat> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    let result = kernel!(libc::SYS_fstat, fd, status.as_mut_ptr());
    // SAFETY: the kernel filled the struct in if it returned 0.
    (result == 0).then(|| unsafe { status.assume_init() })
}

/// The status of a path.
pub(crate) fn fstatat(dir: RawFd, path: *const libc::c_char, flags: c_int) -> Option<libc::stat> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    let pointer = status.as_mut_ptr();
    let result = kernel!(libc::SYS_newfstatat, dir, path, pointer, flags);
    // SAFETY: the kernel filled the struct in if it returned 0.
    (result == 0).then(|| unsafe { status.assume_init() })
}

/// Whether the status is that of a regular file.
pub(crate) fn is_regular(status: &libc::stat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// The status flags of a descriptor (O_APPEND and the like), 0 for a bad one.
pub(crate) fn open_flags(fd: RawFd) -> c_int {
    kernel!(libc::SYS_fcntl, fd, libc::F_GETFL, 0).max(0) as c_int
}

pub(crate) fn may_write(flags: c_int) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

pub(crate) fn may_read(flags: c_int) -> bool {
    flags & libc::O_ACCMODE != libc::O_WRONLY
}

pub(crate) fn seek(fd: RawFd, offset: i64, whence: c_int) -> Result<i64, Errno> {
    checked(kernel!(libc::SYS_lseek, fd, offset, whence))
}

pub(crate) fn truncate(fd: RawFd, size: i64) -> Result<(), Errno> {
    checked(kernel!(libc::SYS_ftruncate, fd, size)).map(drop)
}

/// Reads once, into memory of the C caller.
pub(crate) fn read_at(fd: RawFd, buffer: iovec, offset: i64) -> Result<usize, Errno> {
    let (start, length) = (buffer.iov_base, buffer.iov_len);
    checked(kernel!(libc::SYS_pread64, fd, start, length, offset)).map(|count| count as usize)
}

/// Waits, without any lock of ours.
pub(crate) fn sleep_us(us: u64) {
    let time = libc::timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: ((us % 1_000_000) * 1_000) as i64 };
    kernel!(libc::SYS_nanosleep, &raw const time, std::ptr::null_mut::<libc::timespec>());
}

/// Writes all of it, whatever the kernel takes at a time.
pub(crate) fn write_at(fd: RawFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        let (start, length) = (data.as_ptr(), data.len());
        match checked(kernel!(libc::SYS_pwrite64, fd, start, length, offset)) {
            Ok(count) => {
                data = &data[count as usize..];
                offset += count as u64;
            }
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A second descriptor for writing the file of `fd`. A fresh one, because O_APPEND and O_DIRECT
/// of the program's own would redirect or refuse our writes; a copy if the file's mode forbids it.
pub(crate) fn second_writer(fd: RawFd) -> Option<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    let path = CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let fresh = kernel!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0);
    let second = if fresh >= 0 { fresh } else { kernel!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 0) };
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    (second >= 0).then(|| unsafe { OwnedFd::from_raw_fd(second as RawFd) })
}

/// Opens a folder only to name it.
pub(crate) fn open_folder(path: &std::ffi::CStr) -> Option<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let fd = kernel!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0);
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The absolute path under which a descriptor was opened or to which its file was renamed.
pub(crate) fn path_of(fd: RawFd) -> Option<Vec<u8>> {
    let link = CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut path = vec![0u8; libc::PATH_MAX as usize];
    let (start, length) = (path.as_mut_ptr(), path.len());
    let dir = libc::AT_FDCWD;
    let count = kernel!(libc::SYS_readlinkat, dir, link.as_ptr(), start, length);
    path.truncate(usize::try_from(count).ok()?);
    Some(path)
}

/// The absolute path of a folder, without symbolic links.
pub(crate) fn real_path(folder: &std::ffi::CStr) -> Option<Vec<u8>> {
    path_of(open_folder(folder)?.as_raw_fd())
}
