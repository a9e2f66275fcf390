//! How a direction that is only about allowing is written: a union of terms, each a peer with ports.
//!
//! A term is *narrow* if it comes to few pairs of address and port: then it is elements of the one set that the direction
//! has, and one look-up serves all narrow terms. Otherwise it is *broad*: a rule over a set that all classes share. Terms
//! of one peer are one term, whatever policies they come from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use types::policy::{PortRange, Protocol};

use super::policies::{PeerRef, PortRef};
use super::program::{Change, ClassRule, Element, PeerMatch, PortClause, SetId, Verdict};
use super::selectors::Selector;
use super::sets::{Shared, View, set_id};
use super::world::Endpoint;

/// What one direction of a class allows.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    terms: BTreeMap<PeerRef, Term>,
    /// The peers among them whose terms are written narrowly.
    narrow: BTreeSet<PeerRef>,
    /// The members of the direction's own set that the narrow terms amount to.
    pub(crate) set: NarrowSet,
}

#[derive(Debug, Default)]
struct Term {
    /// The ports on which this peer is allowed, each with the number of rules that allow it.
    ports: BTreeMap<PortRef, u32>,
}

/// How many more (or fewer) rules allow each port, by peer.
pub(crate) type Difference = BTreeMap<PeerRef, BTreeMap<PortRef, i64>>;

/// A set of addresses with ports; each member has a count of the terms that ask for it.
#[derive(Debug, Default)]
pub(crate) struct NarrowSet {
    reasons: HashMap<Pair, u32>,
    /// The members that may have changed since the last flush, with whether they were in the set then.
    touched: BTreeMap<Pair, bool>,
    /// Whether changes that create the set have been given out.
    installed: bool,
}

type Pair = (IpAddr, Protocol, u16);

impl Terms {
    /// Adds and removes terms. Returns the selectors that have become the peer of a term, and those that no longer are.
    pub(crate) fn change(&mut self, difference: Difference, limit: usize, view: View<'_>) -> (Vec<u32>, Vec<u32>) {
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        for (peer, ports) in difference {
            let is_new = !self.terms.contains_key(&peer);
            let term = self.terms.entry(peer).or_default();
            let (mut added, mut removed) = (Vec::new(), Vec::new());
            for (port, more) in ports {
                let old = term.ports.get(&port).copied().unwrap_or(0);
                let new = u32::try_from(i64::from(old) + more).unwrap_or(0);
                match (old, new) {
                    (_, 0) => drop(term.ports.remove(&port)),
                    _ => drop(term.ports.insert(port, new)),
                }
                match (old, new) {
                    (0, 1..) => added.push(port),
                    (1.., 0) => removed.push(port),
                    _ => {}
                }
            }
            let is_empty = term.ports.is_empty();
            if is_empty {
                self.terms.remove(&peer);
            }
            let PeerRef::Selector(id) = peer else { continue };
            let Some(selector) = view.peers.get(id) else { continue };
            if self.narrow.contains(&peer) {
                self.set.change(selector, view, &removed, NarrowSet::remove);
                self.set.change(selector, view, &added, NarrowSet::add);
            }
            match (is_new, is_empty) {
                (true, false) => begun.push(id),
                (false, true) => ended.push(id),
                _ => {}
            }
            self.choose(id, selector, is_new, limit, view);
        }
        (begun, ended)
    }

    /// Takes note that a selector has begun or ceased to select an endpoint, or that an endpoint it selects has
    /// changed. Returns whether the rules have changed by it.
    pub(crate) fn touch(
        &mut self,
        id: u32,
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
        limit: usize,
        view: View<'_>,
    ) -> bool {
        let peer = PeerRef::Selector(id);
        let (Some(selector), Some(term)) = (view.peers.get(id), self.terms.get(&peer)) else { return false };
        if self.narrow.contains(&peer) {
            for port in term.ports.keys() {
                for pair in new.into_iter().flat_map(|new| pairs(selector, new, *port)) {
                    self.set.add(pair);
                }
                for pair in old.into_iter().flat_map(|old| pairs(selector, old, *port)) {
                    self.set.remove(pair);
                }
            }
        }
        self.choose(id, selector, false, limit, view)
    }

