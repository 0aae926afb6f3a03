//! How many connections there may be, and which one goes when there are too many: the oldest without a session. Those
//! with one are never dropped for a new one. The count is the node's; a shard has its own of those that are with it, and of
//! its handshakes, which are paced.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::addresses::{AddressLimits, Addresses, Prefix};
use crate::{
    limits::{BURST, CONNECTIONS_WITHOUT_HELLO_MAX, HANDSHAKE_GRACE, HANDSHAKES_MAX},
    metrics::{DropReason, Metrics, Share},
    pace::TokenBucket,
};

/// Of a node. Its lock is taken once when a connection comes, when it has a session, and when it goes.
pub(crate) struct NodeAdmission {
    state: Mutex<State>,
    connections_max: usize,
    without_hello_max: usize,
    metrics: Arc<Metrics>,
}

struct State {
    connections: usize,
    last: u64,
    /// In the order of their arrival.
    without_hello: BTreeMap<u64, Stranger>,
    addresses: Addresses,
}

struct Stranger {
    evict: Arc<Notify>,
    address: Option<Prefix>,
}

impl NodeAdmission {
    /// At most this many connections, [`CONNECTIONS_WITHOUT_HELLO_MAX`] of them without a session.
    pub(crate) fn new(connections_max: usize, addresses: AddressLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::with_limits(connections_max, CONNECTIONS_WITHOUT_HELLO_MAX, addresses, metrics)
    }

    fn with_limits(
        connections_max: usize,
        without_hello_max: usize,
        addresses: AddressLimits,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let addresses = Addresses::new(addresses);
        let state = State { connections: 0, last: 0, without_hello: BTreeMap::new(), addresses };
        Arc::new(Self { state: Mutex::new(state), connections_max, without_hello_max, metrics })
    }

    /// Connections of the node.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &State) {
        self.metrics.connections.set(state.connections as f64);
        self.metrics.connections_without_hello.set(state.without_hello.len() as f64);
    }

    /// A number and what evicts it; `None`: there is no place, and none can be made. Without an address none is charged.
    fn admit(&self, address: Option<IpAddr>) -> Option<(u64, Arc<Notify>)> {
        let mut state = self.lock();
        let address = match address.map(|address| state.addresses.open(address, Instant::now())) {
            None => None,
            Some(Ok(address)) => address,
            Some(Err(reason)) => {
                self.metrics.connection_dropped(reason);
                return None;
            }
        };
        let reason = if state.connections >= self.connections_max {
            Some(DropReason::ConnectionsMax)
        } else {
            (state.without_hello.len() >= self.without_hello_max).then_some(DropReason::WithoutHelloMax)
        };
        if let Some(reason) = reason {
            self.metrics.connection_dropped(reason);
            if !state.evict_oldest() {
                address.into_iter().for_each(|address| state.addresses.settle(address));
                return None;
            }
        }
        state.last += 1;
        state.connections += 1;
        let (number, evict) = (state.last, Arc::new(Notify::new()));
        state.without_hello.insert(number, Stranger { evict: evict.clone(), address });
        self.show(&state);
        Some((number, evict))
    }

    /// Charges an address that has proved to be its connection's. `false`: it has too many.
    fn prove(&self, number: u64, address: IpAddr) -> bool {
        let mut state = self.lock();
        match state.addresses.open(address, Instant::now()) {
            Err(reason) => {
                self.metrics.connection_dropped(reason);
                return false;
            }
            Ok(None) => {}
            Ok(Some(prefix)) => match state.without_hello.get_mut(&number) {
                Some(stranger) => stranger.address = Some(prefix),
                None => state.addresses.settle(prefix),
            },
        }
        true
    }

    fn settle(&self, number: u64, is_gone: bool) {
        let mut state = self.lock();
        state.connections -= usize::from(is_gone);
        state.settle(number);
        self.show(&state);
    }
}

impl State {
    fn settle(&mut self, number: u64) {
        if let Some(Stranger { address: Some(address), .. }) = self.without_hello.remove(&number) {
            self.addresses.settle(address);
        }
    }

