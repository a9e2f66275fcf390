//! Policies as they are written, and those in use with what they speak of under numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use types::policy::{Action, Direction, Peer, Peers, Policy, PolicyId, PortMatch, PortRange, Ports, Protocol, Rule};

use super::blocks::{Blocks, subtract};
use super::id_set::IdSet;
use super::program::ClassId;
use super::selectors::{Definition, Selectors};
use super::slab::Slab;
use super::world::World;

/// Every policy that is known.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    by_id: BTreeMap<Arc<PolicyId>, u32>,
    entries: Slab<Entry>,
    /// The policies by the selector of the endpoints that they govern.
    by_subject: HashMap<u32, BTreeSet<u32>>,
    /// Deleted policies that some class still has in force.
    gone: Vec<u32>,
    /// Compiled rules that are out of date, kept until no class has them in force.
    retired: Vec<Arc<Compiled>>,
    /// What deleted policies used: subject selectors, and names of ports. Both are released at the next sweep.
    released: (Vec<u32>, Vec<u32>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Arc<PolicyId>,
    pub(crate) policy: Arc<Policy>,
    /// The number of the subject selector: it selects the endpoints that the policy governs.
    pub(crate) subject: u32,
    /// The named ports of the ingress rules; each governed endpoint has its own numbers for them.
    pub(crate) ingress_names: BTreeSet<(Protocol, u32)>,
    /// The compiled rules; there only while a class has the policy.
    compiled: Option<Arc<Compiled>>,
    /// The classes that have the policy.
    pub(crate) classes: BTreeSet<ClassId>,
    gone: bool,
}

impl Entry {
    /// The key by which policies are sorted into the order in which they are judged.
    pub(crate) fn place(&self) -> (u32, &str, u32, &PolicyId) {
        (self.policy.tier.order, &self.policy.tier.name, self.policy.order, &self.id)
    }
}

/// A policy with its rules in compiled form.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) policy: Arc<Policy>,
    ingress: Vec<CompiledRule>,
    egress: Vec<CompiledRule>,
    /// The selectors that the rules hold and release at the end.
    selectors: Vec<u32>,
    blocks: Vec<u32>,
    texts: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) action: Action,
    /// The peers of the rule, each with the ports that it may use.
    pub(crate) parts: Vec<(PeerRef, Vec<PortRef>)>,
}

/// A peer of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PeerRef {
    Any,
    /// The endpoints that a peer selector (by number) selects.
    Selector(u32),
    Block(u32),
}

/// A destination port of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PortRef {
    Any,
    All(Protocol),
    Range(Protocol, PortRange),
    /// A named port. On egress its number is looked up at the peer, on ingress at the governed endpoint.
    Named(Protocol, u32),
}

impl Compiled {
    pub(crate) fn rules(&self, direction: Direction) -> &[CompiledRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    pub(crate) fn only_allows(&self, direction: Direction) -> bool {
        self.rules(direction).iter().all(|rule| rule.action == Action::Allow)
    }
}

/// What setting or deleting a policy changes for others.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// The subject selectors whose endpoints are now governed by other policies.
    pub(crate) subjects: Vec<u32>,
    /// The classes in which the policy has other rules now.
    pub(crate) classes: BTreeSet<ClassId>,
}

