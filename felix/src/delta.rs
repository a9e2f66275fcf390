//! What is in the kernel and is ours, and the changes that make it what is desired: pure.

use std::collections::{BTreeMap, HashSet};

use kernel::{KernelError, Route, RouteChange, RouteFailure};
use types::{Family, Prefix};

/// Our routes as the kernel has them.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// By what the kernel tells routes apart by.
    programmed: BTreeMap<(Prefix, u32), Route>,
    /// Protocols and families that have said all they have: what they do not want may go.
    in_sync: HashSet<(u8, Family)>,
    /// Prefixes that a source has wanted since the start: when it no longer does, that is news and not ignorance.
    wanted_once: HashSet<Prefix>,
    /// What the kernel refused last, by prefix.
    failures: BTreeMap<Prefix, KernelError>,
}

impl Delta {
    /// The kernel was read: these are all of our routes of a family. Prefixes whose route is not as it was known are
    /// answered.
    pub(crate) fn read(&mut self, family: Family, routes: Vec<Route>) -> Vec<Prefix> {
        let mut before: BTreeMap<_, _> = std::mem::take(&mut self.programmed);
        let mut differs = Vec::new();
        for route in routes {
            let key = (route.prefix, route.metric);
            if before.remove(&key).as_ref() != Some(&route) {
                differs.push(route.prefix);
            }
            self.programmed.insert(key, route);
        }
        for (key, route) in before {
            if route.prefix.family() == family {
                differs.push(route.prefix);
            } else {
                self.programmed.insert(key, route);
            }
        }
        differs
    }

    /// Another process put or changed a route of ours; true if that is not what was known.
    pub(crate) fn put_by_others(&mut self, route: Route) -> bool {
        let key = (route.prefix, route.metric);
        let news = self.programmed.get(&key) != Some(&route);
        self.programmed.insert(key, route);
        news
    }

    /// A route of ours is gone without our doing; true if it was known.
    pub(crate) fn deleted_by_others(&mut self, route: &Route) -> bool {
        self.programmed.remove(&(route.prefix, route.metric)).is_some()
    }

    /// The link is down or gone: the kernel has dropped its IPv4 routes without a word. The prefixes that lost one.
    pub(crate) fn link_lost(&mut self, index: u32, gone: bool) -> Vec<Prefix> {
        let over = |route: &Route| route.next_hops.iter().any(|hop| hop.interface == Some(index));
        let lost = |route: &Route| over(route) && (gone || route.prefix.family() == Family::Ipv4);
        let prefixes: Vec<_> = self.programmed.values().filter(|route| lost(route)).map(|route| route.prefix).collect();
        self.programmed.retain(|_, route| !lost(route));
        prefixes
    }

    /// The source has said all it has; true if that is new.
    pub(crate) fn in_sync(&mut self, protocol: u8, family: Family) -> bool {
        self.in_sync.insert((protocol, family))
    }

    /// Prefixes of routes of this protocol and family in the kernel.
    pub(crate) fn of(&self, protocol: u8, family: Family) -> Vec<Prefix> {
        let of = |route: &&Route| route.protocol == protocol && route.prefix.family() == family;
        self.programmed.values().filter(of).map(|route| route.prefix).collect()
    }

    /// The changes for one prefix: first what puts the desired route, then what takes others of ours away, as far as their
    /// source is in sync or has once wanted the prefix.
    pub(crate) fn changes(&mut self, prefix: Prefix, desired: Option<Route>, out: &mut Changes) {
        self.failures.remove(&prefix);
        let key = desired.as_ref().map(|route| (prefix, route.metric));
        if let Some(route) = desired {
            self.wanted_once.insert(prefix);
            match self.programmed.get(&(prefix, route.metric)) {
                Some(installed) if route.is_met_by(installed) => {}
                Some(_) => out.puts.push(RouteChange::Replace(route)),
                // Add fails where a foreign route has this prefix and metric; Replace would take its place.
                None => out.puts.push(RouteChange::Add(route)),
            }
        }
        let ours = self.programmed.range((prefix, 0)..=(prefix, u32::MAX));
        for (_, installed) in ours.filter(|(installed, _)| Some(**installed) != key) {
            let source_is_known = self.in_sync.contains(&(installed.protocol, prefix.family()));
            if source_is_known || self.wanted_once.contains(&prefix) {
                out.deletes.push(RouteChange::Delete(installed.clone()));
            }
        }
    }

