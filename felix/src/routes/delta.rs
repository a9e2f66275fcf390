//! What the kernel has of our routes, and the changes that turn it into what is desired.
//!
//! # Never in the place of a foreign route
//!
//! The kernel identifies a route by table, prefix and metric (and TOS, which we do not use), not by who made it: a
//! replacing RTM_NEWROUTE takes the place of whatever has that identity. Hence
//!
//! - our routes have metrics of their own ([`super::table::metric`]), which the usual 0, 20, 100, 256 and 1024 of others are
//!   not;
//! - a route is *added* (NLM_F_EXCL) where none of ours is known to be, and *replaced* only where the kernel has shown one
//!   of ours. Another program's route with the same metric stays, and is reported as a conflict;
//! - a deletion names our protocol number, which the kernel compares.
//!
//! # Nothing of an earlier life goes too early
//!
//! A route that was found, not put, is *stale* until its source has spoken of its prefix. While the source is not in sync,
//! stale routes stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kernel::{MAIN_TABLE, Route, RouteChange, RouteKind, RouteNextHop, Scope};
use types::{Family, Prefix};

use super::shared::Shared;

/// Our routes, as the kernel has them.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    programmed: BTreeMap<Key, Arc<Body>>,
    /// The routes that were found in the kernel and of whose prefixes no source has said anything yet.
    stale: BTreeSet<Key>,
    /// The protocols and families whose source has completed its listing.
    in_sync: BTreeSet<(u8, Family)>,
    /// What routes consist of beside their prefixes; each different one is stored once.
    bodies: Shared<Body>,
}

/// What the kernel identifies a route of the main table by: prefix and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    prefix: Prefix,
    metric: u32,
}

impl Key {
    const fn of(route: &Route) -> Self {
        Self { prefix: route.prefix, metric: route.metric }
    }

    fn range(prefix: Prefix) -> std::ops::RangeInclusive<Self> {
        Self { prefix, metric: 0 }..=Self { prefix, metric: u32::MAX }
    }
}

/// What a route consists of beside its prefix and metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Body {
    protocol: u8,
    kind: RouteKind,
    scope: Scope,
    next_hops: Vec<RouteNextHop>,
    preferred_source: Option<std::net::IpAddr>,
}

impl Body {
    fn of(route: Route) -> Self {
        let Route { protocol, kind, scope, next_hops, preferred_source, .. } = route;
        Self { protocol, kind, scope, next_hops, preferred_source }
    }

    fn to_route(&self, key: Key) -> Route {
        let Self { protocol, kind, scope, next_hops, preferred_source } = self.clone();
        let Key { prefix, metric } = key;
        Route { prefix, table: MAIN_TABLE, protocol, metric, kind, scope, next_hops, preferred_source }
    }
}

/// Changes in the order in which they are made: routes are put before others are deleted, so that no prefix is without
/// one.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    puts: Vec<RouteChange>,
    deletes: Vec<RouteChange>,
}

impl Changes {
    pub(crate) fn into_ordered(self) -> Vec<RouteChange> {
        let Self { mut puts, mut deletes } = self;
        puts.append(&mut deletes);
        puts
    }
}

impl Delta {
    /// Appends the changes for one prefix: the one that puts the desired route first, then those that delete other
    /// routes of ours. Returns whether a route is to be put.
    pub(crate) fn changes(&self, prefix: Prefix, desired: Option<Route>, out: &mut Changes) -> bool {
        let key = desired.as_ref().map(Key::of);
        let put = desired.and_then(|route| match self.programmed.get(&Key::of(&route)) {
            Some(installed) if route.is_met_by(&installed.to_route(Key::of(&route))) => None,
            Some(_) => Some(RouteChange::Replace(route)),
            None => Some(RouteChange::Add(route)),
        });
        let is_put = put.is_some();
        out.puts.extend(put);
        let others = self.programmed.range(Key::range(prefix)).filter(|(installed, _)| Some(**installed) != key);
        let unwanted = others.filter(|(installed, _)| !self.stale.contains(installed));
        out.deletes.extend(unwanted.map(|(installed, body)| RouteChange::Delete(body.to_route(*installed))));
        is_put
    }

    /// Takes note that the kernel has carried out this change.
    pub(crate) fn applied(&mut self, change: &RouteChange) {
        match change {
            RouteChange::Add(route) | RouteChange::Replace(route) => {
                self.stale.remove(&Key::of(route));
                self.put(route.clone());
            }
            RouteChange::Delete(route) => {
                self.programmed.remove(&Key::of(route));
            }
        }
    }

    /// Takes note that a source has spoken of the prefix: from now on its word counts, also when it says that there is
    /// no route.
    pub(crate) fn spoken(&mut self, protocol: u8, prefix: Prefix) {
        if self.stale.is_empty() {
            return;
        }
        let of_source = |key: &&Key| self.programmed.get(*key).is_none_or(|body| body.protocol == protocol);
        let keys: Vec<_> = self.stale.range(Key::range(prefix)).filter(of_source).copied().collect();
        for key in keys {
            self.stale.remove(&key);
        }
    }

