//! xtask/tidy-ratchet.json: what was over a size limit when the limit came, with its size. `--shrink` lowers and drops
//! lines of it; only a human adds one, by hand and with a reason in the commit.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

use super::sizes::Measured;

pub(super) const PATH: &str = "xtask/tidy-ratchet.json";

/// Lines by `path` or `path::function`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ratchet {
    lines: BTreeMap<String, usize>,
}

impl Ratchet {
    /// That of the tree; empty where there is no file.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let Ok(text) = fs::read_to_string(root.join(PATH)) else { return Ok(Self::default()) };
        Self::parse(&text).with_context(|| format!("{PATH} must look like {{\"path.rs::function\": 80}}"))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(Self { lines: serde_json::from_str(text)? })
    }

    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.lines)? + "\n";
        fs::write(root.join(PATH), text).with_context(|| format!("cannot write {PATH}"))?;
        println!("tidy: {PATH} has {} lines now", self.lines.len());
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.lines.keys()
    }

    /// With lower numbers where something shrank, and without what is within its limit.
    pub(super) fn shrunk(&self, over: &[Measured]) -> Self {
        let now = |key: &str| over.iter().find(|measured| measured.key == key).map(|measured| measured.lines);
        let shrunk = |(key, before): (&String, &usize)| Some((key.clone(), now(key)?.min(*before)));
        Self { lines: self.lines.iter().filter_map(shrunk).collect() }
    }
}

impl<const N: usize> From<[(String, usize); N]> for Ratchet {
    fn from(lines: [(String, usize); N]) -> Self {
        Self { lines: lines.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::TempDir;

    #[test]
    fn it_is_read_as_it_was_written() {
        let dir = TempDir::new("ratchet").unwrap();
        assert_eq!(Ratchet::read(dir.path()).unwrap(), Ratchet::default());
        dir.write(PATH, "{\"a.rs\": \"long\"}");
        assert!(format!("{:#}", Ratchet::read(dir.path()).unwrap_err()).contains(PATH));
        let ratchet = Ratchet::from([("a.rs::f".to_owned(), 80)]);
        ratchet.write(dir.path()).unwrap();
        assert_eq!(Ratchet::read(dir.path()).unwrap(), ratchet);
    }
}
