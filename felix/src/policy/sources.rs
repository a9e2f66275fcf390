//! What a source that lists its state anew has not said again yet: absence acts when the list is complete.

use std::collections::BTreeSet;

use types::Update;

/// One source of objects with these keys.
#[derive(Debug)]
pub(crate) struct Source<K> {
    /// What it has had and not said again since the last restart.
    unseen: BTreeSet<K>,
    /// It has said at least once that it has said all.
    in_sync: bool,
}

impl<K> Default for Source<K> {
    fn default() -> Self {
        Self { unseen: BTreeSet::new(), in_sync: false }
    }
}

impl<K: Ord + Clone> Source<K> {
    pub(crate) const fn is_in_sync(&self) -> bool {
        self.in_sync
    }

    /// The source lists anew; these are the objects that it had.
    pub(crate) fn restart(&mut self, had: impl Iterator<Item = K>) {
        self.unseen = had.collect();
    }

    /// It has spoken of an object.
    pub(crate) fn seen(&mut self, key: &K) {
        if !self.unseen.is_empty() {
            self.unseen.remove(key);
        }
    }

    /// It has said all: these objects are gone.
    pub(crate) fn complete(&mut self) -> BTreeSet<K> {
        self.in_sync = true;
        std::mem::take(&mut self.unseen)
    }
}

/// What an update does once restarts are seen to.
pub(crate) enum Step<K, V> {
    Set(K, V),
    Delete(Vec<K>),
}

/// Tells what an update does to a source's objects; `had` lists the objects that there are.
pub(crate) fn step<K: Ord + Clone, V, I: Iterator<Item = K>>(
    source: &mut Source<K>,
    update: Update<K, V>,
    had: impl FnOnce() -> I,
) -> Step<K, V> {
    match update {
        Update::Restart => {
            source.restart(had());
            Step::Delete(Vec::new())
        }
        Update::Set(key, value) => {
            source.seen(&key);
            Step::Set(key, value)
        }
        Update::Delete(key) => {
            source.seen(&key);
            Step::Delete(vec![key])
        }
        Update::InSync => Step::Delete(source.complete().into_iter().collect()),
    }
}
