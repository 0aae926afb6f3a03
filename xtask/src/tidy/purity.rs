//! Pure crates name nothing that has a clock, a network, a disk, a thread or chance in it. Looks at their src/ without
//! what is compiled for tests only; tests, examples and benches may do as they like.

use super::{Breach, files::Source, paths};

/// Where the pure crates' code is.
const PURE_SRC: [&str; 4] = ["protocol/src/", "server/core/src/", "server/log/src/", "client-sdk/core/src/"];

/// Paths that may not be named, nor anything under them.
const BANNED: [&str; 9] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::time::*",
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
];

/// The ends of paths that stand for those when their module was imported.
const BANNED_ENDS: [&str; 6] = [
    "time::Instant",
    "time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "thread::sleep",
    "thread::spawn",
];

/// Words that may not occur.
const BANNED_WORDS: [&str; 2] = ["async", "await"];

/// Exceptions: a path's beginning, and what may be named there. Each with its reason.
const ALLOWED: [(&str, &str); 0] = [];

pub(super) fn check(sources: &[Source]) -> Vec<Breach> {
    sources.iter().filter(|source| is_pure_code(&source.path)).flat_map(check_file).collect()
}

/// A pure crate's own code. `tests.rs` and tests/ are modules that a `#[cfg(test)]` elsewhere declares.
fn is_pure_code(path: &str) -> bool {
    let inner = PURE_SRC.iter().find_map(|src| path.strip_prefix(src));
    inner.is_some_and(|inner| !inner.ends_with("tests.rs") && !inner.split('/').any(|part| part == "tests"))
}

fn check_file(source: &Source) -> Vec<Breach> {
    let Some(rust) = &source.rust else { return Vec::new() };
    let mut breaches = Vec::new();
    for path in paths::named(&rust.without_tests()) {
        let Some(banned) = banned(&path.segments) else { continue };
        if !ALLOWED.iter().any(|(place, what)| source.path.starts_with(place) && *what == banned) {
            let message = format!("{banned} in a pure crate: take it as an argument or give an effect");
            breaches.push(Breach::new(&source.path, rust.line(path.at), message));
        }
    }
    breaches
}

fn banned(segments: &[String]) -> Option<&'static str> {
    let path = segments.join("::");
    let is_under = |top: &&&str| path == **top || path.starts_with(&format!("{top}::"));
    let has_end =
        |end: &&&str| path == **end || path.contains(&format!("::{end}")) || path.starts_with(**end);
    let is_word = |word: &&&str| segments.len() == 1 && path == **word;
    let under = BANNED.iter().find(is_under);
    under.or_else(|| BANNED_ENDS.iter().find(has_end)).or_else(|| BANNED_WORDS.iter().find(is_word)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[Source::new(path, text)]).iter().map(Breach::to_string).collect()
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_a_breach() {
        for code in [
            "use std::time::{Duration, Instant};",
            "use std::time::SystemTime as Wall;",
            "let now = std::time::Instant::now();",
            "use std::time; fn f(_: time::Instant) {}",
            "use std::{io, net::TcpStream};",
            "std::fs::read(path)",
            "use std::thread; fn f() { thread::sleep(d) }",
            "async fn f() {}",
        ] {
            for src in PURE_SRC {
                assert_eq!(found(&format!("{src}a/b.rs"), code).len().min(1), 1, "{src}: {code}");
            }
            assert!(found("server/node/src/a.rs", code).is_empty());
            assert!(found("server/log/tests/a.rs", code).is_empty());
            assert!(found("protocol/src/session/tests.rs", code).is_empty());
            assert!(
                found("protocol/src/a.rs", &format!("// {code}\n#[cfg(test)]\nmod t {{ {code} }}"))
                    .is_empty()
            );
        }
        assert!(
            found("server/core/src/a.rs", "fn f() {}\nuse std::fs;")[0]
                .starts_with("server/core/src/a.rs:2:")
        );
    }

    #[test]
    fn what_is_pure_may_be_named() {
        let code = "use std::{sync::Mutex, time::Duration}; fn f(now: Millis, fs: Fs) -> InstantAnswer { time::ms(now) }";
        assert!(found("server/core/src/a.rs", code).is_empty());
    }
}
