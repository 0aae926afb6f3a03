//! `cargo xtask packages`: what build and tests need beyond the Rust toolchain, found by looking for the thing itself.
//! RocksDB's build needs a C++ compiler, and libclang with clang's headers for its bindings; the example client's
//! tests need Python. On Debian and its kin the missing is installed when that needs no password; else this prints
//! the line to run. Elsewhere it prints what is needed and lets the build go on, because the things may well be where
//! it did not look.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::workspace::{output, run};

/// `cargo xtask packages`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing; exit 1 if something is missing
    #[arg(long)]
    check: bool,
}

/// A thing that the build needs, and where Debian has it.
struct Need {
    package: &'static str,
    what: &'static str,
    is_present: fn() -> bool,
}

const NEEDS: [Need; 4] = [
    Need { package: "g++", what: "a C++ compiler", is_present: has_cxx },
    Need { package: "clang", what: "clang, for its headers", is_present: || on_path("clang") },
    Need { package: "libclang-dev", what: "libclang", is_present: has_libclang },
    Need { package: "python3", what: "Python 3, for the example client", is_present: || on_path("python3") },
];

/// `cargo xtask packages`
pub(crate) fn main(args: &Args) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("packages: nothing is missing");
        return Ok(());
    }
    if args.check {
        bail!("missing: {}", names(&missing, |need| need.what).join(", "));
    }
    install(&missing)
}

/// Makes sure of the packages before a build; says nothing when all is there.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !(need.is_present)()).collect()
}

fn names(needs: &[&'static Need], name: fn(&Need) -> &'static str) -> Vec<&'static str> {
    needs.iter().map(|need| name(need)).collect()
}

fn install(missing: &[&'static Need]) -> Result<()> {
    let what = names(missing, |need| need.what).join(", ");
    let packages = names(missing, |need| need.package);
    if !is_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default()) || !on_path("apt-get") {
        eprintln!(
            "note: not found: {what}. RocksDB's build needs them; install them with your package manager."
        );
        return Ok(());
    }
    let Some(prefix) = root_prefix()? else {
        bail!(
            "missing: {what}. Run this, then try again:\n\n    sudo apt-get update && sudo apt-get install -y {}\n",
            packages.join(" ")
        );
    };
    println!("packages: installing {} with apt-get", packages.join(", "));
    run(&mut apt_get(&prefix, &["update", "-q"]))?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&packages);
    run(&mut apt_get(&prefix, &install))?;
    let still: Vec<_> = missing.iter().filter(|need| !(need.is_present)()).map(|need| need.what).collect();
    if !still.is_empty() {
        bail!("installed {}, yet cannot find {}", packages.join(", "), still.join(", "));
    }
    Ok(())
}

/// What to put before a command so that root runs it; `None` where that would ask for a password.
fn root_prefix() -> Result<Option<Vec<&'static str>>> {
    let uid = output(Command::new("id").arg("-u")).context("who am I?")?;
    if uid.trim() == "0" {
        return Ok(Some(Vec::new()));
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(sudo.is_ok_and(|status| status.success()).then(|| vec!["sudo", "-n"]))
}

fn apt_get(prefix: &[&str], args: &[&str]) -> Command {
    // `env`, because sudo drops the environment.
    let words = prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut words = words.chain(["-o", "DPkg::Lock::Timeout=300"]).chain(args.iter().copied());
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    command
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| {
        let value = line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE="));
        value.is_some_and(|value| value.trim_matches('"').split_whitespace().any(|id| id == "debian"))
    })
}

fn has_cxx() -> bool {
    env::var("CXX").is_ok_and(|cxx| on_path(&cxx)) || on_path("c++") || on_path("g++")
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    !program.is_empty() && env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Looks where the bindings' generator looks: LIBCLANG_PATH, llvm-config's directory, then the usual ones.
fn has_libclang() -> bool {
    if let Some(path) = env::var_os("LIBCLANG_PATH") {
        let path = PathBuf::from(path);
        return path.is_file() || dir_has_libclang(&path);
    }
    let mut dirs: Vec<PathBuf> =
        ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/lib", "/lib64"]
            .map(PathBuf::from)
            .into();
    if let Ok(dir) = Command::new("llvm-config").arg("--libdir").stderr(Stdio::null()).output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&dir.stdout).trim()));
    }
    dirs.push("/Library/Developer/CommandLineTools/usr/lib".into());
    for entry in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        // /usr/lib/x86_64-linux-gnu, /usr/lib/llvm-19/lib
        dirs.push(entry.path());
        dirs.push(entry.path().join("lib"));
    }
    dirs.iter().any(|dir| dir_has_libclang(dir))
}

fn dir_has_libclang(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    // `exists` follows the link: a dangling one is no library.
    entries
        .into_iter()
        .any(|entry| is_libclang(&entry.file_name().to_string_lossy()) && entry.path().exists())
}

/// libclang.so, libclang.so.1, libclang-14.so, libclang-14.so.13, libclang.dylib; not libclang-cpp.so.14.
fn is_libclang(file: &str) -> bool {
    let Some(rest) = file.strip_prefix("libclang") else { return false };
    let version = rest.trim_start_matches(|c: char| c == '-' || c == '.' || c.is_ascii_digit());
    let (version, tail) = (&rest[..rest.len() - version.len()], version);
    let dotted = version.ends_with('.');
    dotted && (tail == "dylib" || tail == "so" || tail.starts_with("so."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::TempDir;

    #[test]
    fn libclang_is_known_by_its_name() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so", "libclang-14.so.13", "libclang.dylib"]
        {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclangAST.a", "libclang.a", "libclang_rt.so", "libclang", "so"]
        {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn a_dangling_link_is_no_library() {
        let dir = TempDir::new("packages").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("libclang.so")).unwrap();
        assert!(!dir_has_libclang(dir.path()));
        dir.write("libclang-19.so.1", "");
        assert!(dir_has_libclang(dir.path()));
    }

    #[test]
    fn debian_and_its_kin_are_known() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nID_LIKE=\"rhel centos\"\nNAME=debian-fan\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn apt_get_runs_as_root() {
        let line = |prefix: &[&str]| format!("{:?}", apt_get(prefix, &["install", "g++"]));
        assert!(
            line(&["sudo", "-n"]).starts_with("\"sudo\" \"-n\" \"env\" \"DEBIAN_FRONTEND=noninteractive\"")
        );
        assert!(line(&[]).starts_with("\"env\" ") && line(&[]).ends_with("\"install\" \"g++\""));
    }
}
