//! How many connections there may be, and which one goes when there are too many: the oldest without a session. Those
//! with one are never dropped for a new one.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use tokio::sync::Notify;

use crate::{
    limits::CONNECTIONS_WITHOUT_HELLO_MAX,
    metrics::{DropReason, Metrics},
};

/// See the module. Of one shard.
pub(crate) struct Admission {
    state: RefCell<State>,
    connections_max: usize,
    without_hello_max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    connections: usize,
    last: u64,
    /// In the order of their arrival.
    without_hello: BTreeMap<u64, Rc<Notify>>,
}

/// A connection's place, given back when it is dropped.
pub(crate) struct Place {
    admission: Rc<Admission>,
    number: u64,
    evicted: Rc<Notify>,
}

impl Admission {
    /// At most this many connections, [`CONNECTIONS_WITHOUT_HELLO_MAX`] of them without a session.
    pub(crate) fn new(connections_max: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        Self::with_limits(connections_max, CONNECTIONS_WITHOUT_HELLO_MAX, metrics)
    }

    fn with_limits(connections_max: usize, without_hello_max: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self { state: RefCell::default(), connections_max, without_hello_max, metrics })
    }

    /// Connections that have a place.
    pub(crate) fn connections(&self) -> usize {
        self.state.borrow().connections
    }

    /// A place for a new connection; `None`: there is none, and none can be made.
    pub(crate) fn admit(self: &Rc<Self>) -> Option<Place> {
        let mut state = self.state.borrow_mut();
        let reason = if state.connections >= self.connections_max {
            Some(DropReason::ConnectionsMax)
        } else {
            (state.without_hello.len() >= self.without_hello_max).then_some(DropReason::WithoutHelloMax)
        };
        if let Some(reason) = reason {
            self.metrics.connection_dropped(reason);
            let (_, evicted) = state.without_hello.pop_first()?;
            evicted.notify_one();
        }
        state.last += 1;
        state.connections += 1;
        let (number, evicted) = (state.last, Rc::new(Notify::new()));
        state.without_hello.insert(number, evicted.clone());
        self.show(&state);
        Some(Place { admission: self.clone(), number, evicted })
    }

    /// Drops the oldest without a session: the system itself has no place left.
    pub(crate) fn make_place(&self, reason: DropReason) {
        self.metrics.connection_dropped(reason);
        if let Some((_, evicted)) = self.state.borrow_mut().without_hello.pop_first() {
            evicted.notify_one();
        }
    }

    fn show(&self, state: &State) {
        self.metrics.connections.set(state.connections as f64);
        self.metrics.connections_without_hello.set(state.without_hello.len() as f64);
    }
}

impl Place {
    /// It has a session now.
    pub(crate) fn has_session(&self) {
        let mut state = self.admission.state.borrow_mut();
        if state.without_hello.remove(&self.number).is_some() {
            self.admission.show(&state);
        }
    }

    /// Ends when the place was given to another. Cancel-safe.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.borrow_mut();
        state.connections -= 1;
        state.without_hello.remove(&self.number);
        self.admission.show(&state);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn is_evicted(place: &Place) -> bool {
        use std::{
            future::Future,
            pin::pin,
            task::{Context, Waker},
        };
        pin!(place.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_without_a_session_goes_first_and_those_with_one_stay() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let admission = Admission::with_limits(3, 2, metrics.clone());
        let first = admission.admit().unwrap();
        first.has_session();
        let (second, third) = (admission.admit().unwrap(), admission.admit().unwrap());
        let fourth = admission.admit().unwrap();
        assert!(is_evicted(&second) && !is_evicted(&first) && !is_evicted(&third));
        drop(second);
        third.has_session();
        fourth.has_session();
        assert!(admission.admit().is_none(), "all have sessions");
        drop((first, third, fourth));
        assert_eq!(admission.connections(), 0);
        let text = metrics.render();
        assert!(text.contains("talaria_connections_dropped_total{reason=\"connections_max\"} 2"), "{text}");
    }
}
