//! What `iptables-save` says of us: chains with the stamps of their rules, and where our rules stand in others' chains.
//! Rules are known by their stamps and never parsed.

use std::collections::{BTreeMap, BTreeSet};

use kernel::acl::saved::{counters, value_of};

use super::names::PREFIX;
use super::rule::Stamp;
use crate::policy::program::{ClassId, ClassKey};

/// One table of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SavedTable {
    /// Our chains.
    pub(crate) chains: BTreeMap<String, SavedChain>,
    /// Chains that are not ours, if they have a rule or drop what no rule decides.
    pub(crate) foreign: BTreeMap<String, ForeignChain>,
}

/// A chain of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SavedChain {
    /// The hashes of its rules in order; none for a rule that is not ours.
    pub(crate) rules: Vec<Option<u64>>,
    /// Packets that each has matched, if that was asked for.
    pub(crate) packets: Vec<u64>,
    /// The sets that its rules match.
    pub(crate) sets: BTreeSet<String>,
    /// The class that it belongs to.
    pub(crate) class: Option<(ClassId, ClassKey)>,
}

/// A chain of somebody else's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForeignChain {
    /// Whether its policy is DROP.
    pub(crate) drops: bool,
    /// How many rules it has, ours too.
    pub(crate) length: usize,
    /// Those of them that are ours, in order.
    pub(crate) ours: Vec<OurRule>,
}

/// A rule of ours in a foreign chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OurRule {
    /// Its place, from zero.
    pub(crate) index: usize,
    /// Its hash.
    pub(crate) hash: u64,
    /// As it is to be deleted.
    pub(crate) spec: String,
}

impl SavedTable {
    /// Reads the section of a table. A text without it is an empty table.
    pub(crate) fn parse(text: &str, table: &str) -> Self {
        let mut saved = Self::default();
        let mut is_inside = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                is_inside = name.trim() == table;
            } else if is_inside {
                saved.line(line);
            }
        }
        saved.foreign.retain(|_, chain| chain.drops || chain.length > 0);
        saved
    }

    fn line(&mut self, line: &str) {
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), policy) = (words.next(), words.next()) else { return };
            if name.starts_with(PREFIX) {
                self.chains.entry(name.to_owned()).or_default();
            } else {
                self.foreign.entry(name.to_owned()).or_default().drops = policy == Some("DROP");
            }
            return;
        }
        let (packets, rule) = counters(line);
        let Some((chain, spec)) = rule.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) else { return };
        let stamp = value_of("--comment", spec).and_then(|comment| Stamp::parse(&comment));
        if chain.starts_with(PREFIX) {
            let saved = self.chains.entry(chain.to_owned()).or_default();
            saved.rules.push(stamp.map(|stamp| stamp.hash));
            saved.packets.extend(packets);
            saved.sets.extend(value_of("--match-set", spec));
            saved.class = saved.class.or_else(|| stamp.and_then(|stamp| stamp.class));
        } else {
            let foreign = self.foreign.entry(chain.to_owned()).or_default();
            let index = foreign.length;
            foreign.length += 1;
            foreign.ours.extend(stamp.map(|stamp| OurRule { index, hash: stamp.hash, spec: spec.to_owned() }));
        }
    }
}

#[cfg(test)]
mod tests;
