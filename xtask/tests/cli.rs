//! xtask as its users meet it: as a process, with arguments good and bad, on a planted tree.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
};

/// Exit code, then stdout and stderr.
fn xtask(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// A tree with one Rust file of this text.
fn planted(name: &str, text: &str) -> PathBuf {
    let root = env::temp_dir().join(format!("talaria-cli-{name}-{}", process::id()));
    fs::create_dir_all(root.join("protocol/src")).unwrap();
    fs::write(root.join("protocol/src/lib.rs"), text).unwrap();
    root
}

#[test]
fn bad_arguments_are_named_and_exit_2() {
    for (args, named) in
        [(&["dmeo"][..], "dmeo"), (&["tidy", "--rooot", "x"], "--rooot"), (&["codegen", "extra"], "extra")]
    {
        let (code, text) = xtask(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
    let (code, text) = xtask(&["ci", "no-such-step"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no-such-step") && text.contains("--list"), "{text}");
}

#[test]
fn help_says_where_builds_go() {
    let (code, text) = xtask(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["CARGO_TARGET_DIR", "XDG_CACHE_HOME", "packages", "demo", "run", "test", "tidy", "ci"] {
        assert!(text.contains(word), "no {word} in: {text}");
    }
}

#[test]
fn tidy_fails_on_a_planted_breach_and_only_then() {
    let good = planted("good", "//! A library.\n");
    let bad = planted("bad", "//! A library.\nuse std::time::Instant;\n");
    let tidy = |root: &PathBuf| xtask(&["tidy", "--root", root.to_str().unwrap()]);
    let (code, text) = tidy(&good);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = tidy(&bad);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("protocol/src/lib.rs:2: std::time::Instant"), "{text}");
    for root in [good, bad] {
        fs::remove_dir_all(root).unwrap();
    }
}
