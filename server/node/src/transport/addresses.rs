//! What each address of clients has: connections without Hello, and how many it opened of late. An address is an IPv4 /32 or
//! an IPv6 /64, since whoever has one of a /64 has them all. Many people may be behind one: the defaults are generous.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use crate::{limits::ADDRESSES_MAX, metrics::DropReason, pace::TokenBucket};

/// What an address may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressLimits {
    /// New connections in a second; ten times as many at once.
    pub(crate) per_second: u32,
    /// Connections without Hello.
    pub(crate) without_hello_max: u32,
    /// Loopback addresses too.
    pub(crate) loopback: bool,
}

/// A counted address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(u64);

impl Prefix {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No IPv6 /64 in use begins with 64 bits like these.
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

struct Address {
    without_hello: u32,
    openings: TokenBucket,
}

/// See the module. Of a node.
pub(crate) struct Addresses {
    limits: AddressLimits,
    counted: HashMap<Prefix, Address>,
}

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        Self { limits, counted: HashMap::new() }
    }

    /// A new connection. `None`: its address is not counted.
    ///
    /// # Errors
    /// Its address has too many.
    pub(crate) fn open(&mut self, address: IpAddr, now: Instant) -> Result<Option<Prefix>, DropReason> {
        if address.to_canonical().is_loopback() && !self.limits.loopback {
            return Ok(None);
        }
        if self.counted.len() >= ADDRESSES_MAX {
            self.forget(now);
        }
        let prefix = Prefix::of(address);
        let AddressLimits { per_second, without_hello_max, .. } = self.limits;
        let counted = self.counted.entry(prefix).or_insert_with(|| Address {
            without_hello: 0,
            openings: TokenBucket::new(per_second, f64::from(per_second) * 10.0, now),
        });
        if counted.without_hello >= without_hello_max {
            return Err(DropReason::AddressWithoutHello);
        }
        if !counted.openings.take(now) {
            return Err(DropReason::AddressRate);
        }
        counted.without_hello += 1;
        Ok(Some(prefix))
    }

    /// One of its connections has a session, or is gone before it had one.
    pub(crate) fn settle(&mut self, prefix: Prefix) {
        if let Some(counted) = self.counted.get_mut(&prefix) {
            counted.without_hello = counted.without_hello.saturating_sub(1);
        }
    }

    /// Makes room: those who are at rest go, and where that is not enough, all without a connection that waits for Hello.
    fn forget(&mut self, now: Instant) {
        self.counted.retain(|_, address| address.without_hello > 0 || !address.openings.is_full(now));
        if self.counted.len() >= ADDRESSES_MAX {
            self.counted.retain(|_, address| address.without_hello > 0);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addresses(per_second: u32, without_hello_max: u32) -> Addresses {
        Addresses::new(AddressLimits { per_second, without_hello_max, loopback: false })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_a_rate_and_a_bound_and_others_do_not_notice() {
        let now = Instant::now();
        let mut addresses = addresses(2, 1_000);
        let open = |addresses: &mut Addresses, text, at| addresses.open(ip(text), at).map(|_| ());
        for _ in 0..20 {
            assert_eq!(open(&mut addresses, "192.0.2.1", now), Ok(()));
        }
        assert_eq!(open(&mut addresses, "192.0.2.1", now), Err(DropReason::AddressRate));
        assert_eq!(open(&mut addresses, "192.0.2.2", now), Ok(()));
        assert_eq!(open(&mut addresses, "::ffff:192.0.2.1", now), Err(DropReason::AddressRate), "the same");
        assert_eq!(open(&mut addresses, "192.0.2.1", now + Duration::from_secs(1)), Ok(()));

        let mut addresses = self::addresses(100, 2);
        let first = addresses.open(ip("2001:db8::1"), now).unwrap().unwrap();
        assert_eq!(open(&mut addresses, "2001:db8::2", now), Ok(()), "of the same /64");
        assert_eq!(open(&mut addresses, "2001:db8::3", now), Err(DropReason::AddressWithoutHello));
        assert_eq!(open(&mut addresses, "2001:db8:0:1::3", now), Ok(()), "of another");
        addresses.settle(first);
        assert_eq!(open(&mut addresses, "2001:db8::3", now), Ok(()));
        assert_eq!(addresses.open(ip("127.0.0.1"), now), Ok(None));
    }

    #[test]
    fn there_are_never_more_addresses_than_the_bound() {
        let now = Instant::now();
        let mut addresses = addresses(1, 10);
        let held = addresses.open(ip("192.0.2.1"), now).unwrap().unwrap();
        for n in 0..2 * ADDRESSES_MAX as u32 {
            let prefix = addresses.open(IpAddr::V4(n.into()), now).unwrap().unwrap();
            addresses.settle(prefix);
            assert!(addresses.counted.len() <= ADDRESSES_MAX);
        }
        assert!(addresses.counted.contains_key(&held), "who has a connection is not forgotten");
    }
}
