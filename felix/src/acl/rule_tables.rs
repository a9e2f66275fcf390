//! What the kernel's tables of rules hold, which of them may differ from what is wanted, and the one restore at a time that
//! makes them so. Pure.

use std::collections::{BTreeMap, BTreeSet};

use types::Family;

use super::plan;
use super::render::{TableName, WantedTable};
use super::saved::{ForeignChain, SavedChain, SavedTable};

/// The tables of all families.
#[derive(Debug)]
pub(crate) struct RuleTables {
    /// What they hold, as last read or written.
    known: BTreeMap<(Family, TableName), SavedTable>,
    /// Families whose tables may differ from what is wanted.
    dirty: BTreeSet<Family>,
    /// The restore that is under way.
    restore: Option<Restore>,
    /// How the last restore that has ended went.
    last: LastRestore,
}

/// A restore that is under way: what the tables are to hold when it has succeeded.
#[derive(Debug)]
struct Restore {
    family: Family,
    tables: BTreeMap<TableName, WantedTable>,
}

/// How the last restore went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastRestore {
    /// It succeeded, or there was none.
    Succeeded,
    /// It failed.
    Failed,
}

/// A text for iptables-restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableJob {
    /// Whose iptables.
    pub(crate) family: Family,
    /// The text.
    pub(crate) text: String,
}

/// What others have done to our chains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disturbance {
    /// There is something to be repaired.
    pub(crate) repairs: bool,
    /// It is something that protects pods.
    pub(crate) is_unprotected: bool,
}

impl RuleTables {
    /// Nothing is known; the tables of these families are to be looked at.
    pub(crate) const fn new(families: BTreeSet<Family>) -> Self {
        Self { known: BTreeMap::new(), dirty: families, restore: None, last: LastRestore::Succeeded }
    }

    /// What a table holds.
    pub(crate) fn known(&self, family: Family, name: TableName) -> Option<&SavedTable> {
        self.known.get(&(family, name))
    }

    /// Whether no restore is under way or to be made.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_restoring() && self.dirty.is_empty()
    }

    /// Whether a restore is under way.
    pub(crate) const fn is_restoring(&self) -> bool {
        self.restore.is_some()
    }

    /// Whether the last restore that has ended failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.last == LastRestore::Failed
    }

    /// How many rules of ours the kernel has.
    pub(crate) fn rule_count(&self) -> usize {
        let chains = self.known.values().flat_map(|table| table.chains.values().map(|chain| chain.rules.len()));
        let hooks = self.known.values().flat_map(|table| table.foreign.values().map(|chain| chain.ours.len()));
        chains.chain(hooks).sum()
    }

    /// The tables of these families may differ from what is wanted.
    pub(crate) fn touch(&mut self, families: impl IntoIterator<Item = Family>) {
        self.dirty.extend(families);
    }

    /// Tables have been read. Answers what others have changed in them.
    pub(crate) fn read(&mut self, family: Family, tables: BTreeMap<TableName, SavedTable>) -> Disturbance {
        let mut disturbance = Disturbance::default();
        for (name, table) in tables {
            let is_changed = self.known.get(&(family, name)).is_some_and(|before| differs(before, &table));
            self.known.insert((family, name), table);
            disturbance.repairs |= is_changed;
            disturbance.is_unprotected |= is_changed && matches!(name, TableName::Mangle | TableName::Raw);
        }
        disturbance
    }

    /// The next restore, if one is to be made and none is under way: it makes the tables of one family what they should
    /// be, and counts as under way from now on.
    pub(crate) fn next_restore(&mut self, wanted: impl Fn(Family, TableName) -> WantedTable) -> Option<TableJob> {
        if self.is_restoring() {
            return None;
        }
        while let Some(family) = self.dirty.pop_first() {
            let mut text = String::new();
            let mut tables = BTreeMap::new();
            for name in TableName::ALL {
                let wanted = wanted(family, name);
                let known = self.known.entry((family, name)).or_default();
                if let Some(part) = plan::restore_text(name, known, &wanted) {
                    text.push_str(&part);
                    tables.insert(name, wanted);
                }
            }
            if !tables.is_empty() {
                self.restore = Some(Restore { family, tables });
                return Some(TableJob { family, text });
            }
        }
        None
    }

    /// The restore that was under way has ended; answers its family.
    pub(crate) fn restored(&mut self, is_success: bool) -> Option<Family> {
        let Restore { family, tables } = self.restore.take()?;
        self.dirty.insert(family);
        if is_success {
            self.last = LastRestore::Succeeded;
            for (name, wanted) in tables {
                let known = self.known.entry((family, name)).or_default();
                *known = plan::after(known, &wanted);
            }
        } else {
            self.last = LastRestore::Failed;
        }
        Some(family)
    }
}

/// Whether others have taken or moved something of ours.
fn differs(before: &SavedTable, now: &SavedTable) -> bool {
    let places = |table: &SavedTable| -> Vec<(String, u64, bool)> {
        let of = |(name, chain): (&String, &ForeignChain)| {
            chain.ours.iter().map(|rule| (name.clone(), rule.hash, rule.index == 0)).collect::<Vec<_>>()
        };
        table.foreign.iter().flat_map(of).collect()
    };
    let chain_differs =
        |(name, chain): (&String, &SavedChain)| now.chains.get(name).is_none_or(|now| now.rules != chain.rules);
    before.chains.iter().any(chain_differs) || places(before) != places(now)
}

#[cfg(test)]
mod tests;
