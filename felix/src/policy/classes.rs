//! Classes: endpoints that the same policies govern in the same way, under one number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use types::policy::{Direction, PortRange, Protocol};

use super::encoding::Terms;
use super::hash::StableHasher;
use super::policies::{Compiled, Policies, PortRef};
use super::program::{self, ClassId, ClassKey, Rules};
use super::sets::Shared;
use super::world::World;

/// What decides the class of an endpoint: two endpoints with equal identities are in one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The policies that govern the endpoints' ingress, in the order in which they are judged.
    ingress: Vec<u32>,
    egress: Vec<u32>,
    /// The named ports that the ingress policies speak of, each with the port numbers that the endpoints have under
    /// that name.
    ports: Vec<(Protocol, u32, Vec<u16>)>,
}

impl Identity {
    /// Works out the identity of an endpoint from the subject selectors that select it.
    pub(crate) fn of(endpoint: u32, subjects: &BTreeSet<u32>, policies: &Policies, world: &World) -> Self {
        let mut governing: Vec<_> = subjects
            .iter()
            .flat_map(|subject| policies.of_subject(*subject))
            .filter_map(|number| Some((number, policies.get(number)?)))
            .collect();
        governing.sort_by(|(_, a), (_, b)| a.place().cmp(&b.place()));
        let mut identity = Self::default();
        let mut names = BTreeSet::new();
        for (number, entry) in governing {
            if entry.policy.ingress.is_some() {
                identity.ingress.push(number);
                names.extend(&entry.ingress_names);
            }
            if entry.policy.egress.is_some() {
                identity.egress.push(number);
            }
        }
        if let Some(endpoint) = world.get(endpoint) {
            identity.ports = names
                .into_iter()
                .map(|(protocol, name)| {
                    let mut numbers: Vec<_> = endpoint.numbers(protocol, name).collect();
                    numbers.dedup();
                    (protocol, name, numbers)
                })
                .collect();
        }
        identity
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    pub(crate) fn policies(&self, direction: Direction) -> &[u32] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// A port as this class sees it: on ingress, a named port becomes the numbers that the class's own endpoints have
    /// under it.
    pub(crate) fn resolve(&self, port: PortRef, direction: Direction) -> Vec<PortRef> {
        match (port, direction) {
            (PortRef::Named(protocol, name), Direction::Ingress) => self
                .ports
                .iter()
                .filter(|(other, called, _)| *other == protocol && *called == name)
                .flat_map(|(_, _, numbers)| numbers)
                .map(|number| PortRef::Range(protocol, PortRange::single(*number)))
                .collect(),
            _ => vec![port],
        }
    }

    /// Whether both identities give every named port the same numbers.
    pub(crate) fn has_ports_of(&self, other: &Self) -> bool {
        self.ports == other.ports
    }

    pub(crate) fn key(&self, policies: &Policies, world: &World) -> ClassKey {
        let mut hasher = StableHasher::of("class");
        for direction in Direction::ALL {
            hasher.text(&direction.to_string());
            for number in self.policies(direction) {
                hasher.text(&policies.get(*number).map(|entry| entry.id.to_string()).unwrap_or_default());
            }
        }
        hasher.text("ports");
        let mut ports: Vec<_> =
            self.ports.iter().map(|(protocol, name, numbers)| (protocol, world.texts.text(*name), numbers)).collect();
        // The numbers under which texts are kept differ after a restart, so the order must come from the texts
        // themselves.
        ports.sort_unstable();
        for (protocol, name, numbers) in ports {
            hasher.number(protocol.number().into());
            hasher.text(name);
            numbers.iter().for_each(|number| hasher.number((*number).into()));
            hasher.text("");
        }
        ClassKey(hasher.finish())
    }
}

/// All classes except the open one ([`ClassId::OPEN`]).
#[derive(Debug)]
pub(crate) struct Classes {
    by_identity: HashMap<Arc<Identity>, ClassId>,
    entries: BTreeMap<ClassId, ClassState>,
    /// How many class numbers there are, counted from one.
    numbers: u16,
    /// The class numbers that an earlier run of the agent left in the kernel, by what the class was.
    adopted: HashMap<ClassKey, ClassId>,
    /// The same adopted numbers: a new class takes one of them only when no other number is free.
    reserved: BTreeSet<ClassId>,
    /// Classes whose endpoints have left, the last one at the end.
    idle: Vec<ClassId>,
}

#[derive(Debug)]
pub(crate) struct ClassState {
    pub(crate) identity: Arc<Identity>,
    /// A hash of the identity that every run of the agent computes alike, so that a class keeps its number over a
    /// restart.
    pub(crate) key: ClassKey,
    /// The endpoints in the class, including pods that are expected but not attached yet.
    pub(crate) members: BTreeSet<u32>,
    pub(crate) ingress: DirectionState,
    pub(crate) egress: DirectionState,
    /// The class as the changes given out so far have written it; none before the first.
    pub(crate) installed: Option<program::Class>,
}

/// One direction of a class, as the last flush left it in force.
#[derive(Debug)]
pub(crate) struct DirectionState {
    /// The policies that govern this direction, with their compiled rules, in the order in which they are judged.
    pub(crate) governing: Vec<(u32, Arc<Compiled>)>,
    /// The peers and ports that this direction allows. Only used where its policies do nothing but allow.
    pub(crate) terms: Terms,
    /// The compiled policies whose rules are counted in `terms`.
    pub(crate) in_terms: Vec<Arc<Compiled>>,
    /// The identity by which the named ports in `terms` were resolved.
    pub(crate) resolved: Arc<Identity>,
    /// The shared sets that the rules of this direction name.
    pub(crate) shared: BTreeSet<Shared>,
    pub(crate) rules: Rules,
}

impl DirectionState {
    fn new(identity: &Arc<Identity>) -> Self {
        Self {
            governing: Vec::new(),
            terms: Terms::default(),
            in_terms: Vec::new(),
            resolved: Arc::clone(identity),
            shared: BTreeSet::new(),
            rules: Rules::Open,
        }
    }
}

impl ClassState {
    fn new(identity: Arc<Identity>, key: ClassKey) -> Self {
        let direction = || DirectionState::new(&identity);
        let (ingress, egress) = (direction(), direction());
        Self { identity, key, members: BTreeSet::new(), ingress, egress, installed: None }
    }

