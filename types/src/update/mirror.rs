//! A copy of what a source reports.

use std::collections::BTreeMap;

use super::{Change, Listing, Update};

/// What a source has said so far. Between `Restart` and `InSync` the earlier state stays in force; what was not repeated
/// goes at `InSync`.
#[derive(Debug)]
pub struct Mirror<K, V> {
    /// The objects that exist, as far as is known.
    entries: BTreeMap<K, V>,
    /// How far the listing of the source has come.
    listing: Listing<K>,
}

impl<K, V> Mirror<K, V> {
    /// A mirror that knows nothing yet.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), listing: Listing::new() }
    }

    /// All objects with their keys.
    pub const fn entries(&self) -> &BTreeMap<K, V> {
        &self.entries
    }

    /// Whether the source has been in sync at least once: what is absent did not exist a while ago.
    pub const fn is_known(&self) -> bool {
        self.listing.is_known()
    }

    /// Whether the source is between `Restart` and `InSync`: what it sets comes in no order that means anything.
    pub const fn is_listing(&self) -> bool {
        self.listing.is_under_way()
    }
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V> Mirror<K, V> {
    /// Takes a report in; gives the keys that were set or went away. `InSync` gives those that are gone since `Restart`.
    pub fn apply(&mut self, update: Update<K, V>) -> Vec<K> {
        match self.listing.follow(update, || self.entries.keys().cloned()) {
            Change::Set(key, value) => {
                self.entries.insert(key.clone(), value);
                vec![key]
            }
            Change::Gone(mut keys) => {
                keys.retain(|key| self.entries.remove(key).is_some());
                keys
            }
        }
    }

    /// Takes a report in; gives whether that changed anything a reader could see: an entry, or [`Mirror::is_known`].
    pub fn changes(&mut self, update: Update<K, V>) -> bool
    where
        V: PartialEq,
    {
        let repeats = matches!(&update, Update::Set(key, value) if self.entries.get(key) == Some(value));
        let was_known = self.is_known();
        !self.apply(update).is_empty() && !repeats || self.is_known() != was_known
    }

    /// Takes in what was learned past the source, unless the source has an entry.
    pub fn learn(&mut self, key: K, value: V) {
        self.entries.entry(key).or_insert(value);
    }
}
