//! What the filter has done, as numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use types::EndpointId;
use types::policy::Direction;

use super::names::{self, SlotChain};
use super::render;
use super::saved::SavedTable;
use crate::policy::CompilerStats;
use crate::policy::program::ClassId;

/// Durations, counted by how long they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// How many were at most as long as the bound of the same place in [`Histogram::BOUNDS`] and longer than the one
    /// before; the last counts those beyond all bounds.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// The upper bounds, ascending.
    pub const BOUNDS: [Duration; 12] = [
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_secs(1),
        Duration::from_secs(10),
    ];

    /// Counts one.
    pub fn observe(&mut self, duration: Duration) {
        let place = Self::BOUNDS.partition_point(|bound| *bound < duration);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum += duration;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What the filter holds and what it went through since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclView {
    /// Whether policies are in force: every source has said all it has, and it has been compared with the kernel.
    pub in_sync: bool,
    /// Whether everything told so far is in force in the kernel.
    pub is_settled: bool,
    /// Figures about the compiler.
    pub compiler: CompilerStats,
    /// Classes with rules of their own.
    pub classes: usize,
    /// Rules of ours in the kernel, of all tables and families.
    pub rules: usize,
    /// Sets of ours in the kernel.
    pub sets: usize,
    /// Their members.
    pub elements: u64,
    /// Local addresses that are mapped to a class.
    pub addresses: usize,
    /// How long rounds took that changed sets or members.
    pub apply: Histogram,
    /// How long iptables-restore took.
    pub restore: Histogram,
    /// From a policy, namespace or endpoint being told until everything that follows from it was in force.
    pub change_to_kernel: Histogram,
    /// Restores that failed.
    pub restore_failures: u64,
    /// How often others' changes of our chains and hooks were repaired.
    pub repairs: u64,
    /// For how long, in all, chains that protect pods were not as they should be through others' doing.
    pub unprotected: Duration,
    /// Connections that were cut because a policy forbids them now.
    pub connections_cut: u64,
    /// Packets dropped, by class and direction.
    pub drops: Vec<DropCount>,
    /// Packets dropped because one end was a pod's interface and had no class: unknown addresses.
    pub unknown_drops: u64,
    /// Packets dropped because their source is not behind the interface that they came from.
    pub spoofed_drops: u64,
}

/// Packets that the policies of a class dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCount {
    /// The number of the class.
    pub class: u16,
    /// Which of its sides.
    pub direction: Direction,
    /// The local endpoints that are in the class now. Where there is one, it is the one that is meant.
    pub endpoints: Vec<EndpointId>,
    /// How many since the agent's start.
    pub packets: u64,
}

/// Counters of drops, kept over the lives of the chains that count.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    totals: BTreeMap<Reason, u64>,
    /// What each counter last showed.
    last: BTreeMap<Counter, u64>,
    /// Counters have been read once: what they showed then was before our time.
    is_primed: bool,
}

/// What a packet was dropped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    Class(ClassId, Direction),
    Unknown,
    Spoofed,
}

type Counter = (types::Family, String, usize);

impl Drops {
    /// A table, read with counters; `unknown` is the hash of the rule that drops what has no slot.
    pub(crate) fn read(
        &mut self,
        family: types::Family,
        table: &SavedTable,
        unknown: u64,
        class_of: impl Fn(u16) -> Option<ClassId>,
    ) {
        for (name, chain) in &table.chains {
            let last = chain.rules.len().saturating_sub(1);
            let counting = match SlotChain::parse(name) {
                Some((SlotChain { direction, part }, slot)) => {
                    let Some(class) = class_of(slot) else { continue };
                    let is_governed = chain.rules.last() == Some(&Some(render::drop_hash()));
                    // The first drops what picks up a connection; the end of an open direction returns.
                    let places = [Some(0).filter(|_| part == 0 && last > 0), Some(last).filter(|_| is_governed)];
                    places.into_iter().flatten().map(|at| (Reason::Class(class, direction), at)).collect()
                }
                None if name == names::RAW => vec![(Reason::Spoofed, last)],
                None => {
                    let at = chain.rules.iter().position(|hash| *hash == Some(unknown));
                    at.map(|at| (Reason::Unknown, at)).into_iter().collect::<Vec<_>>()
                }
            };
            for (reason, at) in counting {
                if let Some(packets) = chain.packets.get(at) {
                    self.count((family, name.clone(), at), reason, *packets);
                }
            }
        }
    }

    fn count(&mut self, counter: Counter, reason: Reason, packets: u64) {
        let news = match self.last.insert(counter, packets) {
            // A chain that was written anew counts from zero.
            Some(before) if before <= packets => packets - before,
            None if !self.is_primed => 0,
            _ => packets,
        };
        *self.totals.entry(reason).or_default() += news;
    }

    /// The class is nobody's: its number may be another's next.
    pub(crate) fn forget(&mut self, class: ClassId) {
        self.totals.retain(|reason, _| !matches!(reason, Reason::Class(of, _) if *of == class));
    }

    /// The first reading is complete.
    pub(crate) const fn prime(&mut self) {
        self.is_primed = true;
    }

    /// The total of each reason.
    pub(crate) const fn totals(&self) -> &BTreeMap<Reason, u64> {
        &self.totals
    }
}
