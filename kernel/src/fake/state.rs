//! The state of a fake namespace, and the rules of the kernel that it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use types::{Family, Prefix};

use super::events::{FakeEvents, Subscriber, queue};
use super::failures::CallFailures;
use super::{FakeKernel, Meddling, Operation};
use crate::events::Event;
use crate::netns::NetnsId;
use crate::{
    AddressFlags, InterfaceAddress, KernelError, Link, LinkChange, MAIN_TABLE, Neighbour, Resolution, Route,
    RouteChange, RouteKind, RouteNextHop, SourceRule, SysctlKey, VethSpec,
};

/// What the kernel identifies a route by: table, prefix, metric.
type RouteKey = (u32, Prefix, u32);

/// The protocol of routes that the kernel makes for addresses (RTPROT_KERNEL).
const PROTOCOL_KERNEL: u8 = 2;

/// Everything that is in one namespace.
#[derive(Debug)]
pub(super) struct State {
    /// The index of the link that was made last.
    last_index: u32,
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) addresses: Vec<InterfaceAddress>,
    routes: BTreeMap<RouteKey, Route>,
    pub(super) neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    pub(super) rules: BTreeSet<SourceRule>,
    /// The sysctls that were written; all others read as 0.
    pub(super) sysctls: BTreeMap<SysctlKey, String>,
    /// The namespaces in which the other ends of veths are.
    namespaces: BTreeMap<NetnsId, FakeKernel>,
    /// The other end of each veth, by the index of the host's end.
    peers: BTreeMap<u32, (NetnsId, u32)>,
    pub(super) failures: Failures,
    /// What happens before the next call of an operation.
    pub(super) before: BTreeMap<Operation, Meddling>,
    pub(super) calls: Vec<Operation>,
    pub(super) route_changes: Vec<RouteChange>,
    subscribers: Vec<Subscriber<Event>>,
}

/// Which deletions of routes the kernel announces with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// All of them: somebody asked for the deletion.
    Always,
    /// Those of IPv6 alone: a link went down or away.
    Ipv6,
}

impl Default for State {
    fn default() -> Self {
        let mut state = Self {
            last_index: 0,
            links: BTreeMap::new(),
            addresses: Vec::new(),
            routes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            rules: BTreeSet::new(),
            sysctls: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            peers: BTreeMap::new(),
            failures: Failures::default(),
            before: BTreeMap::new(),
            calls: Vec::new(),
            route_changes: Vec::new(),
            subscribers: Vec::new(),
        };
        state.add_link("lo", true, None);
        state
    }
}

impl State {
    pub(super) fn namespace(&mut self, id: NetnsId) -> FakeKernel {
        self.namespaces.entry(id).or_default().clone()
    }

    pub(super) fn remove_namespace(&mut self, id: NetnsId) {
        self.namespaces.remove(&id);
        let ours: Vec<u32> = self.peers.iter().filter(|(_, peer)| peer.0 == id).map(|(&index, _)| index).collect();
        for index in ours {
            self.remove_link(index);
        }
    }

    pub(super) fn subscribe(&mut self) -> Result<FakeEvents, KernelError> {
        let (events, subscriber) = queue()?;
        self.subscribers.push(subscriber);
        Ok(FakeEvents(events))
    }

    pub(super) fn emit(&self, event: &Event) {
        for subscriber in &self.subscribers {
            subscriber.tell(event.clone());
        }
    }

