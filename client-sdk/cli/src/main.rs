//! A terminal chat client in line mode, on the public SDK only. On a terminal it chats; with a pipe it is a tool: it
//! sends the lines that it reads, waits until each is acknowledged (and for what `--expect` and `--for` say), and
//! ends with 0 when all of that came true.

mod args;
mod chat;
mod command;
mod names;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use talaria_client::{Client, ClientConfig, ConnectError, Connection, StopReason, TokenProvider};

use crate::{args::Args, chat::Chat};

/// How long the first connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talaria-chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = ClientConfig::new(&args.server, args.device()?, TokenProvider::fixed(args.token()?))
        .tenant(&args.tenant)
        .transport(args.transport);
    if let Some(ca) = &args.ca {
        config = config.ca_file(ca)?;
    }
    if let Some(name) = &args.server_name {
        config = config.server_name(name);
    }
    let client = connect(config).await.map_err(advice)?;
    let mut chat = Chat::new(client.clone(), std::io::stdin().is_terminal());
    let result = match chat.open(&args).await {
        Ok(()) => chat.run(&args).await,
        Err(error) => Err(error).context("the conversation could not be opened"),
    };
    client.shutdown().await;
    result
}

/// Waits until the client is online, and says at once what keeps it from that.
async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
    let client = Client::start(config).await?;
    let mut connection = client.connection();
    let late = tokio::time::sleep(CONNECT_WAIT);
    tokio::pin!(late);
    let mut said = None;
    loop {
        let state = connection.borrow_and_update().clone();
        match state {
            Connection::Online => return Ok(client),
            Connection::AuthRequired => return Err(ConnectError::AuthRequired),
            Connection::Stopped(reason) => return Err(ConnectError::Stopped(reason)),
            Connection::Backoff { .. } | Connection::Connecting => {}
        }
        let failure = client.last_failure();
        if failure.is_some() && failure != said {
            eprintln!("-- not connected yet: {}", failure.as_deref().unwrap_or_default());
            said = failure;
        }
        tokio::select! {
            changed = connection.changed() => if changed.is_err() {
                return Err(ConnectError::Stopped(StopReason::ShutDown));
            },
            () = &mut late => {
                return Err(ConnectError::Unreachable(said.unwrap_or_else(|| "it did not answer".to_owned())));
            }
        }
    }
}

/// What the person at the keyboard can do.
fn advice(error: ConnectError) -> anyhow::Error {
    let advice = match &error {
        ConnectError::AuthRequired => {
            "get a new token, for example by `talaria token`, and give it with --token"
        }
        ConnectError::Unreachable(_) => "is the server running, and are --server and --ca those of it?",
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(advice)
}
