//! What the filter is and what it should be, put together: changes of the compiler's and the kernel's answers come in,
//! steps to be taken go out. Pure; time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kernel::acl::{ElementChange, LinkName, SetElement};
use types::policy::Direction;
use types::{Family, Prefix};

use super::config::{AclConfig, MarkSpace, NatPool};
use super::fixed::FixedSets;
use super::joins::Joins;
use super::names::SetRef;
use super::plan;
use super::render::{self, Layout, Table, TableName};
use super::saved::SavedTable;
use super::sets::{ProgramSets, SetStep};
use super::slots::Slots;
use crate::policy::program::{Change, Class, ClassId, ClassKey, Element, SetId};

/// How long contents of no use are left before they are cleared away, so that many go at the price of one RCU wait.
const IDLE: Duration = Duration::from_millis(300);

/// With fewer free numbers than this they go at once.
const SCARCE: usize = 8;

/// Sets destroyed in one round: each may cost an RCU wait.
const DESTROYED_AT_ONCE: usize = 4;

/// How long contents of no use are left after they could not be cleared away.
const UNREMOVABLE: Duration = Duration::from_secs(60);

/// All that is known and wanted.
#[derive(Debug)]
pub(crate) struct State {
    layout: Layout,
    families: BTreeSet<Family>,
    slots: Slots,
    joins: Joins,
    sets: ProgramSets,
    fixed: FixedSets,
    /// What the kernel's tables hold.
    known: BTreeMap<(Family, TableName), SavedTable>,
    /// Families whose tables may differ from what is wanted.
    dirty: BTreeSet<Family>,
    /// The restore that is under way.
    in_flight: Option<InFlight>,
    /// Whether the compiler's program is known: until then nothing of an earlier life is changed.
    began: bool,
    /// The last restore failed.
    failing: bool,
    /// When what is of no use may be cleared away.
    clear_at: Option<Instant>,
    /// There may be sets that nothing speaks of any more.
    may_destroy: bool,
    /// Addresses that left before the program was known.
    early: BTreeSet<IpAddr>,
    /// Whether something that was allowed may be forbidden since connections were last looked at.
    tightened: bool,
}

#[derive(Debug)]
struct InFlight {
    family: Family,
    tables: BTreeMap<TableName, Table>,
}

/// A text for iptables-restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableJob {
    /// Whose iptables.
    pub(crate) family: Family,
    /// The text.
    pub(crate) text: String,
}

/// All that the compiler wants, members of sets apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program<'a> {
    /// Its sets.
    pub(crate) sets: Vec<SetId>,
    /// Its classes.
    pub(crate) classes: Vec<(ClassId, &'a Class)>,
    /// Its members.
    pub(crate) joins: Vec<(IpAddr, ClassId)>,
}

impl State {
    /// Nothing is known of the kernel yet.
    pub(crate) fn new(config: &AclConfig, mark: MarkSpace) -> Self {
        let layout = Layout {
            mark,
            interfaces: format!("{}+", config.interface_prefix),
            to_host: config.endpoint_to_host,
            log: config.log_denied.then_some(config.log_group),
            masquerade: false,
            services: BTreeSet::new(),
        };
        Self {
            layout,
            families: config.families.clone(),
            slots: Slots::new(mark.highest()),
            joins: Joins::new(mark),
            sets: ProgramSets::default(),
            fixed: FixedSets::default(),
            known: BTreeMap::new(),
            dirty: config.families.clone(),
            in_flight: None,
            began: false,
            failing: false,
            clear_at: None,
            may_destroy: false,
            early: BTreeSet::new(),
            tightened: false,
        }
    }

    /// The families of which there are chains.
    pub(crate) const fn families(&self) -> &BTreeSet<Family> {
        &self.families
    }

    /// Whether the compiler's program is known.
    pub(crate) const fn has_begun(&self) -> bool {
        self.began
    }
}

/// What the kernel says.
impl State {
    /// A set of ours is there, from an earlier life.
    pub(crate) fn set_found(&mut self, set: SetRef) {
        if let SetRef::Program(id, _) = set {
            self.sets.found(id);
        }
    }

