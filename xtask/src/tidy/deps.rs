//! Who may depend on whom: DESIGN's graph between our crates, which third-party crates stay out of pure ones (however
//! they come in), and which belong to one crate only. Reads `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Breach;
use crate::workspace::{Workspace, output};

/// What one of our crates may depend on among ours.
struct Rule {
    name: &'static str,
    ours: &'static [&'static str],
    /// For its tests and examples, besides.
    dev_ours: &'static [&'static str],
    /// No I/O, no clock, no chance, no Cargo features.
    is_pure: bool,
}

const fn rule(name: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { name, ours, dev_ours: &[], is_pure: false }
}

const fn pure(name: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { name, ours, dev_ours: &[], is_pure: true }
}

const RULES: [Rule; 14] = [
    pure("talaria-protocol", &[]),
    Rule {
        name: "talaria-core",
        ours: &["talaria-protocol"],
        // Its shard is tested over the log in memory.
        dev_ours: &["talaria-log"],
        is_pure: true,
    },
    pure("talaria-log", &["talaria-core", "talaria-protocol"]),
    pure("talaria-client-core", &["talaria-protocol"]),
    rule("talaria-log-rocksdb", &["talaria-core", "talaria-log", "talaria-protocol"]),
    Rule {
        name: "talaria-server",
        ours: &["talaria-core", "talaria-log", "talaria-log-rocksdb", "talaria-protocol"],
        dev_ours: &["talaria-client", "talaria-client-core", "talaria-powercut"],
        is_pure: false,
    },
    rule("talaria-client", &["talaria-client-core", "talaria-protocol"]),
    rule("talaria-chat", &["talaria-client"]),
    rule(
        "talaria-demo",
        &[
            "talaria-chaos",
            "talaria-client",
            "talaria-core",
            "talaria-log",
            "talaria-log-rocksdb",
            "talaria-powercut",
            "talaria-protocol",
        ],
    ),
    rule("talaria-bench", &["talaria-chaos", "talaria-client", "talaria-client-core", "talaria-protocol"]),
    rule("talaria-chaos", &[]),
    rule("talaria-powercut", &[]),
    rule("talaria-powercut-shim", &["talaria-powercut"]),
    rule("xtask", &[]),
];

/// Not in a pure crate, not even by way of another crate.
const BANNED_IN_PURE: [&str; 19] = [
    "async-std",
    "axum",
    "chrono",
    "futures-executor",
    "getrandom",
    "hyper",
    "librocksdb-sys",
    "mio",
    "quinn",
    "quinn-proto",
    "rand",
    "redis",
    "ring",
    "rocksdb",
    "rustls",
    "socket2",
    "tokio",
    "tokio-util",
    "uniffi",
];

/// Not in a pure crate's tests either: they take seconds and need no packages.
const BANNED_IN_PURE_TESTS: [&str; 5] = ["librocksdb-sys", "quinn", "redis", "rocksdb", "tokio"];

/// A third-party crate, and the only ones of ours that may depend on it.
const ONLY_IN: [(&str, &[&str]); 3] =
    [("rocksdb", &["talaria-log-rocksdb"]), ("redis", &["talaria-server"]), ("uniffi", &["talaria-ffi"])];

/// Server crates other than the node stay without these.
const ONLY_NODE: [&str; 6] = ["axum", "quinn", "redis", "rustls", "tokio", "tokio-rustls"];
const SERVER_CRATES: [&str; 3] = ["talaria-core", "talaria-log", "talaria-log-rocksdb"];

/// What `cargo metadata` says about the workspace at `root`, for this machine's platform.
pub(super) fn metadata(workspace: &Workspace, root: &Path) -> Result<Value> {
    let version = output(workspace.command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let mut command =
        workspace.cargo(["metadata", "--quiet", "--format-version", "1", "--filter-platform", host]);
    if root.join("Cargo.lock").is_file() {
        command.arg("--locked");
    }
    Ok(serde_json::from_str(&output(command.current_dir(root))?)?)
}

/// How a crate depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For what it ships, its build script included.
    Normal,
    /// For its tests and examples.
    Dev,
}

impl Kind {
    fn of(value: &Value) -> Self {
        if value["kind"] == "dev" { Self::Dev } else { Self::Normal }
    }
}

/// A crate of ours, as metadata has it.
struct Package<'a> {
    id: &'a str,
    name: &'a str,
    manifest: String,
    dependencies: Vec<(&'a str, Kind)>,
    has_features: bool,
}

pub(super) fn check(metadata: &Value) -> Result<Vec<Breach>> {
    let packages = our_packages(metadata)?;
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name).collect();
    let graph = Graph::new(metadata)?;
    let mut breaches = Vec::new();
    for package in &packages {
        let Some(rule) = RULES.iter().find(|rule| rule.name == package.name) else {
            breaches.push(package.breach("a crate without a rule; add one in xtask/src/tidy/deps.rs"));
            continue;
        };
        breaches.extend(edges_between_ours(package, rule, &ours));
        breaches.extend(third_party(package));
        if rule.is_pure {
            breaches.extend(what_pure_crates_reach(package, &graph));
        }
        if rule.is_pure && package.has_features {
            breaches.push(package.breach("Cargo features in a pure crate"));
        }
    }
    Ok(breaches)
}

