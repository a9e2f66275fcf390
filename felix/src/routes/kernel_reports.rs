//! How the route table takes in what the kernel reports: events, and the answers to reading and looking up.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::events::Event;
use kernel::{InterfaceAddress, Link, MAIN_TABLE, Resolution, Route};
use types::Family;

use super::interfaces::Interface;
use super::table::RouteTable;

impl RouteTable {
    /// Takes in a change in the kernel that is not our own.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::RouteChanged(route) => self.route_changed(route),
            Event::RouteDeleted(route) => self.route_deleted(&route),
            Event::LinkChanged(link) => self.link_is(&link),
            Event::LinkDeleted(link) => self.link_gone(link.index),
            Event::AddressChanged(address) => {
                let changed = address.address;
                self.interfaces.put_address(&address);
                self.address_came_or_went(changed);
            }
            Event::AddressDeleted(address) => {
                self.interfaces.remove_address(&address);
                self.address_came_or_went(address.address);
                if !is_link_local(address.address) {
                    // The kernel silently drops IPv4 routes with this source, and all of an interface with its last address.
                    self.unsettled = true;
                    self.read_all_again();
                }
            }
            Event::Lost => self.read_all_again(),
        }
    }

    /// Events were lost or cannot be heard, so that nothing that is known of the kernel is certain: all is to be read.
    pub(crate) fn read_all_again(&mut self) {
        self.unread.extend(Family::ALL);
        self.interfaces_unread = true;
        self.look_ups.extend(self.next_hops.addresses());
    }

    fn route_changed(&mut self, route: Route) {
        self.look_ups.extend(self.next_hops.within(route.prefix));
        if route.table != MAIN_TABLE {
            return;
        }
        let prefix = route.prefix;
        let is_new = if self.is_ours(&route) { self.delta.found(route) } else { self.delta.displaced(&route) };
        if is_new {
            self.disturbed += 1;
            self.dirty.insert(prefix);
        }
    }

    fn route_deleted(&mut self, route: &Route) {
        self.look_ups.extend(self.next_hops.within(route.prefix));
        if route.table != MAIN_TABLE {
            return;
        }
        if self.is_ours(route) {
            if self.delta.deleted(route) {
                self.disturbed += 1;
                self.dirty.insert(route.prefix);
            }
        } else if self.troubles.contains_key(&route.prefix) {
            // A route of ours that a foreign route kept out may have room now.
            self.dirty.insert(route.prefix);
        }
    }

    /// Takes in what a link is like now.
    pub(crate) fn link_is(&mut self, link: &Link) {
        let (index, now) = (link.index, Interface::from(link));
        let before = self.interfaces.put(index, now.clone());
        if before.as_ref() == Some(&now) {
            return;
        }
        if before.as_ref().is_none_or(|before| (&before.name, before.up) != (&now.name, now.up)) {
            let names = before.iter().chain([&now]).map(|link| link.name.as_str());
            self.dirty.extend(names.flat_map(|name| self.desired.pods_behind(name)));
            if !now.up && before.is_some_and(|before| before.up) {
                self.link_lost(index, &now);
            }
        }
        self.link_concerns_next_hops(index, &now);
    }

    fn link_gone(&mut self, index: u32) {
        let Some(before) = self.interfaces.remove(index) else { return };
        self.dirty.extend(self.desired.pods_behind(&before.name));
        self.link_lost(index, &before);
        self.link_concerns_next_hops(index, &before);
    }

    fn link_lost(&mut self, index: u32, link: &Interface) {
        // Links of pods come and go often, and have their pods' routes and as a rule no others: do not look at all routes.
        let has_others = self.delta.stale_count() > 0 || self.next_hops.use_interface(index);
        let among = (link.is_pods && !has_others).then(|| self.desired.pods_behind(&link.name));
        let lost = self.delta.link_lost(index, among.as_deref(), |index| self.interfaces.is_up(index));
        self.dirty.extend(lost);
    }

    fn link_concerns_next_hops(&mut self, index: u32, link: &Interface) {
        if !link.is_pods || self.next_hops.use_interface(index) {
            self.mtu_unsure = true;
            self.look_ups.extend(self.next_hops.addresses());
            self.retry();
            self.unsettled = true;
        }
    }

    fn address_came_or_went(&mut self, address: IpAddr) {
        if self.desired.is_node_address(&address) {
            self.dirty.extend(self.desired.pods_of(Family::of(address)));
        }
        if !is_link_local(address) {
            self.retry();
        }
    }

    /// Takes in all links and addresses: what is not among them is gone.
    pub(crate) fn interfaces_read(&mut self, links: &[Link], addresses: &[InterfaceAddress]) {
        self.interfaces_unread = false;
        let mut gone = self.interfaces.indices();
        for link in links {
            gone.remove(&link.index);
            self.link_is(link);
        }
        gone.into_iter().for_each(|index| self.link_gone(index));
        self.interfaces.forget_addresses();
        addresses.iter().for_each(|address| self.interfaces.put_address(address));
        for family in Family::ALL {
            self.dirty.extend(self.desired.pods_of(family));
        }
    }

    /// Takes in all routes of ours of one family.
    pub(crate) fn routes_read(&mut self, family: Family, routes: Vec<Route>) {
        self.unread.remove(&family);
        self.dirty.extend(self.delta.read(family, routes));
    }

    /// Takes in how an address is reached, as looked up in a table without BGP's own routes.
    pub(crate) fn looked_up(&mut self, address: IpAddr, resolution: Option<&Resolution>) {
        let interfaces = &self.interfaces;
        let answer = self.next_hops.looked_up(address, resolution, |index| interfaces.carries(index));
        self.untold.extend(answer.tell.map(|state| (address, state)));
        if answer.changed {
            self.moved.insert(address);
            self.mtu_unsure = true;
        }
    }

    /// Takes note that these look-ups have failed; they are made again in the next round.
    pub(crate) fn look_up_again(&mut self, addresses: BTreeSet<IpAddr>) {
        self.look_ups.extend(addresses);
    }

    fn is_ours(&self, route: &Route) -> bool {
        [self.protocols.local, self.protocols.bgp].contains(&route.protocol)
    }
}

/// Whether an address is link-local. Such addresses come and go with every link, and no route of ours depends on them.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