    /// The members of a set that does not depend on policies.
    pub(crate) fn fixed_set_read(&mut self, set: SetRef, elements: &[SetElement]) {
        match set {
            SetRef::Slots(family) => self.joins.found(family, elements),
            SetRef::Program(..) => {}
            _ => self.fixed.found(set, elements),
        }
    }

    /// The family's tables have been read. Answers what others have changed in them.
    pub(crate) fn tables_read(&mut self, family: Family, tables: BTreeMap<TableName, SavedTable>) -> Disturbance {
        let mut disturbance = Disturbance::default();
        for (name, table) in tables {
            let before = self.known.insert((family, name), table);
            let now = self.known.get(&(family, name));
            let lost = before.as_ref().zip(now).is_some_and(|(before, now)| differs(before, now));
            disturbance.repairs |= lost;
            disturbance.is_unprotected |= lost && matches!(name, TableName::Mangle | TableName::Raw);
        }
        if !self.began {
            let mangle = |family: &Family| Some((*family, self.known.get(&(*family, TableName::Mangle))?));
            self.slots.adopt(self.families.iter().filter_map(mangle));
            let nat = self.families.iter().filter_map(|family| self.known.get(&(*family, TableName::Nat)));
            self.layout.masquerade |=
                self.fixed.are_pools_unknown() && nat.into_iter().any(|nat| !nat.chains.is_empty());
        }
        self.tables_known(family);
        self.slots.forget_unwritable();
        self.joins.doubt();
        disturbance
    }

    /// The classes of an earlier life.
    pub(crate) fn adopted(&self) -> Vec<(ClassId, ClassKey)> {
        self.slots.classes(&self.joins.in_use())
    }

    /// The restore that was under way has ended; answers its family, whose tables are to be read after a failure.
    pub(crate) fn restored(&mut self, is_success: bool, now: Instant) -> Option<Family> {
        let InFlight { family, tables } = self.in_flight.take()?;
        self.failing = !is_success;
        self.dirty.insert(family);
        if !is_success {
            if self.slots.has_leaving() {
                // Perhaps somebody's rule leads to one of them; nothing else is to wait for that.
                self.slots.stay();
                self.clear_at = Some(now + UNREMOVABLE);
            }
            return Some(family);
        }
        for (name, wanted) in tables {
            let known = self.known.entry((family, name)).or_default();
            *known = plan::after(known, &wanted);
        }
        self.tables_known(family);
        self.may_destroy = true;
        Some(family)
    }

    fn tables_known(&mut self, family: Family) {
        self.dirty.insert(family);
        let Some(mangle) = self.known.get(&(family, TableName::Mangle)) else { return };
        let layout = &self.layout;
        let is_dispatched = |slot| {
            let has = |(chain, hash): &(String, u64)| {
                mangle.chains.get(chain).is_some_and(|saved| saved.rules.contains(&Some(*hash)))
            };
            render::dispatch_of(layout, slot).iter().all(has)
        };
        let news = self.slots.known(family, mangle, is_dispatched);
        self.joins.news(&news);
    }

    /// Changes of members of the map of slots are in the kernel, but for those that failed.
    pub(crate) fn joined(&mut self, change: &ElementChange, is_done: bool) {
        if is_done {
            self.tightened |= self.joins.done(change);
        } else {
            self.joins.failed(change);
        }
    }

    /// Something went wrong with a set.
    pub(crate) fn doubt_set(&mut self, set: SetRef) {
        match set {
            SetRef::Program(id, _) => self.sets.doubt(id),
            SetRef::Slots(_) => {}
            _ => self.fixed.doubt(set),
        }
    }

    /// The sets have been listed, with how many members the kernel has of each of the compiler's in all families, and how
    /// many it should have; and how many addresses are mapped. Those that differ are to be read.
    pub(crate) fn listed(&mut self, sets: impl IntoIterator<Item = (SetId, Option<usize>, usize)>) {
        for (set, found, wanted) in sets {
            if found != Some(wanted) {
                self.sets.doubt(set);
            }
        }
        self.sets.doom_again();
        self.may_destroy = true;
    }

