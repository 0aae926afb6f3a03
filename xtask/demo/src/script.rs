//! What is said: scenes of plays that belong to all, and lines in scripts that break careless code. A scene is a file of
//! `SPEAKER: line`; its speakers are given to a conversation's members in the order in which they appear.

/// Scenes, as they stand in `plays/`.
const SCENES: [&str; 4] = [
    include_str!("../plays/hamlet.txt"),
    include_str!("../plays/romeo.txt"),
    include_str!("../plays/earnest.txt"),
    include_str!("../plays/languages.txt"),
];

/// A line in each scene after which the longest allowed text is said once.
const LONG_LINE_EVERY: usize = 1_000;

/// One line of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Who says it: an index of the conversation's members.
    pub speaker: usize,
    /// What.
    pub text: String,
}

/// An endless dialogue among `members` people: scene after scene, from `start` on, each member in turn as lead.
pub fn dialogue(members: usize, start: usize) -> impl Iterator<Item = Line> {
    (start..)
        .flat_map(move |n| {
            let scene = SCENES[n % SCENES.len()];
            let mut speakers: Vec<&str> = Vec::new();
            let lines: Vec<Line> = scene
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, text)| {
                    let known = speakers.iter().position(|speaker| *speaker == name);
                    let speaker = known.unwrap_or_else(|| {
                        speakers.push(name);
                        speakers.len() - 1
                    });
                    Line { speaker: (speaker + n) % members, text: text.to_owned() }
                })
                .collect();
            lines
        })
        .enumerate()
        .map(|(n, line)| if n % LONG_LINE_EVERY == LONG_LINE_EVERY / 4 { longest(&line) } else { line })
}

/// The line, repeated until it is exactly as long as a text may be.
fn longest(line: &Line) -> Line {
    let bytes_max = talaria_protocol::limits::BODY_BYTES_MAX;
    let mut text = String::with_capacity(bytes_max);
    while text.len() + line.text.len() < bytes_max {
        text.push_str(&line.text);
        text.push('\n');
    }
    text.extend(std::iter::repeat_n('.', bytes_max - text.len()));
    Line { speaker: line.speaker, text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scenes_have_several_speakers_and_all_members_speak() {
        for members in 2..=8 {
            let lines: Vec<Line> = dialogue(members, 0).take(400).collect();
            for member in 0..members {
                assert!(lines.iter().any(|line| line.speaker == member), "{member} of {members} is silent");
            }
        }
    }

    #[test]
    fn a_line_is_as_long_as_a_text_may_be() {
        let long = dialogue(3, 1).take(1_000).find(|line| line.text.len() > 1_000).unwrap();
        assert_eq!(long.text.len(), 64 * 1024);
    }
}
