//! The environment variables, read once, and the dice for torn writes.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use talaria_powercut::env;

use crate::sys;

#[derive(Debug)]
struct Config {
    dir: CString,
    stats: Option<CString>,
    /// 0 without a seed: nothing is torn.
    tear: u64,
    scramble: u64,
    sync_us_max: u64,
}

static CONFIG: OnceLock<Config> = OnceLock::new();

/// The folder's real path, once it exists.
static REAL_DIR: OnceLock<Vec<u8>> = OnceLock::new();

/// The state of the dice. Threads share it: with several of them one seed is not one run.
static DICE: AtomicU64 = AtomicU64::new(0);

/// Reads the environment; `false` if the shim has nothing to do.
pub(crate) fn load() -> bool {
    let Some(dir) = variable(env::DIR).filter(|dir| !dir.is_empty()) else {
        return false;
    };
    let seed = number(env::SEED);
    DICE.store(seed.unwrap_or(0), Ordering::Relaxed);
    let only_with_seed = |value: u64| if seed.is_some() { value } else { 0 };
    let config = Config {
        dir,
        stats: variable(env::STATS).filter(|file| !file.is_empty()),
        tear: only_with_seed(number(env::TEAR).unwrap_or(env::TEAR_DEFAULT)),
        scramble: only_with_seed(number(env::SCRAMBLE).unwrap_or(env::SCRAMBLE_DEFAULT)),
        sync_us_max: only_with_seed(number(env::SYNC_US_MAX).unwrap_or(0)),
    };
    CONFIG.set(config).is_ok()
}

/// The file of the counters.
pub(crate) fn stats_file() -> Option<&'static CStr> {
    CONFIG.get()?.stats.as_deref()
}

/// Whether the file of this descriptor is to be held back, by its path.
pub(crate) fn covers(fd: RawFd) -> bool {
    let Some(dir) = real_dir() else {
        return false;
    };
    let Some(path) = sys::path_of(fd) else {
        return false;
    };
    let below = path.strip_prefix(dir);
    below.is_some_and(|below| (below.starts_with(b"/") || dir == b"/") && !is_info_log(&path))
}

/// RocksDB's info log: nobody syncs it, and a test wants to read it after the cut.
fn is_info_log(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    name == b"LOG" || name.starts_with(b"LOG.old")
}

fn real_dir() -> Option<&'static [u8]> {
    if let Some(dir) = REAL_DIR.get() {
        return Some(dir);
    }
    let dir = sys::real_path(&CONFIG.get()?.dir)?;
    Some(REAL_DIR.get_or_init(|| dir))
}

/// Whether this write is to be torn.
pub(crate) fn rolls_tear() -> bool {
    CONFIG.get().is_some_and(|config| one_in(config.tear))
}

/// Whether this write is to put a sector out of order.
pub(crate) fn rolls_scramble() -> bool {
    CONFIG.get().is_some_and(|config| one_in(config.scramble))
}

/// How long this sync has its bytes half in the file, µs; 0: not at all.
pub(crate) fn roll_sync_us() -> u64 {
    CONFIG
        .get()
        .map_or(0, |config| if config.sync_us_max == 0 { 0 } else { roll() % (config.sync_us_max + 1) })
}

fn one_in(count: u64) -> bool {
    count != 0 && roll().is_multiple_of(count)
}

/// A random number (splitmix64).
pub(crate) fn roll() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = DICE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn variable(name: &str) -> Option<CString> {
    let name = CString::new(name).ok()?;
    // SAFETY: this runs in a constructor, before the program has threads that change the
    // environment; the value is copied at once.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: getenv returns null or a C string.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_owned())
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.to_str().ok()?.parse().ok()
}
