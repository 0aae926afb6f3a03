//! The checkout, and how xtask starts cargo and the programs that cargo built.
//! Every cargo gets the same target directory, and an environment without what the outer `cargo run` added, which
//! would make build scripts that watch those variables run again. Whoever builds RocksDB builds the whole
//! workspace, never a package of it: other feature sets would compile RocksDB anew (minutes).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

/// What `cargo run` sets for the program that it runs.
const SET_BY_CARGO_RUN: [&str; 6] = [
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_RUSTC_CURRENT_DIR",
    "OUT_DIR",
    "RUST_RECURSION_COUNT",
];
const SET_BY_CARGO_RUN_PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"];

static OWN_PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The path of this program, as it was when it started.
pub(crate) fn own_program() -> PathBuf {
    OWN_PROGRAM.get().cloned().unwrap_or_else(|| "xtask".into())
}

/// A checkout and where its builds go.
pub(crate) struct Workspace {
    /// The directory of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where every cargo of ours builds; absolute.
    pub(crate) target_dir: PathBuf,
}

impl Workspace {
    /// The checkout that this xtask belongs to.
    pub(crate) fn find() -> Result<Self> {
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest_dir).parent().context("xtask has no parent directory")?;
        if !root.join("Cargo.toml").is_file() {
            bail!("{} is no checkout of Talaria: no Cargo.toml there", root.display());
        }
        let target_dir =
            target_dir(|name| env::var_os(name).map(PathBuf::from)).unwrap_or_else(|| root.join("target"));
        let target_dir = std::path::absolute(&target_dir)
            .with_context(|| format!("bad target directory {}", target_dir.display()))?;
        // Known before any build, which may put another xtask in its place.
        OWN_PROGRAM.get_or_init(|| env::current_exe().unwrap_or_else(|_| target_dir.join("debug/xtask")));
        Ok(Self { root: root.to_path_buf(), target_dir })
    }

    /// `cargo` at the workspace's root, into the shared target directory.
    pub(crate) fn cargo<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).env("CARGO_TARGET_DIR", &self.target_dir);
        command
    }

    /// Any program at the workspace's root, without what the outer cargo added to the environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_set_by_cargo_run) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Builds the libraries (the power cut shim among them) and programs of the whole workspace.
    pub(crate) fn build_all(&self) -> Result<()> {
        run(&mut self.cargo(["build", "--workspace"]))
    }

    /// Where `build_all` leaves the program of this name.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.target_dir.join("debug").join(name)
    }
}

/// Runs it to the end; an error names the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", command_line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", command_line(command));
    }
    Ok(())
}

/// Runs it to the end and gives its stdout; stderr passes through.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed bad UTF-8"))
}

/// Becomes it, so that signals and its exit code are its own. Comes back only when it cannot be started.
pub(crate) fn become_it(command: &mut Command) -> anyhow::Error {
    let line = command_line(command);
    let error = std::os::unix::process::CommandExt::exec(command);
    anyhow::Error::new(error).context(format!("cannot start `{line}`"))
}

/// As one would type it, the program's directory left out.
fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

fn is_set_by_cargo_run(name: &str) -> bool {
    SET_BY_CARGO_RUN.contains(&name)
        || SET_BY_CARGO_RUN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// CARGO_TARGET_DIR, else a place in the user's cache; `None` without a home.
fn target_dir(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| var(name).filter(|value| !value.as_os_str().is_empty());
    if let Some(dir) = set("CARGO_TARGET_DIR") {
        return Some(dir);
    }
    // The XDG specification says to ignore a relative path.
    let cache = set("XDG_CACHE_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("talaria/target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(vars: &[(&str, &str)]) -> Option<String> {
        let dir = target_dir(|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value))
        });
        dir.map(|dir| dir.to_string_lossy().into_owned())
    }

    #[test]
    fn target_dir_is_shared_and_can_be_set() {
        let in_home = "/h/.cache/talaria/target";
        for (name, value, wanted) in [
            ("CARGO_TARGET_DIR", "/t", "/t"),
            ("CARGO_TARGET_DIR", "", in_home),
            ("XDG_CACHE_HOME", "/c", "/c/talaria/target"),
            ("XDG_CACHE_HOME", "relative", in_home),
            ("UNRELATED", "/x", in_home),
        ] {
            let dir = dir_with(&[(name, value), ("HOME", "/h")]);
            assert_eq!(dir.as_deref(), Some(wanted), "{name}={value}");
        }
        assert_eq!(dir_with(&[]), None);
    }

    #[test]
    fn only_what_cargo_run_set_is_dropped() {
        for name in ["CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(is_set_by_cargo_run(name), "{name}");
        }
        for name in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "RUSTFLAGS", "PATH"] {
            assert!(!is_set_by_cargo_run(name), "{name}");
        }
    }

    #[test]
    fn failure_names_the_command() {
        let error = run(Command::new("/bin/false").arg("--really")).unwrap_err().to_string();
        assert!(error.contains("`false --really` failed: exit status: 1"), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(error.contains("cannot start `no-such-program`"), "{error}");
    }
}
