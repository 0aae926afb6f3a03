//! Decides whether a call is the shim's business at all.
//!
//! It is only in the process that loaded the shim (a forked or vforked child must not touch the
//! queues of its parent, nor a lock that another thread held at the fork), and only when this
//! thread is not already inside the shim (a signal handler).

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, Ordering};

/// The process whose writes are held back; 0 while there is none.
static OWNER: AtomicI32 = AtomicI32::new(0);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// This thread is inside the shim until the value is dropped.
pub(crate) struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// From now on this process is the owner.
pub(crate) fn open() {
    OWNER.store(process(), Ordering::Release);
}

/// From now on everything passes through.
pub(crate) fn close() {
    OWNER.store(0, Ordering::Release);
}

/// `None`: the call must go to the kernel as it is.
pub(crate) fn enter() -> Option<Inside> {
    if !is_owner() || INSIDE.replace(true) {
        return None;
    }
    Some(Inside(()))
}

/// For the end of the process: also when `exit` was called by a signal handler inside the shim.
pub(crate) fn enter_last() -> Option<Inside> {
    is_owner().then(|| {
        INSIDE.set(true);
        Inside(())
    })
}

fn is_owner() -> bool {
    let owner = OWNER.load(Ordering::Acquire);
    owner != 0 && owner == process()
}

fn process() -> i32 {
    kernel!(libc::SYS_getpid) as i32
}
