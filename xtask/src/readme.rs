//! The commands that README.md tells its reader to run, read out of it, so that CI runs what people will run.

/// The lines of README.md's ```sh blocks that start with `command`, as they stand there.
pub(crate) fn commands<'a>(readme: &'a str, command: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut in_shell = false;
    let mut in_other = false;
    for line in readme.lines() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            let opens = !in_shell && !in_other;
            in_shell = opens && language.split_whitespace().next() == Some("sh");
            in_other = opens && !in_shell;
        } else if in_shell && is_command(line, command) {
            found.push(line);
        }
    }
    found
}

fn is_command(line: &str, command: &str) -> bool {
    line.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "\
# Talaria
cargo xtask demo --not-in-a-block
```sh
git clone somewhere
cargo xtask demo            # two minutes
cargo xtask test
```
```rust
cargo xtask demo --not-shell
```
```
cargo xtask demo --not-tagged
```
```sh
cargo xtask demo --seed 2
cargo xtask demonstrate
```
";

    #[test]
    fn only_shell_blocks_count_and_order_is_kept() {
        let demos = commands(README, "cargo xtask demo");
        assert_eq!(demos, ["cargo xtask demo            # two minutes", "cargo xtask demo --seed 2"]);
        assert_eq!(commands(README, "cargo xtask test"), ["cargo xtask test"]);
        assert!(commands(README, "cargo xtask run").is_empty());
    }
}
