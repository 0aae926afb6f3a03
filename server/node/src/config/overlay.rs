//! Flags, and the environment variables that stand for them, over the file. clap gives the flag's value before the
//! variable's; both come here as text, so that a mistake reads the same wherever it was made.

use std::path::PathBuf;

use super::{
    Config, ConfigError, Origin,
    file::Given,
    value::{Field, FieldValue},
};

/// Flags of `talaria serve` and `talaria config check`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overlay {
    /// TOML file to read.
    #[arg(long, env = "TALARIA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port for clients (field `listen`).
    #[arg(long, env = "TALARIA_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address and port of health and metrics (field `admin_listen`).
    #[arg(long, env = "TALARIA_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Let the admin address be remote (field `admin_allow_remote`).
    #[arg(long, env = "TALARIA_ADMIN_ALLOW_REMOTE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub admin_allow_remote: Option<String>,
    /// Directory of the log (field `data_dir`).
    #[arg(long, env = "TALARIA_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<String>,
    /// "fsync" or "os" (field `durability`).
    #[arg(long, env = "TALARIA_DURABILITY", value_name = "WHAT")]
    pub durability: Option<String>,
    /// The node's name (field `node`).
    #[arg(long, env = "TALARIA_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Seconds (field `keepalive_seconds`).
    #[arg(long, env = "TALARIA_KEEPALIVE_SECONDS", value_name = "SECONDS")]
    pub keepalive_seconds: Option<String>,
    /// Seconds (field `drain_seconds`).
    #[arg(long, env = "TALARIA_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<String>,
    /// Connections at once (field `connections_max`).
    #[arg(long, env = "TALARIA_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<String>,
    /// Threads that serve clients (field `shards`).
    #[arg(long, env = "TALARIA_SHARDS", value_name = "COUNT")]
    pub shards: Option<String>,
    /// Keep each to a processor of its own (field `pin`).
    #[arg(long, env = "TALARIA_PIN", value_name = "BOOL")]
    pub pin: Option<String>,
    /// New connections of each shard in a second (field `handshakes_per_second`).
    #[arg(long, env = "TALARIA_HANDSHAKES_PER_SECOND", value_name = "COUNT")]
    pub handshakes_per_second: Option<String>,
    /// New sessions of each shard in a second (field `hellos_per_second`).
    #[arg(long, env = "TALARIA_HELLOS_PER_SECOND", value_name = "COUNT")]
    pub hellos_per_second: Option<String>,
    /// New connections of one address in a second (field `address_connections_per_second`).
    #[arg(long, env = "TALARIA_ADDRESS_CONNECTIONS_PER_SECOND", value_name = "COUNT")]
    pub address_connections_per_second: Option<String>,
    /// Connections without a session of one address (field `address_without_hello_max`).
    #[arg(long, env = "TALARIA_ADDRESS_WITHOUT_HELLO_MAX", value_name = "COUNT")]
    pub address_without_hello_max: Option<String>,
    /// The two bounds above for this machine too (field `address_limits_loopback`).
    #[arg(long, env = "TALARIA_ADDRESS_LIMITS_LOOPBACK", value_name = "BOOL")]
    pub address_limits_loopback: Option<String>,
    /// Threads that read the log (field `reader_threads`).
    #[arg(long, env = "TALARIA_READER_THREADS", value_name = "COUNT")]
    pub reader_threads: Option<String>,
    /// error, warn, info, debug or trace (field `log_level`).
    #[arg(long, env = "TALARIA_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Make an own CA, certificate and token key. Never for production (field `dev`).
    #[arg(long, env = "TALARIA_DEV", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dev: Option<String>,
}

impl Overlay {
    /// Lays what was given over a configuration.
    pub(super) fn apply(&self, config: &mut Config, given: &mut Given) -> Result<(), ConfigError> {
        let example = |name, example| Field { name, example };
        set(&self.listen, example("listen", "--listen 0.0.0.0:7443"), &mut config.listen, given)?;
        let field = example("admin_listen", "--admin-listen 127.0.0.1:7480");
        set(&self.admin_listen, field, &mut config.admin_listen, given)?;
        let field = example("admin_allow_remote", "--admin-allow-remote");
        set(&self.admin_allow_remote, field, &mut config.admin_allow_remote, given)?;
        set(&self.data_dir, example("data_dir", "--data-dir ./data"), &mut config.data_dir, given)?;
        set(&self.durability, example("durability", "--durability fsync"), &mut config.durability, given)?;
        set(&self.node, example("node", "--node eu-1"), &mut config.node, given)?;
        let field = example("keepalive_seconds", "--keepalive-seconds 30");
        set(&self.keepalive_seconds, field, &mut config.keepalive_seconds, given)?;
        set(
            &self.drain_seconds,
            example("drain_seconds", "--drain-seconds 20"),
            &mut config.drain_seconds,
            given,
        )?;
        let field = example("connections_max", "--connections-max 100000");
        set(&self.connections_max, field, &mut config.connections_max, given)?;
        set(&self.shards, example("shards", "--shards 4"), &mut config.shards, given)?;
        set(&self.pin, example("pin", "--pin true"), &mut config.pin, given)?;
        self.apply_rates(config, given)?;
        let field = example("reader_threads", "--reader-threads 2");
        set(&self.reader_threads, field, &mut config.reader_threads, given)?;
        set(&self.log_level, example("log_level", "--log-level info"), &mut config.log_level, given)?;
        set(&self.dev, example("dev", "--dev"), &mut config.dev, given)
    }

    fn apply_rates(&self, config: &mut Config, given: &mut Given) -> Result<(), ConfigError> {
        let example = |name, example| Field { name, example };
        let field = example("handshakes_per_second", "--handshakes-per-second 300");
        set(&self.handshakes_per_second, field, &mut config.handshakes_per_second, given)?;
        let field = example("hellos_per_second", "--hellos-per-second 2000");
        set(&self.hellos_per_second, field, &mut config.hellos_per_second, given)?;
        let field = example("address_connections_per_second", "--address-connections-per-second 200");
        let to = &mut config.address_connections_per_second;
        set(&self.address_connections_per_second, field, to, given)?;
        let field = example("address_without_hello_max", "--address-without-hello-max 512");
        let to = &mut config.address_without_hello_max;
        set(&self.address_without_hello_max, field, to, given)?;
        let field = example("address_limits_loopback", "--address-limits-loopback false");
        set(&self.address_limits_loopback, field, &mut config.address_limits_loopback, given)
    }
}

fn set<T: FieldValue>(
    text: &Option<String>,
    field: Field,
    to: &mut T,
    given: &mut Given,
) -> Result<(), ConfigError> {
    let Some(text) = text else { return Ok(()) };
    given.note(field.name, Origin::FlagOrEnvironment);
    match T::from_text(text) {
        Some(value) => {
            *to = value;
            Ok(())
        }
        None => Err(given.mistake(field.name, &format!("{text:?}"), T::PROBLEM, field.example)),
    }
}
