//! As much of Rust as the rules need, without a parser: code with comments and literals blanked out, where functions
//! begin and end, and what is compiled for tests only. It relies on matched braces, which the compiler checks.

use std::ops::Range;

/// A Rust file's code.
pub(super) struct Rust {
    /// As long as the source, byte for byte; comments, strings and characters are blanks, newlines stay.
    pub(super) code: String,
    /// What stands under a `#[cfg(test)]`, as bytes of `code`.
    tests: Vec<Range<usize>>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Of its `fn`, from 1.
    pub(super) line: usize,
    /// From the line of `fn` to that of the closing brace.
    pub(super) lines: usize,
}

impl Rust {
    pub(super) fn new(source: &str) -> Self {
        let code = blank(source);
        let tests = test_items(&code);
        Self { code, tests }
    }

    /// The code without what is compiled for tests only, as long as before.
    pub(super) fn without_tests(&self) -> String {
        let mut bytes = self.code.clone().into_bytes();
        for range in &self.tests {
            blank_bytes(&mut bytes[range.clone()]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many of the file's lines are not under a `#[cfg(test)]`.
    pub(super) fn lines_without_tests(&self, source: &str) -> usize {
        let in_tests: usize = self.tests.iter().map(|range| self.lines_of(range)).sum();
        source.lines().count() - in_tests
    }

    /// Every function with a body, nested ones too, in the order of their `fn`.
    pub(super) fn functions(&self) -> Vec<Function> {
        let code = &self.code;
        let mut found = Vec::new();
        for at in words(code, "fn") {
            let rest = code[at + 2..].trim_start();
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                // A function pointer's type, or `fn $name` in a macro.
                continue;
            }
            let end = item_end(code, at);
            if code[..end].ends_with('}') {
                found.push(Function { name, line: self.line(at), lines: self.lines_of(&(at..end)) });
            }
        }
        found
    }

    /// The line of this byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    fn lines_of(&self, range: &Range<usize>) -> usize {
        self.line(range.end) - self.line(range.start) + 1
    }
}

/// Where a whole word stands.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The items under a `#[cfg(test)]` or `#[cfg(all(test, …))]`, outermost ones only.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let condition = &code[at + "#[cfg(".len()..];
        let is_test = condition.starts_with("test)") || condition.starts_with("all(test,");
        if is_test && items.last().is_none_or(|last| last.end <= at) {
            items.push(at..item_end(code, after_attributes(code, at)));
        }
    }
    items
}

/// Past the attributes that stand at `at`.
fn after_attributes(code: &str, mut at: usize) -> usize {
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if !code[at..].starts_with("#[") {
            return at;
        }
        at = matching(code, at + 1).unwrap_or(code.len());
    }
}

/// Past the item that starts at `at`: its closing brace, or its semicolon if that comes first.
fn item_end(code: &str, at: usize) -> usize {
    // `use a::{b};` and `const A: [u8; 3] = {…};` end with their semicolon, `fn`, `mod` and `impl` with a brace.
    let ends_with_semicolon =
        ["use ", "pub use ", "const ", "static ", "type "].iter().any(|word| code[at..].starts_with(word));
    let is_const_fn = code[at..].starts_with("const fn");
    let mut position = at;
    while let Some(c) = code[position..].chars().next() {
        match c {
            '(' | '[' => match matching(code, position) {
                Some(end) => position = end,
                None => return code.len(),
            },
            '{' => match matching(code, position) {
                Some(end) if ends_with_semicolon && !is_const_fn => position = end,
                Some(end) => return end,
                None => return code.len(),
            },
            ';' => return position + 1,
            // A field under an attribute ends with what it is a field of.
            '}' => return position,
            _ => position += c.len_utf8(),
        }
    }
    code.len()
}

