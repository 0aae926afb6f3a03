//! `talaria config check`: says whether a node would start with this configuration, as far as its files tell.

use std::process::ExitCode;

use anyhow::Context;
use talaria_server::{
    auth::Keyring,
    config::{Config, Overlay},
    tls,
};

use super::print_line;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read configuration, certificate and keys; print "ok", or the mistake.
    Check(Overlay),
}

impl ConfigCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Check(overlay) = self;
        let config = Config::load(&overlay)?;
        Keyring::read(&config.auth)?;
        if let Some(tls) = &config.tls {
            tls::server_config(tls)?;
        }
        print_line("ok").context("stdout")?;
        Ok(ExitCode::SUCCESS)
    }
}