    /// Takes note that a source has completed its listing; returns the prefixes that it has said nothing of.
    pub(crate) fn in_sync(&mut self, protocol: u8, family: Family) -> Vec<Prefix> {
        self.in_sync.insert((protocol, family));
        let of_source = |key: &Key| {
            let protocol_is = self.programmed.get(key).is_none_or(|body| body.protocol == protocol);
            key.prefix.family() == family && protocol_is
        };
        let (over, kept) = std::mem::take(&mut self.stale).into_iter().partition(of_source);
        self.stale = kept;
        let over: BTreeSet<Key> = over;
        over.into_iter().map(|key| key.prefix).collect()
    }

    /// Takes in all of our routes of a family, as just read from the kernel. Returns the prefixes whose routes differ
    /// from what was known.
    pub(crate) fn read(&mut self, family: Family, routes: Vec<Route>) -> Vec<Prefix> {
        let of_family = |key: &&Key| key.prefix.family() == family;
        let mut gone: BTreeSet<Key> = self.programmed.keys().filter(of_family).copied().collect();
        let mut differs = Vec::new();
        for route in routes {
            let (key, prefix) = (Key::of(&route), route.prefix);
            gone.remove(&key);
            if self.found(route) {
                differs.push(prefix);
            }
        }
        for key in gone {
            self.forget(&key);
            differs.push(key.prefix);
        }
        differs
    }

    /// Takes note that the kernel has this route of ours, perhaps without our having put it. Returns whether that is
    /// news.
    pub(crate) fn found(&mut self, route: Route) -> bool {
        let key = Key::of(&route);
        match self.programmed.get(&key) {
            Some(known) if known.to_route(key).is_met_by(&route) => return false,
            Some(_) => {}
            None if self.in_sync.contains(&(route.protocol, route.prefix.family())) => {}
            None => {
                self.stale.insert(key);
            }
        }
        self.put(route);
        true
    }

    /// Takes note that the kernel has deleted this route of ours, or some of its next hops (IPv6). Returns whether the
    /// route was known to be there: it was not, if we have replaced it in the meantime.
    pub(crate) fn deleted(&mut self, route: &Route) -> bool {
        let key = Key::of(route);
        let Some(known) = self.programmed.get(&key) else { return false };
        let same_way =
            |one: &RouteNextHop, other: &RouteNextHop| (one.gateway, one.interface) == (other.gateway, other.interface);
        let is_deleted = |hop: &RouteNextHop| route.next_hops.iter().any(|gone| same_way(gone, hop));
        let mut left = known.next_hops.clone();
        left.retain(|hop| !is_deleted(hop));
        if left.len() == known.next_hops.len() && !left.is_empty() {
            return false;
        }
        if left.is_empty() {
            self.forget(&key);
        } else {
            let rest = Body { next_hops: left, ..known.as_ref().clone() };
            self.put(rest.to_route(key).canonical());
        }
        true
    }

    /// Takes note that a foreign route has this place now. Returns whether it has replaced one of ours.
    pub(crate) fn displaced(&mut self, foreign: &Route) -> bool {
        self.forget(&Key::of(foreign))
    }

    /// Takes note that a link is down or gone. The kernel has dropped the routes that have no next hop left, those of
    /// IPv4 without an event; routes with other next hops stay. Looks at these prefixes only, or at all; returns those
    /// that have lost a route.
    pub(crate) fn link_lost(
        &mut self,
        index: u32,
        among: Option<&[Prefix]>,
        is_up: impl Fn(u32) -> bool,
    ) -> Vec<Prefix> {
        let lost = |body: &Body| {
            let mut interfaces = body.next_hops.iter().map(|hop| hop.interface);
            interfaces.clone().any(|interface| interface == Some(index))
                && !interfaces.any(|interface| interface.is_none_or(&is_up))
        };
        let lost_of = |(key, body): (&Key, &Arc<Body>)| lost(body).then_some(*key);
        let keys: Vec<Key> = match among {
            None => self.programmed.iter().filter_map(lost_of).collect(),
            Some(prefixes) => {
                let of = |prefix: &Prefix| self.programmed.range(Key::range(*prefix)).filter_map(lost_of);
                prefixes.iter().flat_map(of).collect()
            }
        };
        for key in &keys {
            self.forget(key);
        }
        keys.into_iter().map(|key| key.prefix).collect()
    }

    /// How many routes with this protocol number are in the kernel.
    pub(crate) fn count(&self, protocol: u8) -> usize {
        self.programmed.values().filter(|body| body.protocol == protocol).count()
    }

    /// How many routes are in the kernel that no source has spoken of yet.
    pub(crate) fn stale_count(&self) -> usize {
        self.stale.len()
    }

    fn put(&mut self, route: Route) {
        let key = Key::of(&route);
        let body = self.bodies.one(Body::of(route));
        self.programmed.insert(key, body);
    }

    fn forget(&mut self, key: &Key) -> bool {
        self.stale.remove(key);
        self.programmed.remove(key).is_some()
    }
}

#[cfg(test)]
mod tests;
