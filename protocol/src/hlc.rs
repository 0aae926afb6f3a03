//! Hybrid logical clock stamps: 48-bit milliseconds and a 16-bit counter in one u64. For display and recency
//! only; nothing is ever ordered by them.

/// One stamp; the greater is the later, as far as clocks can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Milliseconds since 1970.
    pub const fn unix_ms(self) -> u64 {
        self.0 >> 16
    }
    /// The first stamp of a millisecond.
    pub const fn from_ms(unix_ms: u64) -> Self {
        Self(unix_ms << 16)
    }
    /// The next stamp after `self` at this time: never goes back, whatever the clock does.
    #[must_use]
    pub fn tick(self, now_ms: u64) -> Self {
        Self((now_ms << 16).max(self.0 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Hlc;

    #[test]
    fn never_goes_back() {
        let a = Hlc::default().tick(1_000);
        let b = a.tick(500);
        assert!(b > a);
        assert_eq!(b.unix_ms(), 1_000);
        assert_eq!(b.tick(2_000), Hlc::from_ms(2_000));
    }
}
