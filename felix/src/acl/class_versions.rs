//! Which version of which class is under which mark number.
//!
//! A number is taken from the moment its chains may be in the kernel until they are certainly out of it. A class has at
//! most one current version; others of its versions are there as long as an address is still mapped to them, and then
//! until they are cleared away together.

use std::collections::{BTreeMap, BTreeSet};

use types::Family;
use types::policy::Direction;

use super::names::{ClassChain, SetRef};
use super::render::{OPEN_NUMBER, VersionRules};
use super::rule::{Rule, Rules};
use super::saved::SavedTable;
use crate::policy::program::{ClassId, ClassKey, SetId};

/// One version of a class: the rules that it has, or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassVersion {
    /// The class.
    pub(crate) class: ClassId,
    /// The key of the class, by which a new life of the agent knows it again.
    pub(crate) key: ClassKey,
    /// Its chains. Of a version found in the kernel only the hashes are known.
    pub(crate) rules: VersionRules,
    /// The sets that its rules speak of, as far as known.
    pub(crate) sets: BTreeSet<SetId>,
    /// Families in which the kernel has its chains, as they should be, and finds them by the mark.
    pub(crate) in_force: BTreeSet<Family>,
    /// Families in whose tables the chains may be: they stay wanted there.
    pub(crate) written: BTreeSet<Family>,
}

/// All versions of all classes.
#[derive(Debug, Clone)]
pub(crate) struct ClassVersions {
    /// Those that have a number.
    versions: BTreeMap<u16, ClassVersion>,
    /// The number of each class's present version.
    current: BTreeMap<ClassId, u16>,
    /// Versions for which there is no number.
    waiting: BTreeMap<ClassId, ClassVersion>,
    /// Versions that are wanted no longer, and in which families that is not in force yet.
    leaving: BTreeMap<u16, (ClassVersion, BTreeSet<Family>)>,
    /// The highest number.
    highest: u16,
}

impl ClassVersions {
    /// No version is known yet; numbers go up to `highest`.
    pub(crate) const fn new(highest: u16) -> Self {
        Self {
            versions: BTreeMap::new(),
            current: BTreeMap::new(),
            waiting: BTreeMap::new(),
            leaving: BTreeMap::new(),
            highest,
        }
    }

