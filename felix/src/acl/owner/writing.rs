//! What is done to sets, at once, by netlink.
//!
//! | sets are  | what happens                          | they are then                                           |
//! |-----------|---------------------------------------|---------------------------------------------------------|
//! | good      | the kernel refuses something of one   | troubled by this one; `RetrySets` is set: a back-off    |
//! | troubled  | the kernel refuses something of one   | troubled by this one too; the timer as it was           |
//! | troubled  | `RetrySets` expires                   | good, until something is refused again                  |
//! | good      | a round has been carried out          | good; the back-off begins anew                          |
//!
//! A set that is troubled is not compared until the timer expires; other changes of it are tried as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use kernel::KernelError;
use kernel::acl::{SetChanges, SetName};
use tracing::warn;
use types::Family;
use types::backoff::Backoff;

use super::timers::Timer;
use super::{KERNEL_RETRY_DELAY, Owner};
use crate::acl::names::{OwnSet, SetRef};
use crate::acl::sets::{SetStep, SetWork, family_of, grown};
use crate::acl::state::Program;
use crate::policy::Compiler;
use crate::policy::program::{Element, SetId};

/// Where the writing of sets stands.
#[derive(Debug)]
pub(super) struct SetWriting {
    health: Health,
    /// Delays between attempts.
    backoff: Backoff,
    recount: Recount,
    /// Sets with names of ours that mean nothing to this version of the agent. They go with what nobody wants.
    unknown: Vec<SetName>,
}

/// Whether sets are as they should be.
#[derive(Debug)]
enum Health {
    /// They are, as far as is known.
    Good,
    /// Something is wrong with these, at least with one.
    Troubled(BTreeMap<SetRef, KernelError>),
}

/// Whether the members of sets are to be counted, which finds what others did to sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recount {
    /// Not before the next resync.
    NotDue,
    /// When all is in force.
    Due,
}

impl SetWriting {
    /// Nothing is wrong.
    pub(super) fn new(seed: u64) -> Self {
        let (first, most) = KERNEL_RETRY_DELAY;
        let backoff = Backoff::new(first, most, seed);
        Self { health: Health::Good, backoff, recount: Recount::NotDue, unknown: Vec::new() }
    }

    /// The sets with which something is wrong, and what.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&SetRef, &KernelError)> {
        let troubles = match &self.health {
            Health::Good => None,
            Health::Troubled(troubles) => Some(troubles),
        };
        troubles.into_iter().flatten()
    }

    /// Whether nothing is wrong, as far as is known.
    pub(super) const fn is_good(&self) -> bool {
        matches!(self.health, Health::Good)
    }

    /// What is wrong is tried again.
    pub(super) fn try_again(&mut self) {
        self.health = Health::Good;
    }

    /// Members are to be counted.
    pub(super) const fn recount(&mut self) {
        self.recount = Recount::Due;
    }

    /// A set was found whose name means nothing.
    pub(super) fn found_unknown(&mut self, set: SetName) {
        self.unknown.push(set);
    }
}

impl Owner {
    /// Makes sets and changes members, as far as that may be done now; whether there was anything.
    pub(super) fn change_sets(&mut self, now: Instant) -> bool {
        let compared = self.compare_sets(now);
        let steps = self.state.set_steps();
        let has_steps = !steps.is_empty();
        for step in steps {
            if !self.take_step(&step, now) {
                self.state.set_failed(step.set);
            }
        }
        compared || has_steps
    }

    /// Reads sets of which it is not certain what they hold, and makes them what they should be.
    fn compare_sets(&mut self, now: Instant) -> bool {
        let is_troubled = |set: &SetId| {
            self.sets.troubles().any(|(trouble, _)| matches!(trouble, SetRef::Program(id, _) if id == set))
        };
        let unverified: Vec<_> = self.state.sets_to_verify().into_iter().filter(|set| !is_troubled(set)).collect();
        if unverified.is_empty() {
            return false;
        }
        for set in unverified {
            let wanted = members(&self.compiler, set);
            if self.compare_set(set, &wanted, now) {
                self.state.set_verified(set);
            }
        }
        true
    }

