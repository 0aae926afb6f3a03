//! What the engine asks for, done: connections, tokens, the store's work, answers to whoever waits, events to listeners.

use std::sync::{Arc, PoisonError};

use talaria_client_core::{
    engine::{Connection as EngineConnection, Effect},
    event::Event,
};

use super::{Driver, EVENTS_KEPT_MAX, OUTPUT_BYTES_MAX};
use crate::{
    client::{Connection, Me},
    error::SendError,
    events::Room,
    transport::Link,
};

impl Driver {
    /// Does all that the engine asks for now.
    pub(super) fn perform(&mut self) {
        self.tell();
        while let Some(effect) = self.engine.poll_effect() {
            self.take_output();
            self.on_effect(effect);
        }
        self.take_output();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.engine.stats();
    }

    fn take_output(&mut self) {
        let Some(output) = self.link.as_mut().map(Link::output) else { return };
        while output.len() < OUTPUT_BYTES_MAX
            && let Some(frame) = self.engine.poll_transmit()
        {
            output.extend_from_slice(&frame);
        }
    }

    /// Tells listeners what they have room for. The rest waits in the engine, and holds credit back.
    fn tell(&mut self) {
        let now = self.now();
        while self.engine.events_waiting() > 0 {
            match self.shared.listeners.room() {
                Room::Yes => {
                    if self.missed > 0 {
                        self.shared.listeners.tell(&Event::Missed { events: self.missed });
                        self.missed = 0;
                    } else if let Some(event) = self.engine.poll_event(now) {
                        self.shared.listeners.tell(&event);
                    }
                }
                Room::Full(sender) => {
                    self.jobs.full = Some(sender);
                    return;
                }
                Room::NotBegun
                    if self.engine.is_pressed() || self.engine.events_waiting() > EVENTS_KEPT_MAX =>
                {
                    self.engine.poll_event(now);
                    self.missed += 1;
                }
                Room::NotBegun => return,
            }
        }
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::NeedToken => self.jobs.token = Some(self.tokens.ask()),
            Effect::Connect => self.jobs.race = Some(self.dialer.race()),
            Effect::Disconnect(reason) => {
                if let Some(reason) = reason {
                    tracing::warn!(%reason, "the connection was given up");
                    self.shared.on_failure(Some(reason.to_string()));
                }
                self.jobs.race = None;
                self.drop_link();
            }
            Effect::Store(batch) => {
                let store = Arc::clone(&self.store);
                self.jobs.commit = Some(tokio::task::spawn_blocking(move || store.commit(&batch)));
            }
            Effect::Read { conversation, from, entries_max } => {
                let store = Arc::clone(&self.store);
                let read = move || store.entries(conversation, from, entries_max);
                self.jobs.reads.push((conversation, tokio::task::spawn_blocking(read)));
            }
            Effect::Queued(local_id) => {
                if let Some(waiter) = self.waiting.queued.remove(&local_id) {
                    let _ = waiter.send(Ok(local_id));
                }
            }
            Effect::Acknowledged(acknowledged) => {
                if let Some(waiter) = self.waiting.acknowledged.remove(&acknowledged.local_id) {
                    let _ = waiter.send(Ok(acknowledged));
                }
            }
            Effect::Failed(local_id, failure) => {
                if let Some(waiter) = self.waiting.acknowledged.remove(&local_id) {
                    let _ = waiter.send(Err(failure.into()));
                }
            }
            Effect::Answer(ask_id, answer) => {
                if let Some(waiter) = self.waiting.answers.remove(&ask_id) {
                    let _ = waiter.send(answer);
                }
            }
            Effect::Connection(connection) => self.show(connection),
        }
    }

    fn show(&mut self, connection: EngineConnection) {
        let mut transport = None;
        let connection = match connection {
            EngineConnection::Connecting => Connection::Connecting,
            EngineConnection::Online => {
                let me = self.engine.welcome().map(|welcome| Me {
                    user: welcome.user,
                    subject: welcome.subject.clone(),
                    device_number: welcome.device_number,
                });
                *self.shared.me.lock().unwrap_or_else(PoisonError::into_inner) = me;
                transport = self.link.as_ref().map(Link::transport);
                Connection::Online
            }
            EngineConnection::Backoff { until } => Connection::Backoff { until: self.instant(until) },
            EngineConnection::AuthRequired => Connection::AuthRequired,
            EngineConnection::Stopped(reason) => {
                for (_, waiter) in self.waiting.acknowledged.drain() {
                    let _ = waiter.send(Err(SendError::Stopped));
                }
                Connection::Stopped(reason)
            }
        };
        tracing::debug!(?connection, ?transport, "connection");
        *self.shared.transport.lock().unwrap_or_else(PoisonError::into_inner) = transport;
        self.connection.send_replace(connection);
    }
}