    fn evict_oldest(&mut self) -> bool {
        let Some((number, evict)) =
            self.without_hello.first_key_value().map(|(n, who)| (*n, who.evict.clone()))
        else {
            return false;
        };
        self.settle(number);
        evict.notify_one();
        true
    }
}

/// See the module. Of one shard.
pub(crate) struct Admission {
    node: Arc<NodeAdmission>,
    connections: Cell<usize>,
    pace: RefCell<TokenBucket>,
    /// About in the order of their beginning.
    handshakes: RefCell<BTreeMap<u64, Handshake>>,
    handshakes_share: Share,
    handshake_ended: Notify,
}

struct Handshake {
    since: Instant,
    evict: Arc<Notify>,
}

/// A connection's place, given back when it is dropped.
pub(crate) struct Place {
    admission: Rc<Admission>,
    number: u64,
    evicted: Arc<Notify>,
    has_begun: Cell<bool>,
    has_session: Cell<bool>,
}

impl Admission {
    /// Of a shard that takes so many new connections a second.
    pub(crate) fn new(node: Arc<NodeAdmission>, handshakes_per_second: u32) -> Rc<Self> {
        let burst = f64::from(handshakes_per_second) * BURST.as_secs_f64();
        Rc::new(Self {
            connections: Cell::new(0),
            pace: RefCell::new(TokenBucket::new(handshakes_per_second, burst, Instant::now())),
            handshakes: RefCell::default(),
            handshakes_share: Share::new(&node.metrics.handshakes),
            handshake_ended: Notify::new(),
            node,
        })
    }

    /// Connections that have a place at this shard.
    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Connections of the whole node.
    pub(crate) fn node_connections(&self) -> usize {
        self.node.connections()
    }

    /// Waits until one more may be accepted; meanwhile they wait in the system's queue. Cancel-safe.
    pub(crate) async fn turn(&self) {
        let mut is_paced = false;
        while let Some(wait) = self.wait_for_turn(Instant::now()) {
            if !std::mem::replace(&mut is_paced, true) {
                self.node.metrics.handshakes_paced.increment(1);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.handshake_ended.notified() => {}
            }
        }
    }

    /// One more may begin its handshake now: for transports whose newcomers do not wait in the system.
    pub(crate) fn has_room(&self) -> bool {
        self.wait_for_turn(Instant::now()).is_none()
    }

    fn wait_for_turn(&self, now: Instant) -> Option<Duration> {
        if let Some(wait) = self.pace.borrow_mut().wait(now) {
            return Some(wait);
        }
        let mut handshakes = self.handshakes.borrow_mut();
        if handshakes.len() < HANDSHAKES_MAX {
            return None;
        }
        let oldest = handshakes.first_entry()?;
        let age = now.saturating_duration_since(oldest.get().since);
        if age < HANDSHAKE_GRACE {
            return Some(HANDSHAKE_GRACE - age);
        }
        self.node.metrics.connection_dropped(DropReason::HandshakesMax);
        oldest.remove().evict.notify_one();
        None
    }

    /// A place for a new connection; `None`: there is none, and none can be made. Of a peer whose address is not proven
    /// yet, and may be somebody else's, no address is given: [`Place::has_proved`] follows.
    pub(crate) fn admit(self: &Rc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let (number, evicted) = self.node.admit(address)?;
        self.connections.set(self.connections.get() + 1);
        let (has_begun, has_session) = (Cell::new(false), Cell::new(false));
        Some(Place { admission: self.clone(), number, evicted, has_begun, has_session })
    }

    /// Drops the oldest without a session: the system itself has no place left.
    pub(crate) fn make_place(&self, reason: DropReason) {
        self.node.metrics.connection_dropped(reason);
        self.node.lock().evict_oldest();
    }
}

impl Place {
    /// Its handshake begins: something came. Before that it costs next to nothing, and holds up nobody.
    /// It counts as so many, by what it costs.
    pub(crate) fn has_begun(&self, cost: u32) {
        if self.has_begun.replace(true) {
            return;
        }
        let (admission, now) = (&self.admission, Instant::now());
        admission.pace.borrow_mut().owe(now, cost);
        let mut handshakes = admission.handshakes.borrow_mut();
        handshakes.insert(self.number, Handshake { since: now, evict: self.evicted.clone() });
        admission.handshakes_share.set(handshakes.len());
    }

