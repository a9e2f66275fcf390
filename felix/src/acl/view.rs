//! What the filter has done, as numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use types::policy::Direction;
use types::{EndpointId, Family};

use super::names;
use super::saved::SavedTable;
use crate::policy::CompilerStats;

/// Durations, counted by how long they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// How many were at most as long as the bound of the same place in [`Histogram::BOUNDS`] and longer than the one
    /// before; the last counts those beyond all bounds.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// The sum of all durations.
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

    /// Counts a duration.
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
    /// Members of all sets of ours.
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
    /// Packets that policies dropped, of local endpoints of which any were.
    pub drops: Vec<DropCount>,
    /// Packets dropped because one end was a pod's interface and had no class: unknown addresses.
    pub unknown_drops: u64,
    /// Packets from pods dropped because what they were for is closed to pods: speakers, the gateway, encapsulations.
    pub refused_drops: u64,
    /// Packets dropped because their source is not behind the interface that they came from.
    pub spoofed_drops: u64,
}

/// Packets to or from a local endpoint that its policies dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCount {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// The side of the endpoint whose policies dropped them.
    pub direction: Direction,
    /// How many since it was attached: the kernel counts, whatever becomes of the agent.
    pub packets: u64,
}

/// Counters of what is dropped ahead of all policies, kept over the lives of the chains that count.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    totals: BTreeMap<Reason, u64>,
    /// What each counter last showed, by family, chain and place.
    last: BTreeMap<(Family, String, usize), u64>,
    /// Counters have been read once: what they showed then was counted before this agent began.
    is_primed: bool,
}

/// What a packet was dropped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    Unknown,
    Spoofed,
    Refused,
}

impl Drops {
    /// A table, read with counters; `unknown` is the hash of the rule that drops what has no mark number.
    pub(crate) fn read(&mut self, family: Family, table: &SavedTable, unknown: u64) {
        for (name, chain) in &table.chains {
            let counting = match name.as_str() {
                names::RAW => Some((Reason::Spoofed, chain.rules.len().saturating_sub(1))),
                names::REFUSE => Some((Reason::Refused, chain.rules.len().saturating_sub(1))),
                _ => chain.rules.iter().position(|hash| *hash == Some(unknown)).map(|at| (Reason::Unknown, at)),
            };
            if let Some((reason, at)) = counting
                && let Some(packets) = chain.packets.get(at)
            {
                self.count((family, name.clone(), at), reason, *packets);
            }
        }
    }

    fn count(&mut self, counter: (Family, String, usize), reason: Reason, packets: u64) {
        let more = match self.last.insert(counter, packets) {
            // A chain that was written anew counts from zero.
            Some(before) if before <= packets => packets - before,
            None if !self.is_primed => 0,
            _ => packets,
        };
        *self.totals.entry(reason).or_default() += more;
    }

    /// The first reading is complete.
    pub(crate) const fn prime(&mut self) {
        self.is_primed = true;
    }

    /// The total of a reason.
    pub(crate) fn total(&self, reason: Reason) -> u64 {
        self.totals.get(&reason).copied().unwrap_or_default()
    }
}
