//! This node's interfaces and addresses, as far as routes depend on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::{AddressFlags, InterfaceAddress, Link};
use types::InterfaceName;

use super::table::Trouble;

/// The links and addresses that the kernel has reported.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    links: BTreeMap<u32, Interface>,
    /// Names with indices: for a moment two links may seem to have one name, when the first is gone already. Indices grow.
    names: BTreeSet<(String, u32)>,
    /// The addresses that packets can have as their source, each with its interface.
    addresses: BTreeSet<(IpAddr, u32)>,
}

/// What is known of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// Whether the link is administratively up.
    pub(crate) up: bool,
    /// Whether the link is up and has a carrier.
    pub(crate) running: bool,
    pub(crate) mtu: u32,
    /// Whether the link leads to a pod.
    pub(crate) is_pods: bool,
}

impl From<&Link> for Interface {
    fn from(link: &Link) -> Self {
        Self {
            name: link.name.clone(),
            up: link.up,
            running: link.running,
            mtu: link.mtu,
            is_pods: kernel::ours::is_our_link(link),
        }
    }
}

impl Interfaces {
    /// The index of the interface with this name; an error if the interface is not up, as a route cannot be put over it
    /// then.
    pub(crate) fn ready(&self, name: &InterfaceName) -> Result<u32, Trouble> {
        let of_name = (name.to_string(), 0)..=(name.to_string(), u32::MAX);
        let Some((_, index)) = self.names.range(of_name).next_back() else {
            return Err(Trouble::NoInterface(name.clone()));
        };
        if self.is_up(*index) { Ok(*index) } else { Err(Trouble::InterfaceDown(name.clone())) }
    }

    pub(crate) fn is_up(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.up)
    }

    /// Whether packets get through: a link without carrier keeps its routes in the kernel, but leads nowhere.
    pub(crate) fn carries(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.up && link.running)
    }

    /// Whether this can be the source of packets: it is this node's and duplicate address detection has let it pass.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.range((address, 0)..=(address, u32::MAX)).next().is_some()
    }

    /// The smallest MTU of these interfaces, so that what goes through any of them fits.
    pub(crate) fn smallest_mtu(&self, indices: &BTreeSet<u32>) -> Option<u32> {
        indices.iter().filter_map(|index| self.links.get(index)).map(|link| link.mtu).min()
    }

    /// Remembers what a link is like now, and gives back how it was known before.
    pub(crate) fn put(&mut self, index: u32, link: Interface) -> Option<Interface> {
        let name = (link.name.clone(), index);
        let before = self.links.insert(index, link);
        if let Some(before) = &before {
            self.names.remove(&(before.name.clone(), index));
        }
        self.names.insert(name);
        before
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Interface> {
        let before = self.links.remove(&index)?;
        self.names.remove(&(before.name.clone(), index));
        Some(before)
    }

    /// The indices of all links.
    pub(crate) fn indices(&self) -> BTreeSet<u32> {
        self.links.keys().copied().collect()
    }

    /// Remembers an address as the kernel has it now.
    pub(crate) fn put_address(&mut self, address: &InterfaceAddress) {
        let entry = (address.address, address.index);
        let unusable = [AddressFlags::TENTATIVE, AddressFlags::DAD_FAILED];
        if unusable.into_iter().any(|flag| address.flags.contains(flag)) {
            self.addresses.remove(&entry);
        } else {
            self.addresses.insert(entry);
        }
    }

    pub(crate) fn remove_address(&mut self, address: &InterfaceAddress) {
        self.addresses.remove(&(address.address, address.index));
    }

    pub(crate) fn forget_addresses(&mut self) {
        self.addresses.clear();
    }
}

#[cfg(test)]
mod tests;
