//! Every Rust file begins with what it is: a `//!` before any code. Plain comments and inner attributes may precede it.

use super::{Breach, files::Source};

pub(super) fn check(sources: &[Source]) -> Vec<Breach> {
    let rust = sources.iter().filter(|source| source.rust.is_some());
    rust.filter(|source| !has_module_doc(&source.text))
        .map(|source| Breach::new(&source.path, 1, "no module doc: begin with `//! what this is`"))
        .collect()
}

fn has_module_doc(text: &str) -> bool {
    let is_preamble = |line: &&str| {
        let is_comment = line.starts_with("//") && !line.starts_with("//!");
        line.is_empty() || line.starts_with("#!") || is_comment
    };
    let first = text.lines().map(str::trim).find(|line| !is_preamble(line));
    first.and_then(|line| line.strip_prefix("//!")).is_some_and(|doc| !doc.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_module_doc_is_a_breach() {
        for good in [
            "//! Doc.\nfn f() {}",
            "// @generated\n\n//! Doc.",
            "#![allow(x)]\n//! Doc.",
            "#!/bin/x\n//! Doc.",
        ] {
            assert!(check(&[Source::new("src/a.rs", good)]).is_empty(), "{good}");
        }
        for bad in ["", "fn f() {}\n//! Late.", "/// Of f.\nfn f() {}", "//!\nfn f() {}", "// Plain."] {
            assert_eq!(check(&[Source::new("tests/a.rs", bad)]).len(), 1, "{bad}");
        }
        assert!(check(&[Source::new("a.py", "")]).is_empty());
    }
}
