//! The QUIC side of a shard: looks at first packets, finds a place, starts the connection's task. Never stops for what one
//! connection does; an endpoint that the system takes away is opened again.

use std::{rc::Rc, sync::Arc, time::Instant};

use quinn::{Endpoint, Incoming};
use tokio::sync::watch;

use super::{
    Endpoints,
    connection::Connection,
    gate::{Gate, Verdict},
    limits::{HANDSHAKE_COST, REOPEN_PAUSE},
};
use crate::{lifecycle::Phase, metrics::DropReason, session_driver::SessionContext, transport::Admission};

/// What accepting needs.
pub(crate) struct QuicAcceptor {
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) shard: u16,
    /// Of the next endpoint's connection ids.
    pub(crate) seed: [u8; 32],
    pub(crate) admission: Rc<Admission>,
    pub(crate) context: Rc<SessionContext>,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl QuicAcceptor {
    /// Accepts until the node drains; then new connections are refused, and the old ones go on.
    pub(crate) async fn run(mut self) {
        let mut gate = Gate::new(Instant::now(), self.context.metrics.quic_handshakes.clone());
        loop {
            match self.endpoints.open(self.shard, self.seed) {
                Ok(endpoint) => self.accept(&endpoint, &mut gate).await,
                Err(error) => tracing::error!(%error, "a QUIC endpoint could not be opened"),
            }
            // The system failed its socket: its connections are gone, and their clients come back.
            self.seed = *blake3::hash(&self.seed).as_bytes();
            tracing::error!(shard = self.shard, "a QUIC endpoint is gone; it is opened again");
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }

    /// Until the endpoint is lost.
    async fn accept(&self, endpoint: &Endpoint, gate: &mut Gate) {
        while let Some(incoming) = endpoint.accept().await {
            if *self.phase.borrow() != Phase::Serving {
                incoming.refuse();
                continue;
            }
            let has_room = self.admission.has_room();
            match gate.judge(Instant::now(), has_room, incoming.remote_address_validated()) {
                Verdict::Accept => self.start(incoming, gate),
                Verdict::Retry => {
                    self.context.metrics.quic_retried.increment(1);
                    if let Err(error) = incoming.retry() {
                        error.into_incoming().refuse();
                    }
                }
                Verdict::Refuse => {
                    self.context.metrics.quic_turned_away.increment(1);
                    incoming.refuse();
                }
                Verdict::Ignore => {
                    self.context.metrics.quic_turned_away.increment(1);
                    incoming.ignore();
                }
            }
        }
    }

    fn start(&self, incoming: Incoming, gate: &Gate) {
        let metrics = &self.context.metrics;
        metrics.accepted.increment(1);
        let proven = incoming.remote_address_validated();
        let peer = proven.then(|| incoming.remote_address().ip());
        let Some(place) = self.admission.admit(peer) else { return incoming.refuse() };
        place.has_begun(HANDSHAKE_COST);
        // A server can always begin to speak before the handshake is complete.
        let started = incoming.accept().map(quinn::Connecting::into_0rtt);
        let Ok(Ok((link, done))) = started else {
            return metrics.connection_dropped(DropReason::Handshake);
        };
        let connection = Connection::new(
            self.context.clone(),
            link,
            done,
            gate.enter(),
            (place, proven),
            self.phase.clone(),
        );
        tokio::task::spawn_local(connection.run());
    }
}
