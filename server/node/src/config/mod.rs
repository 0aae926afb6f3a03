//! A node's configuration: what it is ([`Config`]), the file (`file`), and flags and environment over it
//! (`overlay`). Precedence: flags, environment `TALARIA_*`, file, defaults. Nothing here opens a socket, reads a
//! key or writes a file; what needs those says so when the node starts.

mod error;
mod file;
mod overlay;
mod value;

use std::{net::SocketAddr, path::PathBuf};

use talaria_core::limits::SHARDS_MAX;

pub use error::{ConfigError, Origin};
pub use overlay::Overlay;

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// `"fsync"`: synced to stable storage.
    #[default]
    Fsync,
    /// `"os"`: handed to the operating system; survives the process, not the machine.
    Os,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// `"error"`.
    Error,
    /// `"warn"`.
    Warn,
    /// `"info"`.
    #[default]
    Info,
    /// `"debug"`.
    Debug,
    /// `"trace"`.
    Trace,
}

/// Of a token key. A token of another algorithm than its key's is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// `"EdDSA"`: Ed25519, with a public key in PEM.
    EdDsa,
    /// `"HS256"`: HMAC-SHA-256, with a secret of at least 32 bytes.
    Hs256,
}

/// Where a token key is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `path`: a file, of PEM for EdDSA; for HS256 the secret's bytes, less one newline at the end.
    Path(PathBuf),
    /// `pem`: a public key, inline. Only for EdDSA.
    Pem(String),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Pem(_) => f.write_str("Pem(..)"),
        }
    }
}

/// A key that tokens may be signed with: `[[auth.keys]]`. Since 0.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthKey {
    /// `kid`: its name in the header of tokens. A token without one is accepted only while there is a single key.
    /// Since 0.1.
    pub kid: String,
    /// `alg`: what it is for. Since 0.1.
    pub algorithm: KeyAlgorithm,
    /// `path` or `pem`: where it is. Since 0.1.
    pub source: KeySource,
}

/// Who may connect: `[auth]`. Since 0.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// `issuer`: tokens must have it as `iss`. Default: any or none. Since 0.1.
    pub issuer: Option<String>,
    /// `audience`: tokens must have it among `aud`. Default: tokens must have no `aud`. Since 0.1.
    pub audience: Option<String>,
    /// `keys`: to rotate, add the new one, sign with it, then remove the old one. Since 0.1.
    pub keys: Vec<AuthKey>,
}

/// The node's certificate: `[tls]`. Since 0.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// `cert`: file of PEM certificates, the node's first. Since 0.1.
    pub cert: PathBuf,
    /// `key`: file of its PEM private key. Since 0.1.
    pub key: PathBuf,
}

/// How long entries are kept: `[retention]`. Since 0.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// `max_age_days`: entries older than this go, 1 to 36500 days; the last one of a conversation stays. Default: none
    /// goes for its age. Since 0.2.
    pub max_age_days: Option<u32>,
    /// `max_entries`: of each conversation the last so many entries stay, 1 to 4294967295. Default: all. Since 0.2.
    pub max_entries: Option<u32>,
    /// `sweep_seconds`: pause between two looks at all conversations, 1 to 86400 s. Default 600. Since 0.2.
    pub sweep_seconds: u32,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { max_age_days: None, max_entries: None, sweep_seconds: 600 }
    }
}

