//! How much of what was told is in force.

use std::net::IpAddr;

use super::State;
use crate::policy::program::Element;

/// How it stands.
impl State {
    /// Whether the kernel enforces what the compiler wants for these addresses: they are mapped to their class, whose chains
    /// are in force, and no membership of theirs waits.
    pub(crate) fn is_in_force(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().all(|address| self.address_marks.is_settled(*address, &self.versions))
            && !self.sets.holds(|element| {
                addresses.contains(&match element {
                    Element::Net(prefix) => prefix.addr(),
                    Element::Port(address, ..) => *address,
                })
            })
    }

    /// Whether everything told so far is in force.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_enforcing()
            && self.versions.is_settled(&self.families)
            && self.address_marks.are_settled(&self.versions, &self.families)
            && !self.sets.holds(|_| true)
    }

    /// Whether something was tightened, and how far it is in force. What is in force is told once.
    pub(crate) fn tightened(&mut self) -> Option<Tightened> {
        match (self.is_tightened, self.is_settled()) {
            (false, _) => None,
            (true, false) => Some(Tightened::InPart),
            (true, true) => {
                self.is_tightened = false;
                Some(Tightened::Whole)
            }
        }
    }

    /// Classes for which the mark has no room.
    pub(crate) fn without_number(&self) -> usize {
        self.versions.without_number()
    }

    /// Classes, rules and mapped addresses.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            classes: self.versions.class_count(),
            rules: self.tables.rule_count(),
            addresses: self.address_marks.count(),
        }
    }
}

/// See [`State::tightened`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tightened {
    /// Something that was told is not in the kernel yet.
    InPart,
    /// All that was told is.
    Whole,
}

/// See [`State::counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) classes: usize,
    pub(crate) rules: usize,
    pub(crate) addresses: usize,
}
