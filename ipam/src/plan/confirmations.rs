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

/// What the store says of this node's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The claims of the blocks that were asked about.
    pub(crate) claims: Vec<(Prefix, Option<Claim>)>,
    /// Whether this node is noted as gone: its things are about to be taken back, so this is no time to begin to wait anew.
    pub(crate) is_gone: bool,
}

/// How far the store agrees with what this node believes.
#[derive(Debug)]
pub(crate) struct Confirmations {
    /// For how long a confirmation counts; none: for ever.
    limit: Option<Duration>,
    /// The kernel's id of this boot.
    boot_id: String,
    /// The last confirmation.
    last: Option<Confirmation>,
    /// When the confirmation was that the journal has.
    journalled: Option<Reading>,
    /// The readings of the clocks now.
    clocks: Option<Reading>,
    /// What they said when the store was asked that has not answered yet.
    asked: Option<Option<Reading>>,
    /// When it is to be asked again; none: when there is reason to.
    next: Option<Instant>,
    /// The pause after a failure.
    retry: Retry,
    /// The last question was not answered, or not as it should be.
    has_failed: bool,
    /// Blocks on which the store may not agree: nothing is given out of them.
    doubted: BTreeSet<Prefix>,
    /// The blocks in doubt whose claim the store does not have.
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

    /// Sets the readings of the clocks now.
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

    /// The instant at which there is something to ask the store.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // While the store is being asked, its answer decides when it is asked again.
        self.next
            .filter(|_| self.asked.is_none())
            .map(|next| self.retry.deadline().map_or(next, |retry| retry.max(next)))
    }

    /// Takes note that there is a reason to ask at once.
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

    /// The store has a claim of the block: of this node, made anew, or of another node.
    pub(crate) fn found(&mut self, block: &Prefix) {
        self.missing.remove(block);
    }

    /// Nothing speaks against this node's owning the block (any more).
    pub(crate) fn trust(&mut self, block: &Prefix) {
        self.doubted.remove(block);
        self.missing.remove(block);
    }

    /// The blocks on which the store may not agree with this node.
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
mod tests;
