//! Values that are equal are stored once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// A sweep for values without a holder is worth its cost only from this many values on.
const SWEEP: usize = 256;

/// The values that many routes have in common: a million routes have a handful of different sets of next hops.
#[derive(Debug)]
pub(crate) struct Shared<T: Eq + Hash + ?Sized> {
    values: HashSet<Arc<T>>,
    /// As soon as there are this many values, those that nobody holds any more are dropped.
    sweep_at: usize,
}

impl<T: Eq + Hash + ?Sized> Shared<T> {
    /// The one stored copy of this value.
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
mod tests;
