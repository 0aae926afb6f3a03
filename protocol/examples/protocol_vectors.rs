//! `cargo run -p talaria-protocol --example protocol_vectors -- DIR`: writes the vectors of spec/vectors to DIR.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "../tests/support/vectors.rs"]
mod vectors;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args_os().nth(1).ok_or("say which directory to write to")?);
    fs::create_dir_all(&dir)?;
    for (name, value) in vectors::all() {
        fs::write(dir.join(name), format!("{value:#}\n"))?;
    }
    Ok(())
}
