//! From what the updates have touched to changes, in an order in which no step opens or closes too much.
//!
//! Within a run of updates either no set that classes share changes, or no class gets other policies. So new members can be
//! added before rules speak of new sets, and old members removed after rules have ceased to speak of old ones, and whatever
//! is allowed in between is allowed before or after. A class from which members leave is not changed under its number in the
//! same flush: they would live by its new rules for a moment.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem;
use std::sync::Arc;

use types::policy::{Direction, TierEnd};

use super::classes::{ClassState, Identity};
use super::compiler::Compiler;
use super::encoding::Difference;
use super::ordered::{self, TierPolicies};
use super::policies::Compiled;
use super::program::{Change, Class, ClassId, Rules, SetId};
use super::sets::{SetChanges, Shared, View};

impl Compiler {
    /// Appends the changes that the pending updates call for.
    pub(super) fn flush(&mut self) {
        let run = self.pending.run.take();
        if self.open.is_none() {
            let key = Identity::default().key(&self.policies, &self.world);
            let open = Class { key, ingress: Rules::Open, egress: Rules::Open };
            self.open = Some(open.clone());
            self.changes.push(Change::PutClass(ClassId::OPEN, open));
        }
        if run.is_none() {
            return;
        }
        self.settle();
        if !self.pending.unplaced.is_empty() {
            // The classes that have just been dropped may have freed numbers for endpoints that had found none.
            self.settle();
        }
        let gone = self.policies.sweep(&mut self.subjects, &mut self.peers, &mut self.world, &mut self.blocks);
        for (subject, members) in gone {
            for number in members.iter() {
                if let Some(governed) = self.governed.get_mut(&number) {
                    governed.subjects.remove(&subject);
                }
            }
        }
    }

    fn settle(&mut self) {
        let retired = self.assign();
        let mut stale = mem::take(&mut self.pending.classes);
        stale.retain(|id| !retired.contains(id));
        for id in &stale {
            self.update_class(*id);
        }
        let rules: BTreeSet<_> = mem::take(&mut self.pending.rules);
        let put = self.put_classes(rules.into_iter().filter(|(id, _)| !retired.contains(id)), stale);
        let memberships = self.membership_changes();

        let mut dropped = Vec::new();
        let mut narrow = SetChanges::default();
        for (id, direction) in mem::take(&mut self.pending.narrow) {
            if let Some(class) = self.classes.get_mut(id) {
                let terms = &mut class.direction_mut(direction).terms;
                let used = terms.is_narrow_used() && !retired.contains(&id);
                terms.set.flush(SetId::Narrow(id, direction), used, &mut narrow);
            }
        }
        for id in retired {
            if let Some(class) = self.classes.remove(id) {
                self.retire(id, class, &mut dropped, &mut narrow);
            }
        }
        let view = View { world: &self.world, peers: &self.peers, blocks: &self.blocks };
        let shared = self.sets.flush(view);

        self.changes.extend(shared.create);
        self.changes.extend(narrow.create);
        self.changes.extend(shared.fill);
        self.changes.extend(narrow.fill);
        self.changes.extend(shared.add);
        self.changes.extend(narrow.add);
        self.changes.extend(put);
        self.changes.extend(memberships);
        self.changes.extend(dropped);
        self.changes.extend(shared.remove);
        self.changes.extend(narrow.remove);
        self.changes.extend(shared.destroy);
        self.changes.extend(narrow.destroy);
    }

    /// Finds a class for every endpoint that may need another. Returns the classes that nobody is in any more, but for some that
    /// stay as they are: a class that nobody is in goes with the first change of a policy of its own.
    fn assign(&mut self) -> BTreeSet<ClassId> {
        let mut unsettled = mem::take(&mut self.pending.unsettled);
        unsettled.append(&mut self.pending.unplaced);
        let mut movers = BTreeMap::new();
        let mut leaving = BTreeMap::<ClassId, Vec<u32>>::new();
        for number in unsettled {
            let Some(governed) = self.governed.get(&number) else { continue };
            let identity = Identity::of(number, &governed.subjects, &self.policies, &self.world);
            let stays = match governed.class {
                None => false,
                Some(ClassId::OPEN) => identity.is_open(),
                Some(class) => self.classes.get(class).is_some_and(|class| *class.identity == identity),
            };
            if !stays {
                movers.insert(number, Arc::new(identity));
                if let Some(class) = governed.class.filter(|class| *class != ClassId::OPEN) {
                    leaving.entry(class).or_default().push(number);
                }
            }
        }
        let mut renamed = Vec::new();
        for (id, leaving) in leaving {
            let Some(class) = self.classes.get(id) else { continue };
            let is_vacated = class.members.len() == leaving.len();
            if is_vacated {
                let mut identities = leaving.iter().filter_map(|number| movers.get(number));
                if let Some(first) = identities.next()
                    && identities.all(|identity| identity == first)
                    && !first.is_open()
                {
                    renamed.push((id, Arc::clone(first), leaving));
                }
                self.classes.close(id);
            } else if self.pending.classes.contains(&id) {
                for number in &class.members {
                    movers.entry(*number).or_insert_with(|| Arc::clone(&class.identity));
                }
                self.classes.close(id);
            }
        }
        for (id, identity, members) in renamed {
            if self.classes.by_identity(&identity).is_none() {
                let key = identity.key(&self.policies, &self.world);
                self.classes.rename(id, identity, key);
                self.pending.classes.insert(id);
                members.iter().for_each(|number| drop(movers.remove(number)));
            }
        }
        for (number, identity) in movers {
            self.move_to(number, identity);
        }
        // Those that find no number need what idle classes have.
        let keep = if self.pending.unplaced.is_empty() { self.config.idle_classes } else { 0 };
        let Self { classes, policies, pending, .. } = self;
        classes.empty(keep, |id, class| {
            let mut governing = Direction::ALL.into_iter().flat_map(|direction| class.identity.policies(direction));
            !pending.classes.contains(&id) && governing.all(|number| policies.is_there(*number))
        })
    }

