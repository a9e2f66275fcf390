//! Which routes there should be, which there are, and the changes between the two. It is pure: the kernel's answers and
//! events come in as values, look-ups and changes to make go out as values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::{KernelError, Route, RouteChange, RouteFailure};
use types::{Family, FibUpdate, InterfaceName, NextHopState, NextHopWatch, Prefix};

use super::delta::{Changes, Delta};
use super::desired::{Desired, Wanted};
use super::dirty::Dirty;
use super::handle::RoutesView;
use super::interfaces::Interfaces;
use super::next_hops::NextHops;

/// The route protocol numbers by which our routes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocols {
    /// The number of routes to local pods and of own blocks.
    pub(crate) local: u8,
    /// The number of routes learned by BGP.
    pub(crate) bgp: u8,
}

/// The metrics of our routes. They are ours alone, so that no write meets a route of somebody else's (see
/// [`super::delta`]), and they differ, so that a local route and a learned one to one prefix can follow each other without a
/// gap.
pub(crate) mod metric {
    use types::Family;

    /// The metric of routes to local pods.
    pub(crate) const LOCAL: u32 = 77;

    /// The metric of the unreachable routes of own blocks. Where a whole block is the subnet on a link of another plugin, the
    /// connected route of that link comes before it: in IPv4 it has 0, in IPv6 256.
    pub(crate) const fn own_block(family: Family) -> u32 {
        match family {
            Family::Ipv4 => 77,
            Family::Ipv6 => 277,
        }
    }

    /// The metric of routes learned by BGP. In IPv6 it lies behind the 256 of connected routes and before the 1024 that
    /// static routes and router advertisements have by default; in IPv4 all of those have 0.
    pub(crate) const fn bgp(family: Family) -> u32 {
        match family {
            Family::Ipv4 => 78,
            Family::Ipv6 => 278,
        }
    }
}

/// Why a route that is wanted is not in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("interface {0} does not exist")]
    NoInterface(InterfaceName),
    #[error("interface {0} is down")]
    InterfaceDown(InterfaceName),
    #[error("a route of another program has this prefix and metric {0}")]
    Conflict(u32),
    #[error(transparent)]
    Refused(KernelError),
}

impl Trouble {
    /// Whether another attempt may help. Where it cannot, an event will tell that the obstacle is gone.
    const fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::Refused(_))
    }
}

/// Everything that is known of this node's routes.
#[derive(Debug)]
pub(crate) struct RouteTable {
    /// The protocol numbers by which our routes are known.
    pub(super) protocols: Protocols,
    /// The routes that the sources want.
    pub(super) desired: Desired,
    /// The next hops that BGP asks about, and how each is reached.
    pub(super) next_hops: NextHops,
    /// The node's links and addresses.
    pub(super) interfaces: Interfaces,
    /// Our routes as the kernel has them.
    pub(super) delta: Delta,
    /// The prefixes whose route may have to change.
    pub(super) dirty: Dirty,
    /// The dirty prefixes that a caller waits for.
    urgent: BTreeSet<Prefix>,
    /// Whether the last plan has left some dirty prefixes to the next one.
    backlog: bool,
    /// The next hops that are reached in another way than before, so that routes through them become dirty.
    pub(super) moved: BTreeSet<IpAddr>,
    /// The next hops that have to be looked up.
    pub(super) look_ups: BTreeSet<IpAddr>,
    /// The families whose routes have to be read again.
    pub(super) unread: BTreeSet<Family>,
    /// Whether links and addresses have to be read again.
    pub(super) interfaces_unread: bool,
    /// Whether all has to be read once more soon: the kernel reports links and addresses before it has dealt with their
    /// routes.
    pub(super) unsettled: bool,
    /// Whether the MTU towards next hops may have changed.
    pub(super) mtu_unsure: bool,
    /// The states of next hops that the BGP speaker has not been told yet; of each address the latest.
    pub(super) untold: BTreeMap<IpAddr, NextHopState>,
    /// The wanted routes that are not in the kernel, with the reason.
    pub(super) troubles: BTreeMap<Prefix, Trouble>,
    /// How many times another program's route stood in the place of one of ours.
    conflicts: u64,
    /// How many times another program deleted or changed a route of ours.
    pub(super) disturbed: u64,
}

impl RouteTable {
    /// A table that knows nothing yet: everything has to be read.
    pub(crate) fn new(protocols: Protocols, node_addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut desired = Desired::default();
        desired.set_node_addresses(node_addresses);
        Self {
            protocols,
            desired,
            next_hops: NextHops::default(),
            interfaces: Interfaces::default(),
            delta: Delta::default(),
            dirty: Dirty::default(),
            urgent: BTreeSet::new(),
            backlog: false,
            moved: BTreeSet::new(),
            look_ups: BTreeSet::new(),
            unread: BTreeSet::from(Family::ALL),
            interfaces_unread: true,
            unsettled: false,
            mtu_unsure: false,
            untold: BTreeMap::new(),
            troubles: BTreeMap::new(),
            conflicts: 0,
            disturbed: 0,
        }
    }
}

