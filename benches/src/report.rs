//! What a scenario found: lines for people, JSON for machines.

use serde_json::{Map, Value, json};

use crate::latency::Summary;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Report {
    title: String,
    lines: Vec<(String, String)>,
    json: Map<String, Value>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// A figure, with its unit in words.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str) {
        let text =
            if value.fract() == 0.0 { format!("{value:.0} {unit}") } else { format!("{value:.2} {unit}") };
        self.lines.push((name.to_owned(), text.trim_end().to_owned()));
        let key = if unit.is_empty() { name.to_owned() } else { format!("{name}, {unit}") };
        self.json.insert(key, json!(value));
    }

    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.figure(name, value as f64, "");
    }

    /// Something that this node does not tell.
    pub(crate) fn maybe(&mut self, name: &str, value: Option<f64>, unit: &str) {
        match value {
            Some(value) => self.figure(name, value, unit),
            None => self.text(name, "not told by this node"),
        }
    }

    pub(crate) fn text(&mut self, name: &str, text: impl Into<String>) {
        let text = text.into();
        self.json.insert(name.to_owned(), json!(text));
        self.lines.push((name.to_owned(), text));
    }

    pub(crate) fn latency(&mut self, name: &str, summary: Option<Summary>) {
        let Some(summary) = summary else { return };
        self.lines.push((name.to_owned(), summary.to_string()));
        self.json.insert(name.to_owned(), summary.to_json());
    }

    /// The scenario did not show what it is for.
    pub(crate) fn fail_if(&mut self, failed: bool, what: impl Into<String>) {
        if failed {
            self.failures.push(what.into());
        }
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "scenario": self.title, "figures": self.json, "failures": self.failures })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.title)?;
        let width = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, text) in &self.lines {
            writeln!(f, "  {name:width$}  {text}")?;
        }
        for failure in &self.failures {
            writeln!(f, "  FAILED: {failure}")?;
        }
        Ok(())
    }
}
