//! Selectors that somebody uses, each once, with whom they select. A change finds those that it can concern by what they
//! require, never by looking at all.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use types::Prefix;
use types::policy::{EndpointSelector, NamespaceSelector};

use super::hash::StableHasher;
use super::id_set::IdSet;
use super::labels::{Handle, Matchers, Requirements};
use super::slab::Slab;
use super::world::{Endpoint, World};

/// What a selector selects, in one normal form whatever way it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Definition {
    namespaces: NamespacePart,
    endpoints: Requirements,
    /// Only addresses within these prefixes count: used for the named ports of endpoints in a block.
    within: Option<Arc<[Prefix]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum NamespacePart {
    All,
    Named(String),
    Labelled(Requirements),
}

impl Definition {
    /// Selects every endpoint, or of each endpoint the addresses within a block.
    pub(crate) fn everyone(within: Option<Arc<[Prefix]>>) -> Self {
        let endpoints = Requirements::from(&types::policy::LabelSelector::default());
        Self { namespaces: NamespacePart::All, endpoints, within }
    }

    fn hash(&self) -> StableHasher {
        let mut hasher = StableHasher::of("selector");
        match &self.namespaces {
            NamespacePart::All => hasher.text("all"),
            NamespacePart::Named(name) => {
                hasher.text("named");
                hasher.text(name);
            }
            NamespacePart::Labelled(requirements) => {
                hasher.text("labelled");
                requirements.hash(&mut hasher);
            }
        }
        hasher.text("endpoints");
        self.endpoints.hash(&mut hasher);
        if let Some(within) = &self.within {
            hasher.text("within");
            within.iter().for_each(|prefix| hasher.text(&prefix.to_string()));
        }
        hasher
    }
}

impl From<&EndpointSelector> for Definition {
    fn from(selector: &EndpointSelector) -> Self {
        let namespaces = match &selector.namespaces {
            NamespaceSelector::Named(name) => NamespacePart::Named(name.clone()),
            NamespaceSelector::Labelled(labels) if labels.is_empty() => NamespacePart::All,
            NamespaceSelector::Labelled(labels) => NamespacePart::Labelled(labels.into()),
        };
        Self { namespaces, endpoints: (&selector.endpoints).into(), within: None }
    }
}

/// The selectors over one population of endpoints, each kept once.
#[derive(Debug)]
pub(crate) struct Selectors {
    population: Population,
    entries: Slab<Selector>,
    by_definition: HashMap<Arc<Definition>, u32>,
    /// The selectors by the label that leads to them. A selector that requires one of several values is under each of
    /// them.
    anchors: HashMap<Anchor, Vec<u32>>,
    /// The selectors that require something of namespaces' labels, by the number of that requirement.
    by_part: HashMap<u32, BTreeSet<u32>>,
    /// The hashes that name the selectors' sets: no two selectors may have the same one.
    hashes: HashMap<u64, u32>,
}

/// Which endpoints a selector selects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Population {
    /// The endpoints that can be peers.
    Peers,
    /// The endpoints that are governed on this node.
    Governed,
}

#[derive(Debug)]
pub(crate) struct Selector {
    definition: Arc<Definition>,
    pub(crate) hash: u64,
    scope: Scope,
    matchers: Matchers,
    pub(crate) members: IdSet,
    holders: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    All,
    Namespace(u32),
    Part(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Anchor {
    Pair(Scope, u32),
    Key(Scope, u32),
    Any(Scope),
}

/// Whether a selector selected an endpoint before a change, and whether it does now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Membership {
    pub(crate) selector: u32,
    pub(crate) was: bool,
    pub(crate) is: bool,
}

impl Selector {
    /// The addresses of an endpoint that this selector selects.
    pub(crate) fn addresses<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = IpAddr> + 'a {
        endpoint.addresses.iter().filter(|address| self.admits(*address))
    }

