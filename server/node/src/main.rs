//! `talaria`: the server's program. Each command is a file of [`cli`]; what they do is in the library.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("talaria: {error:#}");
            ExitCode::FAILURE
        }
    }
}