    pub(crate) const fn direction(&self, direction: Direction) -> &DirectionState {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    pub(crate) const fn direction_mut(&mut self, direction: Direction) -> &mut DirectionState {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

impl Classes {
    pub(crate) fn new(numbers: u16) -> Self {
        Self {
            by_identity: HashMap::new(),
            entries: BTreeMap::new(),
            numbers,
            adopted: HashMap::new(),
            reserved: BTreeSet::new(),
            idle: Vec::new(),
        }
    }

    pub(crate) fn adopt(&mut self, id: ClassId, key: ClassKey) {
        if id != ClassId::OPEN && id.number() <= self.numbers {
            self.adopted.insert(key, id);
            self.reserved.insert(id);
        }
    }

    pub(crate) fn get(&self, id: ClassId) -> Option<&ClassState> {
        self.entries.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ClassId) -> Option<&mut ClassState> {
        self.entries.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &ClassState)> {
        self.entries.iter().map(|(id, class)| (*id, class))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn by_identity(&self, identity: &Identity) -> Option<ClassId> {
        self.by_identity.get(identity).copied()
    }

    /// Takes the class out of the search by identity: no further endpoint joins it.
    pub(crate) fn close(&mut self, id: ClassId) {
        if let Some(class) = self.entries.get(&id)
            && self.by_identity.get(&class.identity) == Some(&id)
        {
            self.by_identity.remove(&class.identity);
        }
    }

    /// Gives the class another identity, when all of its members have changed in the same way.
    pub(crate) fn rename(&mut self, id: ClassId, identity: Arc<Identity>, key: ClassKey) {
        if let Some(class) = self.entries.get_mut(&id) {
            class.identity = Arc::clone(&identity);
            class.key = key;
            self.by_identity.insert(identity, id);
        }
    }

    /// Makes a class that has no members yet; none if every number is taken.
    pub(crate) fn create(&mut self, identity: Arc<Identity>, key: ClassKey) -> Option<ClassId> {
        let is_free = |id: &ClassId| !self.entries.contains_key(id);
        let adopted = self.adopted.get(&key).copied().filter(is_free);
        let all = || (2..=self.numbers).filter_map(ClassId::new).filter(is_free);
        let id = adopted.or_else(|| all().find(|id| !self.reserved.contains(id))).or_else(|| all().next())?;
        self.entries.insert(id, ClassState::new(Arc::clone(&identity), key));
        self.by_identity.insert(identity, id);
        Some(id)
    }

    /// The classes without endpoints that are to go: all but the last `keep` of those that endpoints may join again and that
    /// `is_good`.
    pub(crate) fn empty(&mut self, keep: usize, is_good: impl Fn(ClassId, &ClassState) -> bool) -> BTreeSet<ClassId> {
        let Self { entries, by_identity, idle, .. } = self;
        let may_stay = |id: &ClassId, class: &ClassState| {
            class.members.is_empty() && by_identity.get(&class.identity) == Some(id) && is_good(*id, class)
        };
        idle.retain(|id| entries.get(id).is_some_and(|class| may_stay(id, class)));
        let empty: BTreeSet<_> =
            entries.iter().filter(|(_, class)| class.members.is_empty()).map(|(id, _)| *id).collect();
        let left = |id: &&ClassId| !idle.contains(id) && entries.get(id).is_some_and(|class| may_stay(id, class));
        let new: Vec<_> = empty.iter().filter(left).copied().collect();
        idle.extend(new);
        idle.drain(..idle.len().saturating_sub(keep));
        empty.into_iter().filter(|id| !idle.contains(id)).collect()
    }

    pub(crate) fn remove(&mut self, id: ClassId) -> Option<ClassState> {
        self.close(id);
        self.entries.remove(&id)
    }
}
