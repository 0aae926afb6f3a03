//! `cargo xtask vectors`: the test vectors under spec/vectors, written by the crates that define the formats (in
//! examples of theirs) and read by every implementation. README.md there is written by hand and left alone.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    temp::TempDir,
    tree::{self, Contents},
    workspace::{Workspace, run},
};

const VECTORS: &str = "spec/vectors";
const BY_HAND: &str = "README.md";
/// Crates and their examples that take a directory to write to. None of them builds RocksDB.
const WRITERS: [(&str, &str); 2] =
    [("talaria-protocol", "protocol_vectors"), ("talaria-log", "record_vectors")];

/// `cargo xtask vectors`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; exit 1 if spec/vectors is not what the code would write
    #[arg(long)]
    check: bool,
}

/// `cargo xtask vectors`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let dir = TempDir::new("vectors")?;
    for (writer, name) in WRITERS {
        let mut example = workspace.cargo(["run", "-q", "-p", writer, "--example", name, "--"]);
        run(example.arg(dir.path()))?;
    }
    let wanted = tree::read(dir.path())?;
    if wanted.is_empty() {
        bail!("the examples {WRITERS:?} wrote nothing");
    }
    let committed = workspace.root.join(VECTORS);
    if args.check { check(&wanted, &committed) } else { replace(&wanted, &committed) }
}

fn check(wanted: &Contents, committed: &Path) -> Result<()> {
    let differences = tree::differences(wanted, &generated(committed)?);
    if !differences.is_empty() {
        bail!("{VECTORS} is stale; run `cargo xtask vectors`:\n  {}", differences.join("\n  "));
    }
    println!("vectors: {} files are fresh", wanted.len());
    Ok(())
}

fn replace(wanted: &Contents, committed: &Path) -> Result<()> {
    for name in generated(committed)?.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(committed.join(name)).with_context(|| format!("cannot remove {name}"))?;
        println!("vectors: removed {name}");
    }
    for (name, bytes) in wanted {
        let path = committed.join(name);
        if fs::read(&path).is_ok_and(|old| &old == bytes) {
            continue;
        }
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {name}"))?;
        println!("vectors: wrote {name}");
    }
    Ok(())
}

fn generated(committed: &Path) -> Result<Contents> {
    let mut contents = tree::read(committed)?;
    contents.remove(BY_HAND);
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_missing_or_left_over_vector_is_noticed() {
        let dir = TempDir::new("vectors-test").unwrap();
        dir.write(BY_HAND, "by hand");
        dir.write("frame/old.json", "1");
        let wanted = Contents::from([("frame/a.json".to_owned(), b"1".to_vec()), ("b".to_owned(), vec![2])]);

        replace(&wanted, dir.path()).unwrap();
        check(&wanted, dir.path()).unwrap();
        assert!(!dir.path().join("frame/old.json").exists() && dir.path().join(BY_HAND).exists());

        dir.write("frame/a.json", "2");
        dir.write("c", "left over");
        fs::remove_file(dir.path().join("b")).unwrap();
        let error = check(&wanted, dir.path()).unwrap_err().to_string();
        for line in ["frame/a.json differs", "b is missing", "c is of no use any more"] {
            assert!(error.contains(line), "{error}");
        }
    }
}
