//! What the kernel says of its sets and tables, and what follows from that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernel::acl::{AddressPort, ElementChange, MarkedAddress, SetElement};
use types::Family;
use types::policy::Protocol;

use super::State;
use crate::acl::names::SetRef;
use crate::acl::render::{self, TableName};
use crate::acl::rule_tables::Disturbance;
use crate::acl::saved::SavedTable;
use crate::policy::program::{ClassId, ClassKey, SetId};

/// How long versions of no use are left after they could not be cleared away.
const CLEARING_RETRY_DELAY: Duration = Duration::from_secs(60);

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
            SetRef::Marks(family) => self.address_marks.found(family, elements),
            SetRef::Program(..) => {}
            _ => {
                // What an earlier life closed stays closed.
                if self.fixed.are_speakers_unknown() && matches!(set, SetRef::Speakers(_)) {
                    self.layout.guard.ports.extend(elements.iter().filter_map(tcp_port));
                }
                self.fixed.found(set, elements);
            }
        }
    }

    /// The family's tables have been read. Answers what others have changed in them.
    pub(crate) fn tables_read(&mut self, family: Family, tables: BTreeMap<TableName, SavedTable>) -> Disturbance {
        let disturbance = self.tables.read(family, tables);
        if !self.is_enforcing() {
            let (families, tables) = (&self.families, &self.tables);
            let of = |name| families.iter().filter_map(move |family| Some((*family, tables.known(*family, name)?)));
            self.versions.adopt(of(TableName::Mangle));
            let has_nat = of(TableName::Nat).any(|(_, nat)| !nat.chains.is_empty());
            self.layout.masquerade |= self.fixed.are_pools_unknown() && has_nat;
        }
        self.tables_known(family);
        self.versions.forget_unwritable();
        self.address_marks.verify_all();
        disturbance
    }

    /// The classes of an earlier life.
    pub(crate) fn adopted(&self) -> Vec<(ClassId, ClassKey)> {
        self.versions.classes(&self.address_marks.in_use())
    }

    /// The restore that was under way has ended; answers its family, whose tables are to be read after a failure.
    pub(crate) fn restored(&mut self, is_success: bool, now: Instant) -> Option<Family> {
        let family = self.tables.restored(is_success)?;
        if is_success {
            self.tables_known(family);
            self.may_destroy = true;
        } else if self.versions.has_leaving() {
            // Perhaps somebody's rule leads to one of them; nothing else is to wait for that.
            self.versions.keep_leaving();
            self.clear_at = Some(now + CLEARING_RETRY_DELAY);
        }
        Some(family)
    }

    fn tables_known(&mut self, family: Family) {
        self.tables.touch([family]);
        let Some(mangle) = self.tables.known(family, TableName::Mangle) else { return };
        let layout = &self.layout;
        let is_dispatched = |number| {
            let has = |(chain, hash): &(String, u64)| {
                mangle.chains.get(chain).is_some_and(|saved| saved.rules.contains(&Some(*hash)))
            };
            render::dispatch_of(layout, number).iter().all(has)
        };
        let now_in_force = self.versions.known(family, mangle, is_dispatched);
        self.address_marks.came_into_force(&now_in_force);
    }

    /// Changes of members of the set that maps addresses are in the kernel, but for those that failed.
    pub(crate) fn mapping_done(&mut self, change: &ElementChange<MarkedAddress>, is_done: bool) {
        if is_done {
            self.is_tightened |= self.address_marks.done(change);
        } else {
            self.address_marks.failed(change);
        }
    }

    /// Something went wrong with a set.
    pub(crate) fn set_failed(&mut self, set: SetRef) {
        match set {
            SetRef::Program(id, _) => self.sets.verify(id),
            SetRef::Marks(_) => {}
            _ => self.fixed.put_again(set),
        }
    }

    /// The sets have been listed, with how many members the kernel has of each of the compiler's in all families, and how
    /// many it should have; and how many addresses are mapped. Those that differ are to be read.
    pub(crate) fn listed(&mut self, sets: impl IntoIterator<Item = (SetId, Option<usize>, usize)>) {
        for (set, found, wanted) in sets {
            if found != Some(wanted) {
                self.sets.verify(set);
            }
        }
        self.sets.destroy_again();
        self.may_destroy = true;
    }

    /// How many members each set that does not depend on policies should have, but for the set that maps addresses.
    pub(crate) fn fixed_counts(&self) -> Vec<(SetRef, usize)> {
        self.fixed.counts().collect()
    }

    /// How many addresses of a family the kernel should map.
    pub(crate) fn mapped_count(&self, family: Family) -> usize {
        self.address_marks.count_of(family)
    }
}

/// The port of a member, where it is one of TCP.
fn tcp_port(member: &SetElement) -> Option<u16> {
    match member {
        SetElement::Port(AddressPort { protocol: Protocol::Tcp, port, .. }) => Some(*port),
        _ => None,
    }
}
