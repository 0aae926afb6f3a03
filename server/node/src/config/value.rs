//! Values of fields: how each type is read from TOML and from text (flags, environment), and a table that is
//! emptied field by field, so that what remains is unknown.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Durability, KeyAlgorithm, LogLevel,
    error::{ConfigError, Origin},
};

/// A field's name and the example that its mistakes show.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Without its table.
    pub(super) name: &'static str,
    /// A line of TOML that is right.
    pub(super) example: &'static str,
}

/// A type that a field may have.
pub(super) trait FieldValue: Sized {
    /// Follows the value in a mistake's message.
    const PROBLEM: &'static str;
    /// Reads a flag or an environment variable.
    fn from_text(text: &str) -> Option<Self>;
    /// Reads a value of the file: of a string, unless the type says otherwise.
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }
}

impl FieldValue for SocketAddr {
    const PROBLEM: &'static str = "is not an IP address with a port";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FieldValue for String {
    const PROBLEM: &'static str = "is not a text";
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl FieldValue for PathBuf {
    const PROBLEM: &'static str = "is not a path";
    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl FieldValue for bool {
    const PROBLEM: &'static str = "is neither true nor false";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FieldValue for u32 {
    const PROBLEM: &'static str = "is not a whole number from 0 to 4294967295";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_integer().and_then(|number| Self::try_from(number).ok())
    }
}

impl FieldValue for Durability {
    const PROBLEM: &'static str = "is neither \"fsync\" nor \"os\"";
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "fsync" => Some(Self::Fsync),
            "os" => Some(Self::Os),
            _ => None,
        }
    }
}

impl FieldValue for LogLevel {
    const PROBLEM: &'static str = "is none of \"error\", \"warn\", \"info\", \"debug\", \"trace\"";
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "error" => Some(Self::Error),
            "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }
}

impl FieldValue for KeyAlgorithm {
    const PROBLEM: &'static str = "is neither \"EdDSA\" nor \"HS256\"";
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "EdDSA" => Some(Self::EdDsa),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }
}

/// A value as its author wrote it, about.
fn show(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("{text:?}"),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
        toml::Value::Array(_) => "[…]".to_owned(),
        toml::Value::Table(_) => "{…}".to_owned(),
    }
}

/// A table of the file, emptied field by field.
pub(super) struct Table<'a> {
    path: &'a Path,
    prefix: String,
    left: toml::Table,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(path: &'a Path, prefix: impl Into<String>, left: toml::Table) -> Self {
        Self { path, prefix: prefix.into(), left, known: Vec::new() }
    }

    fn full_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    fn mistake(&self, field: Field, value: &toml::Value, problem: &str) -> ConfigError {
        ConfigError::Value {
            field: self.full_name(field.name),
            value: show(value),
            origin: Origin::File(self.path.to_owned()),
            problem: problem.to_owned(),
            example: field.example.to_owned(),
        }
    }

    /// Takes a field out.
    pub(super) fn take<T: FieldValue>(&mut self, field: Field) -> Result<Option<T>, ConfigError> {
        self.known.push(field.name);
        let Some(value) = self.left.remove(field.name) else { return Ok(None) };
        T::from_toml(&value).map(Some).ok_or_else(|| self.mistake(field, &value, T::PROBLEM))
    }

    /// Takes a table out; an empty one where there is none.
    pub(super) fn table(&mut self, field: Field) -> Result<Self, ConfigError> {
        self.known.push(field.name);
        match self.left.remove(field.name) {
            None => Ok(Self::new(self.path, self.full_name(field.name), toml::Table::new())),
            Some(toml::Value::Table(table)) => Ok(Self::new(self.path, self.full_name(field.name), table)),
            Some(other) => Err(self.mistake(field, &other, "is not a table")),
        }
    }

    /// Takes an array of tables out.
    pub(super) fn tables(&mut self, field: Field) -> Result<Vec<Self>, ConfigError> {
        self.known.push(field.name);
        let Some(value) = self.left.remove(field.name) else { return Ok(Vec::new()) };
        let items = match value {
            toml::Value::Array(items) => items,
            other => return Err(self.mistake(field, &other, "is not a list of tables")),
        };
        let tables = items.into_iter().enumerate().map(|(index, item)| match item {
            toml::Value::Table(table) => {
                Ok(Self::new(self.path, format!("{}[{index}]", self.full_name(field.name)), table))
            }
            other => Err(self.mistake(field, &other, "is not a table")),
        });
        tables.collect()
    }

    /// A field of this table that must be there.
    pub(super) fn missing(&self, field: Field, problem: &str) -> ConfigError {
        ConfigError::Missing {
            field: self.full_name(field.name),
            problem: problem.to_owned(),
            example: field.example.to_owned(),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(ConfigError::Unknown {
                field: self.full_name(name),
                path: self.path.to_owned(),
                known: self.known.join(", "),
            }),
        }
    }
}
