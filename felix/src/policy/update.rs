//! How updates change the world and the policies, and which work they leave for the next flush.

use std::collections::HashMap;
use std::sync::Arc;

use types::policy::{Labels, Policy, PolicyId};
use types::update::Change;
use types::{EndpointId, NamespacedName, Update};

use super::classes::Classes;
use super::compiler::{CompileError, Compiler, EndpointFacts, Pending, PolicyUpdate, RemoteKey};
use super::hash::StableHasher;
use super::policies::Effect;
use super::program::ClassId;
use super::selectors::Membership;
use super::sets::{Sets, View};
use super::world::{Endpoint, Place, World};

/// The kinds of updates. Updates of one kind are flushed together, updates of different kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Updates of policies: no membership changes.
    Policies,
    /// Updates of other nodes' endpoints and of expected pods: no address changes its class.
    Endpoints,
    /// An update of one namespace: memberships and classes may change.
    Namespace,
    /// An update of one endpoint of this node: its own memberships and its own class may change.
    Local,
}

impl Compiler {
    /// Takes in what a source reports. After `Restart`, the source's objects stay until it sets or deletes them, or
    /// until `InSync`.
    pub fn apply(&mut self, update: PolicyUpdate) {
        match update {
            PolicyUpdate::Policy(update) => {
                let policies = &self.policies;
                match self.sources.policies.follow(update, || policies.ids().cloned()) {
                    Change::Set(id, policy) => self.set_policy(id, policy),
                    Change::Gone(ids) => ids.iter().for_each(|id| self.delete_policy(id)),
                }
            }
            PolicyUpdate::Namespace(update) => {
                let namespaces = &self.world.namespaces;
                match self.sources.namespaces.follow(update, || namespaces.known().map(str::to_owned)) {
                    Change::Set(name, labels) => self.set_namespace(&name, Some(&labels)),
                    Change::Gone(names) => names.iter().for_each(|name| self.set_namespace(name, None)),
                }
            }
            PolicyUpdate::Remote(update) => self.remote(update),
            PolicyUpdate::Expected(update) => {
                let expected = &self.expected;
                match self.sources.expected.follow(update, || expected.keys().cloned()) {
                    Change::Set(key, facts) if facts.finished => self.delete_expected(&key),
                    Change::Set(key, facts) => self.set_expected(key, &facts),
                    Change::Gone(keys) => keys.iter().for_each(|key| self.delete_expected(key)),
                }
            }
        }
    }

    /// An endpoint of this node is attached, or has other labels, ports or addresses than before. Returns its class, which
    /// the changes that are to be taken bring about.
    pub fn set_local(&mut self, id: EndpointId, facts: EndpointFacts) -> Result<ClassId, CompileError> {
        self.begin(Run::Local);
        let place = if facts.finished { Place::Finished } else { Place::Local };
        let endpoint = self.world.endpoint(place, &[], &facts);
        let number = self.put(self.locals.get(&id).copied(), endpoint);
        self.locals.insert(id.clone(), number);
        let governed = self.governed.entry(number).or_default();
        governed.id = Some(id.clone());
        self.pending.unsettled.insert(number);
        self.flush();
        let class = self.governed.get(&number).and_then(|governed| governed.class);
        class.ok_or(CompileError::NoClass { id, classes: self.config.classes })
    }

    /// Takes in that an endpoint of this node is gone.
    pub fn remove_local(&mut self, id: &EndpointId) {
        self.begin(Run::Local);
        if let Some(number) = self.locals.remove(id) {
            self.take_out(number);
        }
        self.flush();
    }

    fn set_policy(&mut self, id: PolicyId, policy: Arc<Policy>) {
        self.begin(Run::Policies);
        let effect = self.policies.set(id, policy, &mut self.subjects, &mut self.world);
        self.policy_changed(effect);
    }

    fn delete_policy(&mut self, id: &PolicyId) {
        self.begin(Run::Policies);
        let effect = self.policies.delete(id);
        self.policy_changed(effect);
    }

    fn policy_changed(&mut self, effect: Effect) {
        self.pending.classes.extend(effect.classes);
        for subject in effect.subjects {
            let Some(selector) = self.subjects.get(subject) else { continue };
            for number in selector.members.iter() {
                // A new subject selector already has members, and these have not been told of it yet.
                if let Some(governed) = self.governed.get_mut(&number) {
                    governed.subjects.insert(subject);
                    self.pending.unsettled.insert(number);
                }
            }
        }
    }

    fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        self.begin(Run::Namespace);
        let Some((id, parts)) = self.world.namespaces.set_labels(name, labels) else { return };
        if !parts.is_empty() {
            for (selector, endpoint) in self.peers.concerned(id, &parts, &self.world) {
                if let Some(membership) = self.peers.reselect_one(selector, endpoint, &self.world) {
                    let there = self.world.get(endpoint);
                    let (old, new) = (there.filter(|_| membership.was), there.filter(|_| membership.is));
                    let view = View { world: &self.world, peers: &self.peers, blocks: &self.blocks };
                    let members =
                        Members { sets: &mut self.sets, classes: &mut self.classes, pending: &mut self.pending };
                    members.changed(selector, endpoint, old, new, self.config.narrow_limit, view);
                }
            }
            for (selector, endpoint) in self.subjects.concerned(id, &parts, &self.world) {
                if let Some(membership) = self.subjects.reselect_one(selector, endpoint, &self.world) {
                    self.subject_changed(endpoint, membership);
                }
            }
        }
        self.flush();
        self.world.namespaces.forget(id);
    }

    fn remote(&mut self, update: Update<RemoteKey, EndpointFacts>) {
        self.begin(Run::Endpoints);
        match update {
            Update::Restart => self.sources.remotes.restart(self.remotes.numbers()),
            Update::InSync => {
                for number in self.sources.remotes.in_sync() {
                    self.delete_remote(number);
                }
            }
            Update::Delete(key) => {
                if let Some(number) = self.remotes.find(&key, &self.world) {
                    self.delete_remote(number);
                }
            }
            // The address of a pod that has ended may be given to another pod at any time, so the ended one is no peer
            // any more.
            Update::Set(key, facts) if facts.finished => self.remote(Update::Delete(key)),
            Update::Set(key, facts) => {
                let (node, attachment) = self.world.hold_attachment(&key.node, &key.id);
                let known = self.remotes.find_packed(node, &attachment, &self.world);
                let endpoint = self.world.endpoint(Place::Remote(node), &attachment, &facts);
                let number = self.put(known, endpoint);
                match known {
                    Some(_) => self.world.release_attachment(node, &attachment),
                    None => self.remotes.insert(node, attachment, number),
                }
                self.sources.remotes.confirm(&number);
            }
        }
    }

    fn delete_remote(&mut self, number: u32) {
        self.sources.remotes.confirm(&number);
        let Some(endpoint) = self.world.get(number) else { return };
        let Place::Remote(node) = endpoint.place else { return };
        let attachment = endpoint.attachment().to_vec();
        self.remotes.remove(node, &attachment, number);
        self.take_out(number);
        self.world.release_attachment(node, &attachment);
    }

    fn set_expected(&mut self, key: NamespacedName, facts: &EndpointFacts) {
        self.begin(Run::Endpoints);
        let endpoint = self.world.endpoint(Place::Expected, &[], facts);
        let number = self.put(self.expected.get(&key).copied(), endpoint);
        self.expected.insert(key, number);
        self.governed.entry(number).or_default();
        self.pending.unsettled.insert(number);
    }

    fn delete_expected(&mut self, key: &NamespacedName) {
        self.begin(Run::Endpoints);
        if let Some(number) = self.expected.remove(key) {
            self.take_out(number);
        }
    }

    /// Flushes what is pending if it is of another kind than the update that comes now, or if that update stands alone.
    fn begin(&mut self, run: Run) {
        let alone = matches!(run, Run::Local | Run::Namespace);
        if self.pending.run.is_some_and(|pending| pending != run || alone) {
            self.flush();
        }
        self.pending.run = Some(run);
    }

    /// Puts an endpoint into the world, replacing the version that was known under this number.
    fn put(&mut self, known: Option<u32>, endpoint: Endpoint) -> u32 {
        let Some(number) = known else {
            let number = self.world.insert(endpoint);
            self.reselected(number, None);
            return number;
        };
        let old = self.world.replace(number, endpoint);
        self.reselected(number, old.as_ref());
        if let Some(old) = old {
            self.world.release(&old);
        }
        number
    }

    /// Takes an endpoint out of the world.
    fn take_out(&mut self, number: u32) {
        let Some(endpoint) = self.world.remove(number) else { return };
        self.reselected(number, Some(&endpoint));
        if let Some(governed) = self.governed.remove(&number)
            && let Some(class) = governed.class
            && let Some(state) = self.classes.get_mut(class)
        {
            state.members.remove(&number);
        }
        self.pending.unsettled.remove(&number);
        self.pending.unplaced.remove(&number);
        self.world.release(&endpoint);
    }

    /// Brings every selector up to date that selects this endpoint or selected its former version `old`.
    fn reselected(&mut self, number: u32, old: Option<&Endpoint>) {
        let Self { world, peers, subjects, blocks, sets, classes, pending, config, .. } = self;
        let new = world.get(number);
        for Membership { selector, was, is } in peers.reselect(number, old, new, world) {
            let (old, new) = (old.filter(|_| was), new.filter(|_| is));
            let view = View { world, peers, blocks };
            let members = Members { sets, classes, pending };
            members.changed(selector, number, old, new, config.narrow_limit, view);
        }
        let is_governed = |endpoint: &&Endpoint| endpoint.place.is_governed();
        for endpoint in [old, new].into_iter().flatten().filter(is_governed) {
            pending.addresses.extend(endpoint.addresses.iter());
        }
        let changed = subjects.reselect(number, old, new, world);
        for membership in changed {
            self.subject_changed(number, membership);
        }
    }

    fn subject_changed(&mut self, number: u32, Membership { selector, is, .. }: Membership) {
        let subjects = &mut self.governed.entry(number).or_default().subjects;
        if is {
            subjects.insert(selector);
        } else {
            subjects.remove(&selector);
        }
        self.pending.unsettled.insert(number);
    }
}

