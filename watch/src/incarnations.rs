//! Which incarnation of an object bears a name, where names are used again: a Pod's UID.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

/// The UIDs of the objects that were reported and not taken back: of this node's Pods, a few hundred.
#[derive(Debug)]
pub(crate) struct Incarnations<K> {
    /// By name.
    reported: BTreeMap<K, String>,
    /// Those that the listing under way has not named yet.
    unconfirmed: BTreeSet<K>,
}

impl<K: Ord + Clone> Incarnations<K> {
    pub(crate) const fn new() -> Self {
        Self { reported: BTreeMap::new(), unconfirmed: BTreeSet::new() }
    }

    /// A listing begins.
    pub(crate) fn restart(&mut self) {
        self.unconfirmed = self.reported.keys().cloned().collect();
    }

    /// An object is reported; true: in place of another of that name, which was not reported as deleted.
    pub(crate) fn set(&mut self, key: &K, uid: &str) -> bool {
        self.unconfirmed.remove(key);
        let before = self.reported.insert(key.clone(), uid.to_owned());
        before.is_some_and(|before| before != uid)
    }

    /// An object is reported as deleted.
    pub(crate) fn delete(&mut self, key: &K) {
        self.reported.remove(key);
    }

    /// The listing is complete: what it has not named is gone.
    pub(crate) fn in_sync(&mut self) {
        for key in mem::take(&mut self.unconfirmed) {
            self.reported.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_object_under_the_name_of_one_that_was_not_deleted_is_found_out() {
        let mut pods = Incarnations::new();
        pods.restart();
        assert!(!pods.set(&"web", "uid-1"));
        pods.in_sync();
        assert!(!pods.set(&"web", "uid-1"), "a change of the same pod");
        pods.delete(&"web");
        assert!(!pods.set(&"web", "uid-2"), "its deletion was reported");
        pods.restart();
        assert!(pods.set(&"web", "uid-3"), "a listing names another pod");
        pods.restart();
        pods.in_sync();
        assert!(!pods.set(&"web", "uid-4"), "its absence from a whole listing was report enough");
    }
}