    fn move_to(&mut self, number: u32, identity: Arc<Identity>) {
        let class = if identity.is_open() { Some(ClassId::OPEN) } else { self.classes.by_identity(&identity) };
        let class = class.or_else(|| {
            let key = identity.key(&self.policies, &self.world);
            let class = self.classes.create(identity, key)?;
            self.pending.classes.insert(class);
            Some(class)
        });
        let Some(governed) = self.governed.get_mut(&number) else { return };
        let old = mem::replace(&mut governed.class, class);
        if let Some(old) = old.and_then(|old| self.classes.get_mut(old)) {
            old.members.remove(&number);
        }
        match class {
            None => drop(self.pending.unplaced.insert(number)),
            Some(class) => {
                if let Some(class) = self.classes.get_mut(class) {
                    class.members.insert(number);
                }
            }
        }
        if let Some(endpoint) = self.world.get(number) {
            self.pending.addresses.extend(endpoint.addresses.iter());
        }
    }

    /// Brings the terms and policies of a class up to date with its identity and with the policies' rules.
    fn update_class(&mut self, id: ClassId) {
        let Self { classes, policies, peers, world, blocks, sets, config, pending, .. } = self;
        let Some(class) = classes.get_mut(id) else { return };
        let identity = Arc::clone(&class.identity);
        let mut left = BTreeSet::new();
        for direction in Direction::ALL {
            let wanted = identity.policies(direction).iter().copied();
            let governing: Vec<_> =
                wanted.filter_map(|number| Some((number, policies.join(number, id, peers, world, blocks)?))).collect();
            let view = View { world, peers, blocks };
            let state = class.direction_mut(direction);
            let in_terms = if is_flat(&governing, direction) { first_tier(&governing) } else { Vec::new() };
            let old_terms = mem::replace(&mut state.in_terms, in_terms);
            let old_identity = mem::replace(&mut state.resolved, Arc::clone(&identity));
            let all_anew = direction == Direction::Ingress && !old_identity.has_ports_of(&identity);
            let mut difference = Difference::new();
            let (kept_old, kept_new) = (pointers(&old_terms), pointers(&state.in_terms));
            for policy in old_terms.iter().filter(|policy| all_anew || !kept_new.contains(&Arc::as_ptr(policy))) {
                count(&mut difference, policy, direction, &old_identity, -1);
            }
            for policy in state.in_terms.iter().filter(|policy| all_anew || !kept_old.contains(&Arc::as_ptr(policy))) {
                count(&mut difference, policy, direction, &identity, 1);
            }
            let (begun, ended) = state.terms.change(difference, config.narrow_limit, view);
            begun.into_iter().for_each(|selector| sets.add_term(selector, id, direction));
            ended.into_iter().for_each(|selector| sets.remove_term(selector, id, direction));
            let old = mem::replace(&mut state.governing, governing);
            left.extend(old.into_iter().map(|(number, _)| number));
            pending.narrow.insert((id, direction));
        }
        for direction in Direction::ALL {
            for number in identity.policies(direction) {
                left.remove(number);
            }
        }
        left.into_iter().for_each(|number| policies.leave(number, id));
    }

    /// Writes the rules of classes, and gives out a change for every class whose rules differ from those in force.
    fn put_classes(
        &mut self,
        rules: impl Iterator<Item = (ClassId, Direction)>,
        stale: BTreeSet<ClassId>,
    ) -> Vec<Change> {
        let Self { classes, peers, world, blocks, sets, .. } = self;
        let view = View { world, peers, blocks };
        let mut concerned: BTreeMap<ClassId, Vec<Direction>> =
            stale.into_iter().map(|id| (id, Direction::ALL.to_vec())).collect();
        for (id, direction) in rules {
            concerned.entry(id).or_default().push(direction);
        }
        let mut put = Vec::new();
        for (id, directions) in concerned {
            let Some(class) = classes.get_mut(id) else { continue };
            for direction in directions {
                let (rules, shared) = rules_of(class, id, direction, view);
                let state = class.direction_mut(direction);
                shared.difference(&state.shared).for_each(|shared| sets.join(*shared, view));
                state.shared.difference(&shared).for_each(|shared| sets.leave(*shared));
                state.shared = shared;
                state.rules = rules;
            }
            let wanted =
                Class { key: class.key, ingress: class.ingress.rules.clone(), egress: class.egress.rules.clone() };
            if class.installed.as_ref() != Some(&wanted) {
                class.installed = Some(wanted.clone());
                put.push(Change::PutClass(id, wanted));
            }
        }
        put
    }

