//! What a typed line asks for.

/// What `/help` prints.
pub(crate) const HELP: &str = "\
/with USER             chat with a user
/group TITLE USER...   make a group (its title is one word, or \"in quotes\")
/open ID               chat in a conversation of /list
/list                  your conversations
/add USER...           add users to this group
/remove USER...        remove users from this group
/leave                 leave this group
/members               who is in this conversation
/history [SEQ]         the latest entries, or those from SEQ on
/who                   who and where you are
/network [NAME]        as if the device had come to another network
/quit                  the end
//text                 send a line that begins with a slash
";

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Say(String),
    Empty,
    With(String),
    Group(String, Vec<String>),
    Open(String),
    List,
    Add(Vec<String>),
    Remove(Vec<String>),
    Leave,
    Members,
    History(Option<u64>),
    Who,
    Network(Option<String>),
    Help,
    Quit,
}

/// Understands a line.
///
/// # Errors
/// What is wrong with it, for the user.
pub(crate) fn parse(line: &str) -> Result<Line, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() { Line::Empty } else { Line::Say(line.to_string()) });
    };
    if rest.starts_with('/') {
        return Ok(Line::Say(rest.to_string()));
    }
    let mut words = words(rest)?.into_iter();
    let name = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    let usage = |usage: &str| Err(format!("usage: {usage}"));
    match (name.as_str(), rest.as_slice()) {
        ("with", [user]) => Ok(Line::With(user.clone())),
        ("with", _) => usage("/with USER"),
        ("group", [title, users @ ..]) => Ok(Line::Group(title.clone(), users.to_vec())),
        ("group", _) => usage("/group TITLE USER..."),
        ("open", [id]) => Ok(Line::Open(id.clone())),
        ("open", _) => usage("/open ID"),
        ("add", [_, ..]) => Ok(Line::Add(rest)),
        ("add", _) => usage("/add USER..."),
        ("remove", [_, ..]) => Ok(Line::Remove(rest)),
        ("remove", _) => usage("/remove USER..."),
        ("history", []) => Ok(Line::History(None)),
        ("history", [seq]) => seq
            .parse()
            .map(|seq| Line::History(Some(seq)))
            .map_err(|_| format!("{seq:?} is no number of an entry")),
        ("list", []) => Ok(Line::List),
        ("leave", []) => Ok(Line::Leave),
        ("members", []) => Ok(Line::Members),
        ("who", []) => Ok(Line::Who),
        ("network", []) => Ok(Line::Network(None)),
        ("network", [name]) => Ok(Line::Network(Some(name.clone()))),
        ("network", _) => usage("/network [NAME]"),
        ("help", _) => Ok(Line::Help),
        ("quit" | "exit", _) => Ok(Line::Quit),
        _ => Err(format!("/{name} is not understood; /help says what is")),
    }
}

/// Splits at spaces, but not within double quotes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>();
        let table = [
            ("hello /there\n", Line::Say("hello /there".into())),
            ("//shrug", Line::Say("/shrug".into())),
            ("", Line::Empty),
            ("/with bob", Line::With("bob".into())),
            ("/group \"The play\" a  b", Line::Group("The play".into(), strings(&["a", "b"]))),
            ("/add x", Line::Add(strings(&["x"]))),
            ("/history", Line::History(None)),
            ("/history 12", Line::History(Some(12))),
            ("/network", Line::Network(None)),
            ("/network wifi:home", Line::Network(Some("wifi:home".into()))),
            ("/quit", Line::Quit),
        ];
        for (text, line) in table {
            assert_eq!(parse(text), Ok(line), "{text}");
        }
        for wrong in ["/with", "/with a b", "/add", "/history x", "/nonsense", "/group \"open", "/"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
