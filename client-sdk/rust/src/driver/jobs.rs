//! What the task waits for beside its link and its commands: each future lives in a field, so that waiting for it can
//! be given up at any point without loss.

use std::{
    future::{Future, pending},
    io,
    pin::Pin,
};

use talaria_client_core::{
    engine::TokenError,
    event::Event,
    store::{StoreError, StoredEntry},
};
use talaria_protocol::ids::ConversationId;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until},
};

use crate::transport::{Link, Progress, Race};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(super) type Entries = Result<Vec<StoredEntry>, StoreError>;
type ReadJob = (ConversationId, JoinHandle<Entries>);

/// Each at most once at a time.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) token: Option<Boxed<Result<String, TokenError>>>,
    pub(super) race: Option<Race>,
    pub(super) commit: Option<JoinHandle<Result<(), StoreError>>>,
    pub(super) reads: Vec<ReadJob>,
    /// A listener without room.
    pub(super) full: Option<mpsc::Sender<Event>>,
}

pub(super) async fn next_of_link(link: &mut Option<Link>) -> Progress {
    match link {
        Some(link) => link.next().await,
        None => pending().await,
    }
}

pub(super) async fn next_of_race(race: &mut Option<Race>) -> io::Result<Link> {
    match race {
        Some(race) => race.next().await,
        None => pending().await,
    }
}

pub(super) async fn optional<T>(job: &mut Option<impl Future<Output = T> + Unpin>) -> T {
    match job {
        Some(job) => job.await,
        None => pending().await,
    }
}

pub(super) fn joined<T>(job: Result<Result<T, StoreError>, JoinError>) -> Result<T, StoreError> {
    job.unwrap_or_else(|error| Err(StoreError(error.into())))
}

/// The oldest read, taken off the list when it ends.
pub(super) async fn first_read(reads: &mut Vec<ReadJob>) -> (ConversationId, Result<Entries, JoinError>) {
    let Some((conversation, job)) = reads.first_mut() else { return pending().await };
    let end = (*conversation, job.await);
    reads.remove(0);
    end
}

pub(super) async fn has_room(full: &mut Option<mpsc::Sender<Event>>) {
    match full {
        // The permit is given back at once: only the driver sends.
        Some(sender) => drop(sender.reserve().await),
        None => pending().await,
    }
}

pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
