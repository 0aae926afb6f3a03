//! `cargo run -p talaria-log --example record_vectors -- DIR`: writes records.json of spec/vectors to DIR.

#![allow(clippy::expect_used)]

#[allow(dead_code)]
#[path = "../tests/support/vectors.rs"]
mod vectors;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args_os().nth(1).ok_or("say which directory to write to")?);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("records.json"), format!("{:#}\n", vectors::records()))?;
    Ok(())
}