    pub(super) fn add_link(&mut self, name: &str, up: bool, kind: Option<&str>) -> Link {
        self.last_index += 1;
        let index = self.last_index;
        let link = Link {
            index,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index % 256).unwrap_or(0)]),
            mtu: 1500,
            up,
            running: up,
            group: 0,
            kind: kind.map(str::to_owned),
            peer_index: None,
            peer_netns: None,
        };
        self.put_link(link.clone());
        link
    }

    fn put_link(&mut self, link: Link) {
        self.emit(&Event::LinkChanged(link.clone()));
        self.links.insert(link.index, link);
    }

    pub(super) fn create_veth(&mut self, veth: &VethSpec<'_>) -> Result<u32, KernelError> {
        let exists = || KernelError::refused(format!("cannot create {veth}"), libc::EEXIST, None);
        let pod = self.namespace(veth.peer_netns.id());
        let mut inside = pod.lock();
        if self.named(veth.host.as_str()) || inside.named(veth.peer.as_str()) {
            return Err(exists());
        }
        let mut peer = inside.add_link(veth.peer.as_str(), false, Some("veth"));
        let mut host = self.add_link(veth.host.as_str(), veth.host_up, Some("veth"));
        let netns = self.namespaces.keys().position(|&id| id == veth.peer_netns.id());
        host.mac = Some(veth.host_mac);
        host.group = veth.host_group;
        host.peer_index = Some(peer.index);
        host.peer_netns = netns.and_then(|place| i32::try_from(place).ok());
        peer.mac = veth.peer_mac.or(peer.mac);
        peer.peer_index = Some(host.index);
        peer.peer_netns = Some(0);
        (host.mtu, peer.mtu) = (veth.mtu, veth.mtu);
        let index = host.index;
        self.peers.insert(index, (veth.peer_netns.id(), peer.index));
        inside.put_link(peer);
        self.put_link(host);
        Ok(index)
    }

    fn named(&self, name: &str) -> bool {
        self.links.values().any(|link| link.name == name)
    }

    pub(super) fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<(), KernelError> {
        let gone = || KernelError::refused(format!("cannot change link {index}"), libc::ENODEV, None);
        let mut link = self.links.get(&index).cloned().ok_or_else(gone)?;
        let before = link.up;
        link.up = change.up.unwrap_or(link.up);
        link.running = link.up;
        link.group = change.group.unwrap_or(link.group);
        link.mtu = change.mtu.unwrap_or(link.mtu);
        link.mac = change.mac.or(link.mac);
        let up = link.up;
        self.put_link(link);
        if before && !up {
            self.forget_routes_over(index);
        }
        if up && !before {
            let on_link: Vec<Route> =
                self.addresses.iter().filter(|a| a.index == index).filter_map(prefix_route).collect();
            for route in on_link {
                self.put(route);
            }
        }
        Ok(())
    }

    pub(super) fn remove_link(&mut self, index: u32) {
        let Some(link) = self.links.remove(&index) else {
            return;
        };
        self.forget_routes_over(index);
        let (gone, kept) = std::mem::take(&mut self.addresses).into_iter().partition(|a| a.index == index);
        self.addresses = kept;
        let gone: Vec<InterfaceAddress> = gone;
        for address in gone {
            self.emit(&Event::AddressDeleted(address));
        }
        self.neighbours.retain(|&(interface, _), _| interface != index);
        self.sysctls.retain(|key, _| interface_of(key) != Some(link.name.as_str()));
        self.emit(&Event::LinkDeleted(link));
        if let Some((netns, peer)) = self.peers.remove(&index)
            && let Some(pod) = self.namespaces.get(&netns)
        {
            pod.remove_link(peer);
        }
    }

    pub(super) fn remove_group(&mut self, group: u32) -> Result<(), KernelError> {
        let members: Vec<u32> = self.links.values().filter(|link| link.group == group).map(|link| link.index).collect();
        let virtual_links = |index: &u32| self.links.get(index).is_some_and(|link| link.kind.is_some());
        if !members.iter().all(virtual_links) {
            return Err(KernelError::refused(format!("cannot delete link group {group}"), libc::EOPNOTSUPP, None));
        }
        for index in members {
            self.remove_link(index);
        }
        Ok(())
    }

    pub(super) fn add_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError> {
        let gone = || KernelError::refused(format!("cannot add {address}"), libc::ENODEV, None);
        let up = self.links.get(&address.index).ok_or_else(gone)?.up;
        if self.addresses.iter().any(|other| same_address(other, address)) {
            return Ok(());
        }
        self.addresses.push(address.clone());
        self.emit(&Event::AddressChanged(address.clone()));
        if let Some(route) = prefix_route(address).filter(|_| up) {
            self.put(route);
        }
        Ok(())
    }

    pub(super) fn delete_address(&mut self, address: &InterfaceAddress) {
        let Some(place) = self.addresses.iter().position(|other| same_address(other, address)) else {
            return;
        };
        let gone = self.addresses.remove(place);
        if let Some(route) = prefix_route(&gone) {
            self.remove_routes(|other| *other == route, Tell::Always);
        }
        self.emit(&Event::AddressDeleted(gone));
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        self.routes.values().cloned().collect()
    }

    pub(super) fn change_route(&mut self, change: &RouteChange) -> Result<(), KernelError> {
        let route = change.route().clone().canonical();
        let refused = |errno| KernelError::refused(format!("cannot {change}"), errno, None);
        if let Some(errno) = self.failures.of_route(&route.prefix) {
            return Err(refused(errno));
        }
        let key = key_of(&route);
        match change {
            RouteChange::Add(_) if self.routes.contains_key(&key) => Err(refused(libc::EEXIST)),
            RouteChange::Add(_) | RouteChange::Replace(_) => {
                let route = self.place(route).map_err(refused)?;
                self.put(route);
                Ok(())
            }
            RouteChange::Delete(_) => {
                self.remove_routes(|other| key_of(other) == key && other.protocol == route.protocol, Tell::Always);
                Ok(())
            }
        }
    }

    /// Finds the interfaces of a route's next hops; an error number if one has none.
    fn place(&self, mut route: Route) -> Result<Route, i32> {
        for hop in &mut route.next_hops {
            let interface = match (hop.interface, hop.gateway) {
                (None, Some(gateway)) => self.interface_towards(gateway).ok_or_else(|| match Family::of(gateway) {
                    Family::Ipv4 => libc::ENETUNREACH,
                    Family::Ipv6 => libc::EHOSTUNREACH,
                })?,
                (Some(interface), _) => interface,
                (None, None) => return Err(libc::EINVAL),
            };
            if !self.links.get(&interface).ok_or(libc::ENODEV)?.up {
                return Err(libc::ENETDOWN);
            }
            hop.interface = Some(interface);
        }
        if route.kind == RouteKind::Unicast && route.next_hops.is_empty() {
            return Err(libc::ENODEV);
        }
        Ok(route.canonical())
    }

    /// The interface that has a gateway on its link.
    fn interface_towards(&self, gateway: IpAddr) -> Option<u32> {
        match self.lookup(gateway)?.next_hops.as_slice() {
            [RouteNextHop { gateway: None, interface, .. }] => *interface,
            _ => None,
        }
    }

    fn put(&mut self, route: Route) {
        self.emit(&Event::RouteChanged(route.clone()));
        self.routes.insert(key_of(&route), route);
    }

    pub(super) fn remove_routes(&mut self, which: impl Fn(&Route) -> bool, tell: Tell) {
        let gone: Vec<Route> = self.routes.extract_if(.., |_, route| which(route)).map(|(_, route)| route).collect();
        for route in gone {
            if tell == Tell::Always || route.prefix.family() == Family::Ipv6 {
                self.emit(&Event::RouteDeleted(route));
            }
        }
    }

    fn forget_routes_over(&mut self, interface: u32) {
        self.remove_routes(|route| route.next_hops.iter().any(|hop| hop.interface == Some(interface)), Tell::Ipv6);
    }

    /// The route of the main table with the longest prefix that matches; of several, the one with the lowest metric.
    fn lookup(&self, destination: IpAddr) -> Option<&Route> {
        (0..=Family::of(destination).bits()).rev().find_map(|len| {
            let prefix = Prefix::new(destination, len).ok()?;
            let range = (MAIN_TABLE, prefix, 0)..=(MAIN_TABLE, prefix, u32::MAX);
            self.routes.range(range).next().map(|(_, route)| route)
        })
    }

    pub(super) fn resolve(&self, destination: IpAddr) -> Option<Resolution> {
        if let Some(own) = self.addresses.iter().find(|own| own.address == destination) {
            return Some(Resolution {
                prefix: Prefix::host(destination),
                protocol: PROTOCOL_KERNEL,
                metric: 0,
                kind: RouteKind::Local,
                next_hops: vec![RouteNextHop::on(own.index)],
                connected: true,
            });
        }
        let route = self.lookup(destination).filter(|route| route.kind == RouteKind::Unicast)?;
        Some(Resolution {
            prefix: route.prefix,
            protocol: route.protocol,
            metric: route.metric,
            kind: route.kind,
            next_hops: route.next_hops.clone(),
            connected: route.next_hops.iter().all(|hop| hop.gateway.is_none()),
        })
    }

    pub(super) fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), KernelError> {
        if !self.links.contains_key(&neighbour.index) {
            let operation = format!("cannot set neighbour {}", neighbour.address);
            return Err(KernelError::refused(operation, libc::ENODEV, None));
        }
        let entry = Neighbour { permanent: true, ..*neighbour };
        self.neighbours.insert((neighbour.index, neighbour.address), entry);
        Ok(())
    }

    /// Checks that the interface of a sysctl exists, as its sysctls come and go with it.
    pub(super) fn check_sysctl(&self, key: &SysctlKey, operation: String) -> Result<(), KernelError> {
        match interface_of(key) {
            Some(name) if !self.named(name) => Err(KernelError::refused(operation, libc::ENOENT, None)),
            _ => Ok(()),
        }
    }
}