    /// How many members each set that does not depend on policies should have, but for the map of slots.
    pub(crate) fn fixed_counts(&self) -> Vec<(SetRef, usize)> {
        self.fixed.counts().collect()
    }

    /// How many addresses of a family the kernel should map.
    pub(crate) fn mapped(&self, family: Family) -> usize {
        self.joins.count_of(family)
    }
}

/// Whether others have taken or moved something of ours.
fn differs(before: &SavedTable, now: &SavedTable) -> bool {
    let places = |table: &SavedTable| -> Vec<(String, u64, bool)> {
        let of = |(name, chain): (&String, &super::saved::ForeignChain)| {
            chain.ours.iter().map(|rule| (name.clone(), rule.hash, rule.index == 0)).collect::<Vec<_>>()
        };
        table.foreign.iter().flat_map(of).collect()
    };
    let chain_differs = |(name, chain): (&String, &super::saved::SavedChain)| {
        now.chains.get(name).is_none_or(|now| now.rules != chain.rules)
    };
    before.chains.iter().any(chain_differs) || places(before) != places(now)
}

/// What others have done to our chains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disturbance {
    /// There is something to be repaired.
    pub(crate) repairs: bool,
    /// It is something that protects pods.
    pub(crate) is_unprotected: bool,
}

/// What the compiler and the agent want.
impl State {
    /// The program is known now: everything that is in the kernel beyond it goes.
    pub(crate) fn begin(&mut self, program: Program<'_>) {
        self.began = true;
        program.sets.into_iter().for_each(|set| self.sets.want(set));
        let in_use = self.joins.in_use();
        for (id, class) in program.classes {
            if self.slots.is_number_taken(id, class.key, &in_use) {
                Direction::ALL.into_iter().for_each(|direction| self.sets.renew(SetId::Narrow(id, direction)));
            }
            self.put_class(id, class);
        }
        for (address, class) in program.joins {
            self.joins.join(address, class);
        }
        self.joins.doubt();
        self.fixed.look_at_all();
        self.dirty.clone_from(&self.families);
        (self.tightened, self.may_destroy) = (true, true);
    }

    /// These addresses are nobody's any more, though the program is not known yet.
    pub(crate) fn leave_early(&mut self, addresses: &[IpAddr]) {
        if !self.began {
            addresses.iter().for_each(|address| self.joins.leave(*address));
            self.early.extend(addresses);
        }
    }

    /// Changes of the compiler's, in its order.
    pub(crate) fn change(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            match change {
                Change::CreateSet { set, expected } => {
                    self.sets.create(set, expected);
                    self.dirty.clone_from(&self.families);
                }
                Change::Add(set, element) => self.sets.change(set, element, true),
                Change::Remove(set, element) => {
                    self.tightened = true;
                    self.sets.change(set, element, false);
                }
                Change::PutClass(id, class) => {
                    self.put_class(id, &class);
                    self.look_at_outdated();
                    self.clear_at = Some(now + IDLE);
                }
                Change::Join(address, class) => self.joins.join(address, class),
                Change::Leave(address) => self.joins.leave(address),
                Change::DropClass(id) => {
                    self.slots.drop_class(id);
                    self.look_at_outdated();
                    self.clear_at = Some(now + IDLE);
                }
                Change::DestroySet(set) => {
                    self.sets.give_up(set);
                    self.may_destroy = true;
                    self.clear_at.get_or_insert(now + IDLE);
                }
            }
        }
    }

    fn put_class(&mut self, id: ClassId, class: &Class) {
        if id == ClassId::OPEN {
            return;
        }
        self.tightened |= self.joins.has_members(id, &self.slots);
        let (rules, sets) = render::class_rules(id, class, &self.families);
        self.slots.put(id, class.key, rules, sets);
        // A content that was there before may be in force already.
        self.joins.news(&BTreeSet::from([id]));
        self.dirty.clone_from(&self.families);
    }

    fn look_at_outdated(&mut self) {
        let outdated = self.slots.outdated(&self.joins.in_use_of_families());
        self.sets.set_outdated(outdated, self.failing);
    }

    /// All pools.
    pub(crate) fn set_pools(&mut self, pools: &[NatPool]) {
        self.fixed.want_pools(pools, &self.families);
        self.layout.masquerade = pools.iter().any(|pool| pool.outgoing);
        self.dirty.clone_from(&self.families);
    }

    /// The local endpoints, as far as they are told: addresses, each with its interface.
    pub(crate) fn local_arrived(&mut self, address: IpAddr, home: LinkName) {
        self.fixed.local_arrived(address, home);
    }

    /// The address is nobody's.
    pub(crate) fn local_left(&mut self, address: IpAddr) {
        self.fixed.local_left(address);
    }

    /// The announced ranges of Services' addresses.
    pub(crate) fn set_services(&mut self, ranges: BTreeSet<Prefix>) {
        if self.layout.services != ranges {
            self.layout.services = ranges;
            self.dirty.clone_from(&self.families);
        }
    }

    /// Whether what is dropped is logged.
    pub(crate) fn set_log(&mut self, group: Option<u16>) {
        self.layout.log = group;
        self.dirty.clone_from(&self.families);
    }
}

