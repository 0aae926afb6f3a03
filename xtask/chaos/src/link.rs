//! One direction of one client's line: decides each packet's fate. Pure: time is an argument, and every packet takes
//! the same number of draws, so that the n-th packet's draws depend on the seed and n alone.

use std::time::Duration;

use crate::{faults::Faults, random::Random};

/// What becomes of a packet. Times are since the proxy's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// The line's queue is full.
    QueueFull,
    /// It arrives.
    Delivered {
        /// When.
        at: Duration,
        /// And once more then.
        again_at: Option<Duration>,
        /// Later ones may pass it.
        reordered: bool,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Link {
    random: Random,
    /// The line is busy until then.
    free_at: Duration,
    /// The last packet that was kept in order leaves then.
    last_at: Duration,
}

/// What a packet's draws say.
struct Dice {
    lost: bool,
    reordered: bool,
    duplicated: bool,
    jitter: f64,
}

impl Link {
    /// The line number `stream` of this seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { random: Random::derive(seed, stream), free_at: Duration::ZERO, last_at: Duration::ZERO }
    }

    /// The fate of a packet of `bytes` that comes `now`.
    pub fn decide(&mut self, now: Duration, bytes: usize, faults: &Faults) -> Fate {
        let dice = self.throw(faults);
        let Some(sent_at) = self.pass_rate(now, bytes, faults) else { return Fate::QueueFull };
        // It took its time on the line: it is lost behind it.
        if dice.lost {
            return Fate::Lost;
        }
        let in_order = (sent_at + faults.delay + faults.jitter.mul_f64(dice.jitter)).max(self.last_at);
        let at = if dice.reordered {
            in_order + faults.reorder_by
        } else {
            self.last_at = in_order;
            in_order
        };
        Fate::Delivered { at, again_at: dice.duplicated.then_some(at), reordered: dice.reordered }
    }

    /// For streams, which lose nothing: the first of so many segments that counts as lost, by the dice or by a full
    /// queue, and when the last would arrive if none was.
    pub(crate) fn decide_segments(
        &mut self,
        now: Duration,
        bytes: usize,
        segments: usize,
        faults: &Faults,
    ) -> (Option<usize>, Duration) {
        let mut lost = None;
        let mut jitter = 0.0_f64;
        for segment in 0..segments {
            let dice = self.throw(faults);
            jitter = jitter.max(dice.jitter);
            if dice.lost && lost.is_none() {
                lost = Some(segment);
            }
        }
        let sent_at = match self.pass_rate(now, bytes, faults) {
            Some(sent_at) => sent_at,
            None => {
                lost = Some(0);
                self.occupy(now, bytes, faults)
            }
        };
        let at = (sent_at + faults.delay + faults.jitter.mul_f64(jitter)).max(self.last_at);
        self.last_at = at;
        (lost, at)
    }

    /// What follows does not leave before this.
    pub(crate) fn stall_until(&mut self, at: Duration) -> Duration {
        self.last_at = self.last_at.max(at);
        self.last_at
    }

    fn throw(&mut self, faults: &Faults) -> Dice {
        let mut chance = |percent: f64| self.random.unit() * 100.0 < percent;
        let lost = chance(faults.loss_percent);
        let reordered = chance(faults.reorder_percent);
        let duplicated = chance(faults.duplicate_percent);
        Dice { lost, reordered, duplicated, jitter: self.random.unit() }
    }

    /// When the line has sent it; `None`: its queue is full.
    fn pass_rate(&mut self, now: Duration, bytes: usize, faults: &Faults) -> Option<Duration> {
        if faults.rate_bytes_per_s == 0 {
            return Some(now);
        }
        let rate = faults.rate_bytes_per_s as f64;
        let begins = self.free_at.max(now);
        let waiting_bytes = (begins - now).as_secs_f64() * rate;
        if waiting_bytes + bytes as f64 > (faults.queue_bytes as f64).max(bytes as f64) {
            return None;
        }
        Some(self.occupy(now, bytes, faults))
    }

    /// The line sends it after what it has.
    fn occupy(&mut self, now: Duration, bytes: usize, faults: &Faults) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / faults.rate_bytes_per_s as f64);
        self.free_at = self.free_at.max(now) + takes;
        self.free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn faults() -> Faults {
        Faults {
            delay: 25 * MS,
            jitter: 10 * MS,
            loss_percent: 5.0,
            reorder_percent: 3.0,
            duplicate_percent: 2.0,
            ..Faults::default()
        }
    }

    fn fates(seed: u64, stream: u64, count: u32, faults: &Faults) -> Vec<Fate> {
        let mut link = Link::new(seed, stream);
        (0..count).map(|n| link.decide(n * MS, 1_200, faults)).collect()
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let first = fates(7, 1, 5_000, &faults());
        assert_eq!(first, fates(7, 1, 5_000, &faults()));
        assert_ne!(first, fates(8, 1, 5_000, &faults()));
        assert_ne!(first, fates(7, 2, 5_000, &faults()));
    }

    #[test]
    fn a_changed_fault_leaves_the_other_draws_alone() {
        let lost =
            |fates: &[Fate]| -> Vec<usize> { (0..fates.len()).filter(|n| fates[*n] == Fate::Lost).collect() };
        let quiet = Faults { jitter: Duration::ZERO, reorder_percent: 0.0, ..faults() };
        assert_eq!(lost(&fates(7, 1, 5_000, &faults())), lost(&fates(7, 1, 5_000, &quiet)));
    }

    #[test]
    fn shares_are_about_what_was_asked() {
        let fates = fates(3, 1, 100_000, &faults());
        let share = |of: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count();
        let lost = share(&|fate| *fate == Fate::Lost);
        let reordered = share(&|fate| matches!(fate, Fate::Delivered { reordered: true, .. }));
        let twice = share(&|fate| matches!(fate, Fate::Delivered { again_at: Some(_), .. }));
        assert!((4_700..5_300).contains(&lost), "{lost}");
        assert!((2_600..3_100).contains(&reordered), "{reordered}");
        assert!((1_700..2_100).contains(&twice), "{twice}");
    }

    #[test]
    fn only_what_is_reordered_is_passed() {
        let mut last = Duration::ZERO;
        let mut passed = 0;
        for fate in fates(5, 1, 10_000, &faults()) {
            let Fate::Delivered { at, reordered, .. } = fate else { continue };
            if reordered {
                passed += 1;
                continue;
            }
            assert!(at >= last, "jitter keeps the order");
            last = at;
        }
        assert!(passed > 100);
    }

    #[test]
    fn a_line_has_a_rate_and_a_bounded_queue() {
        let faults = Faults { rate_bytes_per_s: 100_000, queue_bytes: 10_000, ..Faults::default() };
        let mut link = Link::new(1, 1);
        let fates: Vec<_> = (0..20).map(|_| link.decide(Duration::ZERO, 1_000, &faults)).collect();
        let Fate::Delivered { at, .. } = fates[9] else { panic!("{:?}", fates[9]) };
        assert_eq!(at.as_millis(), 100);
        assert!(fates[10..].iter().all(|fate| *fate == Fate::QueueFull), "{fates:?}");
        assert!(matches!(link.decide(50 * MS, 1_000, &faults), Fate::Delivered { .. }), "it drains");
    }
}
