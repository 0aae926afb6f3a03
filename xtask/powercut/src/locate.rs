//! Finds the shim's library, and builds it where cargo is at hand.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env;

/// The name that cargo gives the library.
pub const SHIM_FILE: &str = "libtalaria_powercut_shim.so";

/// The library: the file that TALARIA_POWERCUT_SHIM names, else the one beside the running
/// program or one folder up (tests run in `deps`, examples in `examples`).
///
/// # Errors
/// `NotFound` if there is none; [`build_shim`] makes one.
pub fn shim_path() -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os(env::SHIM) {
        return std::path::absolute(named);
    }
    let program = std::env::current_exe()?;
    let found = program.ancestors().skip(1).take(2);
    let found = found.map(|folder| folder.join(SHIM_FILE));
    found.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        let hint = "cargo build -p talaria-powercut-shim";
        io::Error::new(io::ErrorKind::NotFound, format!("no {SHIM_FILE}: {hint}"))
    })
}

/// Runs `cargo build` for the library, into the target folder and the profile of the running
/// program, and returns where it is. Cheap when it is fresh; a test calls this first, so that it
/// never runs with a stale library.
///
/// # Errors
/// The running program is not in a cargo target folder, or the build failed.
pub fn build_shim() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile_dir = profile_dir(&program).ok_or_else(|| {
        let text = format!("{} is not in a target folder", program.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let profile = match profile_dir.file_name() {
        Some(name) if name != "debug" => name.to_owned(),
        _ => OsString::from("dev"),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--package", "talaria-powercut-shim"])
        .arg("--profile")
        .arg(profile)
        .arg("--target-dir")
        .arg(profile_dir.parent().unwrap_or(profile_dir))
        .status()?;
    if !status.success() {
        let text = format!("the build of the shim ended with {status}");
        return Err(io::Error::other(text));
    }
    Ok(profile_dir.join(SHIM_FILE))
}

/// `target/debug` for `target/debug/x` and for `target/debug/{deps,examples}/x`.
fn profile_dir(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    let name = folder.file_name()?;
    if name == "deps" || name == "examples" { folder.parent() } else { Some(folder) }
}
