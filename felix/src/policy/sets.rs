//! Sets that all classes share: the members of selectors, their named ports, and blocks. Who uses them, and which members
//! may have come or gone since the last flush.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use types::Prefix;
use types::policy::{Direction, Protocol};

use super::blocks::Blocks;
use super::hash::StableHasher;
use super::program::{Change, ClassId, Element, SetId};
use super::selectors::{Selector, Selectors};
use super::world::{Endpoint, World};

/// What a shared set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Shared {
    /// The addresses of the endpoints that a selector selects.
    Selector(u32),
    /// The addresses of the endpoints that a selector selects, with the ports that each of them has under a name.
    Named(u32, Protocol, u32),
    /// The prefixes of a block.
    Block(u32),
}

/// The sets that classes share.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    sets: HashMap<Shared, SharedSet>,
    /// By selector: the named ports for which there is a set.
    named: HashMap<u32, BTreeSet<(Protocol, u32)>>,
    /// By selector: the directions of classes that have a term about it.
    terms: HashMap<u32, BTreeSet<(ClassId, Direction)>>,
    /// The sets that changes have created, with what they hold.
    installed: BTreeMap<SetId, Shared>,
    /// The sets that have got their first user or lost their last one since the last flush.
    changed: BTreeSet<Shared>,
    /// The members that may have changed since the last flush, with whether they were in the set then.
    touched: BTreeMap<Shared, BTreeMap<Element, bool>>,
}

#[derive(Debug)]
struct SharedSet {
    id: SetId,
    /// How many directions of classes have a rule over the set.
    users: usize,
    /// How many members the set has; none until changes have created it.
    installed: Option<usize>,
}

/// The parts of the compiler that say what selectors and blocks contain.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) peers: &'a Selectors,
    pub(crate) blocks: &'a Blocks,
}

impl Sets {
    /// Counts one more direction of a class that has rules over a set.
    pub(crate) fn join(&mut self, shared: Shared, view: View<'_>) {
        let new = || SharedSet { id: set_id(shared, view), users: 0, installed: None };
        self.sets.entry(shared).or_insert_with(new).users += 1;
        if let Shared::Named(selector, protocol, name) = shared {
            self.named.entry(selector).or_default().insert((protocol, name));
        }
        self.changed.insert(shared);
    }

    /// Counts one direction less that has rules over a set.
    pub(crate) fn leave(&mut self, shared: Shared) {
        if let Some(set) = self.sets.get_mut(&shared) {
            set.users -= 1;
            self.changed.insert(shared);
        }
    }

    pub(crate) fn add_term(&mut self, selector: u32, class: ClassId, direction: Direction) {
        self.terms.entry(selector).or_default().insert((class, direction));
    }

    pub(crate) fn remove_term(&mut self, selector: u32, class: ClassId, direction: Direction) {
        if let Some(terms) = self.terms.get_mut(&selector) {
            terms.remove(&(class, direction));
            if terms.is_empty() {
                self.terms.remove(&selector);
            }
        }
    }

    /// The directions of classes that have a term about a selector.
    pub(crate) fn terms(&self, selector: u32) -> Vec<(ClassId, Direction)> {
        self.terms.get(&selector).into_iter().flatten().copied().collect()
    }

    /// Takes note that a selector has begun or ceased to select an endpoint, or that an endpoint it selects has
    /// changed. `old` is the endpoint while it was selected, `new` the endpoint if it is selected now.
    pub(crate) fn touch(
        &mut self,
        selector_id: u32,
        endpoint: u32,
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
        view: View<'_>,
    ) {
        let Some(selector) = view.peers.get(selector_id) else { return };
        let versions = || [old, new].into_iter().flatten();
        let others = |address: IpAddr| {
            view.world.owners(address).filter(|owner| *owner != endpoint && selector.members.contains(*owner))
        };
        let shared = Shared::Selector(selector_id);
        if self.sets.contains_key(&shared) {
            for address in versions().flat_map(|version| selector.addresses(version)) {
                let was = old.is_some_and(|old| old.addresses.contain(address)) || others(address).next().is_some();
                let element = Element::Net(Prefix::host(address));
                self.touched.entry(shared).or_default().entry(element).or_insert(was);
            }
        }
        for (protocol, name) in self.named.get(&selector_id).into_iter().flatten().copied() {
            for version in versions() {
                for (address, number) in named(selector, version, protocol, name) {
                    let has = |endpoint: &Endpoint| {
                        endpoint.addresses.contain(address)
                            && endpoint.numbers(protocol, name).any(|other| other == number)
                    };
                    let was =
                        old.is_some_and(has) || others(address).any(|other| view.world.get(other).is_some_and(has));
                    let element = Element::Port(address, protocol, number);
                    let touched = self.touched.entry(Shared::Named(selector_id, protocol, name)).or_default();
                    touched.entry(element).or_insert(was);
                }
            }
        }
    }