/// Past the bracket that closes the one at `at`.
fn matching(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in code.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn blank_bytes(bytes: &mut [u8]) {
    for byte in bytes {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// The source with comments, strings and characters as blanks.
fn blank(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        let end = at + literal_or_comment(rest);
        if end > at {
            blank_bytes(&mut bytes[at..end]);
            at = end;
        } else {
            // A whole word at once, so that the r in `for"` starts no raw string.
            let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            at += if word > 0 { word } else { rest.chars().next().map_or(1, char::len_utf8) };
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How many bytes the comment, string or character at the start takes; 0 where there is none.
fn literal_or_comment(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r')).unwrap_or(rest.len());
    let tail = &rest[prefix..];
    match &rest[..prefix] {
        "" | "b" | "c" if tail.starts_with('"') => prefix + quoted(tail, '"'),
        "" | "b" if tail.starts_with('\'') => match character(tail) {
            0 => 0,
            bytes => prefix + bytes,
        },
        "r" | "br" | "cr" => match raw_string(tail) {
            0 => 0,
            bytes => prefix + bytes,
        },
        _ => 0,
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// From a quote to the next that no backslash guards.
fn quoted(rest: &str, quote: char) -> usize {
    let mut guarded = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if guarded => guarded = false,
            '\\' => guarded = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// 'x' or '\n'; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

/// After r: #"…"#; 0 for a raw identifier.
fn raw_string(rest: &str) -> usize {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if !rest[hashes..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", &rest[..hashes]);
    match rest[hashes + 1..].find(&close) {
        Some(at) => hashes + 1 + at + close.len(),
        None => rest.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let cases = [
            ("a // x { \nb", "a        \nb"),
            ("a /* { /* } */ } */ b", "a                   b"),
            (r#"f("{ \" }") + 1"#, "f(        ) + 1"),
            (r##"r#"{ " }"# ;"##, "           ;"),
            ("br\"{\" b\"{\" b'{' c\"{\"", "                      "),
            ("r#type + r#fn", "r#type + r#fn"),
            ("'{' '\\'' '\\u{7b}' 'é'", "                      "),
            ("fn f<'a>(x: &'a str) {'b: loop {}}", "fn f<'a>(x: &'a str) {'b: loop {}}"),
            ("for\"{\"", "for   "),
        ];
        for (source, wanted) in cases {
            let code = blank(source);
            assert_eq!(code.len(), source.len(), "{source}");
            assert_eq!(code.trim_end(), wanted.trim_end(), "{source}");
        }
    }

    #[test]
    fn functions_are_found_and_measured() {
        let source = "\
trait T { fn declared(&self) -> [u8; 3]; }
const fn one() -> u8 { 1 }
type P = fn(u8) -> u8;
pub async fn longer<F: Fn()>(
    a: [u8; 2],
) -> Result<(), ()>
where F: Sized,
{
    fn inner() {
    }
    let s = \"}\";
}
";
        let found: Vec<_> = Rust::new(source).functions();
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("one", 2, 1), ("longer", 4, 9), ("inner", 9, 2)]);
    }

    #[test]
    fn a_test_only_field_hides_nothing_behind_its_struct() {
        let code = Rust::new("struct S { #[cfg(test)] x: u8 } fn kept() {}").without_tests();
        assert!(code.ends_with("} fn kept() {}"), "{code}");
    }

    #[test]
    fn test_code_is_told_apart() {
        let source = "\
fn kept() {}
#[cfg(test)]
use a::{b, c};
#[cfg(test)]
const X: [u8; 1] = [1];
fn kept_too() {}
#[cfg(test)]
#[allow(dead_code)]
mod tests {
    fn gone() { struct S { x: u8 } }
    #[cfg(test)]
    fn nested() {}
}
#[cfg(not(test))]
fn kept_as_well() {}
";
        let rust = Rust::new(source);
        let code = rust.without_tests();
        let kept: Vec<_> = code.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(kept, ["fn kept() {}", "fn kept_too() {}", "#[cfg(not(test))]", "fn kept_as_well() {}"]);
        assert_eq!(rust.lines_without_tests(source), 4);
    }
}