/// The route that the kernel makes for an address.
fn prefix_route(address: &InterfaceAddress) -> Option<Route> {
    let on_link = Prefix::new(address.peer.unwrap_or(address.address), address.prefix_len).ok()?;
    let wanted =
        !address.flags.contains(AddressFlags::NO_PREFIX_ROUTE) && (!on_link.is_host() || address.peer.is_some());
    wanted.then(|| {
        let route = Route::on_link(on_link, PROTOCOL_KERNEL, address.index);
        match on_link.family() {
            Family::Ipv4 => route.with_preferred_source(Some(address.address)),
            Family::Ipv6 => route.with_metric(256),
        }
    })
}

fn same_address(one: &InterfaceAddress, other: &InterfaceAddress) -> bool {
    (one.index, one.address, one.prefix_len) == (other.index, other.address, other.prefix_len)
}

fn key_of(route: &Route) -> RouteKey {
    (route.table, route.prefix, route.metric)
}

/// The interface in `net/FAMILY/conf|neigh/INTERFACE/KEY`; none for `all` and `default`.
fn interface_of(key: &SysctlKey) -> Option<&str> {
    let mut parts = key.path().split('/').skip(2);
    let class = parts.next()?;
    let interface = parts.next()?;
    (matches!(class, "conf" | "neigh") && !matches!(interface, "all" | "default")).then_some(interface)
}

/// The failures that tests have asked for.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) calls: CallFailures<Operation>,
    routes: BTreeMap<Prefix, i32>,
}

impl Failures {
    pub(super) fn on_route(&mut self, prefix: Prefix, errno: i32) {
        self.routes.insert(prefix, errno);
    }

    fn of_route(&self, prefix: &Prefix) -> Option<i32> {
        self.routes.get(prefix).copied()
    }
}