    /// The changes since the last flush: the sets to create, the members to add and remove, and the sets to destroy.
    pub(crate) fn flush(&mut self, view: View<'_>) -> SetChanges {
        let mut changes = SetChanges::default();
        for shared in std::mem::take(&mut self.changed) {
            let Some(set) = self.sets.get_mut(&shared) else { continue };
            match (set.users, set.installed) {
                (0, installed) => {
                    if installed.is_some() {
                        self.installed.remove(&set.id);
                        changes.destroy.push(Change::DestroySet(set.id));
                    }
                    self.sets.remove(&shared);
                    self.touched.remove(&shared);
                    if let Shared::Named(selector, protocol, name) = shared
                        && let Some(named) = self.named.get_mut(&selector)
                    {
                        named.remove(&(protocol, name));
                        if named.is_empty() {
                            self.named.remove(&selector);
                        }
                    }
                }
                (_, Some(_)) => {}
                (_, None) => {
                    let first = changes.fill.len();
                    changes.fill.extend(elements(shared, view).map(|element| Change::Add(set.id, element)));
                    let expected = changes.fill.len() - first;
                    changes.create.push(Change::CreateSet { set: set.id, expected });
                    set.installed = Some(expected);
                    self.installed.insert(set.id, shared);
                    self.touched.remove(&shared);
                }
            }
        }
        for (shared, touched) in std::mem::take(&mut self.touched) {
            let Some(set) = self.sets.get_mut(&shared) else { continue };
            let Some(installed) = &mut set.installed else { continue };
            for (element, was) in touched {
                match (was, contains(shared, &element, view)) {
                    (false, true) => {
                        *installed += 1;
                        changes.add.push(Change::Add(set.id, element));
                    }
                    (true, false) => {
                        *installed = installed.saturating_sub(1);
                        changes.remove.push(Change::Remove(set.id, element));
                    }
                    (true, true) | (false, false) => {}
                }
            }
        }
        changes
    }

    /// The sets that changes have created, with the number of their members.
    pub(crate) fn installed(&self) -> impl Iterator<Item = (SetId, usize)> + '_ {
        self.installed
            .iter()
            .map(|(id, shared)| (*id, self.sets.get(shared).and_then(|set| set.installed).unwrap_or_default()))
    }

    /// What the set of this name holds.
    pub(crate) fn shared(&self, id: SetId) -> Option<Shared> {
        self.installed.get(&id).copied()
    }

    /// How many entries are kept, to find leaks.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.sets.len() + self.named.len() + self.terms.len() + self.installed.len() + self.touched.len()
    }
}

/// See [`Sets::flush`].
#[derive(Debug, Default)]
pub(crate) struct SetChanges {
    pub(crate) create: Vec<Change>,
    /// The changes that add the members of new sets.
    pub(crate) fill: Vec<Change>,
    pub(crate) add: Vec<Change>,
    pub(crate) remove: Vec<Change>,
    pub(crate) destroy: Vec<Change>,
}

/// The name of a shared set.
pub(crate) fn set_id(shared: Shared, view: View<'_>) -> SetId {
    let selector_hash = |id| view.peers.get(id).map_or(0, |selector| selector.hash);
    match shared {
        Shared::Selector(id) => SetId::Selector(selector_hash(id)),
        Shared::Named(id, protocol, name) => {
            let mut hasher = StableHasher::of("named port");
            hasher.number(selector_hash(id));
            hasher.number(protocol.number().into());
            hasher.text(view.world.texts.text(name));
            SetId::SelectorPort(hasher.finish())
        }
        Shared::Block(id) => SetId::Block(view.blocks.get(id).map_or(0, |block| block.hash)),
    }
}

/// The members that a shared set should have, each once.
pub(crate) fn elements(shared: Shared, view: View<'_>) -> Box<dyn Iterator<Item = Element> + '_> {
    let View { world, peers, blocks } = view;
    match shared {
        Shared::Selector(id) => Box::new(peers.get(id).into_iter().flat_map(move |selector| {
            let addresses = selector.members.iter().filter_map(|id| Some((id, world.get(id)?)));
            addresses.flat_map(move |(id, endpoint)| {
                let first = move |address: &IpAddr| {
                    world.owners(*address).find(|owner| selector.members.contains(*owner)) == Some(id)
                };
                selector.addresses(endpoint).filter(first).map(|address| Element::Net(Prefix::host(address)))
            })
        })),
        Shared::Named(id, protocol, name) => {
            let selector = peers.get(id);
            let members = selector.into_iter().flat_map(move |selector| {
                let members = selector.members.iter().filter_map(|id| world.get(id));
                members.flat_map(move |endpoint| named(selector, endpoint, protocol, name))
            });
            let each_once: BTreeSet<_> = members.collect();
            Box::new(each_once.into_iter().map(move |(address, number)| Element::Port(address, protocol, number)))
        }
        Shared::Block(id) => {
            let block = blocks.get(id);
            Box::new(block.into_iter().flat_map(|block| block.prefixes.iter().copied().map(Element::Net)))
        }
    }
}

fn contains(shared: Shared, element: &Element, View { world, peers, .. }: View<'_>) -> bool {
    let member = |id: u32, address: IpAddr, has: &dyn Fn(&Endpoint) -> bool| {
        peers.get(id).is_some_and(|selector| {
            selector.admits(address)
                && world
                    .owners(address)
                    .any(|owner| selector.members.contains(owner) && world.get(owner).is_some_and(has))
        })
    };
    match (shared, element) {
        (Shared::Selector(id), Element::Net(prefix)) => member(id, prefix.addr(), &|_| true),
        (Shared::Named(id, protocol, name), Element::Port(address, _, number)) => {
            member(id, *address, &|endpoint| endpoint.numbers(protocol, name).any(|other| other == *number))
        }
        // A block always has the same prefixes.
        _ => true,
    }
}

/// The addresses of an endpoint that a selector selects, with the numbers that the endpoint has under the port's name.
pub(crate) fn named<'a>(
    selector: &'a Selector,
    endpoint: &'a Endpoint,
    protocol: Protocol,
    name: u32,
) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    selector
        .addresses(endpoint)
        .flat_map(move |address| endpoint.numbers(protocol, name).map(move |number| (address, number)))
}