/// How the table takes in what the sources say.
impl RouteTable {
    /// A pod has this address, behind this interface.
    pub(crate) fn attach(&mut self, address: IpAddr, interface: InterfaceName) {
        let prefix = self.desired.attach(address, interface);
        self.urgent.insert(prefix);
        self.spoken(self.protocols.local, prefix);
    }

    /// No pod has this address any more.
    pub(crate) fn detach(&mut self, address: IpAddr) {
        let prefix = self.desired.detach(address);
        self.urgent.insert(prefix);
        self.spoken(self.protocols.local, prefix);
    }

    /// Replaces the own blocks.
    pub(crate) fn own_blocks(&mut self, blocks: BTreeSet<Prefix>) {
        for prefix in self.desired.own_blocks(blocks) {
            self.spoken(self.protocols.local, prefix);
        }
    }

    /// Takes note that every pod and every own block has been told.
    pub(crate) fn local_in_sync(&mut self) {
        for family in Family::ALL {
            self.dirty.extend(self.delta.in_sync(self.protocols.local, family));
        }
    }

    /// Takes in that BGP has chosen a route, has lost one, or has told them all.
    pub(crate) fn fib(&mut self, update: FibUpdate) {
        match update {
            FibUpdate::Set { prefix, next_hops } => {
                let through = next_hops.first().copied();
                self.desired.learn(prefix, next_hops);
                self.delta.spoken(self.protocols.bgp, prefix);
                self.dirty.insert_through(through, prefix);
            }
            FibUpdate::Withdraw { prefix } => {
                let through = self.desired.unlearn(&prefix);
                self.delta.spoken(self.protocols.bgp, prefix);
                self.dirty.insert_through(through, prefix);
            }
            FibUpdate::InSync { family } => self.dirty.extend(self.delta.in_sync(self.protocols.bgp, family)),
        }
    }

    /// Takes in which next hop the BGP speaker wants followed, or no longer.
    pub(crate) fn watch(&mut self, watch: NextHopWatch) {
        match watch {
            NextHopWatch::Track(address) => {
                self.next_hops.track(address);
                self.look_ups.insert(address);
            }
            NextHopWatch::Untrack(address) => {
                self.next_hops.untrack(address);
                self.untold.remove(&address);
                self.moved.insert(address);
                self.mtu_unsure = true;
            }
        }
    }

    /// Replaces the addresses from which this node speaks to its pods.
    pub(crate) fn set_node_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.dirty.extend(self.desired.set_node_addresses(addresses));
    }

    fn spoken(&mut self, protocol: u8, prefix: Prefix) {
        self.delta.spoken(protocol, prefix);
        self.dirty.insert(prefix);
    }
}

/// What the table wants done.
impl RouteTable {
    /// The families whose routes have to be read.
    pub(crate) fn unread(&self) -> BTreeSet<Family> {
        self.unread.clone()
    }

    /// Whether links and addresses have to be read.
    pub(crate) const fn interfaces_unread(&self) -> bool {
        self.interfaces_unread
    }

