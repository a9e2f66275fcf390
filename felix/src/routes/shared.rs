//! Equal values, kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// The fewest values that are worth a sweep.
const SWEEP: usize = 256;

/// Values that many routes have in common: a million routes have a handful of sets of next hops.
#[derive(Debug)]
pub(crate) struct Shared<T: Eq + Hash + ?Sized> {
    values: HashSet<Arc<T>>,
    /// With this many values, those that nobody has any more are dropped.
    sweep_at: usize,
}

impl<T: Eq + Hash + ?Sized> Shared<T> {
    /// The one copy of this value.
    pub(crate) fn one(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = SWEEP.max(self.values.len() * 2);
        }
        let new = value.into();
        self.values.insert(Arc::clone(&new));
        new
    }
}

impl<T: Eq + Hash + ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: SWEEP }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_values_that_nobody_has_are_dropped() {
        let mut shared = Shared::<[u32]>::default();
        let kept = shared.one(vec![7]);
        assert!(Arc::ptr_eq(&kept, &shared.one(vec![7])));
        for value in 0..10_000 {
            shared.one(vec![value, value]);
        }
        assert!(shared.values.len() <= SWEEP);
        assert!(Arc::ptr_eq(&kept, &shared.one(vec![7])));
    }
}