/// Everything that a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `listen`: address and port for clients, both TCP and UDP (QUIC). Port 0: any free one. Default 0.0.0.0:7443; in
    /// dev mode, whose keys anyone on the machine may read, 127.0.0.1:7443. Since 0.1.
    pub listen: SocketAddr,
    /// `admin_listen`: TCP address and port of `/healthz`, `/readyz`, `/metrics`, without TLS or password. Default
    /// 127.0.0.1:7480. Since 0.1.
    pub admin_listen: SocketAddr,
    /// `admin_allow_remote`: lets `admin_listen` be another address than loopback. Default false. Since 0.1.
    pub admin_allow_remote: bool,
    /// `data_dir`: directory of the log (`log/`) and of dev mode's keys (`dev/`). No default. Since 0.1.
    pub data_dir: PathBuf,
    /// `durability`: what `Sent` means. Default "fsync". Since 0.1.
    pub durability: Durability,
    /// `node`: the node's name, told to clients, at most 64 bytes. Default "talaria". Since 0.1.
    pub node: String,
    /// `keepalive_seconds`: clients send something at least this often, 1 to 3600 s; a session silent for twice as
    /// long ends. Default 30. Since 0.1.
    pub keepalive_seconds: u32,
    /// `drain_seconds`: at SIGTERM, how long sessions may take to finish, 0 to 3600 s. Default 20. Since 0.1.
    pub drain_seconds: u32,
    /// `connections_max`: connections at once, at least 1. One more takes the place of the oldest without Hello, or
    /// is closed. Default 100000. Since 0.1.
    pub connections_max: u32,
    /// `shards`: threads that serve clients, 1 to 64, each with its part of conversations and connections. Default: one per
    /// processor. Since 0.2.
    pub shards: u32,
    /// `pin`: keeps each shard's thread to a processor of its own, where there are enough. Default true. Since 0.2.
    pub pin: bool,
    /// `handshakes_per_second`: new connections that each shard takes in a second, 1 to 100000; others wait in the
    /// system's queue, so that those who are connected do not notice. Default 300. Since 0.2.
    pub handshakes_per_second: u32,
    /// `hellos_per_second`: sessions that each shard opens in a second, 1 to 100000; others are told when to come again.
    /// Default 2000. Since 0.2.
    pub hellos_per_second: u32,
    /// `address_connections_per_second`: new connections of one address (IPv4) or /64 (IPv6) in a second, and ten times as
    /// many at once, 1 to 100000. Default 200. Since 0.2.
    pub address_connections_per_second: u32,
    /// `address_without_hello_max`: connections without a session of one address or /64, 1 to 100000. Default 512. Since 0.2.
    pub address_without_hello_max: u32,
    /// `address_limits_loopback`: the two bounds above hold for this machine's own addresses too. Default false. Since 0.2.
    pub address_limits_loopback: bool,
    /// `reader_threads`: threads that read the log, 1 to 64. Default 2. Since 0.1.
    pub reader_threads: u32,
    /// `log_level`: of the node's own log on stderr. Default "info". Since 0.1.
    pub log_level: LogLevel,
    /// `dev` (flag `--dev`): makes an own CA, certificate and token key in `data_dir`/dev where none are
    /// configured. Never for production. Default false. Since 0.1.
    pub dev: bool,
    /// `[tls]`: needed unless `dev`. Since 0.1.
    pub tls: Option<TlsConfig>,
    /// `[auth]`: needs a key unless `dev`. Since 0.1.
    pub auth: AuthConfig,
    /// `[retention]`: everything is kept unless it says otherwise. Since 0.2.
    pub retention: RetentionConfig,
}

