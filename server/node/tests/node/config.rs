//! Configuration: precedence, and that every mistake names the field, the value and an example.

use std::path::PathBuf;

use talaria_server::config::{
    Config, Durability, KeyAlgorithm, KeySource, LogLevel, Overlay, RetentionConfig,
};

use crate::support::process;

/// A file with this text.
fn file(text: &str) -> (tempfile::TempDir, Overlay) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talaria.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Overlay { config: Some(path), ..Overlay::default() })
}

fn mistake(text: &str) -> String {
    let (_dir, overlay) = file(text);
    Config::load(&overlay).err().unwrap_or_else(|| panic!("no mistake in {text:?}")).to_string()
}

const ALL: &str = r#"
listen = "127.0.0.1:7000"
admin_listen = "10.0.0.1:7001"
admin_allow_remote = true
data_dir = "/data"
durability = "os"
node = "eu-1"
keepalive_seconds = 60
drain_seconds = 0
connections_max = 5
shards = 3
pin = false
handshakes_per_second = 11
hellos_per_second = 12
address_connections_per_second = 13
address_without_hello_max = 14
address_limits_loopback = true
reader_threads = 3
log_level = "debug"
dev = false

[tls]
cert = "c.pem"
key = "k.pem"

[retention]
max_age_days = 30
max_entries = 1000
sweep_seconds = 5

[auth]
issuer = "i"
audience = "a"

[[auth.keys]]
kid = "1"
alg = "EdDSA"
pem = "-----BEGIN PUBLIC KEY-----"

[[auth.keys]]
kid = "2"
alg = "HS256"
path = "secret"
"#;

#[test]
fn a_file_with_every_field() {
    let (_dir, overlay) = file(ALL);
    let config = Config::load(&overlay).unwrap();
    assert_eq!(
        (config.listen.port(), config.admin_listen.port(), config.admin_allow_remote),
        (7000, 7001, true)
    );
    assert_eq!((config.data_dir.as_path(), config.node.as_str()), ("/data".as_ref(), "eu-1"));
    assert_eq!((config.durability, config.log_level), (Durability::Os, LogLevel::Debug));
    assert_eq!((config.keepalive_seconds, config.drain_seconds), (60, 0));
    assert_eq!((config.connections_max, config.reader_threads, config.dev), (5, 3, false));
    assert_eq!((config.shards, config.pin, config.address_limits_loopback), (3, false, true));
    assert_eq!((config.handshakes_per_second, config.hellos_per_second), (11, 12));
    assert_eq!((config.address_connections_per_second, config.address_without_hello_max), (13, 14));
    let retention = (Some(30), Some(1000), 5);
    let RetentionConfig { max_age_days, max_entries, sweep_seconds } = config.retention;
    assert_eq!((max_age_days, max_entries, sweep_seconds), retention);
    assert_eq!(config.tls.unwrap().key, PathBuf::from("k.pem"));
    assert_eq!((config.auth.issuer.as_deref(), config.auth.audience.as_deref()), (Some("i"), Some("a")));
    assert_eq!(config.auth.keys[0].algorithm, KeyAlgorithm::EdDsa);
    assert_eq!(config.auth.keys[1].source, KeySource::Path(PathBuf::from("secret")));
}

#[test]
fn what_is_not_given_has_its_default() {
    let (_dir, overlay) = file(
        "data_dir = \"d\"\ntls = { cert = \"c\", key = \"k\" }\n[[auth.keys]]\nkid = \"a\"\nalg = \"HS256\"\npath = \"p\"",
    );
    let config = Config::load(&overlay).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:7443");
    assert_eq!(config.durability, Durability::Fsync);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(config.shards as usize, cores.min(64), "one per processor");
    assert_eq!(config, Config { tls: config.tls.clone(), auth: config.auth.clone(), ..Config::new("d") });
}

#[test]
fn dev_mode_listens_on_this_machine_only_unless_told_otherwise() {
    let loaded = |text: &str| {
        let (_dir, overlay) = file(text);
        Config::load(&overlay).unwrap().listen.to_string()
    };
    assert_eq!(loaded("dev = true\ndata_dir = \"d\""), "127.0.0.1:7443");
    assert_eq!(loaded("dev = true\ndata_dir = \"d\"\nlisten = \"0.0.0.0:1\""), "0.0.0.0:1");
}

#[test]
fn flags_and_environment_come_over_the_file() {
    let (_dir, mut overlay) = file(ALL);
    overlay.durability = Some("fsync".to_owned());
    overlay.drain_seconds = Some("7".to_owned());
    let config = Config::load(&overlay).unwrap();
    assert_eq!(
        (config.durability, config.drain_seconds, config.keepalive_seconds),
        (Durability::Fsync, 7, 60)
    );
}

