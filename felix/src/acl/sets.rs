//! Which sets there are and which changes of members may be made now. Pure: steps go out, failures come in.
//!
//! Members of a set that classes share say who an endpoint is, whatever the policies are: they change at once. The one
//! exception is a member that is added to a set of which an outdated version in use still speaks: that would open what
//! neither the old nor the new state opens, so it waits. A class's own set goes with its version: changes behind a new
//! version wait until that is in force, deletions only as long as restores succeed.

use std::collections::{BTreeMap, BTreeSet};

use kernel::acl::{AddressPort, ElementChange, SetChanges, SetElement, SetKind, SetSpec};
use types::{Family, Prefix};

use super::names::{ProgramSet, SetRef};
use crate::policy::program::{Element, SetId};

/// Members that a shared set has room for at least. Memory goes by buckets, not by room.
const ROOM_OF_SHARED_SETS: u32 = 1 << 20;

/// Members that a set of one class or one block has room for at least.
const ROOM_OF_OTHER_SETS: u32 = 1 << 16;

/// Buckets that a set is made with: at least, and at most.
const BUCKETS_OF_A_SET: (u32, u32) = (64, 1 << 20);

/// One thing to be done with a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetStep {
    /// The set.
    pub(crate) set: SetRef,
    /// What is to be done with it.
    pub(crate) work: SetWork,
}

/// What is done with a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetWork {
    /// It is made.
    Create(SetSpec),
    /// Its members change.
    Change(SetChanges),
}

/// A set of the compiler's, in all families.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// Whether the compiler wants it.
    is_wanted: bool,
    /// Whether the kernel has it, as far as known.
    exists: bool,
    /// What the kernel has of it is not certain: it is to be read and compared.
    is_unverified: bool,
    /// It was another class's: before it is filled, no outdated version in use may speak of it.
    is_reused: bool,
    /// How many members were expected when it was asked for.
    expected: usize,
    /// Members to be added (`true`) or removed, in this round.
    changes: Vec<(Element, bool)>,
    /// Members to be added or removed once other rules are in force.
    held: BTreeMap<Element, bool>,
}

/// All sets of the compiler's.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramSets {
    entries: BTreeMap<SetId, Entry>,
    /// Entries with something to be done.
    touched: BTreeSet<SetId>,
    /// Entries that are wanted and of which it is not certain what the kernel has.
    to_verify: BTreeSet<SetId>,
    /// Entries of which changes are held.
    holding: BTreeSet<SetId>,
    /// Entries that nobody wants, which are there still.
    to_destroy: BTreeSet<SetId>,
    /// Sets whose changes have to wait for a new version, in which family.
    outdated: BTreeSet<(SetId, Family)>,
}

impl ProgramSets {
    /// The kernel has this set, from an earlier life; what is in it is not known.
    pub(crate) fn found(&mut self, set: SetId) {
        let entry = self.entries.entry(set).or_default();
        (entry.exists, entry.is_unverified) = (true, true);
        self.to_destroy.insert(set);
    }

    /// The compiler wants the set, and tells its members one by one.
    pub(crate) fn create(&mut self, set: SetId, expected: usize) {
        let entry = self.entries.entry(set).or_default();
        // What it held before it was given up is not known any more.
        entry.is_unverified |= entry.exists;
        entry.is_reused |= entry.exists && matches!(set, SetId::Narrow(..));
        (entry.is_wanted, entry.expected) = (true, expected);
        if entry.is_unverified {
            self.to_verify.insert(set);
        }
        self.to_destroy.remove(&set);
        self.touched.insert(set);
    }

    /// The compiler wants the set, whose members are not told one by one but compared.
    pub(crate) fn want(&mut self, set: SetId) {
        let entry = self.entries.entry(set).or_default();
        (entry.is_wanted, entry.is_unverified) = (true, true);
        self.to_verify.insert(set);
        self.to_destroy.remove(&set);
    }

    /// What the kernel has under this name belongs to another class.
    pub(crate) fn renew(&mut self, set: SetId) {
        if let Some(entry) = self.entries.get_mut(&set) {
            entry.is_reused = true;
        }
    }

    /// A member comes or goes.
    pub(crate) fn change(&mut self, set: SetId, element: Element, is_added: bool) {
        let is_outdated = self.outdated.contains(&(set, family_of(&element)));
        let Some(entry) = self.entries.get_mut(&set) else { return };
        // The set is to be read first; all that is wanted is put then.
        if entry.is_unverified || !entry.is_wanted {
            return;
        }
        let is_own = matches!(set, SetId::Narrow(..));
        if is_outdated && (is_added || is_own) {
            entry.held.insert(element, is_added);
            self.holding.insert(set);
        } else {
            entry.held.remove(&element);
            entry.changes.push((element, is_added));
        }
        self.touched.insert(set);
    }

    /// The compiler wants the set no longer.
    pub(crate) fn give_up(&mut self, set: SetId) {
        let Some(entry) = self.entries.get_mut(&set) else { return };
        (entry.is_wanted, entry.is_unverified) = (false, entry.exists);
        entry.changes.clear();
        entry.held.clear();
        self.holding.remove(&set);
        self.to_verify.remove(&set);
        self.to_destroy.insert(set);
    }