/// What is to be done.
impl State {
    /// Puts in order what follows from what happened: to be called before steps are asked for.
    pub(crate) fn settle(&mut self, now: Instant) {
        let in_use = self.joins.in_use();
        let garbage = self.slots.garbage(&in_use);
        if self.began && !garbage.is_empty() {
            let is_scarce = self.slots.free_count() < SCARCE && !self.failing;
            if is_scarce || self.clear_at.is_none_or(|at| now >= at) {
                self.slots.leave(&garbage);
                self.dirty.clone_from(&self.families);
            }
        }
        self.slots.number();
        if self.slots.without_number() > 0 && !self.slots.has_leaving() && garbage.is_empty() {
            self.slots.replace_in_place();
        }
        self.look_at_outdated();
        let stuck = self.sets.stuck();
        if !stuck.is_empty() && self.is_idle() {
            self.joins.evict(&self.slots.outdated_with(&stuck));
        }
    }

    /// Whether no restore is under way or to be made.
    fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.dirty.is_empty()
    }

    /// When there is something to be cleared away that is left for now.
    pub(crate) fn clear_at(&self) -> Option<Instant> {
        let has_some = !self.slots.garbage(&self.joins.in_use()).is_empty();
        if has_some { self.clear_at } else { None }
    }

    /// Sets of the compiler's that are to be read and compared.
    pub(crate) fn unsure_sets(&self) -> Vec<SetId> {
        if self.began { self.sets.unsure() } else { Vec::new() }
    }

    /// A set was read (none: it is not there): what is to be done about it.
    pub(crate) fn set_compared(
        &mut self,
        set: SetId,
        family: Family,
        found: Option<Vec<SetElement>>,
        wanted: &BTreeSet<SetElement>,
    ) -> Vec<SetStep> {
        self.sets.compared(set, family, found, wanted)
    }

    /// That has been done in all families.
    pub(crate) fn set_is_sure(&mut self, set: SetId) {
        self.sets.sure(set);
        self.dirty.clone_from(&self.families);
    }

    /// Sets to be made and members to be changed.
    pub(crate) fn set_steps(&mut self) -> Vec<SetStep> {
        let mut steps = self.fixed.steps(self.began);
        if self.began {
            steps.extend(self.sets.steps(&self.families));
        }
        steps
    }

    /// Sets to be destroyed.
    pub(crate) fn destroyable(&self) -> Vec<SetId> {
        let is_due = self.began && self.may_destroy && self.in_flight.is_none();
        if is_due { self.sets.destroyable(|set| self.slots.speak_of(set), DESTROYED_AT_ONCE) } else { Vec::new() }
    }

    /// Nothing more can be destroyed before rules change.
    pub(crate) fn destroyed_all(&mut self) {
        self.may_destroy = false;
    }

    /// The set is gone, or could not be destroyed.
    pub(crate) fn destroyed(&mut self, set: SetId, is_gone: bool) {
        if is_gone { self.sets.destroyed(set) } else { self.sets.not_destroyed(set) }
    }

    /// Addresses to be mapped.
    pub(crate) fn join_steps(&mut self) -> BTreeMap<Family, Vec<ElementChange>> {
        if self.began {
            return self.joins.steps(&self.slots, &self.families);
        }
        let early = std::mem::take(&mut self.early);
        if early.is_empty() { BTreeMap::new() } else { self.joins.steps_of(early, &self.slots, &self.families) }
    }

    /// The next restore, if one is to be made and none is under way.
    pub(crate) fn table_job(&mut self) -> Option<TableJob> {
        if self.in_flight.is_some() {
            return None;
        }
        while let Some(family) = self.dirty.pop_first() {
            let mut text = String::new();
            let mut tables = BTreeMap::new();
            for name in TableName::ALL {
                let wanted = self.wanted_table(family, name);
                let known = self.known.entry((family, name)).or_default();
                if let Some(part) = plan::restore_text(name, known, &wanted) {
                    text.push_str(&part);
                    tables.insert(name, wanted);
                }
            }
            if !tables.is_empty() {
                let wanted = self.slots.wanted(family, |set| self.sets.is_there(set));
                let numbers: Vec<_> = wanted.into_iter().map(|(number, _)| number).collect();
                self.slots.writing(family, numbers);
                self.in_flight = Some(InFlight { family, tables });
                return Some(TableJob { family, text });
            }
        }
        None
    }

    fn wanted_table(&self, family: Family, name: TableName) -> Table {
        let slots = match name {
            TableName::Mangle => self.slots.wanted(family, |set| self.sets.is_there(set)),
            TableName::Raw | TableName::Nat | TableName::Filter => Vec::new(),
        };
        let numbers: Vec<_> = slots.iter().map(|(number, _)| *number).collect();
        let chains = slots.iter().flat_map(|(number, slot)| {
            slot.rules.iter().filter(|((of, _), _)| *of == family).map(|((_, chain), rules)| {
                // Of contents of an earlier life only hashes are known; they stay as they are.
                let is_readable = rules.iter().all(|rule| !rule.spec.is_empty());
                let log = self.layout.log.filter(|_| is_readable);
                (chain.name(*number), render::for_slot(rules, *number, log, chain.direction, slot.class))
            })
        });
        render::table(&self.layout, family, name, &numbers, chains)
    }
}

