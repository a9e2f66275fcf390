//! Whether the store still has this node's claims as this node knows them: asked now and then, and at once where something
//! speaks against it.
//!
//! The watch of all claims says so too, as long as it lives; a watch that has fallen silent looks the same as one that has
//! nothing to say. An answer here is of the moment in which it was asked for. It is compared with what the watch has shown:
//! only where both agree on a block is it out of doubt.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use store::JournalWrite;
use types::Prefix;

use crate::fence::{Confirmation, Fencing, Reading, Unconfirmed};
use crate::plan::Retry;
use crate::plan::claims::Claim;
use crate::rows;

/// How often the store is asked where nothing else gives reason to: so often within the time for which an answer counts,
/// but within these limits.
const SHARE: u32 = 20;
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// What the store says of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The claims of the blocks that were asked about.
    pub(crate) claims: Vec<(Prefix, Option<Claim>)>,
    /// Whether this node is noted as gone: its things are about to be taken back, so this is no time to begin to wait anew.
    pub(crate) is_gone: bool,
}

/// What is known of the store's agreement.
#[derive(Debug)]
pub(crate) struct Confirmations {
    /// For how long a confirmation counts; none: for ever.
    limit: Option<Duration>,
    /// The kernel's id of this boot.
    boot_id: String,
    /// The last confirmation.
    last: Option<Confirmation>,
    /// When that was which the journal has.
    journalled: Option<Reading>,
    /// What the clocks say now.
    clocks: Option<Reading>,
    /// What they said when the store was asked that has not answered yet.
    asked: Option<Option<Reading>>,
    /// When it is to be asked again; none: when there is reason to.
    next: Option<Instant>,
    /// After a failure.
    retry: Retry,
    /// The last question was not answered, or not as it should be.
    has_failed: bool,
    /// Blocks on which the store may not agree: nothing is given out of them.
    doubted: BTreeSet<Prefix>,
    /// Those of them that the store does not have.
    missing: BTreeSet<Prefix>,
}

impl Confirmations {
    pub(crate) fn new(
        fencing: Option<Fencing>,
        boot_id: &str,
        last: Option<Confirmation>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let limit = fencing.map(|fencing| fencing.grace / 2);
        Self {
            limit,
            boot_id: boot_id.to_owned(),
            journalled: last.as_ref().map(|last| last.at),
            last,
            clocks: None,
            asked: None,
            next: limit.map(|_| now),
            retry: Retry::new(seed),
            has_failed: false,
            doubted: BTreeSet::new(),
            missing: BTreeSet::new(),
        }
    }

    /// What the clocks say now.
    pub(crate) const fn clocks(&mut self, reading: Option<Reading>) {
        self.clocks = reading;
    }

    /// How long ago the last confirmation was, where there has been one and that can be told.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.last.as_ref()?.age(&self.boot_id, self.clocks).ok()
    }

    /// Why nothing may be given out, if so, and for how long a confirmation counts.
    pub(crate) fn refuses(&self) -> Option<(Unconfirmed, Duration)> {
        let limit = self.limit?;
        let why = match self.last.as_ref().map(|last| last.age(&self.boot_id, self.clocks)) {
            None => Unconfirmed::Never,
            Some(Err(why)) => why,
            Some(Ok(age)) if age > limit => Unconfirmed::Since(age),
            Some(Ok(_)) => return None,
        };
        Some((why, limit))
    }

    /// Whether the store is to be asked now; if so, it counts as asked.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.next.is_some_and(|next| next <= now);
        let begins = is_due && self.asked.is_none() && self.retry.is_due(now);
        if begins {
            self.asked = Some(self.clocks);
        }
        begins
    }

    /// When there is something to ask.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // While the store is being asked, its answer is what counts.
        self.next
            .filter(|_| self.asked.is_none())
            .map(|next| self.retry.deadline().map_or(next, |retry| retry.max(next)))
    }

    /// Something gives reason to ask at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.retry.hurry();
        self.next = Some(now);
    }

    /// The store agrees on everything. Gives what to journal, which is not each time.
    pub(crate) fn agreed(&mut self, now: Instant) -> Option<JournalWrite> {
        self.retry.succeeded();
        self.has_failed = false;
        let asked = self.asked.take()?;
        self.next = self.limit.map(|limit| now + pause(limit));
        let (limit, at) = self.limit.zip(asked)?;
        let confirmation = Confirmation { boot_id: self.boot_id.clone(), at };
        let was_rebooted = self.last.as_ref().is_none_or(|last| last.boot_id != self.boot_id);
        let is_old = self.journalled.is_none_or(|journalled| {
            let passed = at.boot.checked_sub(journalled.boot).zip(at.wall.checked_sub(journalled.wall));
            passed.is_none_or(|(boot, wall)| boot.max(wall) >= pause(limit))
        });
        let write = (was_rebooted || is_old).then(|| rows::confirmed(&confirmation));
        if write.is_some() {
            self.journalled = Some(at);
        }
        self.last = Some(confirmation);
        write
    }

    /// The store has not answered, or does not agree.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.asked = None;
        self.has_failed = true;
        self.retry.failed(now);
    }

    /// Whether the last question was not answered, or not as it should be.
    pub(crate) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Something speaks against this node's owning a block; whether that is news.
    pub(crate) fn doubt(&mut self, block: Prefix) -> bool {
        self.doubted.insert(block)
    }

    /// The store does not have the claim of a doubted block.
    pub(crate) fn miss(&mut self, block: Prefix) {
        self.missing.insert(block);
    }

    /// A block has been claimed anew, or is another's.
    pub(crate) fn found(&mut self, block: &Prefix) {
        self.missing.remove(block);
    }

    /// Nothing speaks against it (any more).
    pub(crate) fn trust(&mut self, block: &Prefix) {
        self.doubted.remove(block);
        self.missing.remove(block);
    }

    /// Blocks on which the store may not agree.
    pub(crate) const fn doubted(&self) -> &BTreeSet<Prefix> {
        &self.doubted
    }

    /// Blocks whose claims the store does not have, whatever the watch has shown.
    pub(crate) const fn missing(&self) -> &BTreeSet<Prefix> {
        &self.missing
    }
}

