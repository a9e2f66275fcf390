//! What is done to sets, at once, by netlink.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use kernel::KernelError;
use kernel::acl::{ElementChange, SetElement};
use tracing::warn;
use types::Family;

use super::Owner;
use crate::acl::names::SetRef;
use crate::acl::sets::{SetStep, SetWork, grown, member};
use crate::acl::state::Program;
use crate::policy::Compiler;
use crate::policy::program::SetId;

/// How many changes go to the kernel in one call when a set is copied.
const COPIED_AT_ONCE: usize = 4_096;

impl Owner {
    /// Makes sets and changes members, as far as that may be done now; whether there was anything.
    pub(super) fn change_sets(&mut self, now: Instant) -> bool {
        let compared = self.compare_sets(now);
        let steps = self.state.set_steps();
        let has_steps = !steps.is_empty();
        for step in steps {
            if !self.take_step(&step, now) {
                self.state.doubt_set(step.set);
            }
        }
        compared || has_steps
    }

    /// Reads sets of which it is not certain what they hold, and makes them what they should be.
    fn compare_sets(&mut self, now: Instant) -> bool {
        let is_troubled = |set: &SetId| {
            self.set_troubles.keys().any(|trouble| matches!(trouble, SetRef::Program(id, _) if id == set))
        };
        let unsure: Vec<_> = self.state.unsure_sets().into_iter().filter(|set| !is_troubled(set)).collect();
        if unsure.is_empty() {
            return false;
        }
        for set in unsure {
            let wanted = members(&self.compiler, set);
            if self.compare_set(set, &wanted, now) {
                self.state.set_is_sure(set);
            }
        }
        true
    }

    fn compare_set(&mut self, set: SetId, wanted: &BTreeMap<Family, BTreeSet<SetElement>>, now: Instant) -> bool {
        let none = BTreeSet::new();
        for family in self.state.families().clone() {
            let set_ref = SetRef::Program(set, family);
            let found = match self.ends.sets.elements(&set_ref.kernel_name()) {
                Ok(found) => Some(found),
                Err(KernelError::Gone(_)) => None,
                Err(error) => {
                    self.set_trouble(set_ref, error, now);
                    return false;
                }
            };
            let steps = self.state.set_compared(set, family, found, wanted.get(&family).unwrap_or(&none));
            if !steps.iter().all(|step| self.take_step(step, now)) {
                return false;
            }
        }
        true
    }

