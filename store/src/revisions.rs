//! A keyed state with revisions and a bounded memory of its changes: what etcd is to us, as data.
//!
//! Pure: no task, no clock, no file. [`crate::memory`] and [`crate::local`] put a shell around it.

use std::collections::{BTreeMap, VecDeque};

use crate::{Check, Entry, Expect, Incarnation, Key, Listing, SessionId, Version, Write};

/// So many changes are remembered; a watch that fell further behind lists anew.
const REMEMBERED: usize = 100_000;

/// The state.
#[derive(Debug)]
pub(crate) struct Revisions {
    /// What is there now.
    entries: BTreeMap<Key, Held>,
    /// Counts transactions that changed something.
    revision: u64,
    /// The latest changes, oldest first.
    log: VecDeque<Change>,
    /// Changes up to and with this revision are no longer in `log`.
    forgotten: u64,
    /// Which life of the state this is.
    incarnation: Incarnation,
}

/// An entry and the session it vanishes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The entry.
    pub(crate) entry: Entry,
    /// The session, if any.
    pub(crate) session: Option<SessionId>,
}

/// One key after one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The revision of the transaction.
    pub(crate) revision: u64,
    /// The key.
    pub(crate) key: Key,
    /// What it holds since; none: deleted.
    pub(crate) held: Option<Held>,
}

impl Revisions {
    /// An empty state. Revision 1 is the empty state itself, as in etcd.
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self::resume(incarnation, 1, [])
    }

    /// A state as it was left at `revision`; its history is forgotten.
    pub(crate) fn resume(incarnation: Incarnation, revision: u64, held: impl IntoIterator<Item = Held>) -> Self {
        let entries = held.into_iter().map(|held| (held.entry.key.clone(), held)).collect();
        Self { entries, revision, log: VecDeque::new(), forgotten: revision, incarnation }
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|held| held.entry.clone())
    }

    pub(crate) fn listing(&self, prefix: &Key) -> Listing {
        let under = self.entries.range(prefix..).take_while(|(key, _)| key.is_under(prefix));
        Listing {
            entries: under.map(|(_, held)| held.entry.clone()).collect(),
            version: self.version(),
            incarnation: self.incarnation.clone(),
        }
    }

    pub(crate) const fn version(&self) -> Version {
        Version::new(self.revision)
    }

    pub(crate) const fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// The changes that the writes make if all checks hold; none if one does not. Deleting an absent key is no change.
    pub(crate) fn plan(&self, checks: &[Check], writes: &[Write]) -> Option<Vec<Change>> {
        checks.iter().all(|check| self.holds(check)).then(|| self.changes(writes))
    }

    /// The changes that the end of a session makes.
    pub(crate) fn plan_end(&self, session: SessionId) -> Vec<Change> {
        let bound = self.entries.values().filter(|held| held.session == Some(session));
        let writes: Vec<Write> = bound.map(|held| Write::delete(held.entry.key.clone())).collect();
        self.changes(&writes)
    }

    /// Makes planned changes, all of one transaction; nothing else may have been applied since they were planned.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Version {
        for change in changes {
            self.revision = change.revision;
            match &change.held {
                Some(held) => self.entries.insert(change.key.clone(), held.clone()),
                None => self.entries.remove(&change.key),
            };
            self.log.push_back(change);
        }
        while self.log.len() > REMEMBERED {
            self.forget_oldest();
        }
        self.version()
    }

    /// The changes under `prefix` after `revision`; none if some of them are forgotten.
    pub(crate) fn since(&self, prefix: &Key, revision: u64) -> Option<Vec<Change>> {
        let known = (self.forgotten..=self.revision).contains(&revision);
        known.then(|| {
            let later = self.log.iter().rev().take_while(|change| change.revision > revision);
            let mut changes: Vec<Change> = later.filter(|change| change.key.is_under(prefix)).cloned().collect();
            changes.reverse();
            changes
        })
    }

    /// Forgets all history, as a compaction does.
    pub(crate) fn compact(&mut self) {
        self.log.clear();
        self.forgotten = self.revision;
    }

    /// Becomes another incarnation with the same entries, as after a restored backup.
    pub(crate) fn reincarnate(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    fn holds(&self, check: &Check) -> bool {
        let entry = self.entries.get(&check.key).map(|held| &held.entry);
        match check.expect {
            Expect::Absent => entry.is_none(),
            Expect::Present => entry.is_some(),
            Expect::Version(version) => entry.is_some_and(|entry| entry.version == version),
            Expect::Created(created) => entry.is_some_and(|entry| entry.created == created),
        }
    }

    fn changes(&self, writes: &[Write]) -> Vec<Change> {
        let revision = self.revision + 1;
        let version = Version::new(revision);
        let change = |write: &Write| match write {
            Write::Put { key, value, session } => {
                let created = self.entries.get(key).map_or(version, |held| held.entry.created);
                let entry = Entry { key: key.clone(), value: value.clone(), version, created };
                Some(Change { revision, key: key.clone(), held: Some(Held { entry, session: *session }) })
            }
            Write::Delete { key } => {
                self.entries.contains_key(key).then(|| Change { revision, key: key.clone(), held: None })
            }
        };
        writes.iter().filter_map(change).collect()
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.log.front().map(|change| change.revision) else { return };
        while self.log.front().is_some_and(|change| change.revision == oldest) {
            self.log.pop_front();
        }
        self.forgotten = oldest;
    }
}

#[cfg(test)]
mod tests;
