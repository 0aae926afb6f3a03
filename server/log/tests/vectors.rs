//! spec/vectors/records.json is what the code writes, and what it accepts and refuses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/vectors.rs"]
mod vectors;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use talaria_log::{Family, record};

fn committed() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/records.json");
    fs::read_to_string(path).expect("spec/vectors/records.json is there")
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn row(row: &Value) -> (Family, Vec<u8>, Vec<u8>) {
    let family = Family::by_name(row["family"].as_str().unwrap()).unwrap();
    (family, unhex(&row["key"]), unhex(&row["value"]))
}

#[test]
fn the_file_is_fresh() {
    let fresh = format!("{:#}\n", vectors::records());
    assert!(committed() == fresh, "spec/vectors/records.json is stale: run `cargo xtask vectors`");
}

#[test]
fn valid_rows_are_accepted_and_invalid_ones_refused() {
    let file: Value = serde_json::from_str(&committed()).unwrap();
    let mut families = BTreeSet::new();
    for valid in file["valid"].as_array().unwrap() {
        let (family, key, value) = row(valid);
        families.insert(family);
        record::check(family, &key, &value).unwrap_or_else(|error| panic!("{}: {error}", valid["name"]));
    }
    assert_eq!(families.len(), Family::ALL.len(), "each family has a row");
    for invalid in file["invalid"].as_array().unwrap() {
        let (family, key, value) = row(invalid);
        let error = record::check(family, &key, &value).expect_err(invalid["name"].as_str().unwrap());
        assert_eq!(error.what, invalid["error"].as_str().unwrap());
    }
}