    /// Whether the step was taken whole.
    fn take_step(&mut self, step: &SetStep, now: Instant) -> bool {
        let name = step.set.kernel_name();
        let result = match &step.work {
            SetWork::Create(spec) => self.ends.sets.create_set(&name, spec),
            SetWork::Change(changes) => match self.ends.sets.change_elements(&name, changes) {
                Ok(failures) => match failures.into_iter().next() {
                    None => Ok(()),
                    Some(failure) if matches!(failure.error, KernelError::Full(_)) => {
                        return self.grow(step, &failure.error, now);
                    }
                    Some(failure) => Err(failure.error),
                },
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(()) => true,
            // It is read before anything else is done with it. Pools are few and put as a whole.
            Err(KernelError::Exists(_)) => !matches!(step.set, SetRef::Program(..)),
            Err(KernelError::Gone(_)) => false,
            Err(error) => {
                self.set_trouble(step.set, error, now);
                false
            }
        }
    }

    /// Gives a full set a larger one's content, under the rules that use it, and takes the step once more.
    fn grow(&mut self, step: &SetStep, full: &KernelError, now: Instant) -> bool {
        match self.copy_larger(step, 0) {
            Ok(true) => true,
            Ok(false) => {
                self.set_trouble(step.set, full.clone(), now);
                false
            }
            Err(error) => {
                warn!(set = %step.set, %error, "the set is full and cannot be made larger");
                self.set_trouble(step.set, full.clone(), now);
                false
            }
        }
    }

    /// Whether the step was taken whole in the larger set, which has room for so many more.
    fn copy_larger(&mut self, step: &SetStep, more: usize) -> Result<bool, KernelError> {
        let SetWork::Change(changes) = &step.work else { return Ok(false) };
        let (name, larger) = (step.set.kernel_name(), step.set.larger_name());
        let sets = self.ends.sets.as_mut();
        let known = sets.sets()?.into_iter().find(|header| header.name == name).and_then(|header| header.spec);
        let Some(spec) = known else { return Ok(false) };
        let members = sets.elements(&name)?;
        sets.destroy_set(&larger)?;
        sets.create_set(&larger, &grown(spec, members.len() + changes.len() + more))?;
        let mut failures = 0;
        let members: Vec<_> = members.into_iter().map(ElementChange::Put).collect();
        for piece in members.chunks(COPIED_AT_ONCE).chain([changes.as_slice()]) {
            failures += sets.change_elements(&larger, piece)?.len();
        }
        if failures == 0 {
            sets.swap_sets(&name, &larger)?;
        }
        sets.destroy_set(&larger)?;
        Ok(failures == 0)
    }

    /// Maps addresses to their slots; whether anything was changed.
    pub(super) fn change_joins(&mut self, now: Instant) -> bool {
        let mut has_changed = false;
        for (family, changes) in self.state.join_steps() {
            let set = SetRef::Slots(family);
            match self.ends.sets.change_elements(&set.kernel_name(), &changes) {
                Ok(failures) => {
                    let failed: BTreeMap<_, _> =
                        failures.into_iter().map(|failure| (failure.index, failure.error)).collect();
                    for (index, change) in changes.iter().enumerate() {
                        self.state.joined(change, !failed.contains_key(&index));
                    }
                    has_changed |= failed.len() < changes.len();
                    if let Some(error) = failed.into_values().next() {
                        self.joins_failed(set, &changes, error, now);
                    }
                }
                Err(error) => {
                    changes.iter().for_each(|change| self.state.joined(change, false));
                    self.joins_failed(set, &changes, error, now);
                }
            }
        }
        has_changed
    }

    fn joins_failed(&mut self, set: SetRef, changes: &[ElementChange], error: KernelError, now: Instant) {
        let repaired = match error {
            KernelError::Full(_) => {
                let nothing = SetStep { set, work: SetWork::Change(Vec::new()) };
                // Room for those that failed, which come again with the next pass.
                self.copy_larger(&nothing, changes.len()).is_ok_and(|done| done)
            }
            KernelError::Gone(_) => self.make_base_set(set).is_ok(),
            _ => false,
        };
        if !repaired {
            self.set_trouble(set, error, now);
        }
    }

    /// Destroys sets of which no rule speaks any more.
    pub(super) fn destroy_sets(&mut self, now: Instant) {
        let doomed = self.state.destroyable();
        if doomed.is_empty() {
            self.state.destroyed_all();
        }
        for set in doomed {
            let mut is_gone = true;
            for family in Family::ALL {
                match self.ends.sets.destroy_set(&SetRef::Program(set, family).kernel_name()) {
                    Ok(()) => {}
                    // Somebody's rule speaks of it, or one of an earlier life: with the next comparison.
                    Err(KernelError::Busy(_)) => is_gone = false,
                    Err(error) => {
                        is_gone = false;
                        self.set_trouble(SetRef::Program(set, family), error, now);
                    }
                }
            }
            self.state.destroyed(set, is_gone);
        }
        if self.state.has_begun() {
            for name in std::mem::take(&mut self.strangers) {
                if let Err(error) = self.ends.sets.destroy_set(&name) {
                    warn!(set = %name, %error, "a set with a name of ours that means nothing now stays");
                }
            }
        }
    }

    /// Compares how many members the sets have with how many they should have: that finds what others emptied or destroyed
    /// without reading a hundred thousand members. To be called when everything is in force.
    pub(super) fn count_members(&mut self, now: Instant) {
        let headers = match self.ends.sets.sets() {
            Ok(headers) => headers,
            Err(error) => return warn!(%error, "sets cannot be listed"),
        };
        let families = self.state.families().clone();
        let mut found: BTreeMap<SetId, (usize, usize)> = BTreeMap::new();
        let mut others: BTreeMap<SetRef, usize> = BTreeMap::new();
        for header in headers {
            match SetRef::parse(header.name.as_str()) {
                Some(SetRef::Program(_, family)) if !families.contains(&family) => {}
                Some(SetRef::Program(set, _)) => {
                    let (members, seen) = found.entry(set).or_default();
                    *members += header.elements as usize;
                    *seen += 1;
                }
                Some(set) => drop(others.insert(set, header.elements as usize)),
                None => {}
            }
        }
        let whole =
            |set: &SetId| found.get(set).filter(|(_, seen)| *seen == families.len()).map(|(members, _)| *members);
        let sets: Vec<_> = self.compiler.desired().sets().map(|(set, wanted)| (set, whole(&set), wanted)).collect();
        self.state.listed(sets);
        let mapped = families.into_iter().map(|family| (SetRef::Slots(family), self.state.mapped(family)));
        for (set, wanted) in mapped.chain(self.state.fixed_counts()).collect::<Vec<_>>() {
            if others.get(&set) != Some(&wanted) {
                let read = self.make_base_set(set).and_then(|()| self.ends.sets.elements(&set.kernel_name()));
                match read {
                    Ok(elements) => self.state.fixed_set_read(set, &elements),
                    Err(error) => self.set_trouble(set, error, now),
                }
            }
        }
    }

    fn set_trouble(&mut self, set: SetRef, error: KernelError, now: Instant) {
        if self.set_troubles.get(&set) != Some(&error) {
            warn!(%set, %error, "a set is not as it should be; tried again");
        }
        self.set_troubles.insert(set, error);
        if self.retry_at.is_none() {
            self.retry_at = Some(now + self.backoff.delay());
        }
    }
}

/// All that the compiler wants, members of sets apart. To be asked after its changes were taken.
pub(super) fn program(compiler: &Compiler) -> Program<'_> {
    let desired = compiler.desired();
    let sets = desired.sets().map(|(set, _)| set);
    Program { sets: sets.collect(), classes: desired.classes().collect(), joins: desired.joins().collect() }
}

/// The members that a set should have, per family.
fn members(compiler: &Compiler, set: SetId) -> BTreeMap<Family, BTreeSet<SetElement>> {
    let mut families: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for element in compiler.desired().elements(set) {
        let (family, member) = member(set, element);
        families.entry(family).or_default().insert(member);
    }
    families
}
