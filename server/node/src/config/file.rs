//! The configuration file: TOML, in which every field is known and of its type.

use std::{
    collections::HashMap,
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::{
    AuthConfig, AuthKey, Config, ConfigError, KeyAlgorithm, KeySource, Origin, RetentionConfig, TlsConfig,
    value::{Field, FieldValue, Table},
};

/// Who gave each field.
#[derive(Default)]
pub(super) struct Given(HashMap<&'static str, Origin>);

impl Given {
    /// Notes who gave a field.
    pub(super) fn note(&mut self, field: &'static str, origin: Origin) {
        self.0.insert(field, origin);
    }

    /// Somebody gave it.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// A mistake in a field that has a value.
    pub(super) fn mistake(
        &self,
        field: &str,
        value: &dyn Display,
        problem: &str,
        example: &str,
    ) -> ConfigError {
        let top = field.split(['.', '[']).next().unwrap_or(field);
        ConfigError::Value {
            field: field.to_owned(),
            value: value.to_string(),
            origin: self.0.get(top).cloned().unwrap_or(Origin::Default),
            problem: problem.to_owned(),
            example: example.to_owned(),
        }
    }

    /// A number's bounds.
    pub(super) fn in_range(
        &self,
        field: &str,
        value: u32,
        range: RangeInclusive<u32>,
        example: &str,
    ) -> Result<(), ConfigError> {
        if range.contains(&value) {
            return Ok(());
        }
        let problem = format!("is not from {} to {}", range.start(), range.end());
        Err(self.mistake(field, &value, &problem, example))
    }
}

/// Lays a file over a configuration.
pub(super) fn apply(config: &mut Config, given: &mut Given, path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    let mut table = Table::new(path, "", table);
    let origin = Origin::File(path.to_owned());

    let mut top = Fields { table: &mut table, given, origin: &origin };
    top.set("listen", "listen = \"0.0.0.0:7443\"", &mut config.listen)?;
    top.set("admin_listen", "admin_listen = \"127.0.0.1:7480\"", &mut config.admin_listen)?;
    top.set("admin_allow_remote", "admin_allow_remote = false", &mut config.admin_allow_remote)?;
    top.set("data_dir", "data_dir = \"/var/lib/talaria\"", &mut config.data_dir)?;
    top.set("durability", "durability = \"fsync\"", &mut config.durability)?;
    top.set("node", "node = \"eu-1\"", &mut config.node)?;
    top.set("keepalive_seconds", "keepalive_seconds = 30", &mut config.keepalive_seconds)?;
    top.set("drain_seconds", "drain_seconds = 20", &mut config.drain_seconds)?;
    top.set("connections_max", "connections_max = 100000", &mut config.connections_max)?;
    top.set("shards", "shards = 4", &mut config.shards)?;
    top.set("pin", "pin = true", &mut config.pin)?;
    rates(&mut top, config)?;
    top.set("reader_threads", "reader_threads = 2", &mut config.reader_threads)?;
    top.set("log_level", "log_level = \"info\"", &mut config.log_level)?;
    top.set("dev", "dev = true", &mut config.dev)?;

    given.note("auth", origin.clone());
    given.note("retention", origin);
    config.tls = tls(table.table(Field { name: "tls", example: TLS_EXAMPLE })?)?;
    config.auth = auth(table.table(Field { name: "auth", example: AUTH_EXAMPLE })?)?;
    config.retention = retention(table.table(Field { name: "retention", example: RETENTION_EXAMPLE })?)?;
    table.finish()
}

/// How fast strangers are taken.
fn rates(top: &mut Fields<'_, '_>, config: &mut Config) -> Result<(), ConfigError> {
    let to = &mut config.handshakes_per_second;
    top.set("handshakes_per_second", "handshakes_per_second = 300", to)?;
    top.set("hellos_per_second", "hellos_per_second = 2000", &mut config.hellos_per_second)?;
    let to = &mut config.address_connections_per_second;
    top.set("address_connections_per_second", "address_connections_per_second = 200", to)?;
    let to = &mut config.address_without_hello_max;
    top.set("address_without_hello_max", "address_without_hello_max = 512", to)?;
    let to = &mut config.address_limits_loopback;
    top.set("address_limits_loopback", "address_limits_loopback = false", to)
}

const TLS_EXAMPLE: &str = "tls = { cert = \"/etc/talaria/cert.pem\", key = \"/etc/talaria/key.pem\" }";
const RETENTION_EXAMPLE: &str = "retention = { max_age_days = 365 }";
const AUTH_EXAMPLE: &str = "auth = { issuer = \"https://id.example.org\" }";
const CERT: Field = Field { name: "cert", example: "cert = \"/etc/talaria/cert.pem\"" };
const KEY: Field = Field { name: "key", example: "key = \"/etc/talaria/key.pem\"" };
const KID: Field = Field { name: "kid", example: "kid = \"2026-a\"" };
const ALG: Field = Field { name: "alg", example: "alg = \"EdDSA\"" };
const PATH: Field = Field { name: "path", example: "path = \"/etc/talaria/token.pem\"" };
const PEM: Field = Field { name: "pem", example: "pem = \"-----BEGIN PUBLIC KEY-----…\"" };

/// The top table with what its fields are noted in.
struct Fields<'a, 'b> {
    table: &'a mut Table<'b>,
    given: &'a mut Given,
    origin: &'a Origin,
}

impl Fields<'_, '_> {
    fn set<T: FieldValue>(
        &mut self,
        name: &'static str,
        example: &'static str,
        to: &mut T,
    ) -> Result<(), ConfigError> {
        if let Some(value) = self.table.take(Field { name, example })? {
            *to = value;
            self.given.note(name, self.origin.clone());
        }
        Ok(())
    }
}

fn tls(mut table: Table<'_>) -> Result<Option<TlsConfig>, ConfigError> {
    let (cert, key) = (table.take::<PathBuf>(CERT)?, table.take::<PathBuf>(KEY)?);
    let tls = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(TlsConfig { cert, key }),
        (Some(_), None) => return Err(table.missing(KEY, "a certificate needs its key")),
        (None, Some(_)) => return Err(table.missing(CERT, "a key needs its certificate")),
    };
    table.finish()?;
    Ok(tls)
}

fn retention(mut table: Table<'_>) -> Result<RetentionConfig, ConfigError> {
    let mut retention = RetentionConfig {
        max_age_days: table.take(Field { name: "max_age_days", example: "max_age_days = 365" })?,
        max_entries: table.take(Field { name: "max_entries", example: "max_entries = 100000" })?,
        ..RetentionConfig::default()
    };
    if let Some(seconds) = table.take(Field { name: "sweep_seconds", example: "sweep_seconds = 600" })? {
        retention.sweep_seconds = seconds;
    }
    table.finish()?;
    Ok(retention)
}

fn auth(mut table: Table<'_>) -> Result<AuthConfig, ConfigError> {
    let issuer = table.take(Field { name: "issuer", example: "issuer = \"https://id.example.org\"" })?;
    let audience = table.take(Field { name: "audience", example: "audience = \"talaria\"" })?;
    let keys = table.tables(Field { name: "keys", example: "[[auth.keys]]" })?;
    let keys = keys.into_iter().map(auth_key).collect::<Result<Vec<_>, _>>()?;
    table.finish()?;
    Ok(AuthConfig { issuer, audience, keys })
}

fn auth_key(mut table: Table<'_>) -> Result<AuthKey, ConfigError> {
    let kid = table.take::<String>(KID)?.ok_or_else(|| table.missing(KID, "tokens name their key by it"))?;
    let algorithm = table.take(ALG)?.ok_or_else(|| table.missing(ALG, "a key is for one algorithm"))?;
    let (path, pem) = (table.take::<PathBuf>(PATH)?, table.take::<String>(PEM)?);
    let source = match (path, pem, algorithm) {
        (Some(path), None, _) => KeySource::Path(path),
        (None, Some(pem), KeyAlgorithm::EdDsa) => KeySource::Pem(pem),
        (None, Some(_), KeyAlgorithm::Hs256) => {
            return Err(table.missing(PATH, "a secret does not belong into this file"));
        }
        (Some(_), Some(_), _) => return Err(table.missing(PATH, "give either `path` or `pem`, not both")),
        (None, None, _) => return Err(table.missing(PATH, "a key has a `path`, or a `pem` for a public key")),
    };
    table.finish()?;
    Ok(AuthKey { kid, algorithm, source })
}
