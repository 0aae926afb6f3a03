//! `cargo xtask tidy`: what reviewers would otherwise repeat, as a test of the code base. Each rule has its file and
//! takes what it looks at as arguments, so that its tests plant a breach and see it found.
//! The rules: who may depend on whom ([`deps`]), what pure crates may name ([`purity`]), how long functions and files
//! may be ([`sizes`]), module docs ([`docs`]), clause ids ([`clauses`]), leftovers and home directories ([`text`]).

mod clauses;
mod deps;
mod docs;
mod files;
mod paths;
mod purity;
mod ratchet;
mod rust;
mod sizes;
mod text;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use files::Source;
use ratchet::Ratchet;

/// `cargo xtask tidy`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tree to check
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Write the ratchet anew with what shrank since; it never grows by this
    #[arg(long)]
    shrink: bool,
}

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    path: String,
    /// From 1; 0 where the file as a whole is meant.
    line: usize,
    message: String,
}

impl Breach {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// `cargo xtask tidy`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let root = args.root.as_deref().unwrap_or(&workspace.root);
    let sources = files::read(root)?;
    if args.shrink {
        return Ratchet::read(root)?.shrunk(&sizes::measure(&sources)).write(root);
    }
    let breaches = check(workspace, root, &sources)?;
    for breach in &breaches {
        println!("{breach}");
    }
    if !breaches.is_empty() {
        bail!("tidy: {} breaches", breaches.len());
    }
    println!("tidy: {} files, no breach", sources.len());
    Ok(())
}

/// Every breach in the tree, sorted by place.
fn check(workspace: &Workspace, root: &Path, sources: &[Source]) -> Result<Vec<Breach>> {
    let mut breaches = Vec::new();
    if root.join("Cargo.toml").is_file() {
        let metadata = deps::metadata(workspace, root)?;
        breaches.extend(deps::check(&metadata)?);
    }
    breaches.extend(purity::check(sources));
    breaches.extend(sizes::check(sources, &Ratchet::read(root)?));
    breaches.extend(docs::check(sources));
    breaches.extend(clauses::check(sources));
    breaches.extend(text::check(sources));
    breaches.sort();
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_code_base_is_tidy() {
        let workspace = Workspace::find().unwrap();
        let breaches = check(&workspace, &workspace.root, &files::read(&workspace.root).unwrap()).unwrap();
        let lines: Vec<_> = breaches.iter().map(Breach::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }
}
