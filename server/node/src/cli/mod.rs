//! The commands of the program. Results go to stdout, the node's own log and mistakes to stderr. Exit codes: 0 done,
//! 1 failed or findings, 2 wrong usage.

mod config;
mod log;
mod serve;
mod token;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// A self-hosted messaging server for native apps.
#[derive(Debug, Parser)]
#[command(name = "talaria", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node. Prints one line of JSON with its addresses, then logs to stderr.
    Serve(serve::Serve),
    /// Sign a token with the key of a --dev node.
    Token(token::TokenCommand),
    /// Look into the log of a stopped node.
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Look at a configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Token(token) => token.run(),
            Command::Log(log) => log.run(),
            Command::Config(config) => config.run(),
        }
    }
}

/// One line to stdout, at once.
fn print_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
