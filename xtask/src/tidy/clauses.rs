//! Clause ids such as ABC-7 in brackets: each is defined once, in a page of spec/, and only defined ones are cited.
//! A definition is an id that begins a paragraph, a list item, a table row or a heading, or stands first in bold;
//! every other is a citation. Several in one pair of brackets, with commas, are several citations.

use std::collections::BTreeMap;

use super::{Breach, files::Source};

/// What looks like an id and is none.
const NO_CLAUSES: [&str; 4] = ["RFC", "UTF", "SHA", "ISO"];

pub(super) fn check(sources: &[Source]) -> Vec<Breach> {
    let mut defined: BTreeMap<String, String> = BTreeMap::new();
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| is_spec_page(&source.path)) {
        for (line, id) in definitions(source) {
            let place = format!("{}:{line}", source.path);
            if let Some(first) = defined.get(&id) {
                breaches.push(Breach::new(
                    &source.path,
                    line,
                    format!("[{id}] is defined at {first} already"),
                ));
            } else {
                defined.insert(id, place);
            }
        }
    }
    for source in sources {
        for (line, text) in source.lines() {
            let unknown = cited(text).into_iter().filter(|id| !defined.contains_key(id));
            let breach = |id| Breach::new(&source.path, line, format!("[{id}] is no clause of spec/*.md"));
            breaches.extend(unknown.map(breach));
        }
    }
    breaches
}

/// spec/delivery.md, not spec/adr/0001.md.
fn is_spec_page(path: &str) -> bool {
    path.strip_prefix("spec/").is_some_and(|name| name.ends_with(".md") && !name.contains('/'))
}

fn definitions(page: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut after_blank = true;
    for (number, line) in page.lines() {
        let line = line.trim_start();
        let text = line.trim_start_matches(|c: char| "-*+|#>. ".contains(c) || c.is_ascii_digit());
        let is_marked = text.len() < line.len();
        if text.starts_with('[') && (is_marked || after_blank) {
            let id = cited(&text[..=text.find(']').unwrap_or(0)]).into_iter().next();
            found.extend(id.map(|id| (number, id)));
        }
        after_blank = line.is_empty();
    }
    found
}

/// The ids in brackets in one line.
fn cited(line: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for (at, _) in line.match_indices('[') {
        let Some(end) = line[at..].find(']') else { break };
        let parts: Vec<&str> = line[at + 1..at + end].split(',').map(str::trim).collect();
        if parts.iter().all(|part| is_id(part)) {
            ids.extend(parts.iter().map(|part| (*part).to_owned()));
        }
    }
    ids
}

fn is_id(text: &str) -> bool {
    let Some((prefix, number)) = text.split_once('-') else { return false };
    (2..=5).contains(&prefix.len())
        && prefix.bytes().all(|b| b.is_ascii_uppercase())
        && !NO_CLAUSES.contains(&prefix)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with `@` for the bracket, because tidy reads this file too.
    fn page(path: &str, text: &str) -> Source {
        Source::new(path, text.replace('@', "["))
    }

    fn messages(sources: &[Source]) -> Vec<String> {
        check(sources).iter().map(|breach| breach.to_string().replace('[', "@")).collect()
    }

    const SPEC: &str = "\
# Delivery

@DLV-1] A server MUST. See also
@DLV-2] for more.

- **@DLV-2]** A client MUST, as @DLV-1, DLV-3] say.
| @DLV-3] | a row |
1. @DLV-4] numbered
";

    #[test]
    fn defined_clauses_may_be_cited() {
        let sources = [
            page("spec/delivery.md", SPEC),
            page(
                "protocol/src/a.rs",
                "/// Refused. @DLV-1] @DLV-2, DLV-4]\nlet x = y@a - 1] + z@N-1]; // @RFC-8446]",
            ),
        ];
        assert!(messages(&sources).is_empty(), "{:?}", messages(&sources));
    }

    #[test]
    fn an_unknown_clause_is_a_breach() {
        let sources = [
            page("spec/delivery.md", SPEC),
            page("spec/adr/1.md", "@DLV-9] is no definition here"),
            page("a.proto", "\n// @SES-1]"),
        ];
        assert_eq!(
            messages(&sources),
            [
                "spec/adr/1.md:1: @DLV-9] is no clause of spec/*.md",
                "a.proto:2: @SES-1] is no clause of spec/*.md"
            ]
        );
    }

    #[test]
    fn a_clause_defined_twice_is_a_breach() {
        let sources = [page("spec/delivery.md", SPEC), page("spec/session.md", "- @DLV-3] again\n")];
        assert_eq!(
            messages(&sources),
            ["spec/session.md:1: @DLV-3] is defined at spec/delivery.md:7 already"]
        );
    }
}