    /// The next hops that have to be looked up now; they count as taken.
    pub(crate) fn take_look_ups(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.look_ups)
    }

    /// Whether there is anything to read, look up or write.
    pub(crate) fn has_work(&self) -> bool {
        !self.unread.is_empty()
            || self.interfaces_unread
            || !self.look_ups.is_empty()
            || !self.moved.is_empty()
            || !self.dirty.is_empty()
    }

    /// Whether the last plan has left prefixes to the next one.
    pub(crate) const fn has_backlog(&self) -> bool {
        self.backlog
    }

    /// Whether the route to this prefix may still have to change.
    pub(crate) fn is_dirty(&self, prefix: &Prefix) -> bool {
        self.dirty.contains(prefix)
    }

    /// Whether everything has to be read once more soon. Asking it clears it.
    pub(crate) const fn take_unsettled(&mut self) -> bool {
        std::mem::replace(&mut self.unsettled, false)
    }

    /// The changes that make the kernel what is desired, for the prefixes that may differ: all that a caller waits for,
    /// and about `limit` of the others, in the turns of [`Dirty`].
    pub(crate) fn plan(&mut self, limit: usize) -> Vec<RouteChange> {
        if !self.moved.is_empty() {
            self.dirty.extend(self.desired.learned_through(&std::mem::take(&mut self.moved)));
        }
        let mut prefixes = std::mem::take(&mut self.urgent);
        prefixes.iter().for_each(|prefix| {
            self.dirty.remove(prefix);
        });
        prefixes.append(&mut self.dirty.take(limit));
        self.backlog = !self.dirty.is_empty();
        let mut changes = Changes::default();
        for prefix in prefixes {
            let (route, trouble) = match self.route(prefix) {
                Ok(route) => (route, None),
                Err(trouble) => (None, Some(trouble)),
            };
            let is_put = self.delta.changes(prefix, route, &mut changes);
            match trouble {
                Some(trouble) => self.troubles.insert(prefix, trouble),
                // The trouble stays until the write shows otherwise, so that a lasting conflict is counted once.
                None if is_put => None,
                None => self.troubles.remove(&prefix),
            };
        }
        changes.into_ordered()
    }

    /// Takes in that the kernel has carried out these changes, except the failures; returns the prefixes that have a
    /// new trouble. A place that turns out to be taken is read before it is called a conflict, unless its family was
    /// read just now (`fresh`): the route there may be ours, and its event may have been lost.
    pub(crate) fn applied(
        &mut self,
        changes: &[RouteChange],
        failures: Vec<RouteFailure>,
        fresh: &BTreeSet<Family>,
    ) -> Vec<Prefix> {
        let mut failed: BTreeMap<usize, KernelError> =
            failures.into_iter().map(|failure| (failure.index, failure.error)).collect();
        let mut newly_troubled = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            let route = change.route();
            // The route may lead to a next hop now, or may have ceased to.
            self.look_ups.extend(self.next_hops.within(route.prefix));
            let trouble = match failed.remove(&index) {
                None => {
                    self.delta.applied(change);
                    // That a deletion succeeded says nothing of the route that was to be put in its place.
                    if !matches!(change, RouteChange::Delete(_)) {
                        self.troubles.remove(&route.prefix);
                    }
                    continue;
                }
                Some(KernelError::Exists(_)) => Trouble::Conflict(route.metric),
                Some(error) => Trouble::Refused(error),
            };
            let is_conflict = matches!(trouble, Trouble::Conflict(_));
            let known = self.troubles.get(&route.prefix) == Some(&trouble);
            if is_conflict && !known && !fresh.contains(&route.prefix.family()) {
                self.unread.insert(route.prefix.family());
                self.dirty.insert(route.prefix);
            } else if !known {
                self.conflicts += u64::from(is_conflict);
                self.troubles.insert(route.prefix, trouble);
                newly_troubled.push(route.prefix);
            }
        }
        newly_troubled
    }

    /// Takes in that the kernel took no change at all, so that what it has is unknown.
    pub(crate) fn not_applied(&mut self, changes: &[RouteChange]) {
        self.unread.extend(Family::ALL);
        self.dirty.extend(changes.iter().map(|change| change.route().prefix));
    }

    /// Lets everything that the kernel has refused be tried again.
    pub(crate) fn retry(&mut self) {
        self.dirty.extend(self.troubles.keys().copied());
    }

    /// Whether some refused change is worth another attempt.
    pub(crate) fn has_retries(&self) -> bool {
        self.troubles.values().any(Trouble::is_worth_a_retry)
    }

    /// The reason why the wanted route to this prefix is not in the kernel; none if it is.
    pub(crate) fn trouble(&self, prefix: &Prefix) -> Option<&Trouble> {
        self.troubles.get(prefix)
    }

    /// Offers the BGP speaker the states that it has not been told; those that it does not take are kept.
    pub(crate) fn tell(&mut self, mut take: impl FnMut(NextHopState) -> bool) {
        self.untold.retain(|_, state| !take(*state));
    }

    /// Whether some state has not been told to the BGP speaker yet.
    pub(crate) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// The smallest MTU of the interfaces that carry next hops of BGP, if it may have changed since it was last asked.
    pub(crate) fn changed_mtu(&mut self) -> Option<Option<u32>> {
        std::mem::take(&mut self.mtu_unsure).then(|| self.interfaces.smallest_mtu(&self.next_hops.interfaces()))
    }

    /// The routes in numbers and words, as the agent shows them.
    pub(crate) fn view(&self) -> RoutesView {
        let failures = self.troubles.iter().map(|(prefix, trouble)| match trouble {
            // The text of a kernel error names the route already.
            Trouble::Refused(error) => error.to_string(),
            trouble => format!("route to {prefix}: {trouble}"),
        });
        RoutesView {
            local: self.desired.pod_count(),
            blocks: self.desired.block_count(),
            bgp: self.delta.count(self.protocols.bgp),
            learned: self.desired.learned_count(),
            stale: self.delta.stale_count(),
            failures: failures.collect(),
            conflicts: self.conflicts,
            disturbed: self.disturbed,
        }
    }

    /// The route that the kernel should have to this prefix.
    fn route(&self, prefix: Prefix) -> Result<Option<Route>, Trouble> {
        let Some(wanted) = self.desired.wanted(&prefix) else { return Ok(None) };
        Ok(match wanted {
            Wanted::Pod(interface) => {
                let index = self.interfaces.ready(interface)?;
                // The kernel refuses a source address that is not (or not yet) the node's.
                let source = self.desired.node_address(prefix.family());
                let source = source.filter(|address| self.interfaces.has_address(*address));
                let route = Route::on_link(prefix, self.protocols.local, index);
                Some(route.with_preferred_source(source).with_metric(metric::LOCAL))
            }
            Wanted::OwnBlock => {
                let metric = metric::own_block(prefix.family());
                Some(Route::unreachable(prefix, self.protocols.local).with_metric(metric))
            }
            Wanted::Learned(next_hops) => {
                let next_hops = self.next_hops.resolved(next_hops);
                let route = Route { next_hops, ..Route::via(prefix, self.protocols.bgp, []) };
                (!route.next_hops.is_empty()).then(|| route.with_metric(metric::bgp(prefix.family())))
            }
        })
    }
}
