//! unlink and rename: they happen at once; a file that loses its last name leaves the table.

use libc::{c_char, c_int, c_uint};

use crate::gate;
use crate::sys::Errno;
use crate::table::{self, InodeId};

fn last_name(dir: c_int, path: *const c_char) -> Option<InodeId> {
    let _inside = gate::enter()?;
    table::last_name(dir, path)
}

fn forget_after(result: c_int, id: Option<InodeId>) -> c_int {
    if result == 0
        && let Some(id) = id
        && let Some(_inside) = gate::enter()
    {
        table::forget(id);
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    let id = last_name(dir, path);
    let result = kernel!(libc::SYS_unlinkat, dir, path, flags) as c_int;
    forget_after(result, id)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: promised by the caller of unlink.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn remove(path: *const c_char) -> c_int {
    // SAFETY: promised by the caller of remove.
    let result = unsafe { unlinkat(libc::AT_FDCWD, path, 0) };
    if result < 0 && Errno::last().0 == libc::EISDIR {
        return kernel!(libc::SYS_unlinkat, libc::AT_FDCWD, path, libc::AT_REMOVEDIR) as c_int;
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(
    old_dir: c_int,
    old: *const c_char,
    new_dir: c_int,
    new: *const c_char,
    flags: c_uint,
) -> c_int {
    // An exchange takes no name away; so does a rename to the same name.
    let target = if flags & libc::RENAME_EXCHANGE == 0 {
        last_name(new_dir, new).filter(|target| last_name(old_dir, old) != Some(*target))
    } else {
        None
    };
    let result = kernel!(libc::SYS_renameat2, old_dir, old, new_dir, new, flags) as c_int;
    forget_after(result, target)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(
    old_dir: c_int,
    old: *const c_char,
    new_dir: c_int,
    new: *const c_char,
) -> c_int {
    // SAFETY: promised by the caller of renameat.
    unsafe { renameat2(old_dir, old, new_dir, new, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(old: *const c_char, new: *const c_char) -> c_int {
    // SAFETY: promised by the caller of rename.
    unsafe { renameat2(libc::AT_FDCWD, old, libc::AT_FDCWD, new, 0) }
}
