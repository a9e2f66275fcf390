//! Next hops of BGP: what the kernel's table makes of them (RFC 4271 section 5.1.3). Look-ups are made by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::{Resolution, Route, RouteKind, RouteNextHop};
use types::{NextHopState, Prefix};

/// The next hops that the BGP speaker asks about.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    tracked: BTreeMap<IpAddr, Tracked>,
}

#[derive(Debug, Default)]
struct Tracked {
    /// How the next hop is reached; none while it is unreachable or not looked up yet.
    resolved: Option<Resolved>,
    /// Whether the BGP speaker has been told a state since it last asked.
    told: bool,
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    /// The metric of the route that leads to the next hop; 0 where it is on the link.
    metric: u32,
    /// The gateways and interfaces that packets for the next hop go to; at least one.
    hops: Vec<RouteNextHop>,
}

/// What follows from the answer to a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LookedUp {
    /// The state that the BGP speaker is to be told, unless it knows it already.
    pub(crate) tell: Option<NextHopState>,
    /// Whether routes through the next hop have to be written anew.
    pub(crate) changed: bool,
}

impl NextHops {
    /// Begins to follow a next hop. If it is followed already, its state is told once more.
    pub(crate) fn track(&mut self, address: IpAddr) {
        self.tracked.entry(address).or_default().told = false;
    }

    pub(crate) fn untrack(&mut self, address: IpAddr) {
        self.tracked.remove(&address);
    }

    /// The next hops that are followed.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.tracked.keys().copied()
    }

    /// The next hops within a prefix: a route to the prefix may lead to them.
    pub(crate) fn within(&self, prefix: Prefix) -> impl Iterator<Item = IpAddr> + '_ {
        self.tracked
            .range(prefix.addr()..)
            .map(|(address, _)| *address)
            .take_while(move |address| prefix.contains(*address))
    }

    /// Takes in the answer to a look-up. Where it has several ways, those over interfaces without a carrier do not
    /// count.
    pub(crate) fn looked_up(
        &mut self,
        address: IpAddr,
        resolution: Option<&Resolution>,
        carries: impl Fn(u32) -> bool,
    ) -> LookedUp {
        let Some(tracked) = self.tracked.get_mut(&address) else {
            return LookedUp { tell: None, changed: false };
        };
        // RouteKind::Local means that the address is our own, which is no way to another node.
        let leads = resolution.filter(|resolution| resolution.kind == RouteKind::Unicast);
        let resolved = leads.and_then(|resolution| {
            let through = resolution.next_hops.iter().filter(|hop| hop.interface.is_none_or(&carries));
            let hops: Vec<_> = through.map(|hop| toward(address, hop)).collect();
            let metric = if resolution.connected { 0 } else { resolution.metric };
            (!hops.is_empty()).then_some(Resolved { metric, hops })
        });
        let changed = tracked.resolved != resolved;
        let metric = resolved.as_ref().map(|resolved| resolved.metric);
        let known = tracked.told && tracked.resolved.as_ref().map(|resolved| resolved.metric) == metric;
        tracked.resolved = resolved;
        tracked.told = true;
        LookedUp { tell: (!known).then_some(NextHopState { address, metric }), changed }
    }

    /// What a route through these next hops is made of: all ways to each of them. A next hop that does not resolve adds
    /// none.
    pub(crate) fn resolved(&self, next_hops: &[IpAddr]) -> Vec<RouteNextHop> {
        let resolved = next_hops.iter().filter_map(|hop| self.tracked.get(hop)?.resolved.as_ref());
        let mut hops: Vec<_> = resolved.flat_map(|resolved| resolved.hops.iter().copied()).collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    }

    /// Whether this interface leads to any next hop.
    pub(crate) fn use_interface(&self, index: u32) -> bool {
        let mut resolved = self.tracked.values().filter_map(|tracked| tracked.resolved.as_ref());
        resolved.any(|resolved| resolved.hops.iter().any(|hop| hop.interface == Some(index)))
    }

    /// The interfaces that lead to next hops.
    pub(crate) fn interfaces(&self) -> BTreeSet<u32> {
        let resolved = self.tracked.values().filter_map(|tracked| tracked.resolved.as_ref());
        resolved.flat_map(|resolved| resolved.hops.iter().filter_map(|hop| hop.interface)).collect()
    }
}

/// Where a packet for the next hop goes: to the gateway on the way, or to itself where it is on the link. The kernel
/// checks gateways against its table, so "onlink" is said only where the route on the way says it too.
fn toward(address: IpAddr, hop: &RouteNextHop) -> RouteNextHop {
    let gateway = hop.gateway.unwrap_or(address);
    RouteNextHop { gateway: Some(gateway), interface: hop.interface, onlink: hop.onlink, weight: 1 }
}

/// The look-up of an address as if there were no routes of this protocol: the longest prefix, of several routes to it the
/// one with the lowest metric. Needed where a route of BGP would resolve BGP's own next hops: such a route would hold
/// itself up (RFC 4271 section 9.1.2.1, mutually recursive routes).
///
/// The answer's ways are "onlink": the kernel would check their gateways against its own table, where BGP's routes are
/// (IPv6 refuses a gateway whose best route has a gateway itself).
pub(crate) fn look_up_without(protocol: u8, table: &[Route], address: IpAddr) -> Option<Resolution> {
    let candidates = table.iter().filter(|route| route.protocol != protocol && route.prefix.contains(address));
    let route = candidates.min_by_key(|route| (std::cmp::Reverse(route.prefix.len()), route.metric))?;
    Some(Resolution {
        prefix: route.prefix,
        protocol: route.protocol,
        metric: route.metric,
        kind: route.kind,
        next_hops: route.next_hops.iter().map(|hop| RouteNextHop { onlink: true, ..*hop }).collect(),
        connected: route.next_hops.iter().all(|hop| hop.gateway.is_none()),
    })
}

#[cfg(test)]
mod tests;