    /// These sets are spoken of by outdated versions in use. What waited for others is due now; where `fail_closed`, all
    /// deletions are.
    pub(crate) fn set_outdated(&mut self, outdated: BTreeSet<(SetId, Family)>, fail_closed: bool) {
        for set in std::mem::take(&mut self.holding) {
            let Some(entry) = self.entries.get_mut(&set) else { continue };
            let waits = |element: &Element, is_added: bool| {
                outdated.contains(&(set, family_of(element))) && (is_added || !fail_closed)
            };
            let (wait, due): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(&mut entry.held).into_iter().partition(|(element, is_added)| waits(element, *is_added));
            if !wait.is_empty() {
                entry.held = wait;
                self.holding.insert(set);
            }
            if !due.is_empty() {
                entry.changes.extend(due);
                self.touched.insert(set);
            }
        }
        self.outdated = outdated;
    }

    /// Whether the set is there with all its members, as far as they do not wait for rules.
    pub(crate) fn is_there(&self, set: &SetId) -> bool {
        self.entries.get(set).is_some_and(|entry| entry.exists && !entry.is_unverified)
    }

    /// Whether the change of a member that this is true of waits.
    pub(crate) fn holds(&self, mut concerns: impl FnMut(&Element) -> bool) -> bool {
        let waiting = self.holding.iter().chain(&self.touched).filter_map(|set| self.entries.get(set));
        waiting
            .into_iter()
            .any(|entry| entry.held.keys().chain(entry.changes.iter().map(|(element, _)| element)).any(&mut concerns))
    }

    /// Sets that have to be read and compared before more is done with them.
    pub(crate) fn to_verify(&self) -> Vec<SetId> {
        self.to_verify.iter().filter(|set| !self.is_blocked(**set)).copied().collect()
    }

    /// Sets with which nothing can be done as long as somebody uses what was under their names before.
    pub(crate) fn blocked(&self) -> BTreeSet<SetId> {
        self.to_verify.iter().filter(|set| self.is_blocked(**set)).copied().collect()
    }

    fn is_blocked(&self, set: SetId) -> bool {
        self.is_outdated(set) && self.entries.get(&set).is_some_and(|entry| entry.is_reused)
    }

    fn is_outdated(&self, set: SetId) -> bool {
        Family::ALL.into_iter().any(|family| self.outdated.contains(&(set, family)))
    }

    /// What is to be done now, in order.
    pub(crate) fn steps(&mut self, families: &BTreeSet<Family>) -> Vec<SetStep> {
        let mut steps = Vec::new();
        for set in std::mem::take(&mut self.touched) {
            let Some(entry) = self.entries.get_mut(&set) else { continue };
            if entry.is_unverified || !entry.is_wanted {
                continue;
            }
            let all = std::mem::take(&mut entry.changes);
            for family in families {
                let of_family = all.iter().copied().filter(|(element, _)| family_of(element) == *family);
                let changes = changes(set, *family, of_family);
                let count = changes.as_slice().len();
                let set_ref = SetRef::Program(set, *family);
                if !entry.exists {
                    // Of the members expected, all that are known of this family; the others belong to the other.
                    let known = if count == 0 && families.len() == 1 { entry.expected } else { count };
                    steps.push(SetStep { set: set_ref, work: SetWork::Create(spec(set_ref, known)) });
                }
                if count > 0 {
                    steps.push(SetStep { set: set_ref, work: SetWork::Change(changes) });
                }
            }
            entry.exists = true;
        }
        steps
    }

    /// Sets that may be destroyed, as nothing speaks of them; at most so many.
    pub(crate) fn destroyable(&self, spoken_of: impl Fn(&SetId) -> bool, limit: usize) -> Vec<SetId> {
        self.to_destroy.iter().filter(|set| !spoken_of(set)).take(limit).copied().collect()
    }

    /// The set is gone in all families.
    pub(crate) fn destroyed(&mut self, set: SetId) {
        self.to_destroy.remove(&set);
        if self.entries.get(&set).is_some_and(|entry| !entry.is_wanted) {
            self.entries.remove(&set);
        }
    }

    /// The set could not be destroyed. That is tried again when sets are counted.
    pub(crate) fn not_destroyed(&mut self, set: SetId) {
        self.to_destroy.remove(&set);
    }

    /// What the kernel has of the set is not certain: it is to be read and compared.
    pub(crate) fn verify(&mut self, set: SetId) {
        if let Some(entry) = self.entries.get_mut(&set) {
            entry.is_unverified = true;
            entry.changes.clear();
            entry.held.clear();
            self.holding.remove(&set);
            if entry.is_wanted {
                self.to_verify.insert(set);
            }
        }
    }

    /// Those that could not be destroyed are tried again.
    pub(crate) fn destroy_again(&mut self) {
        self.to_destroy.extend(self.entries.iter().filter(|(_, entry)| !entry.is_wanted).map(|(set, _)| *set));
    }

