//! Which content of which class is under which number.
//!
//! A number is taken from the moment its chains may be in the kernel until they are certainly out of it. A class has at
//! most one current content; others of its contents are there as long as an address is still mapped to them, and then
//! until they are cleared away together.

use std::collections::{BTreeMap, BTreeSet};

use types::Family;
use types::policy::Direction;

use super::names::{SetRef, SlotChain};
use super::render::{OPEN_SLOT, SlotRules};
use super::rule::{Rule, Rules};
use super::saved::SavedTable;
use crate::policy::program::{ClassId, ClassKey, SetId};

/// One content of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The class.
    pub(crate) class: ClassId,
    /// Its key.
    pub(crate) key: ClassKey,
    /// Its chains. Of a content found in the kernel only the hashes are known.
    pub(crate) rules: SlotRules,
    /// The sets that its rules speak of, as far as known.
    pub(crate) sets: BTreeSet<SetId>,
    /// Families in which the kernel has its chains, as they should be, and finds them by the mark.
    pub(crate) in_force: BTreeSet<Family>,
    /// Families in whose tables the chains may be: they stay wanted there.
    pub(crate) written: BTreeSet<Family>,
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    slots: BTreeMap<u16, Slot>,
    /// The slot of each class's present content.
    current: BTreeMap<ClassId, u16>,
    /// Contents for which there is no number.
    waiting: BTreeMap<ClassId, Slot>,
    /// Slots that are wanted no longer, and in which families that is not in force yet.
    leaving: BTreeMap<u16, (Slot, BTreeSet<Family>)>,
    /// The highest number.
    highest: u16,
}

impl Slots {
    /// None yet; numbers up to `highest`.
    pub(crate) const fn new(highest: u16) -> Self {
        Self {
            slots: BTreeMap::new(),
            current: BTreeMap::new(),
            waiting: BTreeMap::new(),
            leaving: BTreeMap::new(),
            highest,
        }
    }