/// How it stands.
impl State {
    /// Whether the kernel enforces what the compiler wants for these addresses: they are mapped to their class, whose chains
    /// are in force, and no membership of theirs waits.
    pub(crate) fn is_in_force(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().all(|address| self.joins.is_settled(*address, &self.slots))
            && !self.sets.holds(|element| {
                addresses.contains(&match element {
                    Element::Net(prefix) => prefix.addr(),
                    Element::Port(address, ..) => *address,
                })
            })
    }

    /// Whether everything told so far is in force.
    pub(crate) fn is_settled(&self) -> bool {
        self.began
            && self.slots.is_settled(&self.families)
            && self.joins.are_settled(&self.slots, &self.families)
            && !self.sets.holds(|_| true)
    }

    /// Whether something was tightened, and how far it is in force. What is in force is told once.
    pub(crate) fn tightened(&mut self) -> Option<Tightened> {
        match (self.tightened, self.is_settled()) {
            (false, _) => None,
            (true, false) => Some(Tightened::InPart),
            (true, true) => {
                self.tightened = false;
                Some(Tightened::Whole)
            }
        }
    }

    /// What chains look like.
    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Classes for which the mark has no room.
    pub(crate) fn without_number(&self) -> usize {
        self.slots.without_number()
    }

    /// Classes, rules and mapped addresses.
    pub(crate) fn counts(&self) -> Counts {
        let chains = self.known.values().flat_map(|table| table.chains.values().map(|chain| chain.rules.len()));
        let hooks = self.known.values().flat_map(|table| table.foreign.values().map(|chain| chain.ours.len()));
        Counts { classes: self.slots.class_count(), rules: chains.chain(hooks).sum(), addresses: self.joins.count() }
    }
}

/// See [`State::tightened`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tightened {
    /// Something that was told is not in the kernel yet.
    InPart,
    /// All of it is.
    Whole,
}

/// See [`State::counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) classes: usize,
    pub(crate) rules: usize,
    pub(crate) addresses: usize,
}
