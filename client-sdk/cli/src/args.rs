//! The command line, and what it names: token and device.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Parser;
use talaria_client::{ConversationId, DeviceId, TransportChoice, new_device_id};

/// Chat over a Talaria server.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    /// The server, for example chat.example.org:7443.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7443")]
    pub(crate) server: String,
    /// The name in the server's certificate, where it is not HOST.
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// Trust only the certificate authorities in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The tenant, where the server has several.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) tenant: String,
    /// What carries the connection; auto takes whichever works first, QUIC with a head start.
    #[arg(long, value_name = "auto|quic|tcp", default_value = "auto", value_parser = parse_transport)]
    pub(crate) transport: TransportChoice,
    /// A token of the user to chat as.
    #[arg(long, value_name = "JWT", env = "TALARIA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Where this installation's device id is kept; made at first. Without: in the user's state directory.
    #[arg(long, value_name = "FILE")]
    device_file: Option<PathBuf>,

    /// Chat with this user.
    #[arg(long, value_name = "USER", group = "where")]
    pub(crate) with: Option<String>,
    /// Make a group of this title, with --members.
    #[arg(long, value_name = "TITLE", group = "where")]
    pub(crate) group: Option<String>,
    /// Members of the new group, separated by commas.
    #[arg(long, value_name = "USERS", value_delimiter = ',', requires = "group")]
    pub(crate) members: Vec<String>,
    /// Chat in this conversation, by its id (32 hexadecimal digits, see /list).
    #[arg(long, value_name = "ID", group = "where", value_parser = parse_conversation)]
    pub(crate) conversation: Option<ConversationId>,

    /// After the input has ended: stay for so long, and print what comes.
    #[arg(long = "for", value_name = "SECONDS")]
    pub(crate) for_seconds: Option<u64>,
    /// After the input has ended: wait for N messages of others in the conversation, old ones too. Fails when they
    /// have not come within --for (default 30) seconds.
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<usize>,
}

impl Args {
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        if let Some(path) = &self.token_file {
            let token =
                fs::read_to_string(path).with_context(|| format!("--token-file {}", path.display()))?;
            return Ok(token.trim().to_string());
        }
        match &self.token {
            Some(token) => Ok(token.trim().to_string()),
            None => bail!("no token: give one with --token, --token-file or TALARIA_TOKEN"),
        }
    }

    /// The device of this installation. A server knows a limited number of devices per user, so it is kept.
    pub(crate) fn device(&self) -> anyhow::Result<DeviceId> {
        let Some(path) = self.device_file.clone().or_else(default_device_file) else {
            return Ok(new_device_id());
        };
        device_at(&path).with_context(|| format!("the device file {}", path.display()))
    }
}

fn default_device_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?;
    Some(state.join("talaria-chat/device"))
}

fn device_at(path: &Path) -> anyhow::Result<DeviceId> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let bytes = hex16(text.trim()).context("holds no device id: 32 hexadecimal digits")?;
            Ok(DeviceId::parse(&bytes)?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let device = new_device_id();
            if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
                fs::create_dir_all(directory)?;
            }
            fs::write(path, format!("{device}\n"))?;
            Ok(device)
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn parse_conversation(text: &str) -> Result<ConversationId, String> {
    hex16(text).map(ConversationId::new).ok_or_else(|| "an id is 32 hexadecimal digits, see /list".into())
}

fn parse_transport(text: &str) -> Result<TransportChoice, String> {
    match text {
        "auto" => Ok(TransportChoice::Auto),
        "quic" => Ok(TransportChoice::Quic),
        "tcp" => Ok(TransportChoice::Tcp),
        _ => Err("it is auto, quic or tcp".into()),
    }
}

/// Sixteen bytes in hexadecimal, with or without a UUID's hyphens.
fn hex16(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16))
        .map(|d| d.map(|d| d as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (digits.len() == 32).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn ids_are_32_digits_with_or_without_hyphens() {
        let id = parse_conversation("00ff10a0-0000-0000-0000-0000000000Ab").unwrap();
        assert_eq!(id.to_string(), "00ff10a00000000000000000000000ab");
        for wrong in ["", "00", "00ff10a00000000000000000000000abc", "zzff10a00000000000000000000000ab"] {
            assert!(parse_conversation(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_device_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/device");
        let device = device_at(&path).unwrap();
        assert_eq!(device_at(&path).unwrap(), device);
        fs::write(&path, "nonsense").unwrap();
        assert!(device_at(&path).is_err(), "a broken file is not replaced: that would be another device");
    }
}
