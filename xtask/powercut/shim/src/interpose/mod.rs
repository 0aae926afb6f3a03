//! The C symbols that replace libc's, one file per family.
//!
//! Each does three things: it asks the shim, lets the kernel do what the shim leaves to it, and
//! returns as C expects. On 64-bit Linux the `64` variants are the same call. The variadic ones
//! (open, fcntl) take their optional argument as a plain one, which both ABIs below allow.

mod names;
mod open;
mod read;
mod share;
mod size;
mod status;
mod sync;
mod write;

use libc::{c_int, c_void, iovec, size_t};

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the shim knows glibc's calls on 64-bit Linux only");

/// IOV_MAX of Linux.
const BUFFERS_MAX: c_int = 1024;

/// Another name of a call.
macro_rules! alias {
    ($alias:ident = $name:ident ( $($argument:ident : $type:ty),* ) -> $result:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $alias($($argument: $type),*) -> $result {
            // SAFETY: the caller promises what the other name asks for.
            unsafe { $name($($argument),*) }
        }
    };
}
use alias;

/// One buffer of the C caller.
fn buffer(start: *const c_void, length: size_t) -> [iovec; 1] {
    [iovec { iov_base: start.cast_mut(), iov_len: length }]
}

/// The buffers of a vectored call; none if the kernel would refuse the list.
///
/// # Safety
/// `list` points to `count` buffers, as readv(2) and writev(2) demand.
unsafe fn buffers<'a>(list: *const iovec, count: c_int) -> &'a [iovec] {
    if list.is_null() || !(1..=BUFFERS_MAX).contains(&count) {
        return &[];
    }
    // SAFETY: promised by the caller, and the count is positive.
    unsafe { std::slice::from_raw_parts(list, count as usize) }
}