    /// Forgets all and takes over what the mangle tables hold. `users` are the slots that an address is mapped to.
    pub(crate) fn adopt<'a>(&mut self, tables: impl IntoIterator<Item = (Family, &'a SavedTable)>) {
        *self = Self::new(self.highest);
        for (family, table) in tables {
            for (number, slot) in found(family, table) {
                if number <= OPEN_SLOT || number > self.highest {
                    continue;
                }
                let known = self.slots.entry(number).or_insert_with(|| slot.clone());
                if (known.class, known.key) == (slot.class, slot.key) {
                    known.rules.extend(slot.rules);
                    known.sets.extend(slot.sets);
                    known.in_force.insert(family);
                    known.written.insert(family);
                }
            }
        }
    }

    /// The classes that the slots are of, those in use before others, each number and each key once.
    pub(crate) fn classes(&self, in_use: &BTreeSet<u16>) -> Vec<(ClassId, ClassKey)> {
        let (used, unused): (Vec<_>, Vec<_>) = self.slots.iter().partition(|(number, _)| in_use.contains(number));
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let all = used.into_iter().chain(unused).map(|(_, slot)| (slot.class, slot.key));
        all.filter(|(id, key)| !ids.contains(id) && keys.insert(*key) && ids.insert(*id)).collect()
    }

    /// The class has this content now. It takes effect when it is in force and addresses are mapped to it.
    pub(crate) fn put(&mut self, class: ClassId, key: ClassKey, rules: SlotRules, sets: BTreeSet<SetId>) {
        self.waiting.remove(&class);
        let same =
            self.slots.iter_mut().find(|(_, slot)| slot.class == class && slot.key == key && is_same(slot, &rules));
        if let Some((number, slot)) = same {
            // Its text and sets may not have been known.
            (slot.rules, slot.sets) = (rules, sets);
            self.current.insert(class, *number);
            return;
        }
        self.current.remove(&class);
        let slot = Slot { class, key, rules, sets, in_force: BTreeSet::new(), written: BTreeSet::new() };
        self.waiting.insert(class, slot);
        self.number();
    }

    /// Gives numbers to contents that wait for one, as far as there are any.
    pub(crate) fn number(&mut self) {
        while let Some(free) = self.first_free() {
            let Some((class, slot)) = self.waiting.pop_first() else { return };
            self.slots.insert(free, slot);
            self.current.insert(class, free);
        }
    }

    /// The last resort where no number is to be had: the content replaces an older one of its class in its place.
    pub(crate) fn replace_in_place(&mut self) {
        let places: Vec<_> = self
            .waiting
            .keys()
            .filter_map(|class| Some((*class, *self.slots.iter().find(|(_, slot)| slot.class == *class)?.0)))
            .collect();
        for (class, number) in places {
            let (Some(new), Some(old)) = (self.waiting.remove(&class), self.slots.get_mut(&number)) else { continue };
            // The old rules are in the kernel until the new ones are.
            old.sets.extend(new.sets);
            (old.key, old.rules) = (new.key, new.rules);
            old.in_force.clear();
            self.current.insert(class, number);
        }
    }

    /// Nobody wants the class any more.
    pub(crate) fn drop_class(&mut self, class: ClassId) {
        self.waiting.remove(&class);
        self.current.remove(&class);
    }

    /// The slot that an address of the class is to be mapped to, if that is in force.
    pub(crate) fn ready(&self, class: ClassId, family: Family) -> Option<u16> {
        if class == ClassId::OPEN {
            return Some(OPEN_SLOT);
        }
        let number = *self.current.get(&class)?;
        self.slots.get(&number)?.in_force.contains(&family).then_some(number)
    }

    /// Contents of classes that are in force in all these families or have been replaced.
    pub(crate) fn is_settled(&self, families: &BTreeSet<Family>) -> bool {
        let in_force = |number| self.slots.get(number).is_some_and(|slot: &Slot| slot.in_force.is_superset(families));
        self.waiting.is_empty() && self.current.values().all(in_force)
    }

    /// Classes for whose content there is no number.
    pub(crate) fn without_number(&self) -> usize {
        self.waiting.len()
    }

    /// The sets that outdated contents speak of to which addresses of a family are still mapped.
    pub(crate) fn outdated(&self, in_use: &BTreeSet<(Family, u16)>) -> BTreeSet<(SetId, Family)> {
        let mut sets = BTreeSet::new();
        for (family, number) in in_use {
            let Some(slot) = self.slots.get(number) else { continue };
            if self.current.get(&slot.class) != Some(number) {
                sets.extend(slot.sets.iter().map(|set| (*set, *family)));
            }
        }
        sets
    }

    /// Whether somebody is mapped to a content of another class that has the same number.
    pub(crate) fn is_number_taken(&self, class: ClassId, key: ClassKey, in_use: &BTreeSet<u16>) -> bool {
        let mut others = self.slots.iter().filter(|(_, slot)| slot.class == class && slot.key != key);
        others.any(|(number, _)| in_use.contains(number))
    }

    /// Outdated slots that speak of one of these sets.
    pub(crate) fn outdated_with(&self, sets: &BTreeSet<SetId>) -> BTreeSet<u16> {
        let outdated = self
            .slots
            .iter()
            .filter(|(number, slot)| self.current.get(&slot.class) != Some(number) && !slot.sets.is_disjoint(sets));
        outdated.map(|(number, _)| *number).collect()
    }

    /// The slots that are of no use any more.
    pub(crate) fn garbage(&self, in_use: &BTreeSet<u16>) -> Vec<u16> {
        let is_garbage =
            |number: &u16, slot: &Slot| self.current.get(&slot.class) != Some(number) && !in_use.contains(number);
        self.slots.iter().filter(|(number, slot)| is_garbage(number, slot)).map(|(number, _)| *number).collect()
    }

    /// These slots are wanted no longer; the numbers are free once that is in force.
    pub(crate) fn leave(&mut self, numbers: &[u16]) {
        for number in numbers {
            if let Some(slot) = self.slots.remove(number) {
                let written = slot.written.clone();
                if !written.is_empty() {
                    self.leaving.insert(*number, (slot, written));
                }
            }
        }
    }

    /// Whether slots are on their way out.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Those that should have left and could not are wanted again, as garbage.
    pub(crate) fn stay(&mut self) {
        for (number, (slot, _)) in std::mem::take(&mut self.leaving) {
            self.slots.insert(number, slot);
        }
    }

    /// How many numbers are free.
    pub(crate) fn free_count(&self) -> usize {
        self.free().count()
    }

    /// Slots that the family's tables should have, when the sets that they speak of are there.
    pub(crate) fn wanted(&self, family: Family, is_there: impl Fn(&SetId) -> bool) -> Vec<(u16, &Slot)> {
        let of_family = |slot: &Slot| slot.rules.contains_key(&(family, SlotChain::whole(Direction::Ingress)));
        let wanted = self
            .slots
            .iter()
            .filter(|(_, slot)| of_family(slot) && (slot.written.contains(&family) || slot.sets.iter().all(&is_there)));
        wanted.map(|(number, slot)| (*number, slot)).collect()
    }

    /// A restore of the family with these slots is under way.
    pub(crate) fn writing(&mut self, family: Family, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            if let Some(slot) = self.slots.get_mut(&number) {
                slot.written.insert(family);
            }
        }
    }

    /// The family's mangle table is known: what is in force follows from it. Answers the classes of which a content came
    /// into force.
    pub(crate) fn known(
        &mut self,
        family: Family,
        table: &SavedTable,
        dispatched: impl Fn(u16) -> bool,
    ) -> BTreeSet<ClassId> {
        let mut news = BTreeSet::new();
        for (number, slot) in &mut self.slots {
            let mut chains = slot.rules.iter().filter(|((of, _), _)| *of == family).peekable();
            let is_there = |((_, chain), rules): (&(Family, SlotChain), &Rules)| {
                table.chains.get(&chain.name(*number)).is_some_and(|saved| is_same_chain(rules, &saved.rules))
            };
            if chains.peek().is_some() && chains.all(is_there) && dispatched(*number) {
                slot.written.insert(family);
                if slot.in_force.insert(family) {
                    news.insert(slot.class);
                }
            } else {
                slot.in_force.remove(&family);
            }
        }
        self.leaving.retain(|number, (slot, families)| {
            if slot.rules.keys().all(|(_, chain)| !table.chains.contains_key(&chain.name(*number))) {
                families.remove(&family);
            }
            !families.is_empty()
        });
        self.number();
        news
    }

    /// Slots of which only hashes are known and that the kernel does not have any more are forgotten: they cannot be
    /// written.
    pub(crate) fn forget_unwritable(&mut self) {
        let is_writable = |slot: &Slot| slot.rules.values().all(|rules| rules.iter().all(|rule| !rule.spec.is_empty()));
        self.slots.retain(|_, slot| is_writable(slot) || slot.in_force == slot.written);
        let slots = &self.slots;
        self.current.retain(|_, number| slots.contains_key(number));
    }

    /// Whether rules that are or will be in the kernel speak of the set.
    pub(crate) fn speak_of(&self, set: &SetId) -> bool {
        let leaving = self.leaving.values().map(|(slot, _)| slot);
        self.slots.values().chain(self.waiting.values()).chain(leaving).any(|slot| slot.sets.contains(set))
    }

    /// The class of a slot that is there or leaving.
    pub(crate) fn class(&self, number: u16) -> Option<ClassId> {
        if number == OPEN_SLOT {
            return Some(ClassId::OPEN);
        }
        let slot = self.slots.get(&number).or_else(|| self.leaving.get(&number).map(|(slot, _)| slot));
        slot.map(|slot| slot.class)
    }

    /// How many classes have a content.
    pub(crate) fn class_count(&self) -> usize {
        self.current.len() + self.waiting.len()
    }

    fn first_free(&self) -> Option<u16> {
        self.free().next()
    }

    fn free(&self) -> impl Iterator<Item = u16> {
        (OPEN_SLOT + 1..=self.highest)
            .filter(|number| !self.slots.contains_key(number) && !self.leaving.contains_key(number))
    }
}

