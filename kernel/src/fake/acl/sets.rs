//! The fake's IP sets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{AclCall, FakeAcl, World};
use crate::KernelError;
use crate::acl::{
    CountedAddress, ElementChange, ElementFailure, MarkedAddress, SetChanges, SetElement, SetHeader, SetName, SetSpec,
    Sets,
};
use crate::error::Failure;

/// [`Sets`] of a [`FakeAcl`].
#[derive(Debug, Clone)]
pub struct FakeSets(pub(super) FakeAcl);

/// A set.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) spec: SetSpec,
    /// The members by what tells them apart.
    members: BTreeMap<SetElement, SetElement>,
    /// What those of a counting set have counted.
    packets: BTreeMap<IpAddr, u64>,
}

impl Sets for FakeSets {
    fn sets(&mut self) -> Result<Vec<SetHeader>, KernelError> {
        let world = self.0.call(AclCall::Sets, || "cannot list sets".to_owned())?;
        let header = |(name, set): (&SetName, &Set)| SetHeader {
            name: name.clone(),
            spec: Some(set.spec),
            references: world.rules.references(name),
            elements: u32::try_from(set.members.len()).unwrap_or(u32::MAX),
        };
        Ok(world.sets.iter().map(header).collect())
    }

    fn elements(&mut self, set: &SetName) -> Result<Vec<SetElement>, KernelError> {
        let operation = || format!("cannot list the members of set {set}");
        let world = self.0.call(AclCall::Elements(set.clone()), operation)?;
        let found = world.sets.get(set).ok_or_else(|| KernelError::refused(operation(), libc::ENOENT, None))?;
        Ok(found.members())
    }

    fn packets(&mut self, set: &SetName) -> Result<Vec<(IpAddr, u64)>, KernelError> {
        let operation = || format!("cannot list the members of set {set}");
        let world = self.0.call(AclCall::Elements(set.clone()), operation)?;
        let found = world.sets.get(set).ok_or_else(|| KernelError::refused(operation(), libc::ENOENT, None))?;
        let counted = |member: &SetElement| match member {
            SetElement::Counted(CountedAddress(address)) => {
                Some((*address, found.packets.get(address).copied().unwrap_or_default()))
            }
            _ => None,
        };
        Ok(found.members.values().filter_map(counted).collect())
    }

    fn create_set(&mut self, set: &SetName, spec: &SetSpec) -> Result<(), KernelError> {
        let operation = || format!("cannot create set {set}");
        let mut world = self.0.call(AclCall::CreateSet(set.clone(), *spec), operation)?;
        if world.sets.contains_key(set) {
            return Err(KernelError::refused(operation(), libc::EEXIST, None));
        }
        world.sets.insert(set.clone(), Set { spec: *spec, members: BTreeMap::new(), packets: BTreeMap::new() });
        Ok(())
    }

    fn destroy_set(&mut self, set: &SetName) -> Result<(), KernelError> {
        let operation = || format!("cannot destroy set {set}");
        let mut world = self.0.call(AclCall::DestroySet(set.clone()), operation)?;
        if world.sets.contains_key(set) && world.rules.references(set) > 0 {
            let words = Some("a rule refers to the set".to_owned());
            return Err(KernelError::refused(operation(), libc::EBUSY, words));
        }
        world.sets.remove(set);
        Ok(())
    }

    fn swap_sets(&mut self, one: &SetName, other: &SetName) -> Result<(), KernelError> {
        let operation = || format!("cannot swap sets {one} and {other}");
        let mut world = self.0.call(AclCall::SwapSets(one.clone(), other.clone()), operation)?;
        let (Some(first), Some(second)) = (world.sets.get(one).cloned(), world.sets.get(other).cloned()) else {
            return Err(KernelError::refused(operation(), libc::ENOENT, None));
        };
        if (first.spec.kind, first.spec.family) != (second.spec.kind, second.spec.family) {
            return Err(KernelError::refused(operation(), libc::EINVAL, None));
        }
        world.sets.insert(one.clone(), second);
        world.sets.insert(other.clone(), first);
        Ok(())
    }

    fn change_elements(&mut self, changes: &SetChanges) -> Result<Vec<ElementFailure>, KernelError> {
        let operation = || format!("cannot change {} members of set {}", changes.as_slice().len(), changes.set());
        let mut world = self.0.call(AclCall::ChangeElements(changes.clone()), operation)?;
        world.change_elements(changes)
    }
}

impl World {
    pub(super) fn change_elements(&mut self, changes: &SetChanges) -> Result<Vec<ElementFailure>, KernelError> {
        let (set, changes) = (changes.set(), changes.as_slice());
        let operation = || format!("cannot change {} members of set {set}", changes.len());
        let found = self.sets.get_mut(set).ok_or_else(|| KernelError::refused(operation(), libc::ENOENT, None))?;
        let failures = changes.iter().enumerate().filter_map(|(index, change)| {
            let error = found.change(set, change).err()?;
            Some(ElementFailure { index, error })
        });
        Ok(failures.collect())
    }
}

impl Set {
    pub(super) fn members(&self) -> Vec<SetElement> {
        self.members.values().copied().collect()
    }

    pub(super) fn count(&mut self, address: IpAddr, packets: u64) {
        *self.packets.entry(address).or_default() += packets;
    }

    pub(super) fn flush(&mut self) {
        self.members.clear();
        self.packets.clear();
    }

    fn change(&mut self, name: &SetName, change: &ElementChange) -> Result<(), KernelError> {
        let element = change.element();
        let failure =
            |errno| Failure { operation: format!("cannot change {element} in set {name}"), errno, message: None };
        let of_length_0 = matches!(element, SetElement::Net(prefix) if prefix.len() == 0);
        if element.kind() != self.spec.kind || element.family() != self.spec.family || of_length_0 {
            return Err(KernelError::Rejected(failure(libc::EINVAL)));
        }
        let key = match element {
            SetElement::Mark(MarkedAddress { address, .. }) => SetElement::Address(address),
            other => other,
        };
        if !change.is_put() {
            self.members.remove(&key);
            if let SetElement::Counted(CountedAddress(address)) = element {
                self.packets.remove(&address);
            }
            return Ok(());
        }
        let full = u32::try_from(self.members.len()).is_ok_and(|members| members >= self.spec.max_elements);
        if full && !self.members.contains_key(&key) {
            return Err(KernelError::Full(failure(libc::ENOSPC)));
        }
        self.members.insert(key, element);
        Ok(())
    }
}
