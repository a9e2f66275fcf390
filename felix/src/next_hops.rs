//! Next hops: what the kernel's table makes of them (RFC 4271 section 5.1.3). Pure: look-ups are made by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::{Resolution, RouteKind, RouteNextHop};
use types::NextHopState;

/// Next hops that bgp asks about.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    tracked: BTreeMap<IpAddr, Tracked>,
}

#[derive(Debug, Default)]
struct Tracked {
    /// How to reach it; none while it is unreachable or not looked up yet.
    resolved: Option<Resolved>,
    /// Whether bgp has been told of a state.
    told: bool,
}

/// How to reach a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    /// The metric of the route that leads to it.
    metric: u32,
    /// Gateways and interfaces that packets for it go to.
    hops: Vec<RouteNextHop>,
}

impl NextHops {
    pub(crate) fn track(&mut self, address: IpAddr) {
        // Asked again: answered again.
        self.tracked.entry(address).or_default().told = false;
    }

    pub(crate) fn untrack(&mut self, address: IpAddr) {
        self.tracked.remove(&address);
    }

    /// All that are tracked.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.tracked.keys().copied().collect()
    }

    /// Takes a look-up's answer; what bgp is to be told, if anything, and whether routes through it change. A resolution
    /// through a route that BGP itself put there is none: it would hold itself up.
    pub(crate) fn looked_up(
        &mut self,
        address: IpAddr,
        resolution: Option<&Resolution>,
        bgp_protocol: u8,
    ) -> (Option<NextHopState>, bool) {
        let Some(tracked) = self.tracked.get_mut(&address) else { return (None, false) };
        let usable = resolution
            .filter(|resolution| resolution.protocol != bgp_protocol && resolution.kind == RouteKind::Unicast);
        let resolved = usable.map(|resolution| Resolved {
            metric: if resolution.connected { 0 } else { resolution.metric },
            hops: resolution.next_hops.iter().map(|hop| toward(address, hop)).collect(),
        });
        let changed = tracked.resolved != resolved;
        let metric = resolved.as_ref().map(|resolved| resolved.metric);
        let tell = !tracked.told || tracked.resolved.as_ref().map(|resolved| resolved.metric) != metric;
        tracked.resolved = resolved;
        tracked.told = true;
        (tell.then_some(NextHopState { address, metric }), changed)
    }

    /// What a route through these next hops goes to: the union of what each resolves to.
    pub(crate) fn resolved(&self, next_hops: &[IpAddr]) -> Vec<RouteNextHop> {
        let resolved = next_hops.iter().filter_map(|hop| self.tracked.get(hop)?.resolved.as_ref());
        let mut hops: Vec<_> = resolved.flat_map(|resolved| resolved.hops.iter().copied()).collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    }

    /// Interfaces that lead to next hops.
    pub(crate) fn interfaces(&self) -> BTreeSet<u32> {
        let resolved = self.tracked.values().filter_map(|tracked| tracked.resolved.as_ref());
        resolved.flat_map(|resolved| resolved.hops.iter().filter_map(|hop| hop.interface)).collect()
    }
}

/// Where a packet for the next hop goes: to the gateway on the way, or to itself where it is on the link.
fn toward(address: IpAddr, hop: &RouteNextHop) -> RouteNextHop {
    RouteNextHop { gateway: hop.gateway.or(Some(address)), interface: hop.interface, onlink: false, weight: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn resolution(protocol: u8, gateway: Option<&str>, metric: u32) -> Resolution {
        let hop = RouteNextHop { gateway: gateway.map(ip), interface: Some(3), onlink: false, weight: 1 };
        Resolution {
            prefix: "192.0.2.0/24".parse().unwrap(),
            protocol,
            metric,
            kind: RouteKind::Unicast,
            next_hops: vec![hop],
            connected: gateway.is_none(),
        }
    }

    #[test]
    fn a_next_hop_behind_a_gateway_is_reached_through_the_gateway() {
        let mut next_hops = NextHops::default();
        next_hops.track(ip("192.0.2.9"));
        let static_route = resolution(4, Some("198.51.100.1"), 20);
        let (told, changed) = next_hops.looked_up(ip("192.0.2.9"), Some(&static_route), 78);
        assert_eq!(told, Some(NextHopState { address: ip("192.0.2.9"), metric: Some(20) }));
        assert!(changed);
        assert_eq!(next_hops.resolved(&[ip("192.0.2.9")])[0].gateway, Some(ip("198.51.100.1")));
        assert_eq!(next_hops.looked_up(ip("192.0.2.9"), Some(&static_route), 78), (None, false));
        let connected = resolution(2, None, 0);
        next_hops.looked_up(ip("192.0.2.9"), Some(&connected), 78);
        assert_eq!(next_hops.resolved(&[ip("192.0.2.9")])[0].gateway, Some(ip("192.0.2.9")));
    }

    #[test]
    fn a_route_of_bgp_resolves_no_next_hop_of_bgp() {
        let mut next_hops = NextHops::default();
        next_hops.track(ip("192.0.2.9"));
        let (told, _) = next_hops.looked_up(ip("192.0.2.9"), Some(&resolution(78, Some("198.51.100.1"), 0)), 78);
        assert_eq!(told, Some(NextHopState { address: ip("192.0.2.9"), metric: None }));
        assert!(next_hops.resolved(&[ip("192.0.2.9")]).is_empty());
    }

    #[test]
    fn who_asks_is_always_answered() {
        let mut next_hops = NextHops::default();
        for _ in 0..2 {
            next_hops.track(ip("192.0.2.9"));
            assert!(next_hops.looked_up(ip("192.0.2.9"), None, 78).0.is_some());
        }
    }
}
