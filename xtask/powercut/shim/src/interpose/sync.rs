//! The calls that make held bytes durable. sync_file_range is none of them, and not replaced.

use libc::c_int;

use crate::{gate, hold, table};

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    match hold::before_sync(fd) {
        Ok(()) => kernel!(libc::SYS_fsync, fd) as c_int,
        Err(error) => error.report(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    match hold::before_sync(fd) {
        Ok(()) => kernel!(libc::SYS_fdatasync, fd) as c_int,
        Err(error) => error.report(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sync() {
    settle_all();
    kernel!(libc::SYS_sync);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syncfs(fd: c_int) -> c_int {
    settle_all();
    kernel!(libc::SYS_syncfs, fd) as c_int
}

fn settle_all() {
    if let Some(_inside) = gate::enter() {
        table::settle_all();
    }
}