/// The sets and classes in which the members of selectors are written.
struct Members<'a> {
    sets: &'a mut Sets,
    classes: &'a mut Classes,
    pending: &'a mut Pending,
}

impl Members<'_> {
    /// Passes on that a selector has begun or ceased to select an endpoint, or that an endpoint it selects has changed.
    /// `old` is the endpoint while it was selected, `new` the endpoint if it is selected now.
    fn changed(
        self,
        selector: u32,
        endpoint: u32,
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
        narrow_limit: usize,
        view: View<'_>,
    ) {
        self.sets.touch(selector, endpoint, old, new, view);
        for (class, direction) in self.sets.terms(selector) {
            let Some(state) = self.classes.get_mut(class) else { continue };
            if state.direction_mut(direction).terms.touch(selector, old, new, narrow_limit, view) {
                self.pending.rules.insert((class, direction));
            }
            self.pending.narrow.insert((class, direction));
        }
    }
}

/// The numbers of other nodes' endpoints, found by a hash of their keys so that the keys need not be copied.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    by_hash: HashMap<u64, u32>,
    /// The endpoints whose hash is taken by an earlier one.
    more: HashMap<(u32, Vec<u8>), u32>,
}

impl Remotes {
    pub(super) fn len(&self) -> usize {
        self.by_hash.len() + self.more.len()
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_hash.values().chain(self.more.values()).copied()
    }

    fn find(&self, key: &RemoteKey, world: &World) -> Option<u32> {
        let (node, attachment) = world.find_attachment(&key.node, &key.id)?;
        self.find_packed(node, &attachment, world)
    }

    fn find_packed(&self, node: u32, attachment: &[u8], world: &World) -> Option<u32> {
        let is_it = |number: &u32| {
            world
                .get(*number)
                .is_some_and(|endpoint| endpoint.place == Place::Remote(node) && endpoint.attachment() == attachment)
        };
        let first = self.by_hash.get(&hash(node, attachment)).copied().filter(is_it);
        first.or_else(|| if self.more.is_empty() { None } else { self.more.get(&(node, attachment.to_vec())).copied() })
    }

    fn insert(&mut self, node: u32, attachment: Vec<u8>, number: u32) {
        let first = *self.by_hash.entry(hash(node, &attachment)).or_insert(number);
        if first != number {
            self.more.insert((node, attachment), number);
        }
    }

    fn remove(&mut self, node: u32, attachment: &[u8], number: u32) {
        let hash = hash(node, attachment);
        if self.by_hash.get(&hash) == Some(&number) {
            self.by_hash.remove(&hash);
        } else {
            self.more.remove(&(node, attachment.to_vec()));
        }
    }
}

fn hash(node: u32, attachment: &[u8]) -> u64 {
    let mut hasher = StableHasher::of("attachment");
    hasher.number(node.into());
    hasher.octets(attachment);
    hasher.finish()
}
