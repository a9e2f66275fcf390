//! All that should be in the kernel: the agent compares it with what is there at the start and whenever it is in doubt.

use std::net::IpAddr;

use types::policy::{Direction, Protocol};

use super::classes::ClassState;
use super::compiler::Compiler;
use super::program::{Class, ClassId, Element, PeerMatch, PortClause, Rules, SetId, Verdict};
use super::sets::{Shared, elements};

/// A view of the state that all changes taken so far lead to; it copies nothing.
#[derive(Clone, Copy)]
pub struct Desired<'a> {
    compiler: &'a Compiler,
}

impl Compiler {
    /// The state that all changes lead to which [`Self::take_changes`] has returned: to be asked after it, and before the
    /// next update.
    pub const fn desired(&self) -> Desired<'_> {
        Desired { compiler: self }
    }
}

impl<'a> Desired<'a> {
    /// Every set, with the number of its members.
    pub fn sets(self) -> impl Iterator<Item = (SetId, usize)> + 'a {
        let narrow = self.compiler.classes.iter().flat_map(|(id, class)| {
            Direction::ALL.into_iter().filter_map(move |direction| {
                let set = &class.direction(direction).terms.set;
                set.is_installed().then_some((SetId::Narrow(id, direction), set.len()))
            })
        });
        narrow.chain(self.compiler.sets.installed())
    }

    /// The members of a set, in any order, each once. A set that should not exist has none.
    pub fn elements(self, set: SetId) -> Box<dyn Iterator<Item = Element> + 'a> {
        if let SetId::Narrow(id, direction) = set {
            let class = self.compiler.classes.get(id);
            let narrow = class.map(|class| &class.direction(direction).terms.set).filter(|set| set.is_installed());
            return Box::new(narrow.into_iter().flat_map(|set| set.elements()));
        }
        match self.compiler.sets.shared(set) {
            Some(shared) => elements(shared, self.compiler.view()),
            None => Box::new(std::iter::empty()),
        }
    }

    /// Every class, the open one included.
    pub fn classes(self) -> impl Iterator<Item = (ClassId, &'a Class)> + 'a {
        let installed = |(id, class): (ClassId, &'a ClassState)| Some((id, class.installed.as_ref()?));
        self.compiler
            .open
            .iter()
            .map(|open| (ClassId::OPEN, open))
            .chain(self.compiler.classes.iter().filter_map(installed))
    }

    /// Every address that has a class, with that class.
    pub fn memberships(self) -> impl Iterator<Item = (IpAddr, ClassId)> + 'a {
        self.compiler.memberships.iter().map(|(address, class)| (*address, *class))
    }

    /// The class of an address; none if the address belongs to no endpoint with a class.
    pub fn class_of(self, address: IpAddr) -> Option<ClassId> {
        self.compiler.memberships.get(&address).copied()
    }

    /// What the rules of a class say of a packet to or from another end; denied if there is no such class.
    pub(super) fn allows(
        self,
        class: ClassId,
        direction: Direction,
        other: IpAddr,
        protocol: Option<Protocol>,
        port: u16,
    ) -> bool {
        if class == ClassId::OPEN {
            return true;
        }
        let Some(state) = self.compiler.classes.get(class) else { return false };
        let Rules::Only(rules) = &state.direction(direction).rules else { return true };
        let mut skip_to = 0;
        for (index, rule) in rules.iter().enumerate() {
            let fits_port = match (&rule.port, protocol) {
                (PortClause::Any, _) => true,
                (PortClause::All(wanted), Some(protocol)) => *wanted == protocol,
                (PortClause::Ranges(wanted, ranges), Some(protocol)) => {
                    *wanted == protocol && ranges.iter().any(|range| range.contains(port))
                }
                (PortClause::All(_) | PortClause::Ranges(..), None) => false,
            };
            if index < skip_to || !fits_port || !self.fits(rule.peer, other, protocol, port) {
                continue;
            }
            match rule.verdict {
                Verdict::Allow => return true,
                Verdict::Deny => return false,
                Verdict::Pass(to) => skip_to = to,
            }
        }
        false
    }

    fn fits(self, peer: PeerMatch, other: IpAddr, protocol: Option<Protocol>, port: u16) -> bool {
        let compiler = self.compiler;
        let has = |shared: Option<Shared>| match (shared, protocol) {
            (Some(Shared::Selector(id)), _) => compiler.peers.get(id).is_some_and(|selector| {
                selector.admits(other) && compiler.world.owners(other).any(|owner| selector.members.contains(owner))
            }),
            (Some(Shared::Block(id)), _) => {
                compiler.blocks.get(id).is_some_and(|block| block.prefixes.iter().any(|prefix| prefix.contains(other)))
            }
            (Some(Shared::Named(id, wanted, name)), Some(protocol)) => {
                let has_port = |owner: u32| {
                    let endpoint = compiler.world.get(owner);
                    endpoint.is_some_and(|endpoint| endpoint.numbers(protocol, name).any(|number| number == port))
                };
                wanted == protocol
                    && compiler.peers.get(id).is_some_and(|selector| {
                        selector.admits(other)
                            && compiler
                                .world
                                .owners(other)
                                .any(|owner| selector.members.contains(owner) && has_port(owner))
                    })
            }
            (Some(Shared::Named(..)), None) | (None, _) => false,
        };
        match peer {
            PeerMatch::Any => true,
            PeerMatch::PortIn(SetId::Narrow(class, direction)) => protocol.is_some_and(|protocol| {
                let class = compiler.classes.get(class);
                class.is_some_and(|class| class.direction(direction).terms.set.contains(other, protocol, port))
            }),
            PeerMatch::In(set) | PeerMatch::PortIn(set) => has(compiler.sets.shared(set)),
        }
    }
}
