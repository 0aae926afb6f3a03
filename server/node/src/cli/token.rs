//! `talaria token`: a token for one user, signed with the key that `talaria serve --dev` made.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use talaria_protocol::limits::SUBJECT_BYTES_MAX;
use talaria_server::{
    auth::{SigningKey, TokenRequest},
    clock,
    dev::{DEV_KID, DevFiles},
};

use super::print_line;

#[derive(Debug, clap::Args)]
pub(crate) struct TokenCommand {
    /// The node's data directory.
    #[arg(long, env = "TALARIA_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Whom the token names: `sub`.
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// How long it holds: a number and s, m, h or d.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_time)]
    ttl: Duration,
    /// `tenant` of the deployment.
    #[arg(long, default_value = "", value_name = "NAME")]
    tenant: String,
}

impl TokenCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.subject.is_empty() || self.subject.len() > SUBJECT_BYTES_MAX {
            bail!("--subject is not 1 to {SUBJECT_BYTES_MAX} bytes long; for example: --subject alice");
        }
        let key = SigningKey::read(DEV_KID, &DevFiles::of(&self.data_dir).token_key())?;
        let issued = clock::unix_ms() / 1000;
        let request = TokenRequest {
            subject: &self.subject,
            tenant: &self.tenant,
            issued,
            expires: issued + self.ttl.as_secs(),
        };
        print_line(&key.sign(&request)?).context("stdout")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let mistake = || format!("{text:?} is not a number with s, m, h or d, such as 1h");
    let unit = text.chars().next_back().ok_or_else(mistake)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(mistake()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| mistake())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_time("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_time("2d").unwrap(), Duration::from_secs(172_800));
        for bad in ["", "1", "h", "1w", "-1h", "1.5h", "é"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