    /// Forgets all and takes over what the mangle tables hold.
    pub(crate) fn adopt<'a>(&mut self, tables: impl IntoIterator<Item = (Family, &'a SavedTable)>) {
        *self = Self::new(self.highest);
        for (family, table) in tables {
            for (number, version) in found(family, table) {
                if number <= OPEN_NUMBER || number > self.highest {
                    continue;
                }
                let known = self.versions.entry(number).or_insert_with(|| version.clone());
                if (known.class, known.key) == (version.class, version.key) {
                    known.rules.extend(version.rules);
                    known.sets.extend(version.sets);
                    known.in_force.insert(family);
                    known.written.insert(family);
                }
            }
        }
    }

    /// The classes that the versions are of, those in use before others, each number and each key once.
    pub(crate) fn classes(&self, in_use: &BTreeSet<u16>) -> Vec<(ClassId, ClassKey)> {
        let (used, unused): (Vec<_>, Vec<_>) = self.versions.iter().partition(|(number, _)| in_use.contains(number));
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let all = used.into_iter().chain(unused).map(|(_, version)| (version.class, version.key));
        all.filter(|(id, key)| !ids.contains(id) && keys.insert(*key) && ids.insert(*id)).collect()
    }

    /// The class has this version now. It takes effect when it is in force and addresses are mapped to it.
    pub(crate) fn put(&mut self, class: ClassId, key: ClassKey, rules: VersionRules, sets: BTreeSet<SetId>) {
        self.waiting.remove(&class);
        let same = self
            .versions
            .iter_mut()
            .find(|(_, version)| version.class == class && version.key == key && is_same(version, &rules));
        if let Some((number, version)) = same {
            // Where it was found in the kernel its text and sets were not known.
            (version.rules, version.sets) = (rules, sets);
            self.current.insert(class, *number);
            return;
        }
        self.current.remove(&class);
        let version = ClassVersion { class, key, rules, sets, in_force: BTreeSet::new(), written: BTreeSet::new() };
        self.waiting.insert(class, version);
        self.number();
    }

    /// Gives numbers to versions that wait for one, as far as there are any.
    pub(crate) fn number(&mut self) {
        while let Some(free) = self.first_free() {
            let Some((class, version)) = self.waiting.pop_first() else { return };
            self.versions.insert(free, version);
            self.current.insert(class, free);
        }
    }

    /// The last resort where no number is to be had: the version replaces an older one of its class in its place.
    pub(crate) fn replace_in_place(&mut self) {
        let places: Vec<_> = self
            .waiting
            .keys()
            .filter_map(|class| Some((*class, *self.versions.iter().find(|(_, version)| version.class == *class)?.0)))
            .collect();
        for (class, number) in places {
            let (Some(new), Some(old)) = (self.waiting.remove(&class), self.versions.get_mut(&number)) else {
                continue;
            };
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

    /// The number that an address of the class is to be mapped to, if its version is in force.
    pub(crate) fn ready(&self, class: ClassId, family: Family) -> Option<u16> {
        if class == ClassId::OPEN {
            return Some(OPEN_NUMBER);
        }
        let number = *self.current.get(&class)?;
        self.versions.get(&number)?.in_force.contains(&family).then_some(number)
    }

    /// Whether the versions of all classes are in force in all these families and none waits for a number.
    pub(crate) fn is_settled(&self, families: &BTreeSet<Family>) -> bool {
        let in_force = |number| {
            self.versions.get(number).is_some_and(|version: &ClassVersion| version.in_force.is_superset(families))
        };
        self.waiting.is_empty() && self.current.values().all(in_force)
    }

    /// Classes for whose version there is no number.
    pub(crate) fn without_number(&self) -> usize {
        self.waiting.len()
    }

    /// The sets that outdated versions speak of to which addresses of a family are still mapped.
    pub(crate) fn outdated(&self, in_use: &BTreeSet<(Family, u16)>) -> BTreeSet<(SetId, Family)> {
        let mut sets = BTreeSet::new();
        for (family, number) in in_use {
            let Some(version) = self.versions.get(number) else { continue };
            if self.current.get(&version.class) != Some(number) {
                sets.extend(version.sets.iter().map(|set| (*set, *family)));
            }
        }
        sets
    }

    /// Whether an address is mapped to a version of another class that has the same class number.
    pub(crate) fn is_number_taken(&self, class: ClassId, key: ClassKey, in_use: &BTreeSet<u16>) -> bool {
        let mut others = self.versions.iter().filter(|(_, version)| version.class == class && version.key != key);
        others.any(|(number, _)| in_use.contains(number))
    }

    /// Outdated versions that speak of one of these sets.
    pub(crate) fn outdated_with(&self, sets: &BTreeSet<SetId>) -> BTreeSet<u16> {
        let outdated = self.versions.iter().filter(|(number, version)| {
            self.current.get(&version.class) != Some(number) && !version.sets.is_disjoint(sets)
        });
        outdated.map(|(number, _)| *number).collect()
    }

    /// The versions that are of no use any more.
    pub(crate) fn garbage(&self, in_use: &BTreeSet<u16>) -> Vec<u16> {
        let is_garbage = |number: &u16, version: &ClassVersion| {
            self.current.get(&version.class) != Some(number) && !in_use.contains(number)
        };
        self.versions
            .iter()
            .filter(|(number, version)| is_garbage(number, version))
            .map(|(number, _)| *number)
            .collect()
    }

    /// These versions are wanted no longer; the numbers are free once that is in force.
    pub(crate) fn leave(&mut self, numbers: &[u16]) {
        for number in numbers {
            if let Some(version) = self.versions.remove(number) {
                let written = version.written.clone();
                if !written.is_empty() {
                    self.leaving.insert(*number, (version, written));
                }
            }
        }
    }

    /// Whether versions are on their way out.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Those that should have left and could not are wanted again, as garbage.
    pub(crate) fn keep_leaving(&mut self) {
        for (number, (version, _)) in std::mem::take(&mut self.leaving) {
            self.versions.insert(number, version);
        }
    }

    /// How many numbers are free.
    pub(crate) fn free_count(&self) -> usize {
        self.free().count()
    }

    /// Versions that the family's tables should have, when the sets that they speak of are there.
    pub(crate) fn wanted(&self, family: Family, is_there: impl Fn(&SetId) -> bool) -> Vec<(u16, &ClassVersion)> {
        let of_family =
            |version: &ClassVersion| version.rules.contains_key(&(family, ClassChain::whole(Direction::Ingress)));
        let wanted = self.versions.iter().filter(|(_, version)| {
            of_family(version) && (version.written.contains(&family) || version.sets.iter().all(&is_there))
        });
        wanted.map(|(number, version)| (*number, version)).collect()
    }

    /// A restore of the family with these versions is under way.
    pub(crate) fn writing(&mut self, family: Family, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            if let Some(version) = self.versions.get_mut(&number) {
                version.written.insert(family);
            }
        }
    }

    /// The family's mangle table is known: what is in force follows from it. Answers the classes of which a version came
    /// into force.
    pub(crate) fn known(
        &mut self,
        family: Family,
        table: &SavedTable,
        dispatched: impl Fn(u16) -> bool,
    ) -> BTreeSet<ClassId> {
        let mut now_in_force = BTreeSet::new();
        for (number, version) in &mut self.versions {
            let mut chains = version.rules.iter().filter(|((of, _), _)| *of == family).peekable();
            let is_there = |((_, chain), rules): (&(Family, ClassChain), &Rules)| {
                table.chains.get(&chain.name(*number)).is_some_and(|saved| is_same_chain(rules, &saved.rules))
            };
            if chains.peek().is_some() && chains.all(is_there) && dispatched(*number) {
                version.written.insert(family);
                if version.in_force.insert(family) {
                    now_in_force.insert(version.class);
                }
            } else {
                version.in_force.remove(&family);
            }
        }
        self.leaving.retain(|number, (version, families)| {
            if version.rules.keys().all(|(_, chain)| !table.chains.contains_key(&chain.name(*number))) {
                families.remove(&family);
            }
            !families.is_empty()
        });
        self.number();
        now_in_force
    }

    /// Versions of which only hashes are known and that the kernel does not have any more are forgotten: they cannot be
    /// written.
    pub(crate) fn forget_unwritable(&mut self) {
        let is_writable =
            |version: &ClassVersion| version.rules.values().all(|rules| rules.iter().all(|rule| !rule.spec.is_empty()));
        self.versions.retain(|_, version| is_writable(version) || version.in_force == version.written);
        let versions = &self.versions;
        self.current.retain(|_, number| versions.contains_key(number));
    }

    /// Whether rules that are or will be in the kernel speak of the set.
    pub(crate) fn speak_of(&self, set: &SetId) -> bool {
        let leaving = self.leaving.values().map(|(version, _)| version);
        self.versions.values().chain(self.waiting.values()).chain(leaving).any(|version| version.sets.contains(set))
    }

    /// The class of a version that is there or leaving.
    pub(crate) fn class(&self, number: u16) -> Option<ClassId> {
        if number == OPEN_NUMBER {
            return Some(ClassId::OPEN);
        }
        let version = self.versions.get(&number).or_else(|| self.leaving.get(&number).map(|(version, _)| version));
        version.map(|version| version.class)
    }

    /// How many classes have a version.
    pub(crate) fn class_count(&self) -> usize {
        self.current.len() + self.waiting.len()
    }

    fn first_free(&self) -> Option<u16> {
        self.free().next()
    }

    fn free(&self) -> impl Iterator<Item = u16> {
        (OPEN_NUMBER + 1..=self.highest)
            .filter(|number| !self.versions.contains_key(number) && !self.leaving.contains_key(number))
    }
}