/// How often the store is asked.
fn pause(limit: Duration) -> Duration {
    (limit / SHARE).clamp(PAUSES.0, PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(24 * 3_600);

    fn at(seconds: u64) -> Option<Reading> {
        let since = Duration::from_secs(seconds);
        Some(Reading { boot: since, wall: since })
    }

    fn new(last: Option<Confirmation>, now: Instant) -> Confirmations {
        Confirmations::new(Some(Fencing { grace: GRACE, clocks: || None }), "boot", last, 1, now)
    }

    #[test]
    fn a_confirmation_counts_from_when_it_was_asked_for_and_is_journalled_once_a_minute() {
        let begun = Instant::now();
        let mut confirmations = new(None, begun);
        confirmations.clocks(at(0));
        assert_eq!(confirmations.refuses(), Some((Unconfirmed::Never, GRACE / 2)));
        let mut journalled = 0;
        for second in (0..600).step_by(10) {
            let now = begun + Duration::from_secs(second);
            confirmations.clocks(at(second));
            if second == 0 || second % 60 == 0 {
                assert!(confirmations.begin(now), "{second}");
                assert!(!confirmations.begin(now) && confirmations.deadline().is_none(), "asked already");
                confirmations.clocks(at(second + 5));
                journalled += usize::from(confirmations.agreed(now).is_some());
                assert_eq!(confirmations.age(), Some(Duration::from_secs(5)));
            } else {
                assert!(!confirmations.begin(now), "{second}");
            }
            assert_eq!(confirmations.refuses(), None);
        }
        assert_eq!(journalled, 10);
        confirmations.clocks(at(540 + 12 * 3_600));
        assert_eq!(confirmations.refuses(), None);
        confirmations.clocks(at(541 + 12 * 3_600));
        let since = Unconfirmed::Since(Duration::from_secs(12 * 3_600 + 1));
        assert_eq!(confirmations.refuses(), Some((since, GRACE / 2)));
    }

    #[test]
    fn what_the_journal_has_goes_on_counting_and_counts_for_nothing_after_a_reboot() {
        let now = Instant::now();
        let last = |boot_id: &str| Confirmation { boot_id: boot_id.to_owned(), at: at(100).unwrap() };
        let mut same = new(Some(last("boot")), now);
        same.clocks(at(200));
        assert_eq!((same.refuses(), same.age()), (None, Some(Duration::from_secs(100))));
        let mut other = new(Some(last("another")), now);
        other.clocks(at(200));
        assert_eq!(other.refuses(), Some((Unconfirmed::Rebooted, GRACE / 2)));
        assert!(other.begin(now) && other.agreed(now).is_some(), "journalled at once: {other:?}");
        assert_eq!(other.refuses(), None);
    }

    #[test]
    fn a_clock_that_jumps_ends_nothing_while_the_store_answers() {
        let now = Instant::now();
        let mut confirmations = new(None, now);
        confirmations.clocks(at(1_000_000_000));
        assert!(confirmations.begin(now) && confirmations.agreed(now).is_some());
        let year = Duration::from_secs(365 * 24 * 3_600);
        let boot = Duration::from_secs(1_000_000_001);
        for wall in [boot + year, boot - year] {
            confirmations.clocks(Some(Reading { boot, wall }));
            assert!(confirmations.refuses().is_some(), "no clock tells how long it was");
            confirmations.hurry(now);
            assert!(confirmations.begin(now) && confirmations.agreed(now).is_some());
            assert_eq!(confirmations.refuses(), None);
        }
    }

    #[test]
    fn without_a_limit_the_store_is_asked_only_where_there_is_reason_to() {
        let now = Instant::now();
        let mut confirmations = Confirmations::new(None, "boot", None, 1, now);
        assert!(!confirmations.begin(now) && confirmations.deadline().is_none());
        assert_eq!(confirmations.refuses(), None);
        confirmations.hurry(now);
        assert!(confirmations.begin(now) && confirmations.agreed(now).is_none());
        assert!(!confirmations.begin(now));
    }
}