impl Policies {
    pub(crate) fn set(
        &mut self,
        id: PolicyId,
        policy: Arc<Policy>,
        subjects: &mut Selectors,
        world: &mut World,
    ) -> Effect {
        let subject = subjects.hold((&policy.subject).into(), world);
        let ingress_names = ingress_names(&policy, world);
        let Some(number) = self.by_id.get(&id).copied() else {
            let id = Arc::new(id);
            let entry = Entry {
                id: Arc::clone(&id),
                policy,
                subject,
                ingress_names,
                compiled: None,
                classes: BTreeSet::new(),
                gone: false,
            };
            let number = self.entries.insert(entry);
            self.by_id.insert(id, number);
            self.by_subject.entry(subject).or_default().insert(number);
            return Effect { subjects: vec![subject], classes: BTreeSet::new() };
        };
        let Some(entry) = self.entries.get_mut(number) else { return Effect::default() };
        self.released.0.push(entry.subject);
        self.released.1.extend(entry.ingress_names.iter().map(|(_, name)| *name));
        let old = std::mem::replace(&mut entry.policy, policy);
        let policy = &entry.policy;
        if old == *policy {
            return Effect::default();
        }
        let governs = |policy: &Policy| {
            let directions = Direction::ALL.map(|direction| policy.rules(direction).is_some());
            (policy.tier.clone(), policy.order, directions)
        };
        let same = governs(&old) == governs(policy) && entry.subject == subject && entry.ingress_names == ingress_names;
        let effect = Effect {
            subjects: if same { Vec::new() } else { vec![entry.subject, subject] },
            classes: entry.classes.clone(),
        };
        if entry.subject != subject {
            unlist(&mut self.by_subject, entry.subject, number);
            self.by_subject.entry(subject).or_default().insert(number);
        }
        entry.subject = subject;
        entry.ingress_names = ingress_names;
        self.retired.extend(entry.compiled.take());
        effect
    }

    pub(crate) fn delete(&mut self, id: &PolicyId) -> Effect {
        let Some(number) = self.by_id.remove(id) else { return Effect::default() };
        let Some(entry) = self.entries.get_mut(number) else { return Effect::default() };
        entry.gone = true;
        self.gone.push(number);
        self.retired.extend(entry.compiled.take());
        self.released.0.push(entry.subject);
        self.released.1.extend(entry.ingress_names.iter().map(|(_, name)| *name));
        unlist(&mut self.by_subject, entry.subject, number);
        Effect { subjects: vec![entry.subject], classes: BTreeSet::new() }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Entry> {
        self.entries.get(number)
    }

    /// Whether there is a policy of this number that was not deleted.
    pub(crate) fn is_there(&self, number: u32) -> bool {
        self.get(number).is_some_and(|entry| !entry.gone)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &PolicyId> {
        self.by_id.keys().map(|id| &**id)
    }

    /// The policies that exist, in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values().filter_map(|number| self.entries.get(*number))
    }

    pub(crate) fn of_subject(&self, subject: u32) -> impl Iterator<Item = u32> + '_ {
        self.by_subject.get(&subject).into_iter().flatten().copied()
    }

    /// Takes note that a class has the policy from now on, and gives the compiled rules.
    pub(crate) fn join(
        &mut self,
        number: u32,
        class: ClassId,
        peers: &mut Selectors,
        world: &mut World,
        blocks: &mut Blocks,
    ) -> Option<Arc<Compiled>> {
        let entry = self.entries.get_mut(number)?;
        entry.classes.insert(class);
        let compiled = match &entry.compiled {
            Some(compiled) => Arc::clone(compiled),
            None => {
                let compiled = Arc::new(compile(&entry.policy, peers, world, blocks));
                entry.compiled = Some(Arc::clone(&compiled));
                compiled
            }
        };
        Some(compiled)
    }

    /// Takes note that a class no longer has the policy.
    pub(crate) fn leave(&mut self, number: u32, class: ClassId) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.classes.remove(&class);
            if entry.classes.is_empty() {
                self.retired.extend(entry.compiled.take());
            }
        }
    }

    /// Releases what is no longer in use, once every class is up to date. Returns the subject selectors that have gone,
    /// with the endpoints that they selected.
    pub(crate) fn sweep(
        &mut self,
        subjects: &mut Selectors,
        peers: &mut Selectors,
        world: &mut World,
        blocks: &mut Blocks,
    ) -> Vec<(u32, IdSet)> {
        for number in self.gone.drain(..) {
            self.entries.remove(number);
        }
        for compiled in self.retired.drain(..) {
            for id in &compiled.selectors {
                peers.release(*id, world);
            }
            compiled.blocks.iter().for_each(|id| blocks.release(*id));
            compiled.texts.iter().for_each(|id| world.texts.release(*id));
        }
        for name in self.released.1.drain(..) {
            world.texts.release(name);
        }
        let mut release = |subject| Some((subject, subjects.release(subject, world)?));
        self.released.0.drain(..).filter_map(&mut release).collect()
    }

    /// How many policies exist.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many policies some class has.
    pub(crate) fn active(&self) -> usize {
        self.entries.iter().filter(|(_, entry)| !entry.gone && !entry.classes.is_empty()).count()
    }
}