    /// The changes that put addresses which have come, gone or moved into the right class.
    fn membership_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for address in mem::take(&mut self.pending.addresses) {
            let owners = self.world.owners(address).filter_map(|owner| self.governed.get(&owner));
            // Several endpoints have one address only if it was given out twice; then any choice will do, as long as it
            // is always the same.
            let owner = owners.filter_map(|owner| Some((owner.id.as_ref()?, owner.class?))).min();
            let class = owner.map(|(_, class)| class);
            if self.memberships.get(&address).copied() == class {
                continue;
            }
            match class {
                Some(class) => {
                    self.memberships.insert(address, class);
                    changes.push(Change::Join(address, class));
                }
                None => {
                    self.memberships.remove(&address);
                    changes.push(Change::Leave(address));
                }
            }
        }
        changes
    }

    /// Releases all that a class has used, once it has no members.
    fn retire(&mut self, id: ClassId, mut class: ClassState, dropped: &mut Vec<Change>, narrow: &mut SetChanges) {
        for direction in Direction::ALL {
            let state = class.direction_mut(direction);
            state.terms.set.flush(SetId::Narrow(id, direction), false, narrow);
            state.shared.iter().for_each(|shared| self.sets.leave(*shared));
            state.terms.selectors().for_each(|selector| self.sets.remove_term(selector, id, direction));
            for (number, _) in mem::take(&mut state.governing) {
                self.policies.leave(number, id);
            }
        }
        if class.installed.is_some() {
            dropped.push(Change::DropClass(id));
        }
    }
}

fn rules_of(class: &ClassState, id: ClassId, direction: Direction, view: View<'_>) -> (Rules, BTreeSet<Shared>) {
    let state = class.direction(direction);
    if state.governing.is_empty() {
        return (Rules::Open, BTreeSet::new());
    }
    let (rules, shared) = if is_flat(&state.governing, direction) {
        state.terms.rules(SetId::Narrow(id, direction), view)
    } else {
        ordered::rules(&tiers(&state.governing), direction, &class.identity, view)
    };
    (Rules::Only(rules), shared)
}

/// Whether a direction is a union of what policies allow: the first tier decides all, and none of it denies or passes.
fn is_flat(governing: &[(u32, Arc<Compiled>)], direction: Direction) -> bool {
    tiers(governing).first().is_none_or(|tier| {
        tier.end == TierEnd::Deny && tier.policies.iter().all(|policy| policy.only_allows(direction))
    })
}

fn first_tier(governing: &[(u32, Arc<Compiled>)]) -> Vec<Arc<Compiled>> {
    let Some((_, first)) = governing.first() else { return Vec::new() };
    let same = |policy: &&(u32, Arc<Compiled>)| is_same_tier(&policy.1, first);
    governing.iter().take_while(same).map(|(_, policy)| Arc::clone(policy)).collect()
}

fn tiers(governing: &[(u32, Arc<Compiled>)]) -> Vec<TierPolicies<'_>> {
    let same = |a: &(u32, Arc<Compiled>), b: &(u32, Arc<Compiled>)| is_same_tier(&a.1, &b.1);
    governing
        .chunk_by(same)
        .map(|tier| TierPolicies {
            // If the policies of one tier disagree about what becomes of the rest, the rest is denied.
            end: tier.iter().map(|(_, policy)| policy.policy.tier.end).min().unwrap_or(TierEnd::Deny),
            policies: tier.iter().map(|(_, policy)| &**policy).collect(),
        })
        .collect()
}

fn is_same_tier(a: &Compiled, b: &Compiled) -> bool {
    (a.policy.tier.order, &a.policy.tier.name) == (b.policy.tier.order, &b.policy.tier.name)
}

fn pointers(policies: &[Arc<Compiled>]) -> HashSet<*const Compiled> {
    policies.iter().map(Arc::as_ptr).collect()
}

/// Counts the ports that the rules of a policy allow, `by` more or fewer for each.
fn count(difference: &mut Difference, policy: &Compiled, direction: Direction, identity: &Identity, by: i64) {
    for (peer, ports) in policy.rules(direction).iter().flat_map(|rule| &rule.parts) {
        for port in ports.iter().flat_map(|port| identity.resolve(*port, direction)) {
            *difference.entry(*peer).or_default().entry(port).or_insert(0) += by;
        }
    }
}
