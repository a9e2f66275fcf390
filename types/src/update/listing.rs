//! What a listing says by not saying it: which objects are gone because a source that restarted has not repeated them.

use std::collections::BTreeSet;

use super::Update;

/// How far the listing of one source has come, for a receiver that keeps the objects itself.
#[derive(Debug)]
pub struct Listing<K> {
    /// The objects that the receiver had at the last `Restart` and that the source has not spoken of since.
    unconfirmed: BTreeSet<K>,
    /// Whether the source is between `Restart` and `InSync`.
    is_under_way: bool,
    /// Whether the source has been in sync at least once.
    is_known: bool,
}

/// What a report means for the objects that a receiver keeps.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// The object is there, with this value.
    Set(K, V),
    /// These objects are gone; after `Restart` none are, yet.
    Gone(Vec<K>),
}

impl<K> Listing<K> {
    /// The source has said nothing yet.
    pub const fn new() -> Self {
        Self { unconfirmed: BTreeSet::new(), is_under_way: false, is_known: false }
    }

    /// Whether the source has been in sync at least once: what it has not named did not exist a while ago.
    pub const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether the source is between `Restart` and `InSync`: what it sets comes in no order that means anything.
    pub const fn is_under_way(&self) -> bool {
        self.is_under_way
    }
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord> Listing<K> {
    /// Takes a report in; gives what it means. `had` lists the objects that the receiver keeps of this source; it is asked
    /// at a `Restart` only.
    pub fn follow<V, I: IntoIterator<Item = K>>(
        &mut self,
        update: Update<K, V>,
        had: impl FnOnce() -> I,
    ) -> Change<K, V> {
        match update {
            Update::Restart => {
                self.restart(had());
                Change::Gone(Vec::new())
            }
            Update::Set(key, value) => {
                self.confirm(&key);
                Change::Set(key, value)
            }
            Update::Delete(key) => {
                self.confirm(&key);
                Change::Gone(vec![key])
            }
            Update::InSync => Change::Gone(self.in_sync().into_iter().collect()),
        }
    }

    /// The source lists anew; these are the objects that the receiver has of it.
    pub fn restart(&mut self, had: impl IntoIterator<Item = K>) {
        self.unconfirmed = had.into_iter().collect();
        self.is_under_way = true;
    }

    /// The source has spoken of an object.
    pub fn confirm(&mut self, key: &K) {
        if !self.unconfirmed.is_empty() {
            self.unconfirmed.remove(key);
        }
    }

    /// The source has said all: these objects are gone.
    pub fn in_sync(&mut self) -> BTreeSet<K> {
        self.is_under_way = false;
        self.is_known = true;
        std::mem::take(&mut self.unconfirmed)
    }
}

/// What a listing under way has repeated, for a receiver that cannot tell what it had.
#[derive(Debug)]
pub struct Repeated<K> {
    /// The keys that were set since `Restart`; none where no listing is under way.
    keys: Option<BTreeSet<K>>,
}

impl<K> Repeated<K> {
    /// No listing is under way.
    pub const fn new() -> Self {
        Self { keys: None }
    }
}

impl<K> Default for Repeated<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone> Repeated<K> {
    /// Takes a report in; with the `InSync` of a listing it gives the keys that the listing named: all others are gone.
    pub fn follow<V>(&mut self, update: &Update<K, V>) -> Option<BTreeSet<K>> {
        match update {
            Update::Restart => self.keys = Some(BTreeSet::new()),
            Update::Set(key, _) => {
                if let Some(keys) = &mut self.keys {
                    keys.insert(key.clone());
                }
            }
            // What its receiver does of a deletion does not depend on the listing.
            Update::Delete(_) => {}
            Update::InSync => return self.keys.take(),
        }
        None
    }
}
