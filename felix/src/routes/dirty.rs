//! The prefixes whose route may have to change, in turns.
//!
//! A router that sends a full table makes a million prefixes dirty, which take seconds to write. What another router has
//! said meanwhile does not wait for them: the prefixes of each next hop stand in a line of their own, and every round takes
//! some of each line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use types::Prefix;

/// The prefixes whose route may have to change.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// The lines: of each next hop that BGP has routes through, and one of everything that is about no next hop. A prefix
    /// may stand in several, when its next hop has changed; whoever is taken a second time needs no change any more.
    lines: BTreeMap<Option<IpAddr>, BTreeSet<Prefix>>,
}

impl Dirty {
    /// Adds a prefix in the line of this next hop.
    pub(crate) fn insert_through(&mut self, next_hop: Option<IpAddr>, prefix: Prefix) {
        self.lines.entry(next_hop).or_default().insert(prefix);
    }

    /// Adds a prefix for a reason that is about no next hop.
    pub(crate) fn insert(&mut self, prefix: Prefix) {
        self.insert_through(None, prefix);
    }

    pub(crate) fn remove(&mut self, prefix: &Prefix) {
        self.lines.retain(|_, line| {
            line.remove(prefix);
            !line.is_empty()
        });
    }

    pub(crate) fn contains(&self, prefix: &Prefix) -> bool {
        self.lines.values().any(|line| line.contains(prefix))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes about this many prefixes: the same number of each line as far as it goes, and at least one of each.
    pub(crate) fn take(&mut self, limit: usize) -> BTreeSet<Prefix> {
        let mut taken = BTreeSet::new();
        while taken.len() < limit && !self.lines.is_empty() {
            let share = ((limit - taken.len()) / self.lines.len()).max(1);
            self.lines.retain(|_, line| {
                taken.extend(std::iter::from_fn(|| line.pop_first()).take(share));
                !line.is_empty()
            });
        }
        taken
    }
}

impl Extend<Prefix> for Dirty {
    fn extend<T: IntoIterator<Item = Prefix>>(&mut self, prefixes: T) {
        prefixes.into_iter().for_each(|prefix| self.insert(prefix));
    }
}

#[cfg(test)]
mod tests;
