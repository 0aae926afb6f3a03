//! The project's commands, as `cargo xtask <command>`. One file a command; [`workspace`] knows how to start cargo.
//! Nothing here depends on a crate of ours or on RocksDB: xtask installs what they need before they are built.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on stdout")]

mod bench;
mod ci;
mod codegen;
mod demo;
mod packages;
mod readme;
mod run;
mod temp;
mod test;
mod tidy;
mod tree;
mod vectors;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Talaria's commands.
///
/// All of them build into one directory, so that RocksDB is compiled once: CARGO_TARGET_DIR if that is set, else
/// talaria/target under XDG_CACHE_HOME (~/.cache).
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the build needs beyond the Rust toolchain (Debian and its kin; others: print it)
    Packages(packages::Args),
    /// Show that nothing acknowledged is lost: real dialogues, a node that loses power, a count at the end
    Demo(demo::Args),
    /// Load a node and say what it costs: latency, memory, processor time
    Bench(bench::Args),
    /// Start a node to play with and print how two people chat through it
    Run(run::Args),
    /// Run all tests
    Test(test::Args),
    /// Compile spec/proto to the committed Rust modules
    Codegen(codegen::Args),
    /// Regenerate spec/vectors
    Vectors(vectors::Args),
    /// Check the code base: who may depend on whom, sizes, module docs, clause ids, leftovers
    Tidy(tidy::Args),
    /// What CI runs, step by step
    Ci(ci::Args),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match cli.command {
        Command::Packages(args) => packages::main(&args),
        Command::Demo(args) => demo::main(&workspace, &args),
        Command::Bench(args) => bench::main(&workspace, &args),
        Command::Run(args) => run::main(&workspace, &args),
        Command::Test(args) => test::main(&workspace, &args),
        Command::Codegen(args) => codegen::main(&workspace, &args),
        Command::Vectors(args) => vectors::main(&workspace, &args),
        Command::Tidy(args) => tidy::main(&workspace, &args),
        Command::Ci(args) => ci::main(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn demo_arguments_pass_untouched() {
        let line = ["cargo xtask", "demo", "--messages", "5", "--json", "out.json", "--keep", "--plain-kill"];
        let Command::Demo(args) = Cli::try_parse_from(line).unwrap().command else { panic!("not demo") };
        assert_eq!(args.args, &line[2..]);
    }

    #[test]
    fn bad_arguments_are_named() {
        for (line, named) in
            [(vec!["x", "dmeo"], "dmeo"), (vec!["x", "codegen", "--chekc"], "--chekc"), (vec!["x"], "Usage")]
        {
            let error = Cli::try_parse_from(&line).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(named), "{line:?}: {error}");
        }
    }
}
