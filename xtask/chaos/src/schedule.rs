//! What waits for its time, in a heap: one for all packets, with one timer.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// See the module. Bounded by `max`.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    heap: BinaryHeap<Item<T>>,
    max: usize,
    last: u64,
}

#[derive(Debug)]
struct Item<T> {
    at: Duration,
    /// Of equal times, the first in leaves first.
    number: u64,
    what: T,
}

impl<T> Schedule<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self { heap: BinaryHeap::new(), max, last: 0 }
    }

    /// Whether it was taken, and if so whether it is the first to leave now.
    pub(crate) fn push(&mut self, at: Duration, what: T) -> Option<bool> {
        if self.heap.len() >= self.max {
            return None;
        }
        self.last += 1;
        let is_first = self.next_at().is_none_or(|first| at < first);
        self.heap.push(Item { at, number: self.last, what });
        Some(is_first)
    }

    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|item| item.at)
    }

    /// What is due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|item| item.what)
    }
}

impl<T> Ord for Item<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Item<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_by_time_then_by_arrival_and_is_bounded() {
        let ms = Duration::from_millis;
        let mut schedule = Schedule::new(4);
        assert_eq!(schedule.push(ms(20), 'c'), Some(true));
        assert_eq!(schedule.push(ms(10), 'a'), Some(true));
        assert_eq!(schedule.push(ms(10), 'b'), Some(false));
        assert_eq!(schedule.push(ms(30), 'd'), Some(false));
        assert_eq!(schedule.push(ms(5), 'e'), None, "full");
        assert_eq!(schedule.pop(ms(9)), None);
        let out: String = std::iter::from_fn(|| schedule.pop(ms(25))).collect();
        assert_eq!(out, "abc");
        assert_eq!(schedule.next_at(), Some(ms(30)));
    }
}
