//! The environment variables of the shim, and their defaults.

/// The folder whose files are held back. Without it the shim does nothing.
pub const DIR: &str = "TALARIA_POWERCUT_DIR";

/// The seed (decimal u64) of the torn writes. Without it no write is torn.
pub const SEED: &str = "TALARIA_POWERCUT_SEED";

/// One write in how many lets a part of the pending bytes through; 0 is never.
pub const TEAR: &str = "TALARIA_POWERCUT_TEAR";

/// One write in how many puts one pending sector into the file out of order; 0 is never.
pub const SCRAMBLE: &str = "TALARIA_POWERCUT_SCRAMBLE";

/// A sync takes up to so many microseconds, with a part of the bytes in the file and the rest not, as on a disk that
/// writes while the power goes; without it, or 0, all of them reach the file at once. Needs a seed.
pub const SYNC_US_MAX: &str = "TALARIA_POWERCUT_SYNC_US_MAX";

/// The file of the shared counters that [`crate::Stats::read`] reads.
pub const STATS: &str = "TALARIA_POWERCUT_STATS";

/// Read by [`crate::shim_path`], not by the shim: where the library is, if not beside the program.
pub const SHIM: &str = "TALARIA_POWERCUT_SHIM";

/// The value of [`TEAR`] if it is not set.
pub const TEAR_DEFAULT: u64 = 4;

/// The value of [`SCRAMBLE`] if it is not set.
pub const SCRAMBLE_DEFAULT: u64 = 0;
