//! `cargo xtask ci`: what CI runs, one step after the other, each with its time; the first that fails ends it.
//! Steps share the target directory with people's own commands, so that RocksDB is compiled once for all.

use std::{
    fs,
    io::{self, Write},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    packages, readme,
    workspace::{Workspace, output, own_program, run},
};

/// The tests of the inner loop stay quick.
const PURE_TESTS_MAX: Duration = Duration::from_secs(10);

/// Left out, with a note, where cargo-deny is not installed: building it takes as long as RocksDB.
const DENY: &str = "deny";

/// `cargo xtask ci`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps [default: all]
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    /// Print the steps' names
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    run: fn(&Workspace) -> Result<()>,
}

/// In this order: cheap ones first, so that a mistake shows early.
const STEPS: [Step; 13] = [
    Step { name: "packages", run: |_| packages::ensure() },
    Step { name: "fmt", run: |w| run(&mut w.cargo(["fmt", "--all", "--check"])) },
    Step { name: "tidy", run: |w| xtask(w, &["tidy"]) },
    Step { name: "codegen", run: |w| xtask(w, &["codegen", "--check"]) },
    Step { name: DENY, run: |w| run(&mut w.cargo(["deny", "check"])) },
    Step { name: "vectors", run: |w| xtask(w, &["vectors", "--check"]) },
    Step { name: "clippy", run: clippy },
    Step { name: "doc", run: doc },
    Step { name: "readme-demo", run: |w| readme_commands(w, "cargo xtask demo") },
    Step { name: "demo-seeds", run: demo_seeds },
    Step { name: "readme-test", run: |w| readme_commands(w, "cargo xtask test") },
    Step { name: "pure-tests", run: pure_tests },
    Step { name: "bench-smoke", run: |w| xtask(w, &["bench", "--quick"]) },
];

/// `cargo xtask ci`
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.list {
        STEPS.iter().for_each(|step| println!("{}", step.name));
        return Ok(());
    }
    let mut steps = selected(&args.steps)?;
    if args.steps.is_empty() && !has_cargo_deny(workspace)? {
        println!("ci: cargo-deny is not installed, so deny.toml is not checked");
        steps.retain(|step| step.name != DENY);
    }
    println!("ci: building into {}", workspace.target_dir.display());
    if !run_steps(workspace, &steps)? {
        // The tally was the last line; an error message would follow it.
        std::process::exit(1);
    }
    Ok(())
}

fn selected(names: &[String]) -> Result<Vec<&'static Step>> {
    if names.is_empty() {
        return Ok(STEPS.iter().collect());
    }
    if let Some(name) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        bail!("no step {name:?}; `cargo xtask ci --list` prints them");
    }
    Ok(STEPS.iter().filter(|step| names.iter().any(|name| name == step.name)).collect())
}

/// Whether all of them passed; says so as it goes.
fn run_steps(workspace: &Workspace, steps: &[&Step]) -> Result<bool> {
    for (done, step) in steps.iter().enumerate() {
        println!("\n==> [{}/{}] {}", done + 1, steps.len(), step.name);
        io::stdout().flush()?;
        let started = Instant::now();
        let result = (step.run)(workspace);
        let seconds = started.elapsed().as_secs_f64();
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            println!("<== {}: FAILED after {seconds:.1} s", step.name);
            let not_run: Vec<_> = steps[done + 1..].iter().map(|step| step.name).collect();
            println!("not run: {}", if not_run.is_empty() { "none".to_owned() } else { not_run.join(", ") });
            println!("{done} passed, 1 failed");
            return Ok(false);
        }
        println!("<== {}: ok, {seconds:.1} s", step.name);
    }
    println!("\n{} passed, 0 failed", steps.len());
    Ok(true)
}

/// Another command of ours, as a process of its own, so that a step's output and failure are those that people see.
fn xtask(workspace: &Workspace, args: &[&str]) -> Result<()> {
    run(workspace.command(own_program()).args(args))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo(["clippy", "--workspace", "--all-targets"]).args(["--", "-D", "warnings"]))
}

fn doc(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn has_cargo_deny(workspace: &Workspace) -> Result<bool> {
    let commands = output(&mut workspace.cargo(["--list"]))?;
    Ok(commands.lines().any(|line| line.split_whitespace().next() == Some(DENY)))
}

/// Runs README.md's lines as they stand, in the environment that a reader has.
fn readme_commands(workspace: &Workspace, command: &str) -> Result<()> {
    let readme = fs::read_to_string(workspace.root.join("README.md")).context("cannot read README.md")?;
    let lines = readme::commands(&readme, command);
    if lines.is_empty() {
        bail!("README.md has no `{command}` in a ```sh block");
    }
    for line in lines {
        println!("README.md: {line}");
        io::stdout().flush()?;
        run(workspace.command("bash").args(["-euo", "pipefail", "-c", line]))?;
    }
    Ok(())
}

/// The demo with other troubles than the README's, and other numbers of shards than the machine's cores.
fn demo_seeds(workspace: &Workspace) -> Result<()> {
    let demo = |(seed, shards)| xtask(workspace, &["demo", "--seed", seed, "--shards", shards]);
    [("2", "1"), ("3", "4")].into_iter().try_for_each(demo)
}

/// The pure crates' tests, warm: the inner loop of who works on them.
fn pure_tests(workspace: &Workspace) -> Result<()> {
    let test = |extra: &[&str]| -> Command {
        let mut test = workspace.cargo(["test", "--quiet", "-p", "talaria-protocol", "-p", "talaria-core"]);
        test.args(extra);
        test
    };
    run(&mut test(&["--no-run"]))?;
    let started = Instant::now();
    run(&mut test(&[]))?;
    let took = started.elapsed();
    println!("cargo test -p talaria-protocol -p talaria-core: {:.1} s warm", took.as_secs_f64());
    if took > PURE_TESTS_MAX {
        bail!("the pure crates' tests take longer than {} s", PURE_TESTS_MAX.as_secs());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_the_run() {
        let workspace = Workspace { root: "/".into(), target_dir: "/".into() };
        let good = Step { name: "good", run: |_| Ok(()) };
        let bad = Step { name: "bad", run: |_| bail!("planted") };
        let never = Step { name: "never", run: |_| unreachable!("it ran after a failure") };
        assert!(run_steps(&workspace, &[&good, &good]).unwrap());
        assert!(!run_steps(&workspace, &[&good, &bad, &never]).unwrap());
    }

    #[test]
    fn steps_can_be_chosen_by_name() {
        let names = |chosen: &[&str]| -> Result<Vec<&str>> {
            let chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
            Ok(selected(&chosen)?.iter().map(|step| step.name).collect())
        };
        assert_eq!(names(&[]).unwrap().len(), STEPS.len());
        assert_eq!(names(&["tidy", "fmt"]).unwrap(), ["fmt", "tidy"]);
        assert!(names(&["tidi"]).unwrap_err().to_string().contains("tidi"));
    }
}
