//! The sets that do not depend on policies: pools, and what is to be known of local addresses. Few members, of which all
//! are remembered. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::acl::{AddressHome, AddressPort, CountedAddress, Element, ElementChange, LinkName, SetElement};
use types::policy::Direction;
use types::{Family, Prefix};

use super::config::NatPool;
use super::names::{OwnSet, SetRef};
use super::sets::{SetStep, SetWork, spec};
use crate::policy::Infrastructure;

/// What they hold and what they should.
#[derive(Debug, Clone, Default)]
pub(crate) struct FixedSets {
    /// Which interface each local address is behind.
    homes: Contents<AddressHome>,
    /// Local addresses, to count what is dropped.
    drops: Contents<CountedAddress>,
    /// Ports that are closed to pods.
    speakers: Contents<AddressPort>,
    /// Whether the agent has said which ports are closed to pods.
    are_speakers_known: bool,
    /// Addresses of the local pods that this node peers with.
    routers: Contents<IpAddr>,
    /// Pools, and those from which masquerade leads out.
    pools: Contents<Prefix>,
    /// Whether the agent has said which pools there are.
    are_pools_known: bool,
}

/// What sets of one kind hold and should hold.
#[derive(Debug, Clone)]
struct Contents<E> {
    /// What they should hold; nothing of a set that is not listed.
    wanted: BTreeMap<OwnSet<E>, BTreeSet<E>>,
    /// What they hold; a set that is not listed is not there.
    kernel: BTreeMap<OwnSet<E>, BTreeSet<E>>,
    /// Sets that are to be compared with what they should hold.
    dirty: BTreeSet<OwnSet<E>>,
}

impl FixedSets {
    /// Whether the agent has not told pools yet.
    pub(crate) const fn are_pools_unknown(&self) -> bool {
        !self.are_pools_known
    }

    /// The members of a set, as read.
    pub(crate) fn found(&mut self, set: SetRef, elements: &[SetElement]) {
        self.holds(set, Some(elements));
    }

    /// What the set holds is not certain: all of it is put again.
    pub(crate) fn put_again(&mut self, set: SetRef) {
        self.holds(set, None);
    }

    fn holds(&mut self, set: SetRef, elements: Option<&[SetElement]>) {
        match set {
            SetRef::Homes(family) => self.homes.holds(OwnSet::homes(family), elements),
            SetRef::Drops(direction, family) => self.drops.holds(OwnSet::drops(direction, family), elements),
            SetRef::Speakers(family) => self.speakers.holds(OwnSet::speakers(family), elements),
            SetRef::Routers(family) => self.routers.holds(OwnSet::routers(family), elements),
            SetRef::Pools(family) => self.pools.holds(OwnSet::pools(family), elements),
            SetRef::Masquerade(family) => self.pools.holds(OwnSet::masquerade(family), elements),
            // They are kept elsewhere.
            SetRef::Marks(_) | SetRef::Program(..) => {}
        }
    }

    /// These are all pools. To `excluded` nothing is masqueraded either.
    pub(crate) fn want_pools(&mut self, pools: &[NatPool], excluded: &BTreeSet<IpAddr>, families: &BTreeSet<Family>) {
        let mut wanted = BTreeMap::new();
        for family in families {
            let of_family = || pools.iter().filter(|pool| pool.cidr.family() == *family);
            let excluded = excluded.iter().filter(|address| Family::of(**address) == *family);
            let excluded = excluded.map(|address| Prefix::host(*address));
            let all = of_family().flat_map(|pool| halves(pool.cidr)).chain(excluded);
            let outgoing = of_family().filter(|pool| pool.outgoing).flat_map(|pool| halves(pool.cidr));
            wanted.insert(OwnSet::pools(*family), all.collect());
            wanted.insert(OwnSet::masquerade(*family), outgoing.collect());
        }
        self.pools.want(wanted);
        self.are_pools_known = true;
    }

    /// This is closed to pods.
    pub(crate) fn want_speakers(&mut self, infrastructure: &Infrastructure, families: &BTreeSet<Family>) {
        let closed = |family: Family| -> BTreeSet<AddressPort> {
            let all = infrastructure.closed(family);
            all.map(|(address, protocol, port)| AddressPort { address, protocol, port }).collect()
        };
        self.speakers.want(families.iter().map(|family| (OwnSet::speakers(*family), closed(*family))).collect());
        self.are_speakers_known = true;
    }

    /// Whether the agent has not told what is closed to pods yet.
    pub(crate) const fn are_speakers_unknown(&self) -> bool {
        !self.are_speakers_known
    }

    /// This node peers with the local endpoint that has this address, or does not.
    pub(crate) fn route_by(&mut self, address: IpAddr, is_router: bool) {
        let set = OwnSet::routers(Family::of(address));
        let addresses = self.routers.wanted.entry(set).or_default();
        let has_changed = if is_router { addresses.insert(address) } else { addresses.remove(&address) };
        if has_changed {
            self.routers.dirty.insert(set);
        }
    }

