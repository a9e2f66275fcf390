//! The sets that do not depend on policies: pools, and what is to be known of local addresses. Few members, of which all
//! are remembered. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::acl::{ElementChange, LinkName, SetElement};
use types::policy::{Direction, Protocol};
use types::{Family, Prefix};

use super::config::NatPool;
use super::names::SetRef;
use super::sets::{SetStep, SetWork, fixed_spec};
use crate::policy::Infrastructure;

/// What they hold and what they should.
#[derive(Debug, Clone, Default)]
pub(crate) struct FixedSets {
    /// What the sets of pools should hold; none before the agent has said so.
    pools: Option<BTreeMap<SetRef, BTreeSet<SetElement>>>,
    /// What those of closed ports should hold; none before the agent has said so.
    speakers: Option<BTreeMap<SetRef, BTreeSet<SetElement>>>,
    /// What those of local addresses should hold.
    locals: BTreeMap<SetRef, BTreeSet<SetElement>>,
    /// What they hold; a set that is not listed is not there.
    kernel: BTreeMap<SetRef, BTreeSet<SetElement>>,
    /// Sets that are to be compared with what they should hold.
    dirty: BTreeSet<SetRef>,
}

impl FixedSets {
    /// Whether the agent has not told pools yet.
    pub(crate) const fn are_pools_unknown(&self) -> bool {
        self.pools.is_none()
    }

    /// The members of a set, as read.
    pub(crate) fn found(&mut self, set: SetRef, elements: &[SetElement]) {
        self.kernel.insert(set, elements.iter().copied().collect());
        self.dirty.insert(set);
    }

    /// What the set holds is not certain: all of it is put again.
    pub(crate) fn put_again(&mut self, set: SetRef) {
        self.kernel.remove(&set);
        self.dirty.insert(set);
    }

    /// These are all pools. To `excluded` nothing is masqueraded either.
    pub(crate) fn want_pools(&mut self, pools: &[NatPool], excluded: &BTreeSet<IpAddr>, families: &BTreeSet<Family>) {
        let mut wanted = BTreeMap::new();
        for family in families {
            let of_family = || pools.iter().filter(|pool| pool.cidr.family() == *family);
            let excluded = excluded.iter().filter(|address| Family::of(**address) == *family);
            let excluded = excluded.map(|address| Prefix::host(*address));
            let all = of_family().flat_map(|pool| halves(pool.cidr)).chain(excluded).map(SetElement::Net);
            let outgoing = of_family().filter(|pool| pool.outgoing).flat_map(|pool| halves(pool.cidr));
            wanted.insert(SetRef::Pools(*family), all.collect());
            wanted.insert(SetRef::Masquerade(*family), outgoing.map(SetElement::Net).collect());
        }
        self.dirty.extend(wanted.keys());
        self.pools = Some(wanted);
    }

    /// This is closed to pods.
    pub(crate) fn want_speakers(&mut self, infrastructure: &Infrastructure, families: &BTreeSet<Family>) {
        let of = |family: &Family| (SetRef::Speakers(*family), infrastructure.closed(*family).map(port).collect());
        let wanted: BTreeMap<_, _> = families.iter().map(of).collect();
        self.dirty.extend(wanted.keys());
        self.speakers = Some(wanted);
    }

    /// Whether the agent has not told what is closed to pods yet.
    pub(crate) const fn are_speakers_unknown(&self) -> bool {
        self.speakers.is_none()
    }

    /// This node peers with the local endpoint that has this address, or does not.
    pub(crate) fn route_by(&mut self, address: IpAddr, is_router: bool) {
        let set = SetRef::Routers(Family::of(address));
        let addresses = self.locals.entry(set).or_default();
        let element = SetElement::Address(address);
        let has_changed = if is_router { addresses.insert(element) } else { addresses.remove(&element) };
        if has_changed {
            self.dirty.insert(set);
        }
    }

    /// An address of a local endpoint, and the interface that it is behind.
    pub(crate) fn local_arrived(&mut self, address: IpAddr, home: LinkName) {
        for (set, element) in of_local(address, home) {
            self.locals.entry(set).or_default().insert(element);
            self.dirty.insert(set);
        }
    }

    /// The address is no local endpoint's any more.
    pub(crate) fn local_left(&mut self, address: IpAddr) {
        let family = Family::of(address);
        for set in SetRef::base(family) {
            if let Some(elements) = self.locals.get_mut(&set) {
                elements.retain(|element| !is_about(element, address));
                self.dirty.insert(set);
            }
        }
    }

    /// What is to be done about them. Local addresses are all known once the program has begun: until then none is taken
    /// away.
    pub(crate) fn steps(&mut self, began: bool) -> Vec<SetStep> {
        let mut steps = Vec::new();
        let none = BTreeSet::new();
        for set in std::mem::take(&mut self.dirty) {
            // What the agent tells as a whole, if this is of that.
            let told = match set {
                SetRef::Pools(_) | SetRef::Masquerade(_) => Some(&self.pools),
                SetRef::Speakers(_) => Some(&self.speakers),
                _ => None,
            };
            let wanted = match told {
                Some(Some(told)) => told.get(&set).unwrap_or(&none),
                Some(None) => continue,
                None => self.locals.get(&set).unwrap_or(&none),
            };
            let found = self.kernel.get(&set);
            if found.is_none() {
                steps.push(SetStep { set, work: SetWork::Create(fixed_spec(set, wanted.len())) });
            }
            let found = found.unwrap_or(&none);
            let takes_away = told.is_some() || began;
            let add = wanted.difference(found).map(|element| ElementChange::Put(*element));
            let remove = found.difference(wanted).filter(|_| takes_away).map(|element| ElementChange::Delete(*element));
            let changes: Vec<_> = add.chain(remove).collect();
            let holds = if takes_away { wanted.clone() } else { wanted.union(found).copied().collect() };
            if !changes.is_empty() {
                steps.push(SetStep { set, work: SetWork::Change(changes) });
            }
            self.kernel.insert(set, holds);
        }
        steps
    }

    /// All sets are to be compared with what they should hold.
    pub(crate) fn look_at_all(&mut self) {
        self.dirty.extend(self.kernel.keys());
    }

    /// How many members each should have, of those that are there.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (SetRef, usize)> {
        self.kernel.iter().map(|(set, elements)| (*set, elements.len()))
    }
}

/// What is said of a local address.
fn of_local(address: IpAddr, home: LinkName) -> [(SetRef, SetElement); 3] {
    let family = Family::of(address);
    let [into, out] = [Direction::Ingress, Direction::Egress].map(|direction| SetRef::Drops(direction, family));
    [
        (SetRef::Homes(family), SetElement::Home(address, home)),
        (into, SetElement::Counted(address)),
        (out, SetElement::Counted(address)),
    ]
}

fn is_about(element: &SetElement, address: IpAddr) -> bool {
    matches!(element, SetElement::Home(of, _) | SetElement::Counted(of) | SetElement::Address(of) if *of == address)
}

fn port((address, protocol, port): (IpAddr, Protocol, u16)) -> SetElement {
    SetElement::Port(address, protocol, port)
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
