//! Reading whole directories: the files under one, and where two differ.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Every file under `dir`, by its path relative to `dir`, with `/` between names.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// The files under `dir` as full paths, sorted. A directory that does not exist holds none.
pub(crate) fn files_under(dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        if !dir.exists() {
            continue;
        }
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                files.push(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What the files under `dir` hold.
pub(crate) fn read(dir: &Path) -> Result<Contents> {
    let mut contents = Contents::new();
    for file in files_under(dir)? {
        let path = PathBuf::from(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
        contents.insert(name, bytes);
    }
    Ok(contents)
}

/// One line for each file that is only in one of the two or differs.
pub(crate) fn differences(wanted: &Contents, found: &Contents) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, bytes) in wanted {
        match found.get(name) {
            None => lines.push(format!("{name} is missing")),
            Some(other) if other != bytes => lines.push(format!("{name} differs")),
            Some(_) => {}
        }
    }
    let extra = found.keys().filter(|name| !wanted.contains_key(*name));
    lines.extend(extra.map(|name| format!("{name} is of no use any more")));
    lines
}