    /// An address of a local endpoint, and the interface that it is behind.
    pub(crate) fn local_arrived(&mut self, address: IpAddr, home: LinkName) {
        let family = Family::of(address);
        self.homes.add(OwnSet::homes(family), AddressHome { address, interface: home });
        for direction in Direction::ALL {
            self.drops.add(OwnSet::drops(direction, family), CountedAddress(address));
        }
    }

    /// The address is no local endpoint's any more.
    pub(crate) fn local_left(&mut self, address: IpAddr) {
        let family = Family::of(address);
        self.homes.retain(OwnSet::homes(family), |home| home.address != address);
        self.routers.retain(OwnSet::routers(family), |router| *router != address);
        for direction in Direction::ALL {
            self.drops.retain(OwnSet::drops(direction, family), |counted| counted.0 != address);
        }
    }

    /// What is to be done about them. Local addresses are all known once the program has begun: until then none is taken
    /// away.
    pub(crate) fn steps(&mut self, began: bool) -> Vec<SetStep> {
        let mut steps = self.homes.steps(began);
        steps.extend(self.drops.steps(began));
        steps.extend(self.speakers.steps_once_told(self.are_speakers_known));
        steps.extend(self.routers.steps(began));
        steps.extend(self.pools.steps_once_told(self.are_pools_known));
        steps
    }

    /// All sets are to be compared with what they should hold.
    pub(crate) fn look_at_all(&mut self) {
        self.homes.look_at_all();
        self.drops.look_at_all();
        self.speakers.look_at_all();
        self.routers.look_at_all();
        self.pools.look_at_all();
    }

    /// How many members each should have, of those that are there.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (SetRef, usize)> {
        let locals = self.homes.counts().chain(self.drops.counts());
        let closed = self.speakers.counts().chain(self.routers.counts());
        locals.chain(closed).chain(self.pools.counts())
    }
}

impl<E> Default for Contents<E> {
    fn default() -> Self {
        Self { wanted: BTreeMap::new(), kernel: BTreeMap::new(), dirty: BTreeSet::new() }
    }
}

impl<E: Element> Contents<E> {
    /// The members of a set, as read; none: what it holds is not certain.
    fn holds(&mut self, set: OwnSet<E>, elements: Option<&[SetElement]>) {
        match elements {
            Some(elements) => {
                let elements = elements.iter().filter_map(|element| E::try_from(*element).ok());
                self.kernel.insert(set, elements.collect());
            }
            None => drop(self.kernel.remove(&set)),
        }
        self.dirty.insert(set);
    }

    /// These are all members of all sets.
    fn want(&mut self, wanted: BTreeMap<OwnSet<E>, BTreeSet<E>>) {
        self.dirty.extend(wanted.keys());
        self.wanted = wanted;
    }

    fn add(&mut self, set: OwnSet<E>, element: E) {
        self.wanted.entry(set).or_default().insert(element);
        self.dirty.insert(set);
    }

    fn retain(&mut self, set: OwnSet<E>, stays: impl FnMut(&E) -> bool) {
        if let Some(elements) = self.wanted.get_mut(&set) {
            elements.retain(stays);
            self.dirty.insert(set);
        }
    }

    fn look_at_all(&mut self) {
        self.dirty.extend(self.kernel.keys());
    }

    fn counts(&self) -> impl Iterator<Item = (SetRef, usize)> {
        self.kernel.iter().map(|(set, elements)| (set.set_ref(), elements.len()))
    }

    /// What is to be done about sets that the agent tells as a whole: nothing before it has. All of them are looked at when
    /// it does.
    fn steps_once_told(&mut self, is_told: bool) -> Vec<SetStep> {
        if !is_told {
            self.dirty.clear();
        }
        self.steps(true)
    }

    fn steps(&mut self, takes_away: bool) -> Vec<SetStep> {
        let mut steps = Vec::new();
        let none = BTreeSet::new();
        for own in std::mem::take(&mut self.dirty) {
            let set = own.set_ref();
            let wanted = self.wanted.get(&own).unwrap_or(&none);
            let found = self.kernel.get(&own);
            if found.is_none() {
                steps.push(SetStep { set, work: SetWork::Create(spec(set, wanted.len())) });
            }
            let found = found.unwrap_or(&none);
            let add = wanted.difference(found).map(|element| ElementChange::Put(*element));
            let remove = found.difference(wanted).filter(|_| takes_away).map(|element| ElementChange::Delete(*element));
            let changes = own.changes(add.chain(remove));
            let holds = if takes_away { wanted.clone() } else { wanted.union(found).copied().collect() };
            if !changes.as_slice().is_empty() {
                steps.push(SetStep { set, work: SetWork::Change(changes) });
            }
            self.kernel.insert(own, holds);
        }
        steps
    }
}

/// A prefix as a set takes it: not of length zero.
fn halves(prefix: Prefix) -> Vec<Prefix> {
    if prefix.len() > 0 {
        return vec![prefix];
    }
    let upper = match prefix.family() {
        Family::Ipv4 => IpAddr::from([128, 0, 0, 0]),
        Family::Ipv6 => IpAddr::from([0x8000, 0, 0, 0, 0, 0, 0, 0]),
    };
    [prefix.addr(), upper].into_iter().filter_map(|address| Prefix::new(address, 1).ok()).collect()
}
