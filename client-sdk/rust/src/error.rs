//! Errors, one enum per operation. Each says what an app should do: try later, log the user in, fix the request, or
//! report.

use std::path::PathBuf;

use talaria_client_core::{
    ask::AskError, engine::StopReason, event::SendFailure, history::HistoryMismatch, outbox,
    store::StoreError,
};
use talaria_protocol::{error_code::ErrorCode, message::content::ContentError};

/// A [`ClientConfig`](crate::ClientConfig) that cannot work. Fix it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not `"host:port"`.
    #[error("the server is {0:?}; give host:port, for example chat.example.org:7443")]
    Server(String),
    /// No name that a certificate can have.
    #[error("the server's name is {0:?}; give the name in its certificate, for example chat.example.org")]
    ServerName(String),
    /// The certificate authority's file cannot be read.
    #[error("the CA file {path:?} cannot be read: {error}")]
    CaFile {
        /// It.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// No certificate authority in the PEM.
    #[error("the CA file holds no usable certificate: {0}")]
    Ca(String),
}

/// Why a client did not start or did not get online.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Fix the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What the device keeps cannot be read. Report it; starting with another store loses what was queued here.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Log the user in.
    #[error("the server does not accept the token: log in again")]
    AuthRequired,
    /// The client will not come online: see the reason.
    #[error("not connected: {0}")]
    Stopped(StopReason),
    /// Not online in time. Try later, or use [`Client::start`](crate::Client::start), which goes on trying.
    /// Says why the last attempt failed: a wrong address or certificate does not mend itself.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
}

/// Why a message was not queued. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Shorten it.
    #[error("the message cannot be sent: {0}")]
    Content(#[from] ContentError),
    /// Thousands of messages wait already. Try later.
    #[error("too many messages wait to be sent: try again later")]
    Full,
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

impl From<outbox::QueueError> for QueueError {
    fn from(error: outbox::QueueError) -> Self {
        match error {
            outbox::QueueError::Full => Self::Full,
            outbox::QueueError::Stopped => Self::Stopped,
        }
    }
}

/// Why a queued message is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The server refused it for good, or the outcome cannot be known any more: see the reason.
    #[error(transparent)]
    Failed(#[from] SendFailure),
    /// The client stopped first: the message is in the store and goes out when a client is started with it.
    #[error(
        "the client stopped before the message was acknowledged; it is kept and goes out with the next start"
    )]
    Stopped,
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No such conversation, or this user may not know of it.
    #[error("there is no such conversation for this user")]
    NotFound,
    /// This user may not do this here.
    #[error("this user may not do this: {0}")]
    Forbidden(String),
    /// A user, a title or a list is not acceptable. Fix the request.
    #[error("the request is not acceptable: {0}")]
    Invalid(String),
    /// The server refused for another reason. Report it.
    #[error("the server refused: {name} ({message})")]
    Refused {
        /// A number of spec/errors.md.
        code: u32,
        /// Its name there.
        name: &'static str,
        /// For a developer.
        message: String,
    },
    /// No answer in time, or too many requests wait. What was asked for may have happened; asking again is safe. Try
    /// later.
    #[error("the server did not answer in time: try again later")]
    TryLater,
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

impl From<AskError> for RequestError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout | AskError::TooMany => Self::TryLater,
            AskError::Stopped => Self::Stopped,
            AskError::Refused { code, message } => match ErrorCode::from_wire(code) {
                Some(ErrorCode::NotFound) => Self::NotFound,
                Some(ErrorCode::Forbidden) => Self::Forbidden(message),
                Some(
                    ErrorCode::Invalid | ErrorCode::TooLarge | ErrorCode::GroupFull | ErrorCode::UnknownUser,
                ) => Self::Invalid(message),
                known => Self::Refused { code, name: known.map_or("a newer code", ErrorCode::name), message },
            },
        }
    }
}

/// Why history cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The request was not answered.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It does not fit what this device holds: one of both was changed. Do not show it; report it.
    #[error(transparent)]
    Mismatch(#[from] HistoryMismatch),
    /// What this device holds cannot be read. Report it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