#[test]
fn a_flag_comes_over_the_environment_and_that_over_the_file() {
    let (_dir, overlay) = file("node = \"\"\ndev = true\ndata_dir = \"d\"");
    let path = overlay.config.unwrap();
    let args = ["config", "check", "--config", path.to_str().unwrap()];
    let of_file = process::run(&args);
    assert!(of_file.stderr.contains("`node` = \"\" (in "), "{}", of_file.stderr);
    let bad = [("TALARIA_NODE", "x".repeat(65))];
    let bad = [(bad[0].0, bad[0].1.as_str())];
    let of_environment = process::run_with(&args, &bad);
    assert!(of_environment.stderr.contains("(by flag or environment)"), "{}", of_environment.stderr);
    let of_flag = process::run_with(&[args.as_slice(), &["--node", "eu-1"]].concat(), &bad);
    assert_eq!((of_flag.status.code(), of_flag.stdout.as_str()), (Some(0), "ok\n"), "{}", of_flag.stderr);
}

#[test]
fn mistakes_name_the_field_the_value_and_an_example() {
    let table = [
        ("listen = 7443", ["`listen` = 7443", "IP address with a port", "listen = \"0.0.0.0:7443\""]),
        ("listen = \"localhost\"", ["`listen` = \"localhost\"", "IP address", "listen = \"0.0.0.0:7443\""]),
        ("listen = \"0.0.0.0:99999\"", ["\"0.0.0.0:99999\"", "IP address", "listen = \"0.0.0.0:7443\""]),
        (
            "durability = \"maybe\"",
            ["`durability` = \"maybe\"", "\"fsync\" nor \"os\"", "durability = \"fsync\""],
        ),
        ("log_level = \"loud\"", ["`log_level` = \"loud\"", "\"trace\"", "log_level = \"info\""]),
        (
            "keepalive_seconds = \"30\"",
            ["`keepalive_seconds` = \"30\"", "whole number", "keepalive_seconds = 30"],
        ),
        ("keepalive_seconds = -1", ["`keepalive_seconds` = -1", "whole number", "keepalive_seconds = 30"]),
        ("dev = \"yes\"", ["`dev` = \"yes\"", "neither true nor false", "dev = true"]),
        ("tls = 5", ["`tls` = 5", "is not a table", "cert = "]),
        ("[tls]\ncert = \"c\"", ["`tls.key` is missing", "needs its key", "key = \"/etc/talaria/key.pem\""]),
        (
            "[tls]\nkey = \"k\"",
            ["`tls.cert` is missing", "needs its cert", "cert = \"/etc/talaria/cert.pem\""],
        ),
        ("[auth]\nkeys = 1", ["`auth.keys` = 1", "list of tables", "[[auth.keys]]"]),
        (
            "[[auth.keys]]\nalg = \"EdDSA\"",
            ["`auth.keys[0].kid` is missing", "name their key", "kid = \"2026-a\""],
        ),
        ("[[auth.keys]]\nkid = \"a\"", ["`auth.keys[0].alg` is missing", "one algorithm", "alg = \"EdDSA\""]),
        (
            "[[auth.keys]]\nkid = \"a\"\nalg = \"RS256\"",
            ["`auth.keys[0].alg` = \"RS256\"", "\"EdDSA\" nor \"HS256\"", "alg = \"EdDSA\""],
        ),
        (
            "[[auth.keys]]\nkid = \"a\"\nalg = \"HS256\"\npem = \"x\"",
            ["`auth.keys[0].path` is missing", "does not belong into this file", "path = "],
        ),
    ];
    for (text, parts) in table {
        let message = mistake(text);
        for part in parts {
            assert!(message.contains(part), "{text:?}: {message:?} lacks {part:?}");
        }
    }
}

