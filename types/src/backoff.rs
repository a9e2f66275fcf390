//! Exponential back-off with jitter, computed without a clock.

use std::time::Duration;

/// Delays between attempts: each doubles up to a limit, with up to a quarter taken off by a seeded generator, so that many
/// nodes that failed together do not return together, and a test sees the same delays each time.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// The delay after the first failure, in case of no jitter.
    first: Duration,
    /// No delay is longer.
    limit: Duration,
    /// The next delay, before jitter is taken off.
    next: Duration,
    /// The state of the generator (xorshift64, never zero).
    seed: u64,
}

impl Backoff {
    /// Delays from `first` to `limit`; the jitter follows from `seed`.
    pub fn new(first: Duration, limit: Duration, seed: u64) -> Self {
        Self { first, limit, next: first, seed: seed | 1 }
    }

    /// The delay before the next attempt.
    pub fn delay(&mut self) -> Duration {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let whole = self.next;
        self.next = (whole * 2).min(self.limit);
        let share = u32::try_from(self.seed % 256).unwrap_or(0);
        whole - whole * share / 1024
    }

    /// Takes note that an attempt has succeeded: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_limit_within_a_quarter_of_jitter_and_begin_again() {
        let (first, limit) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, limit, 7);
        for whole in [100, 200, 400, 800, 1_000, 1_000] {
            let whole = Duration::from_millis(whole);
            let delay = backoff.delay();
            assert!(delay <= whole && delay >= whole * 3 / 4, "{delay:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= first);
    }
}
