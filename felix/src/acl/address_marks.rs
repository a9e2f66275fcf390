//! Which mark number each local address is mapped to, and which it should be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::acl::{ElementChange, MarkedAddress, SetElement};
use types::Family;

use super::class_versions::ClassVersions;
use super::config::MarkSpace;
use crate::policy::program::ClassId;

/// All local addresses, as the set that maps them holds them.
#[derive(Debug, Clone)]
pub(crate) struct AddressMarks {
    /// The bits of the mark that carry the number.
    mark: MarkSpace,
    /// The class that each should be in.
    wanted: BTreeMap<IpAddr, ClassId>,
    /// The number that the kernel maps each to.
    kernel: BTreeMap<IpAddr, u16>,
    /// Addresses that may have to be mapped anew.
    dirty: BTreeSet<IpAddr>,
    /// Addresses that have to be mapped to no number for a while.
    evicted: BTreeSet<IpAddr>,
}

impl AddressMarks {
    /// No address is known yet.
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
            if let SetElement::Mark(MarkedAddress { address, mark, .. }) = element {
                self.kernel.insert(*address, self.mark.number(*mark));
            }
        }
        self.verify_all();
    }

    /// Every address is to be looked at.
    pub(crate) fn verify_all(&mut self) {
        self.dirty.extend(self.kernel.keys().chain(self.wanted.keys()));
    }

    /// The address belongs to the class.
    pub(crate) fn assign(&mut self, address: IpAddr, class: ClassId) {
        self.wanted.insert(address, class);
        self.dirty.insert(address);
    }

    /// The address belongs to no class.
    pub(crate) fn unassign(&mut self, address: IpAddr) {
        self.wanted.remove(&address);
        self.dirty.insert(address);
    }

    /// Versions of these classes have come into force.
    pub(crate) fn came_into_force(&mut self, classes: &BTreeSet<ClassId>) {
        let concerned = self.wanted.iter().filter(|(_, class)| classes.contains(class));
        self.dirty.extend(concerned.map(|(address, _)| *address));
    }

    /// Addresses that are mapped to one of these numbers lose it until their own class is in force: a moment without
    /// network, where two classes wait for each other's numbers.
    pub(crate) fn evict(&mut self, numbers: &BTreeSet<u16>) {
        let concerned = self.kernel.iter().filter(|(_, number)| numbers.contains(number));
        self.evicted.extend(concerned.map(|(address, _)| *address));
        self.dirty.extend(&self.evicted);
    }

    /// What is to be changed now, per family.
    pub(crate) fn steps(
        &mut self,
        versions: &ClassVersions,
        families: &BTreeSet<Family>,
    ) -> BTreeMap<Family, Vec<ElementChange<MarkedAddress>>> {
        let dirty = std::mem::take(&mut self.dirty);
        self.steps_of(dirty, versions, families)
    }

    /// What is to be changed now for these addresses alone, per family.
    pub(crate) fn steps_of(
        &mut self,
        addresses: BTreeSet<IpAddr>,
        versions: &ClassVersions,
        families: &BTreeSet<Family>,
    ) -> BTreeMap<Family, Vec<ElementChange<MarkedAddress>>> {
        let mut steps: BTreeMap<Family, Vec<ElementChange<MarkedAddress>>> = BTreeMap::new();
        let evicted = std::mem::take(&mut self.evicted);
        for address in addresses {
            let family = Family::of(address);
            if !families.contains(&family) {
                continue;
            }
            let known = self.kernel.get(&address).copied();
            let change = match self.wanted.get(&address) {
                Some(class) => match versions.ready(*class, family) {
                    Some(number) if known != Some(number) => Some(ElementChange::Put(self.element(address, number))),
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

    /// A change is in the kernel. Answers whether an address went from one number to another.
    pub(crate) fn done(&mut self, change: &ElementChange<MarkedAddress>) -> bool {
        match change {
            ElementChange::Put(MarkedAddress { address, mark, .. }) => {
                let number = self.mark.number(*mark);
                self.kernel.insert(*address, number).is_some_and(|before| before != number)
            }
            ElementChange::Delete(MarkedAddress { address, .. }) => {
                self.kernel.remove(address);
                false
            }
        }
    }

    /// The change failed; it is made again with the next steps.
    pub(crate) fn failed(&mut self, change: &ElementChange<MarkedAddress>) {
        self.dirty.insert(change.element().address);
    }

    /// Whether the kernel has the address where it should be.
    pub(crate) fn is_settled(&self, address: IpAddr, versions: &ClassVersions) -> bool {
        let known = self.kernel.get(&address).copied();
        match self.wanted.get(&address) {
            Some(class) => known.is_some() && known == versions.ready(*class, Family::of(address)),
            None => known.is_none(),
        }
    }

    /// Whether the kernel has all addresses where they should be.
    pub(crate) fn are_settled(&self, versions: &ClassVersions, families: &BTreeSet<Family>) -> bool {
        let all = self.wanted.keys().chain(self.kernel.keys());
        all.filter(|address| families.contains(&Family::of(**address)))
            .all(|address| self.is_settled(*address, versions))
    }

    /// The numbers that an address is mapped to.
    pub(crate) fn in_use(&self) -> BTreeSet<u16> {
        self.kernel.values().copied().collect()
    }

    /// Whether the kernel maps an address to a version of the class.
    pub(crate) fn has_members(&self, class: ClassId, versions: &ClassVersions) -> bool {
        self.kernel.values().any(|number| versions.class(*number) == Some(class))
    }

    /// The numbers that an address of a family is mapped to.
    pub(crate) fn in_use_of_families(&self) -> BTreeSet<(Family, u16)> {
        self.kernel.iter().map(|(address, number)| (Family::of(*address), *number)).collect()
    }

    /// How many addresses the kernel maps.
    pub(crate) fn count(&self) -> usize {
        self.kernel.len()
    }

    /// How many addresses of a family the kernel maps.
    pub(crate) fn count_of(&self, family: Family) -> usize {
        self.kernel.keys().filter(|address| Family::of(**address) == family).count()
    }

    const fn element(&self, address: IpAddr, number: u16) -> MarkedAddress {
        MarkedAddress { address, mark: self.mark.mark(number), mask: self.mark.mask() }
    }
}
