//! Worlds together with what happens in them.

use std::fmt;

use oracle::World;
use oracle::generate::{self, HistoryStep};
use proptest::strategy::Strategy;

/// How many members times ports are written narrowly: everything, some, nothing.
pub(crate) const LIMITS: [usize; 3] = [100_000, 4, 0];

/// A world, what happens in it, and how narrowly its policies are compiled.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) world: World,
    pub(crate) steps: Vec<HistoryStep>,
    pub(crate) limit: usize,
}

pub(crate) fn histories(policies: usize, steps: usize) -> proptest::strategy::BoxedStrategy<History> {
    (generate::world(policies), generate::steps(steps), proptest::sample::select(&LIMITS[..]))
        .prop_map(|(world, steps, limit)| History { world, steps, limit })
        .boxed()
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}compiled with a narrow limit of {}, then", self.world, self.limit)?;
        self.steps.iter().try_for_each(|step| step.fmt(f))
    }
}