/// Whether a version has these rules.
fn is_same(version: &ClassVersion, rules: &VersionRules) -> bool {
    let known = |rules: &Rules| rules.iter().map(|rule| Some(rule.hash)).collect::<Vec<_>>();
    version.rules.len() == rules.len()
        && version
            .rules
            .iter()
            .zip(rules)
            .all(|(version, new)| version.0 == new.0 && is_same_chain(new.1, &known(version.1)))
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

/// Versions whose two chains a table has, in which every rule is ours.
fn found(family: Family, table: &SavedTable) -> BTreeMap<u16, ClassVersion> {
    let mut versions: BTreeMap<u16, ClassVersion> = BTreeMap::new();
    let mut broken = BTreeSet::new();
    for (name, chain) in &table.chains {
        let Some((class_chain, number)) = ClassChain::parse(name) else { continue };
        let known: Option<Vec<_>> =
            chain.rules.iter().map(|hash| Some(Rule { hash: (*hash)?, spec: String::new() })).collect();
        let Some(rules) = known else {
            broken.insert(number);
            continue;
        };
        // The classes of parts are those of the whole, which comes before them.
        let owner = chain.class.filter(|_| class_chain.part == 0);
        if let Some((class, key)) = owner {
            let version = versions.entry(number).or_insert_with(|| ClassVersion {
                class,
                key,
                rules: VersionRules::new(),
                sets: BTreeSet::new(),
                in_force: BTreeSet::from([family]),
                written: BTreeSet::from([family]),
            });
            if (version.class, version.key) != (class, key) {
                broken.insert(number);
            }
        }
        if let Some(version) = versions.get_mut(&number) {
            version.rules.insert((family, class_chain), rules.into());
            version.sets.extend(chain.sets.iter().filter_map(|name| match SetRef::parse(name)? {
                SetRef::Program(set, _) => Some(set),
                _ => None,
            }));
        }
    }
    let is_whole = |version: &ClassVersion| {
        Direction::ALL.into_iter().all(|direction| version.rules.contains_key(&(family, ClassChain::whole(direction))))
    };
    versions.retain(|number, version| is_whole(version) && !broken.contains(number));
    versions
}
