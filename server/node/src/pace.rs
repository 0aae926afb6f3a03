//! How fast strangers are taken, so that those who have a session do not notice a storm of them: a bucket of tokens for a
//! rate ([`TokenBucket`]), the openings of sessions ([`Openings`]), and turns for the work that strangers make ([`Turns`]).

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore};

use crate::limits::{RETRY_AFTER_MS_MAX, RETRY_AFTER_MS_MIN, STRANGER_STEPS_PER_TURN};

/// So many a second, and a burst of what was not used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// Full. A burst is at least 1.
    pub(crate) fn new(per_second: u32, burst: f64, now: Instant) -> Self {
        let burst = burst.max(1.0);
        Self { per_second: f64::from(per_second.max(1)), burst, tokens: burst, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
    }

    /// How long until there is a token.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }

    /// Takes a token. `false`: there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let has_one = self.wait(now).is_none();
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// Takes tokens that may not be there yet: the next ones wait for them.
    pub(crate) fn owe(&mut self, now: Instant, tokens: u32) {
        self.refill(now);
        self.tokens -= f64::from(tokens);
    }

    /// Nothing of it is in use.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }
}

/// Sessions that a shard opens in a second. Who comes too early is told when to come again: at a time spread evenly over
/// what it takes to open all who were told so.
pub(crate) struct Openings {
    state: RefCell<(TokenBucket, Owed)>,
    per_second: u32,
}

/// Who was told to come again and has not, about: it melts at the rate of openings.
struct Owed {
    count: f64,
    at: Instant,
}

impl Openings {
    pub(crate) fn new(per_second: u32, burst: Duration, now: Instant) -> Self {
        let bucket = TokenBucket::new(per_second, f64::from(per_second) * burst.as_secs_f64(), now);
        Self { state: RefCell::new((bucket, Owed { count: 0.0, at: now })), per_second: per_second.max(1) }
    }

    /// One more now.
    ///
    /// # Errors
    /// Not now but after so many ms; `draw` below a bound is random.
    pub(crate) fn admit(&self, now: Instant, draw: impl FnOnce(u32) -> u32) -> Result<(), u32> {
        let (bucket, owed) = &mut *self.state.borrow_mut();
        if bucket.take(now) {
            return Ok(());
        }
        let rate = f64::from(self.per_second);
        owed.count =
            (owed.count - now.saturating_duration_since(owed.at).as_secs_f64() * rate).max(0.0) + 1.0;
        owed.at = now;
        let spread_ms = (owed.count / rate * 1000.0).ceil() as u32;
        Err(RETRY_AFTER_MS_MIN + draw(spread_ms.clamp(1_000, RETRY_AFTER_MS_MAX)))
    }
}

/// Turns of a shard's strangers: so many steps, then everything else that is ready has its turn.
pub(crate) struct Turns {
    steps: Semaphore,
    used: Notify,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { steps: Semaphore::new(STRANGER_STEPS_PER_TURN), used: Notify::new() }
    }

    /// Waits for a step, in the order of asking. Cancel-safe.
    pub(crate) async fn step(&self) {
        // It is never closed.
        if let Ok(step) = self.steps.acquire().await {
            step.forget();
        }
        self.used.notify_one();
    }

    /// Gives new steps when the rest of the shard had its turn. Runs as long as the shard.
    pub(crate) async fn run(&self) {
        loop {
            self.used.notified().await;
            // Comes back behind all tasks that are ready, and behind a look at the sockets.
            tokio::task::yield_now().await;
            self.steps.add_permits(STRANGER_STEPS_PER_TURN.saturating_sub(self.steps.available_permits()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, 5.0, start);
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 5);
        let wait = bucket.wait(start).map(|wait| wait.as_millis());
        assert_eq!(wait, Some(10));
        let later = start + Duration::from_millis(25);
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 2);
        assert!(!bucket.is_full(later) && bucket.is_full(later + Duration::from_secs(1)));
        assert_eq!((0..10).filter(|_| bucket.take(later + Duration::from_secs(60))).count(), 5, "no more");
    }

    #[test]
    fn who_comes_too_early_comes_again_over_the_time_that_all_need() {
        let start = Instant::now();
        let openings = Openings::new(1_000, Duration::from_millis(10), start);
        // The latest time that each may be told.
        let told: Vec<u32> =
            (0..20_010).filter_map(|_| openings.admit(start, |bound| bound - 1).err()).collect();
        assert_eq!(told.len(), 20_000, "ten at once");
        assert_eq!((told[0], told[19_999]), (1_099, 20_099), "1,000 a second: 20,000 need 20 s");
        let half = start + Duration::from_secs(10);
        for _ in 0..10 {
            assert_eq!(openings.admit(half, |_| 0), Ok(()));
        }
        let told = openings.admit(half, |bound| bound - 1).err();
        assert!(told.is_some_and(|ms| (10_000..10_200).contains(&ms)), "half of them have come: {told:?}");
    }

    #[test]
    fn between_the_steps_of_strangers_others_have_their_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tasks = tokio::task::LocalSet::new();
        let turns = std::rc::Rc::new(Turns::new());
        let log = std::rc::Rc::new(RefCell::new(Vec::new()));
        let (steps, entries) = (turns.clone(), log.clone());
        tasks.spawn_local(async move { steps.run().await });
        for _ in 0..STRANGER_STEPS_PER_TURN * 5 {
            let (steps, entries) = (turns.clone(), log.clone());
            tasks.spawn_local(async move {
                steps.step().await;
                entries.borrow_mut().push("stranger");
            });
        }
        let others = tasks.run_until(async move {
            for _ in 0..40 {
                entries.borrow_mut().push("other");
                tokio::task::yield_now().await;
            }
        });
        if let Ok(runtime) = runtime {
            runtime.block_on(others);
        }
        let log = log.borrow();
        assert_eq!(log.iter().filter(|who| **who == "stranger").count(), STRANGER_STEPS_PER_TURN * 5);
        let longest = log.split(|who| *who == "other").map(<[&str]>::len).max();
        assert!(longest <= Some(2 * STRANGER_STEPS_PER_TURN), "{log:?}");
    }
}