    /// The set has been read (none: it is not there) and compared; the answer is what is to be done about it.
    pub(crate) fn compared(
        &mut self,
        set: SetId,
        family: Family,
        found: Option<Vec<SetElement>>,
        wanted: &BTreeSet<Element>,
    ) -> Vec<SetStep> {
        let mut steps = Vec::new();
        let set_ref = SetRef::Program(set, family);
        if found.is_none() {
            steps.push(SetStep { set: set_ref, work: SetWork::Create(spec(set_ref, wanted.len())) });
        }
        let found: BTreeSet<_> = found.into_iter().flatten().filter_map(element).collect();
        let add = wanted.difference(&found).map(|member| (*member, true));
        let remove = found.difference(wanted).map(|member| (*member, false));
        let is_outdated = self.outdated.contains(&(set, family));
        let waits = |is_added| is_outdated && is_added != matches!(set, SetId::Narrow(..));
        let (wait, now): (Vec<_>, Vec<_>) = add.chain(remove).partition(|(_, is_added)| waits(*is_added));
        if let Some(entry) = self.entries.get_mut(&set) {
            entry.held.extend(wait);
            if !entry.held.is_empty() {
                self.holding.insert(set);
            }
        }
        if !now.is_empty() {
            steps.push(SetStep { set: set_ref, work: SetWork::Change(changes(set, family, now.into_iter())) });
        }
        steps
    }

    /// All families of the set have been compared and what was to be done about it has been done.
    pub(crate) fn verified(&mut self, set: SetId) {
        if let Some(entry) = self.entries.get_mut(&set) {
            (entry.exists, entry.is_unverified, entry.is_reused) = (true, false, false);
            self.to_verify.remove(&set);
            self.touched.remove(&set);
        }
    }
}

/// Changes of a set of the compiler's in a family: members of that family to be added (`true`) or taken away.
fn changes(set: SetId, family: Family, members: impl Iterator<Item = (Element, bool)>) -> SetChanges {
    match ProgramSet::new(set, family) {
        ProgramSet::Addresses(set) => {
            set.changes(members.filter_map(|(element, is_added)| {
                net(element).map(|prefix| ElementChange::new(prefix.addr(), is_added))
            }))
        }
        ProgramSet::Nets(set) => set.changes(
            members.filter_map(|(element, is_added)| net(element).map(|prefix| ElementChange::new(prefix, is_added))),
        ),
        ProgramSet::Ports(set) => set.changes(
            members.filter_map(|(element, is_added)| port(element).map(|port| ElementChange::new(port, is_added))),
        ),
    }
}

/// The prefix that is a member of a set of prefixes or addresses. The compiler puts nothing else there ([`SetId::shape`]).
const fn net(element: Element) -> Option<Prefix> {
    match element {
        Element::Net(prefix) => Some(prefix),
        Element::Port(..) => None,
    }
}

/// The port that is a member of a set of ports. The compiler puts nothing else there ([`SetId::shape`]).
const fn port(element: Element) -> Option<AddressPort> {
    match element {
        Element::Net(_) => None,
        Element::Port(address, protocol, port) => Some(AddressPort { address, protocol, port }),
    }
}

/// The family of a member's address.
pub(crate) fn family_of(element: &Element) -> Family {
    match element {
        Element::Net(prefix) => prefix.family(),
        Element::Port(address, ..) => Family::of(*address),
    }
}

/// A member as the compiler has it.
fn element(member: SetElement) -> Option<Element> {
    match member {
        SetElement::Address(address) => Some(Element::Net(Prefix::host(address))),
        SetElement::Net(prefix) => Some(Element::Net(prefix)),
        SetElement::Port(AddressPort { address, protocol, port }) => Some(Element::Port(address, protocol, port)),
        SetElement::Mark(_) | SetElement::Counted(_) | SetElement::Home(_) => None,
    }
}

/// What a set is made as, when so many members are known.
pub(crate) fn spec(set: SetRef, known: usize) -> SetSpec {
    let floor = match set {
        SetRef::Program(SetId::Selector(_) | SetId::SelectorPort(_), _) => ROOM_OF_SHARED_SETS,
        SetRef::Program(SetId::Narrow(..) | SetId::Block(_), _)
        | SetRef::Marks(_)
        | SetRef::Homes(_)
        | SetRef::Drops(..)
        | SetRef::Speakers(_)
        | SetRef::Routers(_)
        | SetRef::Pools(_)
        | SetRef::Masquerade(_) => ROOM_OF_OTHER_SETS,
    };
    sized(set.kind(), set.family(), known, floor)
}

/// What a set that is full with so many members is made anew as, with room for more.
pub(crate) fn grown(spec: SetSpec, members: usize) -> SetSpec {
    sized(spec.kind, spec.family, members.max(spec.max_elements as usize), spec.max_elements)
}

fn sized(kind: SetKind, family: Family, known: usize, floor: u32) -> SetSpec {
    let power = u32::try_from(known).unwrap_or(u32::MAX / 8).next_power_of_two();
    SetSpec {
        kind,
        family,
        max_elements: power.saturating_mul(4).max(floor),
        hash_size: power.clamp(BUCKETS_OF_A_SET.0, BUCKETS_OF_A_SET.1),
    }
}
