//! The paths that code names, such as `std::time::Instant`: those in expressions and types, and those of `use`, with
//! its braces expanded. Works on code with comments and literals blanked.

/// A path with the byte where it (for `use`: the item) begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    pub(super) at: usize,
    pub(super) segments: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Colons,
    Other(char),
}

/// All of them; a lone word is a path of one segment.
pub(super) fn named(code: &str) -> Vec<NamedPath> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut next = 0;
    while let Some((at, token)) = tokens.get(next).copied() {
        next += 1;
        match token {
            Token::Word("use") => {
                let mut found = Vec::new();
                next = use_tree(&tokens, next, &[], &mut found);
                paths.extend(found.into_iter().map(|segments| NamedPath { at, segments }));
            }
            Token::Word(word) => {
                let mut segments = vec![word.to_owned()];
                while let [(_, Token::Colons), (_, Token::Word(word)), ..] = tokens[next..] {
                    segments.push(word.to_owned());
                    next += 2;
                }
                paths.push(NamedPath { at, segments });
            }
            Token::Colons | Token::Other(_) => {}
        }
    }
    paths
}

/// Reads one tree of a `use` and gives the index after it. `self` in braces stands for what precedes them.
fn use_tree(
    tokens: &[(usize, Token<'_>)],
    mut next: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some((_, token)) = tokens.get(next).copied() {
        match token {
            Token::Word("as") => next += 1,
            Token::Word("self") if !prefix.is_empty() => {}
            Token::Word(word) => path.push(word.to_owned()),
            Token::Other('*') => path.push("*".to_owned()),
            Token::Colons => {}
            Token::Other('{') => return use_braces(tokens, next + 1, &path, found),
            Token::Other(_) => break,
        }
        next += 1;
    }
    found.push(path);
    next
}

fn use_braces(
    tokens: &[(usize, Token<'_>)],
    mut next: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    while let Some((_, token)) = tokens.get(next).copied() {
        match token {
            Token::Other('}') => return next + 1,
            Token::Other(',') => next += 1,
            Token::Other(';') => return next,
            _ => {
                let after = use_tree(tokens, next, prefix, found);
                next = after.max(next + 1);
            }
        }
    }
    next
}

fn tokens(code: &str) -> Vec<(usize, Token<'_>)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (token, bytes) = if word > 0 {
            (Some(Token::Word(&rest[..word])), word)
        } else if rest.starts_with("::") {
            (Some(Token::Colons), 2)
        } else {
            ((!c.is_whitespace()).then_some(Token::Other(c)), c.len_utf8())
        };
        tokens.extend(token.map(|token| (at, token)));
        at += bytes;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(code: &str) -> Vec<String> {
        named(code).into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        let cases = [
            ("use std::time::Instant;", vec!["std::time::Instant"]),
            (
                "use std::{fs, time::{self, Duration as D}};",
                vec!["std::fs", "std::time", "std::time::Duration"],
            ),
            ("pub use a::*;", vec!["pub", "a::*"]),
            ("use ::std::net;", vec!["std::net"]),
            ("use self::a::{b};", vec!["self::a::b"]),
        ];
        for (code, wanted) in cases {
            assert_eq!(joined(code), wanted, "{code}");
        }
    }

    #[test]
    fn paths_in_code_are_found() {
        assert_eq!(
            joined("let t: std::time::Instant = f(a::b());")[2..],
            ["std::time::Instant", "f", "a::b"]
        );
        assert_eq!(named("x;\nstd::fs")[1].at, 3);
    }
}
