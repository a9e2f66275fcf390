//! What the compiler and the agent want.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kernel::acl::LinkName;
use types::Prefix;
use types::policy::Direction;

use super::{Phase, Program, State};
use crate::acl::config::NatPool;
use crate::acl::render;
use crate::policy::Infrastructure;
use crate::policy::program::{Change, Class, ClassId, SetId};

/// How long versions of no use are left before they are cleared away, so that many go at the price of one RCU wait.
const CLEARING_DELAY: Duration = Duration::from_millis(300);

/// What the compiler and the agent want.
impl State {
    /// The program is known now: everything that is in the kernel beyond it goes.
    pub(crate) fn begin(&mut self, program: Program<'_>) {
        self.phase = Phase::Enforcing;
        program.sets.into_iter().for_each(|set| self.sets.want(set));
        let in_use = self.address_marks.in_use();
        for (id, class) in program.classes {
            if self.versions.is_number_taken(id, class.key, &in_use) {
                Direction::ALL.into_iter().for_each(|direction| self.sets.renew(SetId::Narrow(id, direction)));
            }
            self.put_class(id, class);
        }
        for (address, class) in program.memberships {
            self.address_marks.assign(address, class);
        }
        self.address_marks.verify_all();
        self.fixed.look_at_all();
        self.tables.touch(self.families.iter().copied());
        (self.is_tightened, self.may_destroy) = (true, true);
    }

    /// These addresses are nobody's any more, though the program is not known yet.
    pub(crate) fn left_early(&mut self, addresses: &[IpAddr]) {
        if let Phase::Adopting { left } = &mut self.phase {
            addresses.iter().for_each(|address| self.address_marks.unassign(*address));
            left.extend(addresses);
        }
    }

    /// Changes of the compiler's, in its order.
    pub(crate) fn change(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            match change {
                Change::CreateSet { set, expected } => {
                    self.sets.create(set, expected);
                    self.tables.touch(self.families.iter().copied());
                }
                Change::Add(set, element) => self.sets.change(set, element, true),
                Change::Remove(set, element) => {
                    self.is_tightened = true;
                    self.sets.change(set, element, false);
                }
                Change::PutClass(id, class) => {
                    self.put_class(id, &class);
                    self.look_at_outdated();
                    self.clear_at = Some(now + CLEARING_DELAY);
                }
                Change::Join(address, class) => self.address_marks.assign(address, class),
                Change::Leave(address) => self.address_marks.unassign(address),
                Change::DropClass(id) => {
                    self.versions.drop_class(id);
                    self.look_at_outdated();
                    self.clear_at = Some(now + CLEARING_DELAY);
                }
                Change::DestroySet(set) => {
                    self.sets.give_up(set);
                    self.may_destroy = true;
                    self.clear_at.get_or_insert(now + CLEARING_DELAY);
                }
            }
        }
    }

    fn put_class(&mut self, id: ClassId, class: &Class) {
        if id == ClassId::OPEN {
            return;
        }
        self.is_tightened |= self.address_marks.has_members(id, &self.versions);
        let (rules, sets) = render::class_rules(id, class, &self.families);
        self.versions.put(id, class.key, rules, sets);
        // A version that was there before may be in force already.
        self.address_marks.came_into_force(&BTreeSet::from([id]));
        self.tables.touch(self.families.iter().copied());
    }

    pub(super) fn look_at_outdated(&mut self) {
        let outdated = self.versions.outdated(&self.address_marks.in_use_of_families());
        self.sets.set_outdated(outdated, self.tables.has_failed());
    }

    /// These are all pools. To `excluded` nothing is masqueraded either.
    pub(crate) fn set_pools(&mut self, pools: &[NatPool], excluded: &BTreeSet<IpAddr>) {
        self.fixed.want_pools(pools, excluded, &self.families);
        self.layout.masquerade = pools.iter().any(|pool| pool.outgoing);
        self.tables.touch(self.families.iter().copied());
    }

    /// This is closed to pods.
    pub(crate) fn set_infrastructure(&mut self, infrastructure: &Infrastructure) {
        self.fixed.want_speakers(infrastructure, &self.families);
        let (ports, own_port) = (infrastructure.speaker_ports(), infrastructure.own_port);
        if (&self.layout.guard.ports, self.layout.guard.own_port) != (&ports, own_port) {
            (self.layout.guard.ports, self.layout.guard.own_port) = (ports, own_port);
            self.tables.touch(self.families.iter().copied());
        }
    }

    /// This node peers with the local endpoint that has this address, or does not.
    pub(crate) fn route_by(&mut self, address: IpAddr, is_router: bool) {
        self.fixed.route_by(address, is_router);
    }

    /// A local endpoint has this address, behind this interface.
    pub(crate) fn local_arrived(&mut self, address: IpAddr, home: LinkName) {
        self.fixed.local_arrived(address, home);
    }

    /// The address is no local endpoint's any more.
    pub(crate) fn local_left(&mut self, address: IpAddr) {
        self.fixed.local_left(address);
    }

    /// These are all ranges of Services' addresses that are announced.
    pub(crate) fn set_services(&mut self, ranges: BTreeSet<Prefix>) {
        if self.layout.services != ranges {
            self.layout.services = ranges;
            self.tables.touch(self.families.iter().copied());
        }
    }

    /// Whether what is dropped is logged.
    pub(crate) fn set_log(&mut self, group: Option<u16>) {
        self.layout.log = group;
        self.tables.touch(self.families.iter().copied());
    }
}