    fn compare_set(&mut self, set: SetId, wanted: &BTreeMap<Family, BTreeSet<Element>>, now: Instant) -> bool {
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
        let result = match &step.work {
            SetWork::Create(spec) => self.ends.sets.create_set(&step.set.kernel_name(), spec),
            SetWork::Change(changes) => match self.ends.sets.change_elements(changes) {
                Ok(failures) => match failures.into_iter().next() {
                    None => Ok(()),
                    Some(failure) if matches!(failure.error, KernelError::Full(_)) => {
                        return self.grow(step.set, changes, &failure.error, now);
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

    /// Gives a full set a larger one's content, under the rules that use it, with the changes that it had no room for.
    fn grow(&mut self, set: SetRef, changes: &SetChanges, full: &KernelError, now: Instant) -> bool {
        match self.copy_larger(set, changes, 0) {
            Ok(true) => true,
            Ok(false) => {
                self.set_trouble(set, full.clone(), now);
                false
            }
            Err(error) => {
                warn!(%set, %error, "an IP set is full and cannot be made larger");
                self.set_trouble(set, full.clone(), now);
                false
            }
        }
    }

    /// Whether the changes were made whole in the larger set, which has room for so many more.
    fn copy_larger(&mut self, set: SetRef, changes: &SetChanges, more: usize) -> Result<bool, KernelError> {
        let more = changes.as_slice().len() + more;
        self.ends.sets.enlarge(changes, &set.larger_name(), &|spec, members| grown(spec, members + more))
    }

    /// Maps addresses to the mark numbers of their classes; whether anything was changed.
    pub(super) fn map_addresses(&mut self, now: Instant) -> bool {
        let mut has_changed = false;
        for (family, changes) in self.state.mapping_steps() {
            match self.ends.sets.change_elements(&OwnSet::marks(family).changes(changes.iter().copied())) {
                Ok(failures) => {
                    let failed: BTreeMap<_, _> =
                        failures.into_iter().map(|failure| (failure.index, failure.error)).collect();
                    for (index, change) in changes.iter().enumerate() {
                        self.state.mapping_done(change, !failed.contains_key(&index));
                    }
                    has_changed |= failed.len() < changes.len();
                    if let Some(error) = failed.into_values().next() {
                        self.mapping_failed(family, changes.len(), error, now);
                    }
                }
                Err(error) => {
                    changes.iter().for_each(|change| self.state.mapping_done(change, false));
                    self.mapping_failed(family, changes.len(), error, now);
                }
            }
        }
        has_changed
    }

    fn mapping_failed(&mut self, family: Family, changes: usize, error: KernelError, now: Instant) {
        let set = SetRef::Marks(family);
        let repaired = match error {
            KernelError::Full(_) => {
                // Room for those that failed, which come again with the next pass.
                self.copy_larger(set, &OwnSet::marks(family).changes([]), changes).is_ok_and(|done| done)
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
        if self.state.is_enforcing() {
            for name in std::mem::take(&mut self.sets.unknown) {
                if let Err(error) = self.ends.sets.destroy_set(&name) {
                    warn!(set = %name, %error, "a set of an earlier version of the agent cannot be destroyed; it stays");
                }
            }
        }
    }

    /// Compares how many members the sets have with how many they should have: that finds what others emptied or destroyed
    /// without reading a hundred thousand members. To be called when everything is in force.
    fn count_members(&mut self, now: Instant) {
        let headers = match self.ends.sets.sets() {
            Ok(headers) => headers,
            Err(error) => {
                return warn!(%error, "the kernel's sets cannot be listed; their members are counted at the next resync");
            }
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
        let mapped = families.into_iter().map(|family| (SetRef::Marks(family), self.state.mapped_count(family)));
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
        if self.sets.troubles().all(|(of, known)| *of != set || *known != error) {
            warn!(%set, %error, "an IP set cannot be made what it should be; this is tried again");
        }
        match &mut self.sets.health {
            Health::Good => self.sets.health = Health::Troubled(BTreeMap::from([(set, error)])),
            Health::Troubled(troubles) => drop(troubles.insert(set, error)),
        }
        if !self.timers.is_set(Timer::RetrySets) {
            self.timers.set(Timer::RetrySets, now + self.sets.backoff.delay());
        }
    }

    /// A round has been carried out: unless something is wrong, delays begin anew.
    pub(super) fn sets_written(&mut self) {
        if self.sets.is_good() {
            self.sets.backoff.reset();
            self.timers.cancel(Timer::RetrySets);
        }
    }

    /// Counts members if that is due and everything is in force, and puts right what differs.
    pub(super) fn recount_members(&mut self, now: Instant) {
        if self.sets.recount == Recount::Due && self.state.is_settled() {
            self.sets.recount = Recount::NotDue;
            self.count_members(now);
            self.change_sets(now);
            self.map_addresses(now);
        }
    }
}

/// All that the compiler wants, members of sets apart. To be asked after its changes were taken.
pub(super) fn program(compiler: &Compiler) -> Program<'_> {
    let desired = compiler.desired();
    let sets = desired.sets().map(|(set, _)| set);
    Program { sets: sets.collect(), classes: desired.classes().collect(), memberships: desired.memberships().collect() }
}

/// The members that a set should have, per family.
fn members(compiler: &Compiler, set: SetId) -> BTreeMap<Family, BTreeSet<Element>> {
    let mut families: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for element in compiler.desired().elements(set) {
        families.entry(family_of(&element)).or_default().insert(element);
    }
    families
}
