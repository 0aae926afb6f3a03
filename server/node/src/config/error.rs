//! What can be wrong with a configuration: every mistake names the field, the value and an example.

use std::path::PathBuf;

/// Where a value came from, for the mistake's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Of the configuration file.
    File(PathBuf),
    /// Of a flag, or of the environment variable that stands for it.
    FlagOrEnvironment,
    /// Nobody gave one.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::FlagOrEnvironment => f.write_str("by flag or environment"),
            Self::Default => f.write_str("by default"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("config file {}: {source}", path.display())]
    Unreadable {
        /// It.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("config file {} is not valid TOML: {message}", path.display())]
    Syntax {
        /// It.
        path: PathBuf,
        /// With line and column.
        message: String,
    },
    /// The file has a field that this version does not know.
    #[error("config field `{field}` (in {}) is not known; the fields here are: {known}", path.display())]
    Unknown {
        /// With its table: `tls.cret`.
        field: String,
        /// The file.
        path: PathBuf,
        /// Those of the same table.
        known: String,
    },
    /// A value that the field cannot have.
    #[error("config field `{field}` = {value} ({origin}) {problem}; for example: {example}")]
    Value {
        /// With its table.
        field: String,
        /// As given.
        value: String,
        /// By whom.
        origin: Origin,
        /// "is not an address with a port".
        problem: String,
        /// A line that would do.
        example: String,
    },
    /// A field that must be there.
    #[error("config field `{field}` is missing: {problem}; for example: {example}")]
    Missing {
        /// With its table.
        field: String,
        /// Why it is needed.
        problem: String,
        /// A line that would do.
        example: String,
    },
}
