//! The routes that the sources want: pods, own blocks, and what BGP has learned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use types::{Family, InterfaceName, Prefix};

use super::shared::Shared;

/// What the sources have said. Each change returns the prefixes whose route it may change.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    /// This node's addresses: one of them is the source of what the host sends to its own pods.
    node_addresses: BTreeSet<IpAddr>,
    /// Local pods' addresses, each with the host's end of the pod's interface.
    pods: BTreeMap<IpAddr, InterfaceName>,
    /// The blocks that this node owns.
    blocks: BTreeSet<Prefix>,
    /// Routes learned by BGP, each with its next hops.
    learned: HashMap<Prefix, Arc<[IpAddr]>>,
    /// Every different set of next hops, stored once.
    next_hops: Shared<[IpAddr]>,
}

/// Who wants a route to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// A pod behind this interface wants it.
    Pod(&'a InterfaceName),
    /// An own block wants it: packets to addresses that no pod has are answered with "unreachable".
    OwnBlock,
    /// BGP has learned it, through these next hops.
    Learned(&'a [IpAddr]),
}

impl Desired {
    /// Who wants a route to this prefix. A pod comes before an own block (a block may be one address), and an own block
    /// before what BGP has learned.
    pub(crate) fn wanted(&self, prefix: &Prefix) -> Option<Wanted<'_>> {
        let pod = prefix.is_host().then(|| self.pods.get(&prefix.addr())).flatten();
        let block = || self.blocks.contains(prefix).then_some(Wanted::OwnBlock);
        let learned = || self.learned.get(prefix).map(|next_hops| Wanted::Learned(next_hops));
        pod.map(Wanted::Pod).or_else(block).or_else(learned)
    }

    pub(crate) fn attach(&mut self, address: IpAddr, interface: InterfaceName) -> Prefix {
        self.pods.insert(address, interface);
        Prefix::host(address)
    }

    pub(crate) fn detach(&mut self, address: IpAddr) -> Prefix {
        self.pods.remove(&address);
        Prefix::host(address)
    }

    pub(crate) fn own_blocks(&mut self, blocks: BTreeSet<Prefix>) -> Vec<Prefix> {
        let concerned = self.blocks.symmetric_difference(&blocks).copied().collect();
        self.blocks = blocks;
        concerned
    }

    pub(crate) fn learn(&mut self, prefix: Prefix, next_hops: Vec<IpAddr>) {
        let next_hops = self.next_hops.one(next_hops);
        self.learned.insert(prefix, next_hops);
    }

    /// Returns the first next hop that the prefix was reached through.
    pub(crate) fn unlearn(&mut self, prefix: &Prefix) -> Option<IpAddr> {
        self.learned.remove(prefix)?.first().copied()
    }

    pub(crate) fn set_node_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Prefix> {
        self.node_addresses = addresses.into_iter().collect();
        self.pods.keys().copied().map(Prefix::host).collect()
    }

    pub(crate) fn node_address(&self, family: Family) -> Option<IpAddr> {
        self.node_addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    pub(crate) fn is_node_address(&self, address: &IpAddr) -> bool {
        self.node_addresses.contains(address)
    }

    /// The pods' addresses of one family.
    pub(crate) fn pods_of(&self, family: Family) -> Vec<Prefix> {
        self.pods.keys().copied().filter(|address| Family::of(*address) == family).map(Prefix::host).collect()
    }

    /// The addresses of the pods behind this interface.
    pub(crate) fn pods_behind(&self, interface: &str) -> Vec<Prefix> {
        let behind = self.pods.iter().filter(|(_, name)| name.as_str() == interface);
        behind.map(|(address, _)| Prefix::host(*address)).collect()
    }

    /// The routes learned through any of these next hops. It looks at every route: an index from next hop to routes
    /// would cost memory for each route, and next hops seldom change.
    pub(crate) fn learned_through(&self, next_hops: &BTreeSet<IpAddr>) -> Vec<Prefix> {
        let through = |set: &[IpAddr]| set.iter().any(|hop| next_hops.contains(hop));
        self.learned.iter().filter(|(_, set)| through(set)).map(|(prefix, _)| *prefix).collect()
    }

    pub(crate) fn pod_count(&self) -> usize {
        self.pods.len()
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn learned_count(&self) -> usize {
        self.learned.len()
    }
}

#[cfg(test)]
mod tests;