fn edges_between_ours(package: &Package<'_>, rule: &Rule, ours: &BTreeSet<&str>) -> Vec<Breach> {
    let is_allowed = |name: &str, kind: Kind| {
        rule.ours.contains(&name)
            || kind == Kind::Dev && (rule.dev_ours.contains(&name) || name == package.name)
    };
    let edges = package.dependencies.iter().filter(|(name, _)| ours.contains(name));
    edges
        .filter(|(name, kind)| !is_allowed(name, *kind))
        .map(|(name, kind)| match kind {
            Kind::Normal => package.breach(format!("{} may not depend on {name}", package.name)),
            Kind::Dev => package.breach(format!("{}'s tests may not depend on {name}", package.name)),
        })
        .collect()
}

fn third_party(package: &Package<'_>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, kind) in &package.dependencies {
        let owners = ONLY_IN.iter().find(|(banned, _)| banned == name).map(|(_, owners)| *owners);
        if owners.is_some_and(|owners| !owners.contains(&package.name)) {
            breaches.push(
                package.breach(format!("{name} is for {} only", owners.unwrap_or_default().join(", "))),
            );
        } else if *kind == Kind::Normal && SERVER_CRATES.contains(&package.name) && ONLY_NODE.contains(name) {
            breaches.push(package.breach(format!("{name} is for the node only")));
        }
    }
    breaches
}

fn what_pure_crates_reach(package: &Package<'_>, graph: &Graph<'_>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (kind, banned) in [(Kind::Normal, &BANNED_IN_PURE[..]), (Kind::Dev, &BANNED_IN_PURE_TESTS[..])] {
        for (name, way) in graph.reach(package.id, kind) {
            if banned.contains(&name) {
                breaches.push(package.breach(format!("a pure crate reaches {name}: {}", way.join(" → "))));
            }
        }
    }
    breaches
}

impl Package<'_> {
    fn breach(&self, message: impl Into<String>) -> Breach {
        Breach::new(&self.manifest, 0, message)
    }
}

fn our_packages<'a>(metadata: &'a Value) -> Result<Vec<Package<'a>>> {
    let members: BTreeSet<&str> = array(&metadata["workspace_members"])?.filter_map(Value::as_str).collect();
    let root = text(&metadata["workspace_root"])?;
    let mut packages = Vec::new();
    for package in array(&metadata["packages"])? {
        let id = text(&package["id"])?;
        if !members.contains(id) {
            continue;
        }
        let manifest = text(&package["manifest_path"])?;
        let dependency = |dep: &'a Value| Ok((text(&dep["name"])?, Kind::of(dep)));
        packages.push(Package {
            id,
            name: text(&package["name"])?,
            manifest: manifest.strip_prefix(root).unwrap_or(manifest).trim_start_matches('/').to_owned(),
            dependencies: array(&package["dependencies"])?.map(dependency).collect::<Result<_>>()?,
            has_features: package["features"].as_object().is_some_and(|features| !features.is_empty()),
        });
    }
    Ok(packages)
}

/// The resolved dependencies of all crates.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    edges: BTreeMap<&'a str, Vec<(&'a str, Kind)>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Value) -> Result<Self> {
        let mut graph = Self { names: BTreeMap::new(), edges: BTreeMap::new() };
        for package in array(&metadata["packages"])? {
            graph.names.insert(text(&package["id"])?, text(&package["name"])?);
        }
        for node in array(&metadata["resolve"]["nodes"])? {
            let edges = graph.edges.entry(text(&node["id"])?).or_default();
            for dep in array(&node["deps"])? {
                let to = text(&dep["pkg"])?;
                edges.extend(array(&dep["dep_kinds"])?.map(|kind| (to, Kind::of(kind))));
            }
        }
        Ok(graph)
    }

    /// Every crate that `from` comes to by an edge of this kind and then normal ones, with the way there.
    fn reach(&self, from: &'a str, first: Kind) -> Vec<(&'a str, Vec<&'a str>)> {
        let mut seen = BTreeSet::from([from]);
        let mut found = Vec::new();
        let mut open = vec![(from, vec![self.name(from)])];
        while let Some((id, way)) = open.pop() {
            let wanted = if id == from { first } else { Kind::Normal };
            for (to, kind) in self.edges.get(id).into_iter().flatten() {
                if *kind == wanted && seen.insert(to) {
                    let mut way = way.clone();
                    way.push(self.name(to));
                    found.push((self.name(to), way.clone()));
                    open.push((to, way));
                }
            }
        }
        found
    }

    fn name(&self, id: &'a str) -> &'a str {
        self.names.get(id).copied().unwrap_or(id)
    }
}

fn array(value: &Value) -> Result<std::slice::Iter<'_, Value>> {
    Ok(value.as_array().context("cargo metadata lacks a list")?.iter())
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("cargo metadata lacks a string")
}

#[cfg(test)]
mod tests;
