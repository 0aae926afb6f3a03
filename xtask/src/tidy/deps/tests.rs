//! Plants workspaces of empty crates with our names, and reads them through the real `cargo metadata`.

use super::*;
use crate::temp::TempDir;

/// Crates as (name, lines of its manifest after the `[package]` table). Third-party names are crates beside them.
fn breaches(crates: &[(&str, &str)]) -> Vec<String> {
    let dir = TempDir::new("deps").unwrap();
    let (ours, others): (Vec<_>, Vec<_>) = crates.iter().partition(|(name, _)| is_ours(name));
    let list = |crates: &[&(&str, &str)], with: &str| {
        crates.iter().map(|(name, _)| format!("\"{name}\"{with}")).collect::<Vec<_>>().join(", ")
    };
    dir.write(
        "Cargo.toml",
        format!(
            "[workspace]\nresolver = \"3\"\nmembers = [{}]\nexclude = [{}]",
            list(&ours, ""),
            list(&others, "")
        ),
    );
    for (name, rest) in crates {
        dir.write(
            &format!("{name}/Cargo.toml"),
            format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{rest}"),
        );
        dir.write(&format!("{name}/src/lib.rs"), "");
    }
    let metadata = metadata(&Workspace::find().unwrap(), dir.path()).unwrap();
    check(&metadata).unwrap().iter().map(Breach::to_string).collect()
}

fn is_ours(name: &str) -> bool {
    name.starts_with("talaria-") || name == "xtask"
}

fn on(name: &str) -> String {
    format!("{name} = {{ path = \"../{name}\" }}\n")
}

#[test]
fn the_allowed_edges_are_no_breach() {
    let core = format!("[dependencies]\n{}", on("talaria-protocol"));
    let server =
        format!("[dependencies]\n{}[dev-dependencies]\n{}", on("talaria-core"), on("talaria-client"));
    let crates = [
        ("talaria-protocol", ""),
        ("talaria-core", core.as_str()),
        ("talaria-server", server.as_str()),
        ("talaria-client", core.as_str()),
    ];
    assert_eq!(breaches(&crates), [""; 0]);
}

#[test]
fn an_edge_against_the_graph_is_a_breach() {
    let protocol = format!("[dependencies]\n{}", on("talaria-core"));
    let chat = format!("[dev-dependencies]\n{}", on("talaria-server"));
    let found = breaches(&[
        ("talaria-protocol", &protocol),
        ("talaria-core", ""),
        ("talaria-chat", &chat),
        ("talaria-server", ""),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("talaria-chat's tests may not depend on talaria-server"), "{found:?}");
    assert!(found[1].contains("talaria-protocol may not depend on talaria-core"), "{found:?}");
}

#[test]
fn a_banned_crate_is_found_however_it_comes_in() {
    let via = format!("[dependencies]\n{}", on("helper"));
    let helper = format!("[dependencies]\n{}", on("tokio"));
    let found = breaches(&[("talaria-core", &via), ("helper", &helper), ("tokio", "")]);
    assert_eq!(found, ["talaria-core/Cargo.toml: a pure crate reaches tokio: talaria-core → helper → tokio"]);

    let dev = format!("[dev-dependencies]\n{}", on("rand"));
    assert_eq!(breaches(&[("talaria-core", &dev), ("rand", "")]), [""; 0], "tests may use chance");
    let dev = format!("[dev-dependencies]\n{}", on("rocksdb"));
    assert!(breaches(&[("talaria-protocol", &dev), ("rocksdb", "")])[0].contains("rocksdb"));
}

#[test]
fn some_crates_belong_to_one_of_ours() {
    let rocksdb = format!("[dependencies]\n{}", on("rocksdb"));
    let found = breaches(&[("talaria-server", &rocksdb), ("talaria-log-rocksdb", &rocksdb), ("rocksdb", "")]);
    assert_eq!(found, ["talaria-server/Cargo.toml: rocksdb is for talaria-log-rocksdb only"]);

    let tokio = format!("[dependencies]\n{}", on("tokio"));
    let found = breaches(&[("talaria-log-rocksdb", &tokio), ("talaria-client", &tokio), ("tokio", "")]);
    assert_eq!(found, ["talaria-log-rocksdb/Cargo.toml: tokio is for the node only"]);
}

#[test]
fn features_and_unknown_crates_are_breaches() {
    let found = breaches(&[("talaria-log", "[features]\nextra = []\n"), ("talaria-new", "")]);
    assert!(found[0].contains("Cargo features in a pure crate"), "{found:?}");
    assert!(found[1].contains("a crate without a rule"), "{found:?}");
}