#[test]
fn rules_between_fields() {
    let base = "dev = true\ndata_dir = \"d\"\n";
    let table = [
        (
            "admin_listen = \"0.0.0.0:7480\"",
            ["`admin_listen` = 0.0.0.0:7480", "loopback", "admin_allow_remote = true"],
        ),
        ("keepalive_seconds = 0", ["`keepalive_seconds` = 0", "from 1 to 3600", "keepalive_seconds = 30"]),
        ("drain_seconds = 3601", ["`drain_seconds` = 3601", "from 0 to 3600", "drain_seconds = 20"]),
        ("connections_max = 0", ["`connections_max` = 0", "from 1 to 1000000", "connections_max = 100000"]),
        ("shards = 0", ["`shards` = 0", "from 1 to 64", "shards = 4"]),
        ("shards = 65", ["`shards` = 65", "from 1 to 64", "shards = 4"]),
        (
            "handshakes_per_second = 0",
            ["`handshakes_per_second` = 0", "from 1 to 100000", "handshakes_per_second = 300"],
        ),
        ("hellos_per_second = 0", ["`hellos_per_second` = 0", "from 1 to", "hellos_per_second = 2000"]),
        (
            "address_connections_per_second = 0",
            ["`address_connections_per_second` = 0", "from 1 to", "address_connections_per_second = 200"],
        ),
        (
            "address_without_hello_max = 0",
            ["`address_without_hello_max` = 0", "from 1 to", "address_without_hello_max = 512"],
        ),
        (
            "retention = { max_age_days = 0 }",
            ["`retention.max_age_days` = 0", "from 1 to 36500", "max_age_days = 365"],
        ),
        (
            "retention = { max_entries = 0 }",
            ["`retention.max_entries` = 0", "from 1", "max_entries = 100000"],
        ),
        (
            "retention = { sweep_seconds = 86401 }",
            ["`retention.sweep_seconds` = 86401", "from 1 to 86400", "sweep_seconds = 600"],
        ),
        ("reader_threads = 65", ["`reader_threads` = 65", "from 1 to 64", "reader_threads = 2"]),
        ("node = \"\"", ["`node` = \"\"", "1 to 64 bytes", "node = \"eu-1\""]),
        (
            "[[auth.keys]]\nkid = \"a\"\nalg = \"HS256\"\npath = \"x\"\n\
             [[auth.keys]]\nkid = \"a\"\nalg = \"HS256\"\npath = \"y\"",
            ["`auth.keys[1].kid` = \"a\"", "another key", "kid = \"2026-b\""],
        ),
    ];
    for (more, parts) in table {
        let message = mistake(&format!("{base}{more}"));
        for part in parts {
            assert!(message.contains(part), "{more:?}: {message:?} lacks {part:?}");
        }
    }
    assert!(mistake("dev = true").contains("`data_dir` is missing"));
    let message = mistake("data_dir = \"d\"");
    assert!(message.contains("`tls` is missing") && message.contains("--dev"), "{message}");
    let message = mistake("data_dir = \"d\"\ntls = { cert = \"c\", key = \"k\" }");
    assert!(message.contains("`auth.keys` is missing") && message.contains("[[auth.keys]]"), "{message}");
}

#[test]
fn unknown_fields_are_refused_with_those_that_are_known() {
    for (text, field, known) in [
        ("lisen = \"x\"", "`lisen`", "listen"),
        ("[tls]\ncret = \"c\"", "`tls.cret`", "cert, key"),
        ("[retention]\nmax_age = 1", "`retention.max_age`", "max_age_days"),
        ("[auth]\nisuer = \"i\"", "`auth.isuer`", "issuer"),
        (
            "[[auth.keys]]\nkid = \"a\"\nalg = \"EdDSA\"\npath = \"p\"\nuse = \"sig\"",
            "`auth.keys[0].use`",
            "kid, alg",
        ),
    ] {
        let message = mistake(text);
        assert!(message.contains(field) && message.contains(known), "{message}");
    }
}

#[test]
fn a_file_that_is_no_toml_or_is_not_there() {
    let message = mistake("listen = ");
    assert!(message.contains("not valid TOML") && message.contains("line 1"), "{message}");
    let overlay = Overlay { config: Some(PathBuf::from("/nowhere/talaria.toml")), ..Overlay::default() };
    assert!(Config::load(&overlay).unwrap_err().to_string().contains("/nowhere/talaria.toml"));
}

#[test]
fn the_program_says_what_is_wrong_and_does_not_start() {
    let said = process::run(&["serve", "--dev", "--data-dir", "d", "--listen", "everywhere"]);
    assert_eq!(said.status.code(), Some(1));
    let parts = ["`listen` = \"everywhere\"", "by flag or environment", "--listen 0.0.0.0:7443"];
    assert!(parts.iter().all(|part| said.stderr.contains(part)), "{}", said.stderr);
    assert!(said.stdout.is_empty());
}

#[test]
fn check_reads_the_files_that_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talaria.toml");
    let cert = dir.path().join("cert.pem");
    let text = format!(
        "data_dir = \"d\"\ntls = {{ cert = {cert:?}, key = {cert:?} }}\n\
         [[auth.keys]]\nkid = \"a\"\nalg = \"HS256\"\npath = {cert:?}\n"
    );
    std::fs::write(&path, text).unwrap();
    let check = || process::run(&["config", "check", "--config", path.to_str().unwrap()]);
    let missing = check();
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("cert.pem"), "{}", missing.stderr);
    std::fs::write(&cert, "this is forty bytes, but no certificate.").unwrap();
    let wrong = check();
    assert!(wrong.stderr.contains("tls.cert") && wrong.stderr.contains("for example"), "{}", wrong.stderr);
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let said =
        process::run(&["serve", "--dev", "--data-dir", dir.path().to_str().unwrap(), "--listen", &address]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.contains("listen") && said.stderr.contains(&address), "{}", said.stderr);
}
