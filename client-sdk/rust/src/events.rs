//! Events on their way to the app: a bounded queue per listener. A full one holds back the others and, by credit, the
//! server; so nothing is dropped and nothing grows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use talaria_client_core::event::Event;
use tokio::sync::{Notify, mpsc};

/// Events that wait for one listener.
const EVENTS_MAX: usize = 64;

/// What happens on this device, from [`Client::events`](crate::Client::events).
///
/// Take events steadily: while this one is full, no listener gets more and the server is slowed down. Dropping it is
/// fine at any time.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Events {
    /// The next one; `None` once the client has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// The next one, if it is here already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }
}

/// Who listens.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    list: Mutex<List>,
    /// Wakes the driver: somebody new listens.
    came: Notify,
}

#[derive(Debug, Default)]
struct List {
    senders: Vec<mpsc::Sender<Event>>,
    /// Somebody listened once: events are no longer kept for the first.
    begun: bool,
    ended: bool,
}

/// Whether the next event can be told.
#[derive(Debug)]
pub(crate) enum Room {
    /// To everybody.
    Yes,
    /// Not before this one has room.
    Full(mpsc::Sender<Event>),
    /// Nobody has listened yet.
    NotBegun,
}

impl Listeners {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> Events {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let mut list = self.list();
        if !list.ended {
            list.begun = true;
            list.senders.push(sender);
            self.came.notify_one();
        }
        Events { receiver }
    }

    /// Ends when somebody new listens. Cancel-safe.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    /// No more events come.
    pub(crate) fn end(&self) {
        let mut list = self.list();
        list.ended = true;
        list.senders.clear();
    }

    pub(crate) fn room(&self) -> Room {
        let mut list = self.list();
        if !list.begun {
            return Room::NotBegun;
        }
        list.senders.retain(|sender| !sender.is_closed());
        match list.senders.iter().find(|sender| sender.capacity() == 0) {
            Some(full) => Room::Full(full.clone()),
            None => Room::Yes,
        }
    }

    /// Tells everybody; there is room.
    pub(crate) fn tell(&self, event: &Event) {
        for sender in &self.list().senders {
            // There is room, since only the driver sends; a listener that has gone needs nothing.
            let _ = sender.try_send(event.clone());
        }
    }
}
