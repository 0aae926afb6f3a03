//! Which transport is used: QUIC and TCP are raced, QUIC with a head start, and what won is remembered for the network.
//! Where UDP does not pass, TCP starts at once the next time; QUIC is tried beside it, so that a network that gets
//! better is found out.

use std::{collections::HashMap, io, time::Duration};

use rustls_pki_types::ServerName;
use talaria_protocol::limits::HANDSHAKE_TIMEOUT;
use tokio::time::{Instant, sleep_until};

use super::{Boxed, Link, Transport, TransportChoice, optional, quic::QuicDialer, tcp::TcpDialer};
use crate::{config::ClientConfig, error::ConfigError};

/// TCP begins so much later than QUIC: what a network without UDP costs the first time.
const HEAD_START: Duration = Duration::from_millis(150);
/// How long QUIC may go on alone once TCP has failed; twice as long after each failed race, up to its own timeout. A
/// server that is down is seen by TCP at once, and by QUIC never.
const QUIC_ALONE: Duration = Duration::from_secs(1);
/// [`QUIC_ALONE`] doubles so often.
const DOUBLINGS_MAX: u32 = 4;
/// Networks that are remembered; with one more, all are forgotten.
const NETWORKS_MAX: usize = 64;

/// Dials one server, and remembers what worked.
pub(crate) struct Dialer {
    choice: TransportChoice,
    quic: QuicDialer,
    tcp: TcpDialer,
    /// The app's name for the network that the device is in.
    network: String,
    won: HashMap<String, Transport>,
    failures: u32,
}

impl Dialer {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, ConfigError> {
        let address = config.server.as_str();
        let invalid = || ConfigError::Server(address.to_string());
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        port.parse::<u16>().map_err(|_| invalid())?;
        let name = config.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']'])).to_string();
        let server_name =
            ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name.clone()))?;
        Ok(Self {
            choice: config.transport,
            quic: QuicDialer::new(address, name, &config.roots, config.early_data)?,
            tcp: TcpDialer::new(address, server_name, &config.roots)?,
            network: String::new(),
            won: HashMap::new(),
            failures: 0,
        })
    }

    /// Begins to connect.
    pub(crate) fn race(&self) -> Race {
        let now = Instant::now();
        let quic = || -> Boxed<_> { Box::pin(self.quic.clone().dial()) };
        let tcp = || -> Boxed<_> { Box::pin(self.tcp.clone().dial()) };
        let (quic, tcp) = match self.choice {
            TransportChoice::Auto => (Some(quic()), Some(tcp())),
            TransportChoice::Quic => (Some(quic()), None),
            TransportChoice::Tcp => (None, Some(tcp())),
        };
        let beaten = self.won.get(&self.network) == Some(&Transport::Tcp);
        let tcp_at = if quic.is_some() && !beaten { now + HEAD_START } else { now };
        let alone = QUIC_ALONE * (1 << self.failures.min(DOUBLINGS_MAX));
        let quic_until = tcp.is_none().then(|| now + HANDSHAKE_TIMEOUT);
        Race { quic, tcp, tcp_at, alone, quic_until, is_given: false, failures: Vec::new() }
    }

    /// The device is in this network now.
    pub(crate) fn on_network(&mut self, network: Option<String>) {
        self.network = network.unwrap_or_default();
        self.failures = 0;
    }

    /// A link of this kind works here.
    pub(crate) fn on_won(&mut self, transport: Transport) {
        self.failures = 0;
        if self.won.len() >= NETWORKS_MAX && !self.won.contains_key(&self.network) {
            self.won.clear();
        }
        self.won.insert(self.network.clone(), transport);
    }

    /// QUIC shook hands and did not serve: the network may let no more through.
    pub(crate) fn on_quic_broken(&mut self) {
        self.won.insert(self.network.clone(), Transport::Tcp);
    }

    /// Neither does, for now.
    pub(crate) fn on_failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }
}