/// Whether a slot's content is this one.
fn is_same(slot: &Slot, rules: &SlotRules) -> bool {
    let known = |rules: &Rules| rules.iter().map(|rule| Some(rule.hash)).collect::<Vec<_>>();
    slot.rules.len() == rules.len()
        && slot.rules.iter().zip(rules).all(|(slot, new)| slot.0 == new.0 && is_same_chain(new.1, &known(slot.1)))
}

/// The chain as known, but for rules that log, which may have been added or taken away since.
fn is_same_chain(rules: &[Rule], saved: &[Option<u64>]) -> bool {
    let mut wanted = rules.iter().map(|rule| rule.hash).peekable();
    for (index, hash) in saved.iter().enumerate() {
        if *hash == wanted.peek().copied() {
            wanted.next();
        } else if hash.is_none() || index + 2 != saved.len() {
            return false;
        }
    }
    wanted.peek().is_none()
}

/// Contents whose two chains a table has, in which every rule is ours.
fn found(family: Family, table: &SavedTable) -> BTreeMap<u16, Slot> {
    let mut slots: BTreeMap<u16, Slot> = BTreeMap::new();
    let mut broken = BTreeSet::new();
    for (name, chain) in &table.chains {
        let Some((slot_chain, number)) = SlotChain::parse(name) else { continue };
        let known: Option<Vec<_>> =
            chain.rules.iter().map(|hash| Some(Rule { hash: (*hash)?, spec: String::new() })).collect();
        let Some(rules) = known else {
            broken.insert(number);
            continue;
        };
        // The classes of parts are those of the whole, which comes before them.
        let owner = chain.class.filter(|_| slot_chain.part == 0);
        if let Some((class, key)) = owner {
            let slot = slots.entry(number).or_insert_with(|| Slot {
                class,
                key,
                rules: SlotRules::new(),
                sets: BTreeSet::new(),
                in_force: BTreeSet::from([family]),
                written: BTreeSet::from([family]),
            });
            if (slot.class, slot.key) != (class, key) {
                broken.insert(number);
            }
        }
        if let Some(slot) = slots.get_mut(&number) {
            slot.rules.insert((family, slot_chain), rules.into());
            slot.sets.extend(chain.sets.iter().filter_map(|name| match SetRef::parse(name)? {
                SetRef::Program(set, _) => Some(set),
                _ => None,
            }));
        }
    }
    let is_whole = |slot: &Slot| {
        Direction::ALL.into_iter().all(|direction| slot.rules.contains_key(&(family, SlotChain::whole(direction))))
    };
    slots.retain(|number, slot| is_whole(slot) && !broken.contains(number));
    slots
}
