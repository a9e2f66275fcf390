//! Which routes there should be: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use kernel::Route;
use types::{Family, InterfaceName, Prefix};

use crate::next_hops::NextHops;

/// The metric of routes to local pods and of own blocks' unreachable routes. The kernel tells routes to one prefix apart by
/// metric: with metrics of our own, a write never replaces a route of somebody else's that has the usual one.
pub(crate) const LOCAL_METRIC: u32 = 77;

/// The metric of routes learned by BGP: a local route to the same prefix wins.
pub(crate) const BGP_METRIC: u32 = 78;

/// Which protocol numbers mark what is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocols {
    /// Local pods and own blocks.
    pub(crate) local: u8,
    /// Learned by BGP.
    pub(crate) bgp: u8,
}

/// The pod's end of a local route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// The host's interface.
    pub(crate) interface: InterfaceName,
    /// Its index when the pod was attached.
    pub(crate) index: u32,
}

/// What the sources say.
#[derive(Debug)]
pub(crate) struct Desired {
    protocols: Protocols,
    /// This node's addresses: the source of what it sends to its own pods.
    node_addresses: Vec<IpAddr>,
    /// Local pods' addresses.
    local: BTreeMap<IpAddr, Local>,
    /// Own blocks.
    blocks: BTreeSet<Prefix>,
    /// Routes learned by BGP, each with its next hops.
    learned: HashMap<Prefix, Vec<IpAddr>>,
    /// Prefixes whose route may have changed since they were last taken.
    dirty: BTreeSet<Prefix>,
}

impl Desired {
    pub(crate) fn new(protocols: Protocols, node_addresses: Vec<IpAddr>) -> Self {
        Self {
            protocols,
            node_addresses,
            local: BTreeMap::new(),
            blocks: BTreeSet::new(),
            learned: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    pub(crate) fn attach(&mut self, address: IpAddr, local: Local) {
        self.local.insert(address, local);
        self.dirty.insert(Prefix::host(address));
    }

    pub(crate) fn detach(&mut self, address: IpAddr) {
        self.local.remove(&address);
        self.dirty.insert(Prefix::host(address));
    }

    pub(crate) fn own_blocks(&mut self, blocks: BTreeSet<Prefix>) {
        self.dirty.extend(self.blocks.symmetric_difference(&blocks));
        self.blocks = blocks;
    }

    pub(crate) fn learn(&mut self, prefix: Prefix, next_hops: Vec<IpAddr>) {
        self.learned.insert(prefix, next_hops);
        self.dirty.insert(prefix);
    }

    pub(crate) fn unlearn(&mut self, prefix: Prefix) {
        self.learned.remove(&prefix);
        self.dirty.insert(prefix);
    }

    /// Next hops now resolve otherwise: every route through them is to be looked at. Such changes are rare, an index from
    /// next hop to routes would cost memory for every route.
    pub(crate) fn next_hops_changed(&mut self, changed: &BTreeSet<IpAddr>) {
        let through = |hops: &Vec<IpAddr>| hops.iter().any(|hop| changed.contains(hop));
        self.dirty.extend(self.learned.iter().filter(|(_, hops)| through(hops)).map(|(prefix, _)| *prefix));
    }

    /// This prefix is to be looked at again.
    pub(crate) fn touch(&mut self, prefix: Prefix) {
        self.dirty.insert(prefix);
    }

    /// The local routes over this interface are to be looked at again.
    pub(crate) fn touch_interface(&mut self, index: u32) {
        let over = self.local.iter().filter(|(_, local)| local.index == index);
        self.dirty.extend(over.map(|(address, _)| Prefix::host(*address)));
    }

    /// Prefixes to be looked at, which are no longer dirty then.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<Prefix> {
        std::mem::take(&mut self.dirty)
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The route that there should be to this prefix: to a pod before an own block, an own block before a learned one.
    pub(crate) fn route(&self, prefix: Prefix, next_hops: &NextHops) -> Option<Route> {
        if let Some(local) = prefix.is_host().then(|| self.local.get(&prefix.addr())).flatten() {
            let source = self.node_addresses.iter().find(|address| Family::of(**address) == prefix.family());
            let route = Route::on_link(prefix, self.protocols.local, local.index);
            return Some(route.with_preferred_source(source.copied()).with_metric(LOCAL_METRIC));
        }
        if self.blocks.contains(&prefix) {
            return Some(Route::unreachable(prefix, self.protocols.local).with_metric(LOCAL_METRIC));
        }
        let hops = next_hops.resolved(self.learned.get(&prefix)?);
        if hops.is_empty() {
            return None;
        }
        let mut route = Route::via(prefix, self.protocols.bgp, []);
        route.next_hops = hops;
        Some(route.with_metric(BGP_METRIC))
    }

    /// How many routes each source wants: local, blocks, learned.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.local.len(), self.blocks.len(), self.learned.len())
    }
}
