//! The files that tidy looks at: what git has or would add (ignored ones not), read as text. Without git, the tree.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::rust::Rust;
use crate::tree;

/// Directories that the fallback without git leaves out.
const NOT_OURS: [&str; 2] = ["target", ".git"];

/// One text file.
pub(super) struct Source {
    /// Relative to the tree's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Its code, where it is Rust.
    pub(super) rust: Option<Rust>,
}

impl Source {
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let rust = path.ends_with(".rs").then(|| Rust::new(&text));
        Self { path, text, rust }
    }

    /// Written by `cargo xtask codegen`.
    pub(super) fn is_generated(&self) -> bool {
        self.text.lines().take(3).any(|line| line.starts_with("// @generated"))
    }

    /// The lines, numbered from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// All text files of the tree; binary ones are left out.
pub(super) fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in list(root)? {
        let file = root.join(&path);
        // A file that git knows but that was just deleted, or a link.
        if !file.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            sources.push(Source::new(path, text));
        }
    }
    Ok(sources)
}

fn list(root: &Path) -> Result<Vec<String>> {
    // Only where the root is a checkout of its own: a tree inside of another checkout may be ignored there.
    if root.join(".git").exists() {
        let git = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output();
        if let Some(output) = git.ok().filter(|output| output.status.success()) {
            let names = String::from_utf8_lossy(&output.stdout);
            let mut names: Vec<String> =
                names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            names.sort();
            names.dedup();
            return Ok(names);
        }
    }
    let mut names = Vec::new();
    for file in tree::files_under(root)? {
        let name = Path::new(&file).strip_prefix(root)?.to_string_lossy().into_owned();
        if !name.split('/').any(|part| NOT_OURS.contains(&part)) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::TempDir;

    fn paths(dir: &TempDir) -> Vec<String> {
        read(dir.path()).unwrap().into_iter().map(|source| source.path).collect()
    }

    #[test]
    fn ignored_and_binary_files_are_left_out() {
        let dir = TempDir::new("files").unwrap();
        dir.write("src/new.rs", "");
        dir.write("target/debug/built.rs", "");
        dir.write("vector.bin", [0, 159, 146, 150]);
        dir.write(".gitignore", "/target\n");
        assert_eq!(paths(&dir), [".gitignore", "src/new.rs"]);

        let git = Command::new("git").args(["init", "-q"]).current_dir(dir.path()).status().unwrap();
        assert!(git.success());
        dir.write(".gitignore", "/target\n/scratch\n");
        dir.write("scratch/mine.rs", "");
        assert_eq!(paths(&dir), [".gitignore", "src/new.rs"]);
    }
}