impl Config {
    /// The defaults, for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], talaria_protocol::limits::PORT_DEFAULT)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            admin_allow_remote: false,
            data_dir: data_dir.into(),
            durability: Durability::default(),
            node: "talaria".to_owned(),
            keepalive_seconds: 30,
            drain_seconds: 20,
            connections_max: 100_000,
            shards: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(64) as u32),
            pin: true,
            handshakes_per_second: 300,
            hellos_per_second: 2_000,
            address_connections_per_second: 200,
            address_without_hello_max: 512,
            address_limits_loopback: false,
            reader_threads: 2,
            log_level: LogLevel::default(),
            dev: false,
            tls: None,
            auth: AuthConfig::default(),
            retention: RetentionConfig::default(),
        }
    }

    /// Reads the overlay's file, if it names one, and lays the overlay over it.
    ///
    /// # Errors
    /// The first mistake: field, value, example.
    pub fn load(overlay: &Overlay) -> Result<Self, ConfigError> {
        let mut config = Self::new(PathBuf::new());
        let mut given = file::Given::default();
        if let Some(path) = &overlay.config {
            file::apply(&mut config, &mut given, path)?;
        }
        overlay.apply(&mut config, &mut given)?;
        if config.dev && !given.has("listen") {
            config.listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        config.check(&given)?;
        Ok(config)
    }

    /// The rules that one field's type cannot hold.
    fn check(&self, given: &file::Given) -> Result<(), ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(missing("data_dir", "it holds the log", "data_dir = \"/var/lib/talaria\""));
        }
        if !self.admin_listen.ip().is_loopback() && !self.admin_allow_remote {
            let problem = "is not a loopback address, and the admin port has no password: set \
                           admin_allow_remote = true if only operators reach it";
            return Err(given.mistake(
                "admin_listen",
                &self.admin_listen,
                problem,
                "admin_listen = \"127.0.0.1:7480\"",
            ));
        }
        given.in_range("keepalive_seconds", self.keepalive_seconds, 1..=3600, "keepalive_seconds = 30")?;
        given.in_range("drain_seconds", self.drain_seconds, 0..=3600, "drain_seconds = 20")?;
        given.in_range("connections_max", self.connections_max, 1..=1_000_000, "connections_max = 100000")?;
        given.in_range("shards", self.shards, 1..=SHARDS_MAX.into(), "shards = 4")?;
        self.check_rates(given)?;
        self.check_retention(given)?;
        given.in_range("reader_threads", self.reader_threads, 1..=64, "reader_threads = 2")?;
        if self.node.is_empty() || self.node.len() > 64 {
            let problem = "is not 1 to 64 bytes long";
            return Err(given.mistake("node", &format!("{:?}", self.node), problem, "node = \"eu-1\""));
        }
        self.check_credentials(given)
    }

    fn check_rates(&self, given: &file::Given) -> Result<(), ConfigError> {
        let range = || 1..=100_000;
        let field = "handshakes_per_second";
        given.in_range(field, self.handshakes_per_second, range(), "handshakes_per_second = 300")?;
        given.in_range("hellos_per_second", self.hellos_per_second, range(), "hellos_per_second = 2000")?;
        let field = "address_connections_per_second";
        let example = "address_connections_per_second = 200";
        given.in_range(field, self.address_connections_per_second, range(), example)?;
        let field = "address_without_hello_max";
        given.in_range(field, self.address_without_hello_max, range(), "address_without_hello_max = 512")
    }

    fn check_retention(&self, given: &file::Given) -> Result<(), ConfigError> {
        let RetentionConfig { max_age_days, max_entries, sweep_seconds } = self.retention;
        let field = "retention.max_age_days";
        given.in_range(field, max_age_days.unwrap_or(1), 1..=36_500, "max_age_days = 365")?;
        let field = "retention.max_entries";
        given.in_range(field, max_entries.unwrap_or(1), 1..=u32::MAX, "max_entries = 100000")?;
        given.in_range("retention.sweep_seconds", sweep_seconds, 1..=86_400, "sweep_seconds = 600")
    }

    fn check_credentials(&self, given: &file::Given) -> Result<(), ConfigError> {
        if self.tls.is_none() && !self.dev {
            let example =
                "tls = { cert = \"/etc/talaria/cert.pem\", key = \"/etc/talaria/key.pem\" }, or --dev";
            return Err(missing("tls", "clients connect by TLS only", example));
        }
        if self.auth.keys.is_empty() && !self.dev {
            let example = "[[auth.keys]] kid = \"2026-a\", alg = \"EdDSA\", path = \"/etc/talaria/token.pem\", or --dev";
            return Err(missing("auth.keys", "tokens are verified with them", example));
        }
        for (index, key) in self.auth.keys.iter().enumerate() {
            if self.auth.keys.iter().take(index).any(|other| other.kid == key.kid) {
                let (field, value) = (format!("auth.keys[{index}].kid"), format!("{:?}", key.kid));
                return Err(given.mistake(
                    &field,
                    &value,
                    "is the kid of another key too",
                    "kid = \"2026-b\"",
                ));
            }
        }
        Ok(())
    }
}

fn missing(field: &str, problem: &str, example: &str) -> ConfigError {
    ConfigError::Missing { field: field.to_owned(), problem: problem.to_owned(), example: example.to_owned() }
}
