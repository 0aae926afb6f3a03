//! Load on a running node. Nothing yet.

fn main() {}
