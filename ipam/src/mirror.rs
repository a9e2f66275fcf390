//! A copy of what a source reports.

use std::collections::{BTreeMap, BTreeSet};

use types::Update;

/// What a source has said so far, by the rules of [`Update`].
#[derive(Debug)]
pub(crate) struct Mirror<K, V> {
    /// What is there, as far as is known.
    entries: BTreeMap<K, V>,
    /// Keys known from before the last `Restart` and not set again since.
    unconfirmed: BTreeSet<K>,
    /// The source has been in sync at least once: what is absent from `entries` did not exist a while ago.
    complete: bool,
    /// Between `Restart` and `InSync`: entries come in no order that means anything.
    listing: bool,
}

impl<K: Ord + Clone, V> Mirror<K, V> {
    /// Nothing is known yet.
    pub(crate) const fn new() -> Self {
        Self { entries: BTreeMap::new(), unconfirmed: BTreeSet::new(), complete: false, listing: false }
    }

    /// Takes a report in; gives the keys that were set or went away. `InSync` gives those that are gone since `Restart`.
    pub(crate) fn apply(&mut self, update: Update<K, V>) -> Vec<K> {
        match update {
            Update::Restart => {
                self.unconfirmed = self.entries.keys().cloned().collect();
                self.listing = true;
                Vec::new()
            }
            Update::Set(key, value) => {
                self.unconfirmed.remove(&key);
                self.entries.insert(key.clone(), value);
                vec![key]
            }
            Update::Delete(key) => {
                self.unconfirmed.remove(&key);
                self.entries.remove(&key).map(|_| key).into_iter().collect()
            }
            Update::InSync => {
                self.complete = true;
                self.listing = false;
                let gone: Vec<K> = std::mem::take(&mut self.unconfirmed).into_iter().collect();
                for key in &gone {
                    self.entries.remove(key);
                }
                gone
            }
        }
    }

    /// Takes in what was learned past the source, unless the source has an entry.
    pub(crate) fn learn(&mut self, key: K, value: V) {
        self.entries.entry(key).or_insert(value);
    }

    /// Whether the source has been in sync at least once.
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the source lists its state at the moment.
    pub(crate) const fn is_listing(&self) -> bool {
        self.listing
    }

    /// All entries.
    pub(crate) const fn entries(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_restart_only_what_is_not_set_again_is_gone_and_only_once_in_sync() {
        let mut mirror = Mirror::new();
        for update in [Update::Restart, Update::Set("a", 1), Update::Set("b", 1)] {
            mirror.apply(update);
        }
        assert!(!mirror.is_complete() && mirror.is_listing());
        assert!(mirror.apply(Update::InSync).is_empty() && mirror.is_complete() && !mirror.is_listing());

        mirror.apply(Update::Restart);
        assert_eq!(mirror.apply(Update::Set("b", 2)), ["b"]);
        assert_eq!(mirror.entries().len(), 2);
        assert_eq!(mirror.apply(Update::InSync), ["a"]);
        assert_eq!(mirror.entries(), &BTreeMap::from([("b", 2)]));

        assert_eq!(mirror.apply(Update::Delete("b")), ["b"]);
        assert!(mirror.apply(Update::Delete("b")).is_empty() && mirror.entries().is_empty());
    }
}