    /// Decides whether the terms of a selector are narrow or broad. Above the limit they are broad, at half of it
    /// narrow, and in between they stay what they are, so that a number of members that hovers near the limit does not
    /// rewrite the rules each time. Returns whether the decision has changed.
    fn choose(&mut self, id: u32, selector: &Selector, is_new: bool, limit: usize, view: View<'_>) -> bool {
        let peer = PeerRef::Selector(id);
        let was = self.narrow.contains(&peer);
        let is = self.terms.get(&peer).is_some_and(|term| {
            let cost = selector.members.len() * term.ports.len();
            let single = |port: &PortRef| match port {
                PortRef::Range(_, range) => range.first() == range.last(),
                PortRef::Named(..) => true,
                PortRef::Any | PortRef::All(_) => false,
            };
            let few = if was || is_new { cost <= limit } else { cost <= limit / 2 };
            few && term.ports.keys().all(single)
        });
        if was != is {
            let ports: Vec<_> = self.terms.get(&peer).into_iter().flat_map(|term| term.ports.keys().copied()).collect();
            if is {
                self.narrow.insert(peer);
                self.set.change(selector, view, &ports, NarrowSet::add);
            } else {
                self.narrow.remove(&peer);
                self.set.change(selector, view, &ports, NarrowSet::remove);
            }
        }
        was != is
    }

    /// The rules of the direction, and the shared sets that they name.
    pub(crate) fn rules(&self, narrow: SetId, view: View<'_>) -> (Vec<ClassRule>, BTreeSet<Shared>) {
        let allow = |peer, port| ClassRule { peer, port, verdict: Verdict::Allow };
        let any = self.terms.get(&PeerRef::Any);
        if any.is_some_and(|term| term.ports.contains_key(&PortRef::Any)) {
            return (vec![allow(PeerMatch::Any, PortClause::Any)], BTreeSet::new());
        }
        let mut rules = Vec::new();
        if !self.narrow.is_empty() {
            rules.push(allow(PeerMatch::PortIn(narrow), PortClause::Any));
        }
        let (mut broad, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for (peer, term) in self.terms.iter().filter(|(peer, _)| !self.narrow.contains(*peer)) {
            for (peer, port, set) in matches(*peer, term.ports.keys().copied(), view) {
                broad.insert(allow(peer, port));
                shared.extend(set);
            }
        }
        rules.extend(broad);
        (rules, shared)
    }

    pub(crate) fn is_narrow_used(&self) -> bool {
        !self.narrow.is_empty()
    }

    /// The selectors that are the peer of a term.
    pub(crate) fn selectors(&self) -> impl Iterator<Item = u32> + '_ {
        self.terms.keys().filter_map(|peer| match peer {
            PeerRef::Selector(id) => Some(*id),
            PeerRef::Any | PeerRef::Block(_) => None,
        })
    }
}

