//! What must not be left in a committed file: unfinished code, and paths of somebody's own machine.

use super::{Breach, files::Source};

/// Unfinished code, by the word before its `!`.
const LEFTOVER_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Split, because tidy reads this file too.
const UNFINISHED: &str = concat!("FIX", "ME");
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/")];

pub(super) fn check(sources: &[Source]) -> Vec<Breach> {
    sources.iter().flat_map(check_file).collect()
}

fn check_file(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in source.lines() {
        if line.contains(UNFINISHED) {
            breaches.push(Breach::new(
                &source.path,
                number,
                format!("{UNFINISHED}: fix it, or open an issue"),
            ));
        }
        if let Some(path) = MACHINE_PATHS.iter().find(|path| names_path(line, path)) {
            breaches.push(Breach::new(&source.path, number, format!("{path} is a path of one machine")));
        }
    }
    let Some(rust) = &source.rust else { return breaches };
    for (index, line) in rust.code.lines().enumerate() {
        for name in LEFTOVER_MACROS {
            let mut calls = super::rust::words(line, name);
            if calls.any(|at| line[at + name.len()..].starts_with("!(")) {
                breaches.push(Breach::new(&source.path, index + 1, format!("{name}!( is left over")));
            }
        }
    }
    breaches
}

/// Whether it stands there as an absolute path: not inside of a longer one or a URL, and with a name after it.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let is_inside = before.is_some_and(|c| c.is_alphanumeric() || "._-~}/$*".contains(c));
        !is_inside && after.is_some_and(|c| c.is_alphanumeric() || "._-".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&[Source::new(path, text)]).iter().map(Breach::to_string).collect()
    }

    #[test]
    fn unfinished_code_is_a_breach() {
        for name in LEFTOVER_MACROS {
            let found = messages("a.rs", &format!("fn f() {{\n    {name}!(x);\n}}"));
            assert_eq!(found, [format!("a.rs:2: {name}!( is left over")]);
            assert!(
                messages("a.rs", &format!("// no {name}!() here\nlet s = \"{name}!()\"; my_{name}!();"))
                    .is_empty()
            );
        }
        assert_eq!(messages("a.py", &format!("x = 1  # {UNFINISHED}")).len(), 1);
    }

    #[test]
    fn a_path_of_one_machine_is_a_breach() {
        for dir in MACHINE_PATHS {
            for text in [format!("see {dir}me/x"), format!("\"{dir}x\""), format!("PATH={dir}.cargo/bin")] {
                assert_eq!(messages("README.md", &text).len(), 1, "{text}");
            }
            for text in
                [format!("https://a.b{dir}x"), format!("~{dir}x"), format!("docs{dir}x"), dir.to_owned()]
            {
                assert!(messages("README.md", &text).is_empty(), "{text}");
            }
        }
    }
}
