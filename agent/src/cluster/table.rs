//! The state that a source has reported, with mark and sweep around its restarts (pure).

use std::collections::BTreeMap;

use types::Update;

/// What a source of [`Update`]s has said. Between `Restart` and `InSync` the earlier state stays in force; what was not
/// repeated goes at `InSync`.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    /// The objects, each with the generation that last repeated it.
    entries: BTreeMap<K, (V, u64)>,
    /// Counts restarts.
    generation: u64,
    /// Whether a whole state has been seen, from the source or from the cache.
    known: bool,
}

impl<K: Ord, V: PartialEq> Table<K, V> {
    pub(crate) const fn new() -> Self {
        Self { entries: BTreeMap::new(), generation: 0, known: false }
    }

    /// Takes a report; true where the state in force has changed (becoming known is a change).
    pub(crate) fn apply(&mut self, update: Update<K, V>) -> bool {
        match update {
            Update::Restart => {
                self.generation += 1;
                false
            }
            Update::Set(key, value) => {
                let changed = self.entries.get(&key).is_none_or(|(present, _)| *present != value);
                self.entries.insert(key, (value, self.generation));
                changed
            }
            Update::Delete(key) => self.entries.remove(&key).is_some(),
            Update::InSync => {
                let before = self.entries.len();
                let generation = self.generation;
                self.entries.retain(|_, (_, seen)| *seen == generation);
                let first = !std::mem::replace(&mut self.known, true);
                first || self.entries.len() != before
            }
        }
    }

    pub(crate) const fn is_known(&self) -> bool {
        self.known
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    pub(crate) fn find(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(updates: &[Update<u8, u8>]) -> Vec<(u8, u8)> {
        let mut table = Table::new();
        for update in updates {
            table.apply(update.clone());
        }
        table.iter().map(|(key, value)| (*key, *value)).collect()
    }

    #[test]
    fn the_state_is_a_function_of_the_last_complete_report() {
        use Update::{Delete, InSync, Restart, Set};
        let wanted = vec![(1, 1), (2, 2)];
        assert_eq!(state(&[Restart, Set(1, 1), Set(2, 2), InSync]), wanted);
        assert_eq!(state(&[Restart, Set(2, 2), Set(3, 3), InSync, Restart, Set(2, 2), Set(1, 1), InSync]), wanted);
        assert_eq!(state(&[Restart, InSync, Set(2, 9), Set(2, 2), Set(3, 3), Delete(3), Set(1, 1)]), wanted);
    }

    #[test]
    fn nothing_is_dropped_before_the_source_is_in_sync_again() {
        use Update::{InSync, Restart, Set};
        assert_eq!(state(&[Restart, Set(1, 1), Set(2, 2), InSync, Restart, Set(1, 1)]), vec![(1, 1), (2, 2)]);
    }

    #[test]
    fn a_report_that_changes_nothing_says_so() {
        let mut table = Table::new();
        assert!(!table.apply(Update::Restart));
        assert!(table.apply(Update::Set(1, 1)));
        assert!(table.apply(Update::InSync), "becoming known is a change");
        assert!(!table.apply(Update::Restart));
        assert!(!table.apply(Update::Set(1, 1)));
        assert!(!table.apply(Update::InSync));
    }
}