fn unlist(by_subject: &mut HashMap<u32, BTreeSet<u32>>, subject: u32, number: u32) {
    if let Some(policies) = by_subject.get_mut(&subject) {
        policies.remove(&number);
        if policies.is_empty() {
            by_subject.remove(&subject);
        }
    }
}

fn ingress_names(policy: &Policy, world: &mut World) -> BTreeSet<(Protocol, u32)> {
    let mut names = BTreeSet::new();
    for rule in policy.ingress.iter().flatten() {
        for port in ports(rule) {
            if let PortMatch::Named(protocol, name) = port {
                let name = world.texts.hold(name);
                if !names.insert((*protocol, name)) {
                    world.texts.release(name);
                }
            }
        }
    }
    names
}

fn ports(rule: &Rule) -> &[PortMatch] {
    match &rule.ports {
        Ports::Any => &[],
        Ports::Only(ports) => ports,
    }
}

fn compile(policy: &Arc<Policy>, peers: &mut Selectors, world: &mut World, blocks: &mut Blocks) -> Compiled {
    let compiled = Compiled {
        policy: Arc::clone(policy),
        ingress: Vec::new(),
        egress: Vec::new(),
        selectors: Vec::new(),
        blocks: Vec::new(),
        texts: Vec::new(),
    };
    let mut compilation = Compilation { compiled, peers, world, blocks };
    let [ingress, egress] = Direction::ALL.map(|direction| {
        let rules = policy.rules(direction).unwrap_or_default();
        rules.iter().map(|rule| compilation.rule(direction, rule)).collect()
    });
    Compiled { ingress, egress, ..compilation.compiled }
}

/// The state of compiling one policy.
struct Compilation<'a> {
    compiled: Compiled,
    peers: &'a mut Selectors,
    world: &'a mut World,
    blocks: &'a mut Blocks,
}

impl Compilation<'_> {
    fn rule(&mut self, direction: Direction, rule: &Rule) -> CompiledRule {
        let (mut all, mut named) = (Vec::new(), Vec::new());
        if rule.ports == Ports::Any {
            all.push(PortRef::Any);
        }
        for port in ports(rule) {
            match port {
                PortMatch::All(protocol) => all.push(PortRef::All(*protocol)),
                PortMatch::Range(protocol, range) => all.push(PortRef::Range(*protocol, *range)),
                PortMatch::Named(protocol, name) => {
                    let name = self.world.texts.hold(name);
                    self.compiled.texts.push(name);
                    named.push(PortRef::Named(*protocol, name));
                }
            }
        }
        let numbered = all.clone();
        all.extend(&named);
        // On egress the named port is the destination's, so it only ever fits endpoints, whatever peer stands beside
        // it.
        let mut others = Vec::new();
        let mut parts = Vec::new();
        match &rule.peers {
            Peers::Any => others.push((PeerRef::Any, None)),
            Peers::Only(peers) => {
                for peer in peers {
                    match peer {
                        Peer::Endpoints(selector) => parts.push((self.selector(selector.into()), all.clone())),
                        Peer::Block { cidr, except } => {
                            let prefixes: Arc<[_]> = subtract(*cidr, except).into();
                            if !prefixes.is_empty() {
                                let block = self.blocks.hold(Arc::clone(&prefixes));
                                self.compiled.blocks.push(block);
                                others.push((PeerRef::Block(block), Some(prefixes)));
                            }
                        }
                    }
                }
            }
        }
        for (peer, within) in others {
            match direction {
                Direction::Egress if !named.is_empty() => {
                    parts.push((peer, numbered.clone()));
                    parts.push((self.selector(Definition::everyone(within)), named.clone()));
                }
                Direction::Egress | Direction::Ingress => parts.push((peer, all.clone())),
            }
        }
        parts.retain(|(_, ports)| !ports.is_empty());
        CompiledRule { action: rule.action, parts }
    }

    fn selector(&mut self, definition: Definition) -> PeerRef {
        let selector = self.peers.hold(definition, self.world);
        self.compiled.selectors.push(selector);
        PeerRef::Selector(selector)
    }
}