    /// Its handshake is complete.
    pub(crate) fn has_shaken_hands(&self) {
        let mut handshakes = self.admission.handshakes.borrow_mut();
        if handshakes.remove(&self.number).is_some() {
            self.admission.handshakes_share.set(handshakes.len());
            self.admission.handshake_ended.notify_one();
        }
    }

    /// Its address is its own. `false`: that has more connections than it may, and this one must go.
    pub(crate) fn has_proved(&self, address: IpAddr) -> bool {
        self.admission.node.prove(self.number, address)
    }

    /// It has a session now.
    pub(crate) fn has_session(&self) {
        if !self.has_session.replace(true) {
            self.admission.node.settle(self.number, false);
        }
    }

    /// Ends when the place was given to another. Cancel-safe.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.has_shaken_hands();
        self.admission.connections.set(self.admission.connections.get() - 1);
        self.admission.node.settle(self.number, true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        future::Future,
        net::Ipv4Addr,
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const GENEROUS: AddressLimits =
        AddressLimits { per_second: 10_000, without_hello_max: 10_000, loopback: false };

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_without_a_session_goes_first_and_those_with_one_stay() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let node = NodeAdmission::with_limits(3, 2, GENEROUS, metrics.clone());
        // The bounds are the node's, whichever shard a connection comes to.
        let shards = [Admission::new(node.clone(), 1_000), Admission::new(node.clone(), 1_000)];
        let admit = |shard: usize| shards[shard].admit(Some(ADDRESS));
        let first = admit(0).unwrap();
        first.has_session();
        let (second, third) = (admit(0).unwrap(), admit(1).unwrap());
        let fourth = admit(1).unwrap();
        assert!(is_ready(second.evicted()) && !is_ready(first.evicted()) && !is_ready(third.evicted()));
        drop(second);
        third.has_session();
        fourth.has_session();
        assert!(admit(0).is_none(), "all have sessions");
        assert_eq!((shards[0].connections(), shards[1].connections(), node.connections()), (1, 2, 3));
        drop((first, third, fourth));
        assert_eq!((shards[0].connections(), shards[1].connections(), node.connections()), (0, 0, 0));
        let text = metrics.render();
        assert!(text.contains("talaria_connections_dropped_total{reason=\"connections_max\"} 2"), "{text}");
    }

    #[test]
    fn accepting_waits_for_its_rate_and_for_the_handshakes_in_progress() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let node = NodeAdmission::new(10_000, GENEROUS, metrics.clone());
        let admission = Admission::new(node, 10);
        let begun = || {
            let place = admission.admit(Some(ADDRESS)).unwrap();
            place.has_begun(1);
            place
        };
        let silent: Vec<_> = (0..100).map(|_| admission.admit(Some(ADDRESS)).unwrap()).collect();
        let now = Instant::now();
        assert_eq!(admission.wait_for_turn(now), None, "the silent hold up nobody");
        let places = [begun(), begun()];
        assert!(admission.wait_for_turn(now).is_some(), "ten a second, two at once");
        assert_eq!(admission.wait_for_turn(now + Duration::from_millis(300)), None);
        drop((places, silent));

        let mut places: Vec<_> = (0..HANDSHAKES_MAX).map(|_| begun()).collect();
        let later = Instant::now() + HANDSHAKE_GRACE / 2;
        admission.pace.replace(TokenBucket::new(10, 2.0, later));
        assert!(admission.wait_for_turn(later).is_some());
        places[7].has_shaken_hands();
        assert_eq!(admission.wait_for_turn(later), None);
        places.push(begun());
        let late = Instant::now() + HANDSHAKE_GRACE;
        assert_eq!(admission.wait_for_turn(late), None, "the oldest has had its time");
        assert!(is_ready(places[0].evicted()) && !is_ready(places[1].evicted()));
        drop(places);
        assert!(metrics.render().contains("talaria_handshakes_in_progress 0"));
    }
}