    /// The changes were carried out, but for the failures.
    pub(crate) fn applied(&mut self, changes: &[RouteChange], failures: Vec<RouteFailure>) {
        let mut failed: BTreeMap<usize, KernelError> =
            failures.into_iter().map(|failure| (failure.index, failure.error)).collect();
        for (index, change) in changes.iter().enumerate() {
            let route = change.route();
            match (failed.remove(&index), change) {
                (Some(error), _) => {
                    self.failures.insert(route.prefix, error);
                }
                (None, RouteChange::Delete(route)) => {
                    self.programmed.remove(&(route.prefix, route.metric));
                    if self.programmed.range((route.prefix, 0)..=(route.prefix, u32::MAX)).next().is_none() {
                        self.wanted_once.remove(&route.prefix);
                    }
                }
                (None, RouteChange::Add(route) | RouteChange::Replace(route)) => {
                    self.programmed.insert((route.prefix, route.metric), route.clone());
                }
            }
        }
    }

    /// What the kernel refused and is to be tried again.
    pub(crate) const fn failures(&self) -> &BTreeMap<Prefix, KernelError> {
        &self.failures
    }

    /// How many of our routes are in the kernel with this protocol.
    pub(crate) fn count(&self, protocol: u8) -> usize {
        self.programmed.values().filter(|route| route.protocol == protocol).count()
    }
}

/// Changes in the order in which they are made: what puts routes before what takes them away.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn route(text: &str, gateway: &str) -> Route {
        Route::via(prefix(text), 78, [gateway.parse().unwrap()]).with_metric(78)
    }

    fn changes(delta: &mut Delta, text: &str, desired: Option<Route>) -> Vec<RouteChange> {
        let mut out = Changes::default();
        delta.changes(prefix(text), desired, &mut out);
        out.into_ordered()
    }

    #[test]
    fn a_route_that_is_as_desired_is_not_written() {
        let mut delta = Delta::default();
        let wanted = route("10.0.0.0/26", "192.0.2.1");
        delta.read(Family::Ipv4, vec![wanted.clone()]);
        assert!(changes(&mut delta, "10.0.0.0/26", Some(wanted)).is_empty());
        let moved = route("10.0.0.0/26", "192.0.2.2");
        assert_eq!(changes(&mut delta, "10.0.0.0/26", Some(moved.clone())), [RouteChange::Replace(moved)]);
    }

    #[test]
    fn what_nobody_has_wanted_yet_stays_until_its_source_is_in_sync() {
        let mut delta = Delta::default();
        let stale = route("10.0.0.0/26", "192.0.2.1");
        delta.read(Family::Ipv4, vec![stale.clone()]);
        assert!(changes(&mut delta, "10.0.0.0/26", None).is_empty());
        assert!(delta.in_sync(78, Family::Ipv4));
        assert_eq!(delta.of(78, Family::Ipv4), [prefix("10.0.0.0/26")]);
        assert_eq!(changes(&mut delta, "10.0.0.0/26", None), [RouteChange::Delete(stale)]);
    }

    #[test]
    fn what_a_source_takes_back_goes_at_once() {
        let mut delta = Delta::default();
        let learned = route("10.0.0.0/26", "192.0.2.1");
        let put = changes(&mut delta, "10.0.0.0/26", Some(learned.clone()));
        assert_eq!(put, [RouteChange::Add(learned.clone())]);
        delta.applied(&put, Vec::new());
        assert_eq!(changes(&mut delta, "10.0.0.0/26", None), [RouteChange::Delete(learned)]);
    }
}