/// The matches that a peer with these ports is written as: at most one for each protocol, and one for each named port.
pub(crate) fn matches(
    peer: PeerRef,
    ports: impl Iterator<Item = PortRef>,
    view: View<'_>,
) -> Vec<(PeerMatch, PortClause, Option<Shared>)> {
    let shared = match peer {
        PeerRef::Any => None,
        PeerRef::Selector(id) => Some(Shared::Selector(id)),
        PeerRef::Block(id) => Some(Shared::Block(id)),
    };
    let other = shared.map_or(PeerMatch::Any, |shared| PeerMatch::In(set_id(shared, view)));
    let (mut any, mut ranges, mut found) = (false, BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for port in ports {
        match (port, peer) {
            (PortRef::Any, _) => any = true,
            (PortRef::All(protocol), _) => ranges.entry(protocol).or_default().push(PortRange::all()),
            (PortRef::Range(protocol, range), _) => ranges.entry(protocol).or_default().push(range),
            (PortRef::Named(protocol, name), PeerRef::Selector(id)) => {
                let named = Shared::Named(id, protocol, name);
                found.push((PeerMatch::PortIn(set_id(named, view)), PortClause::Any, Some(named)));
            }
            // The compiler of policies never pairs a named port with such a peer.
            (PortRef::Named(..), PeerRef::Any | PeerRef::Block(_)) => {}
        }
    }
    if any {
        return vec![(other, PortClause::Any, shared)];
    }
    for (protocol, ranges) in ranges {
        let ranges = joined(ranges);
        let clause = match ranges.as_slice() {
            [range] if *range == PortRange::all() => PortClause::All(protocol),
            _ => PortClause::Ranges(protocol, ranges),
        };
        found.push((other, clause, shared));
    }
    found
}

/// Joins ranges that overlap or touch; the result is ascending.
fn joined(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first() <= last.last().saturating_add(1) => {
                let end = last.last().max(range.last());
                *last = PortRange::new(last.first(), end).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

impl NarrowSet {
    /// Appends the changes of the set since the last flush; `used` says whether a rule names the set.
    pub(crate) fn flush(&mut self, id: SetId, used: bool, changes: &mut super::sets::SetChanges) {
        let touched = std::mem::take(&mut self.touched);
        match (self.installed, used) {
            (false, false) => {}
            (true, false) => changes.destroy.push(Change::DestroySet(id)),
            (false, true) => {
                changes.create.push(Change::CreateSet { set: id, expected: self.reasons.len() });
                let mut pairs: Vec<_> = self.reasons.keys().copied().collect();
                pairs.sort_unstable();
                changes.fill.extend(pairs.into_iter().map(|pair| Change::Add(id, element(pair))));
            }
            (true, true) => {
                for (pair, was) in touched {
                    match (was, self.reasons.contains_key(&pair)) {
                        (false, true) => changes.add.push(Change::Add(id, element(pair))),
                        (true, false) => changes.remove.push(Change::Remove(id, element(pair))),
                        (true, true) | (false, false) => {}
                    }
                }
            }
        }
        self.installed = used;
    }

    pub(crate) const fn is_installed(&self) -> bool {
        self.installed
    }

    pub(crate) fn len(&self) -> usize {
        self.reasons.len()
    }

    pub(crate) fn contains(&self, address: IpAddr, protocol: Protocol, port: u16) -> bool {
        self.reasons.contains_key(&(address, protocol, port))
    }

    pub(crate) fn elements(&self) -> impl Iterator<Item = Element> + '_ {
        self.reasons.keys().copied().map(element)
    }

    /// Counts one more or one fewer term for every member of a selector on some ports.
    fn change(&mut self, selector: &Selector, view: View<'_>, ports: &[PortRef], change: fn(&mut Self, Pair)) {
        if ports.is_empty() {
            return;
        }
        for endpoint in selector.members.iter().filter_map(|id| view.world.get(id)) {
            for port in ports {
                pairs(selector, endpoint, *port).for_each(|pair| change(self, pair));
            }
        }
    }

    fn add(&mut self, pair: Pair) {
        let reasons = self.reasons.entry(pair).or_insert(0);
        if self.installed {
            self.touched.entry(pair).or_insert(*reasons > 0);
        }
        *reasons += 1;
    }

    fn remove(&mut self, pair: Pair) {
        if self.installed {
            self.touched.entry(pair).or_insert(true);
        }
        if let Some(reasons) = self.reasons.get_mut(&pair) {
            *reasons -= 1;
            if *reasons == 0 {
                self.reasons.remove(&pair);
            }
        }
    }
}

const fn element((address, protocol, port): Pair) -> Element {
    Element::Port(address, protocol, port)
}

/// The addresses with port numbers that an endpoint selected by `selector` contributes to the set for one port.
fn pairs<'a>(selector: &'a Selector, endpoint: &'a Endpoint, port: PortRef) -> impl Iterator<Item = Pair> + 'a {
    let single = match port {
        PortRef::Range(protocol, range) => Some((protocol, range.first())),
        PortRef::Named(..) | PortRef::Any | PortRef::All(_) => None,
    };
    let named = match port {
        PortRef::Named(protocol, name) => Some((protocol, name)),
        PortRef::Range(..) | PortRef::Any | PortRef::All(_) => None,
    };
    let named = named
        .into_iter()
        .flat_map(|(protocol, name)| endpoint.numbers(protocol, name).map(move |number| (protocol, number)));
    let ports: Vec<_> = single.into_iter().chain(named).collect();
    selector
        .addresses(endpoint)
        .flat_map(move |address| ports.clone().into_iter().map(move |(protocol, port)| (address, protocol, port)))
}
