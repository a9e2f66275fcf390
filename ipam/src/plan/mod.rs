//! What to tell and to ask the shared store, and when: claims of blocks, whether it agrees on them, and the published copy
//! of the endpoints. Pure: these plans are data that [`crate::run`] carries out.

pub(crate) mod claims;
pub(crate) mod confirmations;
pub(crate) mod publications;

use std::time::{Duration, Instant};

use types::backoff::Backoff;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// When something that failed may be tried again.
#[derive(Debug)]
pub(crate) struct Retry {
    /// The next attempt is not made before this; none: it may be made at once.
    at: Option<Instant>,
    /// How long the next pause is.
    backoff: Backoff,
}

impl Retry {
    pub(crate) fn new(seed: u64) -> Self {
        Self { at: None, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, seed) }
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.at = Some(now + self.backoff.delay());
    }

    pub(crate) fn succeeded(&mut self) {
        self.at = None;
        self.backoff.reset();
    }

    /// Somebody waits for the next attempt: it may be made at once.
    pub(crate) fn hurry(&mut self) {
        self.at = None;
    }

    /// Whether it is time; a pause that is over is forgotten.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.at = self.at.filter(|at| *at > now);
        self.at.is_none()
    }

    /// The instant at which the pause ends.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.at
    }
}