    /// Whether an address is selected, given that its endpoint is.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let within = self.definition.within.as_deref();
        within.is_none_or(|within| within.iter().any(|prefix| prefix.contains(address)))
    }

    fn fits(&self, endpoint: &Endpoint, world: &World) -> bool {
        let in_scope = match self.scope {
            Scope::All => true,
            Scope::Namespace(namespace) => endpoint.namespace == namespace,
            Scope::Part(part) => {
                world.namespaces.get(endpoint.namespace).is_some_and(|namespace| namespace.parts.contains(&part))
            }
        };
        in_scope
            && self.matchers.fit(&endpoint.labels, &world.labels)
            && (self.definition.within.is_none() || self.addresses(endpoint).next().is_some())
    }
}

impl Selectors {
    pub(crate) fn new(population: Population) -> Self {
        Self {
            population,
            entries: Slab::default(),
            by_definition: HashMap::new(),
            anchors: HashMap::new(),
            by_part: HashMap::new(),
            hashes: HashMap::new(),
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Selector> {
        self.entries.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(&self, definition: &Definition) -> Option<&Selector> {
        self.by_definition.get(definition).and_then(|id| self.entries.get(*id))
    }

    /// Gives the number of a selector and counts one more holder of it.
    pub(crate) fn hold(&mut self, definition: Definition, world: &mut World) -> u32 {
        if let Some(id) = self.by_definition.get(&definition) {
            if let Some(selector) = self.entries.get_mut(*id) {
                selector.holders += 1;
            }
            return *id;
        }
        let mut hasher = definition.hash();
        while self.hashes.contains_key(&hasher.finish()) {
            hasher.text("again");
        }
        let scope = match &definition.namespaces {
            NamespacePart::All => Scope::All,
            NamespacePart::Named(name) => Scope::Namespace(world.namespaces.hold(name)),
            NamespacePart::Labelled(requirements) => Scope::Part(world.namespaces.hold_part(requirements)),
        };
        let matchers = Matchers::hold(&definition.endpoints, &mut world.labels);
        let definition = Arc::new(definition);
        let mut selector = Selector {
            definition: Arc::clone(&definition),
            hash: hasher.finish(),
            scope,
            matchers,
            members: IdSet::default(),
            holders: 1,
        };
        for id in self.candidates(&selector, world) {
            if world.get(id).is_some_and(|endpoint| selector.fits(endpoint, world)) {
                selector.members.insert(id);
            }
        }
        let (hash, anchors) = (selector.hash, anchors(&selector));
        let id = self.entries.insert(selector);
        self.hashes.insert(hash, id);
        self.by_definition.insert(definition, id);
        anchors.into_iter().for_each(|anchor| self.anchors.entry(anchor).or_default().push(id));
        if let Scope::Part(part) = scope {
            self.by_part.entry(part).or_default().insert(id);
        }
        id
    }

    /// Counts one holder of the selector less. If none is left the selector goes; then the result is the endpoints that
    /// it selected.
    pub(crate) fn release(&mut self, id: u32, world: &mut World) -> Option<IdSet> {
        let selector = self.entries.get_mut(id)?;
        selector.holders -= 1;
        if selector.holders > 0 {
            return None;
        }
        let selector = self.entries.remove(id)?;
        for anchor in anchors(&selector) {
            if let Some(there) = self.anchors.get_mut(&anchor) {
                there.retain(|other| *other != id);
                if there.is_empty() {
                    self.anchors.remove(&anchor);
                }
            }
        }
        self.hashes.remove(&selector.hash);
        self.by_definition.remove(&selector.definition);
        selector.matchers.release(&mut world.labels);
        match selector.scope {
            Scope::All => {}
            Scope::Namespace(namespace) => world.namespaces.release(namespace),
            Scope::Part(part) => {
                if let Some(selectors) = self.by_part.get_mut(&part) {
                    selectors.remove(&id);
                    if selectors.is_empty() {
                        self.by_part.remove(&part);
                    }
                }
                world.namespaces.release_part(part);
            }
        }
        Some(selector.members)
    }

    /// Takes note of an endpoint that has come, gone or changed. Returns the selectors that select it now or selected
    /// it before.
    pub(crate) fn reselect(
        &mut self,
        id: u32,
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
        world: &World,
    ) -> Vec<Membership> {
        let (old, new) = (old.filter(|old| self.holds(old)), new.filter(|new| self.holds(new)));
        let mut concerned = Vec::new();
        for endpoint in [old, new].into_iter().flatten() {
            self.find_for(endpoint, world, &mut concerned);
        }
        concerned.sort_unstable();
        concerned.dedup();
        let mut memberships = Vec::new();
        for selector_id in concerned {
            let Some(selector) = self.entries.get_mut(selector_id) else { continue };
            let is = new.is_some_and(|new| selector.fits(new, world));
            let was = if is { !selector.members.insert(id) } else { selector.members.remove(id) };
            if was || is {
                memberships.push(Membership { selector: selector_id, was, is });
            }
        }
        memberships
    }

    /// The pairs of a selector and an endpoint of this namespace whose answer may differ now that the namespace has
    /// begun or ceased to fit these requirements.
    pub(crate) fn concerned(&self, namespace: u32, parts: &BTreeSet<u32>, world: &World) -> Vec<(u32, u32)> {
        let Some(there) = world.namespaces.get(namespace) else { return Vec::new() };
        let there = match self.population {
            Population::Peers => &there.peers,
            Population::Governed => &there.governed,
        };
        let selectors = parts.iter().filter_map(|part| self.by_part.get(part)).flatten();
        selectors.flat_map(|selector| there.iter().map(|endpoint| (*selector, endpoint))).collect()
    }

    /// Takes note of whether a selector selects an endpoint; the result says so if that has changed.
    pub(crate) fn reselect_one(&mut self, id: u32, endpoint: u32, world: &World) -> Option<Membership> {
        let selector = self.entries.get_mut(id)?;
        let is = world.get(endpoint).is_some_and(|endpoint| selector.fits(endpoint, world));
        let was = if is { !selector.members.insert(endpoint) } else { selector.members.remove(endpoint) };
        (was != is).then_some(Membership { selector: id, was, is })
    }

    const fn holds(&self, endpoint: &Endpoint) -> bool {
        match self.population {
            Population::Peers => endpoint.place.is_peer(),
            Population::Governed => endpoint.place.is_governed(),
        }
    }

    /// Collects the selectors that may select an endpoint.
    fn find_for(&self, endpoint: &Endpoint, world: &World, found: &mut Vec<u32>) {
        let parts = world.namespaces.get(endpoint.namespace).map_or(&[][..], |namespace| &namespace.parts);
        let scopes = [Scope::All, Scope::Namespace(endpoint.namespace)].into_iter();
        let mut find = |anchor| found.extend(self.anchors.get(&anchor).into_iter().flatten());
        for scope in scopes.chain(parts.iter().copied().map(Scope::Part)) {
            find(Anchor::Any(scope));
            for pair in &endpoint.labels {
                find(Anchor::Pair(scope, *pair));
                if let Some(key) = world.labels.key(*pair) {
                    find(Anchor::Key(scope, key));
                }
            }
        }
    }

    /// The endpoints that a new selector may select.
    fn candidates(&self, selector: &Selector, world: &World) -> Vec<u32> {
        let peers = self.population == Population::Peers;
        if peers && let Handle::Pairs(pairs) = selector.matchers.handle() {
            return pairs.iter().filter_map(|pair| world.labels.objects(*pair)).flat_map(IdSet::iter).collect();
        }
        match selector.scope {
            Scope::All => if peers { world.peers() } else { world.governed() }.iter().collect(),
            Scope::Namespace(namespace) => {
                let namespace = world.namespaces.get(namespace);
                let there = namespace.map(|there| if peers { &there.peers } else { &there.governed });
                there.into_iter().flat_map(IdSet::iter).collect()
            }
            Scope::Part(part) => world
                .namespaces
                .of_part(part)
                .flat_map(|there| if peers { &there.peers } else { &there.governed }.iter())
                .collect(),
        }
    }
}

fn anchors(selector: &Selector) -> Vec<Anchor> {
    let scope = selector.scope;
    match selector.matchers.handle() {
        Handle::Pairs(pairs) => pairs.into_iter().map(|pair| Anchor::Pair(scope, pair)).collect(),
        Handle::Key(key) => vec![Anchor::Key(scope, key)],
        Handle::Nothing => vec![Anchor::Any(scope)],
    }
}
