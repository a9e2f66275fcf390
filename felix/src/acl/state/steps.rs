//! What is to be done, and what may be cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use kernel::acl::{ElementChange, MarkedAddress, SetElement};
use types::Family;

use super::{Phase, State};
use crate::acl::class_versions::ClassVersions;
use crate::acl::render::{self, Layout, TableName, WantedTable};
use crate::acl::rule_tables::TableJob;
use crate::acl::sets::{ProgramSets, SetStep};
use crate::policy::program::{Element, SetId};

/// With fewer free mark numbers than this, versions of no use are cleared away at once.
const SCARCE_NUMBERS: usize = 8;

/// Sets destroyed in one round: each may cost an RCU wait.
const SETS_DESTROYED_PER_ROUND: usize = 4;

/// What is to be done.
impl State {
    /// Puts in order what follows from what happened: to be called before steps are asked for.
    pub(crate) fn settle(&mut self, now: Instant) {
        let in_use = self.address_marks.in_use();
        let garbage = self.versions.garbage(&in_use);
        if self.is_enforcing() && !garbage.is_empty() {
            let is_scarce = self.versions.free_count() < SCARCE_NUMBERS && !self.tables.has_failed();
            if is_scarce || self.clear_at.is_none_or(|at| now >= at) {
                self.versions.leave(&garbage);
                self.tables.touch(self.families.iter().copied());
            }
        }
        self.versions.number();
        if self.versions.without_number() > 0 && !self.versions.has_leaving() && garbage.is_empty() {
            self.versions.replace_in_place();
        }
        self.look_at_outdated();
        let blocked = self.sets.blocked();
        if !blocked.is_empty() && self.tables.is_idle() {
            self.address_marks.evict(&self.versions.outdated_with(&blocked));
        }
    }

    /// When there is something to be cleared away that is left for now.
    pub(crate) fn clear_at(&self) -> Option<Instant> {
        let has_some = !self.versions.garbage(&self.address_marks.in_use()).is_empty();
        if has_some { self.clear_at } else { None }
    }

    /// Sets of the compiler's that are to be read and compared.
    pub(crate) fn sets_to_verify(&self) -> Vec<SetId> {
        if self.is_enforcing() { self.sets.to_verify() } else { Vec::new() }
    }

    /// A set was read (none: it is not there): what is to be done about it.
    pub(crate) fn set_compared(
        &mut self,
        set: SetId,
        family: Family,
        found: Option<Vec<SetElement>>,
        wanted: &BTreeSet<Element>,
    ) -> Vec<SetStep> {
        self.sets.compared(set, family, found, wanted)
    }

    /// What was to be done about a set has been done in all families.
    pub(crate) fn set_verified(&mut self, set: SetId) {
        self.sets.verified(set);
        self.tables.touch(self.families.iter().copied());
    }

    /// Sets to be made and members to be changed.
    pub(crate) fn set_steps(&mut self) -> Vec<SetStep> {
        let mut steps = self.fixed.steps(self.is_enforcing());
        if self.is_enforcing() {
            steps.extend(self.sets.steps(&self.families));
        }
        steps
    }

    /// Sets to be destroyed.
    pub(crate) fn destroyable(&self) -> Vec<SetId> {
        let is_due = self.is_enforcing() && self.may_destroy && !self.tables.is_restoring();
        if is_due {
            self.sets.destroyable(|set| self.versions.speak_of(set), SETS_DESTROYED_PER_ROUND)
        } else {
            Vec::new()
        }
    }

    /// Nothing more can be destroyed before rules change.
    pub(crate) fn destroyed_all(&mut self) {
        self.may_destroy = false;
    }

    /// The set is gone, or could not be destroyed.
    pub(crate) fn destroyed(&mut self, set: SetId, is_gone: bool) {
        if is_gone { self.sets.destroyed(set) } else { self.sets.not_destroyed(set) }
    }

    /// Addresses to be mapped.
    pub(crate) fn mapping_steps(&mut self) -> BTreeMap<Family, Vec<ElementChange<MarkedAddress>>> {
        match &mut self.phase {
            Phase::Enforcing => self.address_marks.steps(&self.versions, &self.families),
            Phase::Adopting { left } if left.is_empty() => BTreeMap::new(),
            Phase::Adopting { left } => {
                self.address_marks.steps_of(std::mem::take(left), &self.versions, &self.families)
            }
        }
    }

    /// The next restore, if one is to be made and none is under way.
    pub(crate) fn table_job(&mut self) -> Option<TableJob> {
        let Self { layout, versions, sets, tables, .. } = self;
        let job = tables.next_restore(|family, name| wanted_table(layout, versions, sets, family, name))?;
        let wanted = versions.wanted(job.family, |set| sets.is_there(set));
        let numbers: Vec<_> = wanted.into_iter().map(|(number, _)| number).collect();
        versions.writing(job.family, numbers);
        Some(job)
    }
}

/// What a table should hold now.
fn wanted_table(
    layout: &Layout,
    versions: &ClassVersions,
    sets: &ProgramSets,
    family: Family,
    name: TableName,
) -> WantedTable {
    let versions = match name {
        TableName::Mangle => versions.wanted(family, |set| sets.is_there(set)),
        TableName::Raw | TableName::Nat | TableName::Filter => Vec::new(),
    };
    let numbers: Vec<_> = versions.iter().map(|(number, _)| *number).collect();
    let chains = versions.iter().flat_map(|(number, version)| {
        version.rules.iter().filter(|((of, _), _)| *of == family).map(|((_, chain), rules)| {
            // Of versions of an earlier life only hashes are known; they stay as they are.
            let is_readable = rules.iter().all(|rule| !rule.spec.is_empty());
            let log = layout.log.filter(|_| is_readable);
            (chain.name(*number), render::for_number(rules, *number, log, chain.direction, version.class))
        })
    });
    render::table(layout, family, name, &numbers, chains)
}