/// One attempt to connect: gives a link; after a provisional one another, or the news that neither is any good. To be
/// dropped once a link is known to be good.
pub(crate) struct Race {
    quic: Option<Boxed<io::Result<Box<super::QuicLink>>>>,
    tcp: Option<Boxed<io::Result<Box<super::TcpLink>>>>,
    tcp_at: Instant,
    alone: Duration,
    /// TCP has failed, or is not raced: QUIC has until then.
    quic_until: Option<Instant>,
    /// A provisional link was given and may still prove good.
    is_given: bool,
    failures: Vec<String>,
}

impl Race {
    /// The next link, or why there is none and the one that was given is no good. Cancel-safe; not to be asked again after an error.
    pub(crate) async fn next(&mut self) -> io::Result<Link> {
        loop {
            if self.quic.is_none() && self.tcp.is_none() && !self.is_given {
                return Err(io::Error::other(self.failures.join("; ")));
            }
            tokio::select! {
                biased;
                dialled = optional(&mut self.quic) => {
                    self.quic = None;
                    match dialled {
                        Ok(link) => {
                            self.is_given = true;
                            return Ok(Link::Quic(link));
                        }
                        Err(error) => self.on_quic_failed(&error.to_string()),
                    }
                }
                dialled = from(self.tcp_at, &mut self.tcp) => {
                    self.tcp = None;
                    match dialled {
                        Ok(link) => return Ok(Link::Tcp(link)),
                        Err(error) => {
                            self.failures.push(format!("TCP: {error}"));
                            self.quic_until = Some(Instant::now() + self.alone);
                        }
                    }
                }
                () = until(self.quic_until), if self.quic.is_some() || self.is_given => {
                    self.quic = None;
                    self.on_quic_failed("no answer");
                }
            }
        }
    }

    /// A provisional link has broken.
    pub(crate) fn on_quic_failed(&mut self, why: &str) {
        self.is_given = false;
        self.failures.push(format!("QUIC: {why}"));
        self.tcp_at = Instant::now();
    }
}

async fn from<T>(at: Instant, future: &mut Option<Boxed<T>>) -> T {
    if at > Instant::now() {
        sleep_until(at).await;
    }
    optional(future).await
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{TokenProvider, new_device_id};

    fn dialer(choice: TransportChoice) -> Dialer {
        let config = ClientConfig::new("127.0.0.1:1", new_device_id(), TokenProvider::fixed("t"));
        Dialer::new(&config.transport(choice)).unwrap()
    }

    fn tcp_starts_at_once(dialer: &Dialer) -> bool {
        dialer.race().tcp_at <= Instant::now()
    }

    #[tokio::test]
    async fn what_won_is_remembered_for_the_network() {
        let mut dialer = dialer(TransportChoice::Auto);
        assert!(!tcp_starts_at_once(&dialer), "QUIC has a head start");
        dialer.on_won(Transport::Tcp);
        assert!(tcp_starts_at_once(&dialer));
        dialer.on_network(Some("wifi".into()));
        assert!(!tcp_starts_at_once(&dialer), "another network");
        dialer.on_won(Transport::Quic);
        dialer.on_network(None);
        assert!(tcp_starts_at_once(&dialer), "the one from before");
        dialer.on_won(Transport::Quic);
        assert!(!tcp_starts_at_once(&dialer), "which got better");
        for n in 0..2 * NETWORKS_MAX {
            dialer.on_network(Some(n.to_string()));
            dialer.on_won(Transport::Tcp);
            assert!(dialer.won.len() <= NETWORKS_MAX);
        }
    }

    #[tokio::test]
    async fn one_transport_alone_has_no_race() {
        let race = dialer(TransportChoice::Tcp).race();
        assert!(race.quic.is_none() && race.tcp_at <= Instant::now());
        let race = dialer(TransportChoice::Quic).race();
        assert!(race.tcp.is_none() && race.quic_until.is_some());
    }

    #[tokio::test]
    async fn quic_alone_has_longer_after_each_failure() {
        let mut dialer = dialer(TransportChoice::Auto);
        for seconds in [1, 2, 4, 8, 16, 16] {
            assert_eq!(dialer.race().alone, Duration::from_secs(seconds));
            dialer.on_failed();
        }
        dialer.on_network(None);
        assert_eq!(dialer.race().alone, QUIC_ALONE);
    }
}
