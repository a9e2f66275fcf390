//! Which slot each local address is mapped to, and which it should be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::acl::{ElementChange, SetElement};
use types::Family;

use super::config::MarkSpace;
use super::slots::Slots;
use crate::policy::program::ClassId;

/// All local addresses.
#[derive(Debug, Clone)]
pub(crate) struct Joins {
    mark: MarkSpace,
    /// The class that each should be in.
    wanted: BTreeMap<IpAddr, ClassId>,
    /// The slot that the kernel maps it to.
    kernel: BTreeMap<IpAddr, u16>,
    /// Addresses that may have to be mapped anew.
    dirty: BTreeSet<IpAddr>,
    /// Addresses that have to be in no slot for a while.
    evicted: BTreeSet<IpAddr>,
}

impl Joins {
    /// None yet.
    pub(crate) const fn new(mark: MarkSpace) -> Self {
        Self {
            mark,
            wanted: BTreeMap::new(),
            kernel: BTreeMap::new(),
            dirty: BTreeSet::new(),
            evicted: BTreeSet::new(),
        }
    }

    /// What the kernel's set of a family holds.
    pub(crate) fn found(&mut self, family: Family, elements: &[SetElement]) {
        self.kernel.retain(|address, _| Family::of(*address) != family);
        for element in elements {
            if let SetElement::Mark { address, mark, .. } = element {
                self.kernel.insert(*address, self.mark.slot(*mark));
            }
        }
        self.doubt();
    }

    /// Every address is to be looked at.
    pub(crate) fn doubt(&mut self) {
        self.dirty.extend(self.kernel.keys().chain(self.wanted.keys()));
    }

    /// The address belongs to the class.
    pub(crate) fn join(&mut self, address: IpAddr, class: ClassId) {
        self.wanted.insert(address, class);
        self.dirty.insert(address);
    }

    /// The address belongs to none.
    pub(crate) fn leave(&mut self, address: IpAddr) {
        self.wanted.remove(&address);
        self.dirty.insert(address);
    }

    /// Contents of these classes have come into force.
    pub(crate) fn news(&mut self, classes: &BTreeSet<ClassId>) {
        let concerned = self.wanted.iter().filter(|(_, class)| classes.contains(class));
        self.dirty.extend(concerned.map(|(address, _)| *address));
    }

    /// Whoever is in one of these slots loses it until his own class is in force: a moment without network, where two
    /// classes wait for each other's numbers.
    pub(crate) fn evict(&mut self, slots: &BTreeSet<u16>) {
        let concerned = self.kernel.iter().filter(|(_, slot)| slots.contains(slot));
        self.evicted.extend(concerned.map(|(address, _)| *address));
        self.dirty.extend(&self.evicted);
    }

    /// What is to be changed now, per family.
    pub(crate) fn steps(&mut self, slots: &Slots, families: &BTreeSet<Family>) -> BTreeMap<Family, Vec<ElementChange>> {
        let dirty = std::mem::take(&mut self.dirty);
        self.steps_of(dirty, slots, families)
    }

    /// The same for these alone.
    pub(crate) fn steps_of(
        &mut self,
        addresses: BTreeSet<IpAddr>,
        slots: &Slots,
        families: &BTreeSet<Family>,
    ) -> BTreeMap<Family, Vec<ElementChange>> {
        let mut steps: BTreeMap<Family, Vec<ElementChange>> = BTreeMap::new();
        let evicted = std::mem::take(&mut self.evicted);
        for address in addresses {
            let family = Family::of(address);
            if !families.contains(&family) {
                continue;
            }
            let known = self.kernel.get(&address).copied();
            let change = match self.wanted.get(&address) {
                Some(class) => match slots.ready(*class, family) {
                    Some(slot) if known != Some(slot) => Some(ElementChange::Put(self.element(address, slot))),
                    // Looked at again when its class is in force; until then it stays where it is.
                    None if known.is_some() && evicted.contains(&address) => {
                        Some(ElementChange::Delete(self.element(address, 0)))
                    }
                    _ => None,
                },
                None => known.map(|_| ElementChange::Delete(self.element(address, 0))),
            };
            if let Some(change) = change {
                steps.entry(family).or_default().push(change);
            }
        }
        steps
    }

    /// The change is in the kernel. Answers whether an address went from one slot to another.
    pub(crate) fn done(&mut self, change: &ElementChange) -> bool {
        match change {
            ElementChange::Put(SetElement::Mark { address, mark, .. }) => {
                let slot = self.mark.slot(*mark);
                self.kernel.insert(*address, slot).is_some_and(|before| before != slot)
            }
            ElementChange::Delete(SetElement::Mark { address, .. }) => {
                self.kernel.remove(address);
                false
            }
            ElementChange::Put(_) | ElementChange::Delete(_) => false,
        }
    }

    /// The change failed: once more later.
    pub(crate) fn failed(&mut self, change: &ElementChange) {
        if let SetElement::Mark { address, .. } = change.element() {
            self.dirty.insert(address);
        }
    }

    /// Whether the kernel has the address where it should be.
    pub(crate) fn is_settled(&self, address: IpAddr, slots: &Slots) -> bool {
        let known = self.kernel.get(&address).copied();
        match self.wanted.get(&address) {
            Some(class) => known.is_some() && known == slots.ready(*class, Family::of(address)),
            None => known.is_none(),
        }
    }

    /// Whether all are.
    pub(crate) fn are_settled(&self, slots: &Slots, families: &BTreeSet<Family>) -> bool {
        let all = self.wanted.keys().chain(self.kernel.keys());
        all.filter(|address| families.contains(&Family::of(**address))).all(|address| self.is_settled(*address, slots))
    }

    /// The slots that an address is mapped to.
    pub(crate) fn in_use(&self) -> BTreeSet<u16> {
        self.kernel.values().copied().collect()
    }

    /// Whether somebody is in the class, in the kernel.
    pub(crate) fn has_members(&self, class: ClassId, slots: &Slots) -> bool {
        self.kernel.values().any(|slot| slots.class(*slot) == Some(class))
    }

    /// The same with the families of the addresses.
    pub(crate) fn in_use_of_families(&self) -> BTreeSet<(Family, u16)> {
        self.kernel.iter().map(|(address, slot)| (Family::of(*address), *slot)).collect()
    }

    /// How many addresses the kernel maps.
    pub(crate) fn count(&self) -> usize {
        self.kernel.len()
    }

    /// How many of a family.
    pub(crate) fn count_of(&self, family: Family) -> usize {
        self.kernel.keys().filter(|address| Family::of(**address) == family).count()
    }

    const fn element(&self, address: IpAddr, slot: u16) -> SetElement {
        SetElement::Mark { address, mark: self.mark.mark(slot), mask: self.mark.mask() }
    }
}
