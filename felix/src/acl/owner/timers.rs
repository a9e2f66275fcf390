//! When something is due though nothing happens: one table of instants, by what they are for.

use std::collections::BTreeMap;
use std::time::Instant;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Rules that others may have changed are read. As long as it runs they are not: several changes of one program are
    /// one, and what could not be read is not read again at once.
    ReadRules,
    /// A restore that failed is tried again. As long as it runs no other is made.
    RetryRestore,
    /// Sets with which something is wrong are tried again.
    RetrySets,
    /// Versions of classes that are of no use any more are cleared away.
    ClearUnused,
    /// Tracked connections are looked through for those that policies forbid now.
    CutConnections,
    /// The tracked connections of addresses that were given up are deleted.
    DeleteFormer,
    /// Rules are read in any case where the kernel tells nothing of changes (legacy iptables).
    PollRules,
    /// Rules and sets are compared with what they should be in any case: events can be lost.
    Resync,
}

/// The timers that run.
#[derive(Debug, Default)]
pub(super) struct TimerTable(BTreeMap<Timer, Instant>);

impl TimerTable {
    /// The timer expires then, whenever it would have before.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0.insert(timer, at);
    }

    /// The timer expires then at the latest.
    pub(super) fn set_at_latest(&mut self, timer: Timer, at: Instant) {
        let expiry = self.0.entry(timer).or_insert(at);
        *expiry = at.min(*expiry);
    }

    /// A timer that runs expires then at the latest; one that does not run still does not.
    pub(super) fn hasten(&mut self, timer: Timer, at: Instant) {
        if let Some(expiry) = self.0.get_mut(&timer) {
            *expiry = at.min(*expiry);
        }
    }

    /// The timer does not run any more.
    pub(super) fn cancel(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    /// Whether the timer runs, be it that it has expired and nobody has asked.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.0.contains_key(&timer)
    }

    /// When the timer expires, if it runs.
    pub(super) fn expiry(&self, timer: Timer) -> Option<Instant> {
        self.0.get(&timer).copied()
    }

    /// Whether the timer has expired; then it runs no more.
    pub(super) fn expired(&mut self, timer: Timer, now: Instant) -> bool {
        let has_expired = self.0.get(&timer).is_some_and(|at| now >= *at);
        if has_expired {
            self.cancel(timer);
        }
        has_expired
    }

    /// When the next of those timers expires of which this is true.
    pub(super) fn next(&self, counts: impl Fn(Timer) -> bool) -> Option<Instant> {
        self.0.iter().filter(|(timer, _)| counts(**timer)).map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests;
