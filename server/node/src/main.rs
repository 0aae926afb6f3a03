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
            eprintln!("talaria: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each thing said once: many name their cause or their place in their own words already.
fn in_words(error: &anyhow::Error) -> String {
    let parts: Vec<String> = error.chain().map(ToString::to_string).collect();
    let is_said = |n: usize| {
        let by = |(other, text): (usize, &String)| {
            other != n && text.contains(&parts[n]) && (other < n || *text != parts[n])
        };
        parts.iter().enumerate().any(by)
    };
    let said: Vec<&str> = (0..parts.len()).filter(|n| !is_said(*n)).map(|n| parts[n].as_str()).collect();
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn each_thing_is_said_once() {
        let chain = |parts: &[&'static str]| {
            let mut parts = parts.iter().rev();
            let innermost = anyhow::Error::msg(*parts.next().unwrap_or(&""));
            in_words(&parts.fold(innermost, |error, part| error.context(*part)))
        };
        assert_eq!(chain(&["a file: gone", "gone"]), "a file: gone");
        assert_eq!(chain(&["the log in d", "the log in d is in use"]), "the log in d is in use");
        assert_eq!(chain(&["outer", "middle", "inner"]), "outer: middle: inner");
        assert_eq!(chain(&["same", "same"]), "same");
    }
}
