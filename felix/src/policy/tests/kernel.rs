//! What changes do, as a kernel does it: strict about what must be there, and judging by nothing but rules and sets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use types::policy::{Direction, Protocol};

use crate::policy::Desired;
use crate::policy::program::{Change, Class, ClassId, Element, PeerMatch, PortClause, Rules, SetId, SetShape, Verdict};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) sets: BTreeMap<SetId, BTreeSet<Element>>,
    pub(super) classes: BTreeMap<ClassId, Class>,
    pub(super) joins: BTreeMap<IpAddr, ClassId>,
}

impl Kernel {
    pub(super) fn of(desired: Desired<'_>) -> Self {
        let set = |(id, expected)| {
            let elements: Vec<_> = desired.elements(id).collect();
            let set: BTreeSet<_> = elements.iter().copied().collect();
            assert_eq!((set.len(), elements.len()), (expected, expected), "{id} has each member once, and so many");
            (id, set)
        };
        Self {
            sets: desired.sets().map(set).collect(),
            classes: desired.classes().map(|(id, class)| (id, class.clone())).collect(),
            joins: desired.memberships().collect(),
        }
    }

    pub(super) fn take(&mut self, change: &Change) {
        match change {
            Change::CreateSet { set, .. } => {
                assert!(self.sets.insert(*set, BTreeSet::new()).is_none(), "{set} is created and there");
            }
            Change::Add(set, element) => {
                let members = self.sets.get_mut(set).unwrap_or_else(|| panic!("{set} is not there"));
                match (set.shape(), element) {
                    (SetShape::Addresses, Element::Net(prefix)) => assert!(prefix.is_host()),
                    (SetShape::Nets, Element::Net(prefix)) => {
                        assert!(prefix.len() > 0);
                        let overlaps = |other: &Element| matches!(other, Element::Net(other) if other.overlaps(prefix));
                        assert!(!members.iter().any(overlaps), "{prefix} overlaps in {set}");
                    }
                    (SetShape::Ports, Element::Port(..)) => {}
                    _ => panic!("{element:?} is no member for {set}"),
                }
                assert!(members.insert(*element), "{element:?} is added to {set} and there");
            }
            Change::Remove(set, element) => {
                assert!(self.sets.get_mut(set).unwrap().remove(element), "{element:?} is removed and not in {set}");
            }
            Change::PutClass(id, class) => {
                for rule in class.ingress.as_slice().iter().chain(class.egress.as_slice()) {
                    if let PeerMatch::In(set) | PeerMatch::PortIn(set) = rule.peer {
                        assert!(self.sets.contains_key(&set), "{set} is spoken of and not there");
                        assert_eq!(matches!(rule.peer, PeerMatch::PortIn(_)), set.shape() == SetShape::Ports);
                    }
                }
                self.classes.insert(*id, class.clone());
            }
            Change::Join(address, class) => {
                assert!(self.classes.contains_key(class), "{address} joins {class:?}, which is not there");
                assert_ne!(self.joins.insert(*address, *class), Some(*class), "{address} is there already");
            }
            Change::Leave(address) => assert!(self.joins.remove(address).is_some(), "{address} is in no class"),
            Change::DropClass(class) => {
                assert!(!self.joins.values().any(|joined| joined == class), "{class:?} is dropped with members");
                assert!(self.classes.remove(class).is_some());
            }
            Change::DestroySet(set) => {
                let of = |peer| matches!(peer, PeerMatch::In(other) | PeerMatch::PortIn(other) if other == *set);
                let mut rules = self
                    .classes
                    .values()
                    .flat_map(|class| class.ingress.as_slice().iter().chain(class.egress.as_slice()));
                assert!(!rules.any(|rule| of(rule.peer)), "{set} is destroyed and spoken of");
                assert!(self.sets.remove(set).is_some(), "{set} is destroyed and not there");
            }
        }
    }

    /// What the rules of the class of `own` decide; a packet of an address without a class is dropped.
    pub(super) fn allows(
        &self,
        own: IpAddr,
        direction: Direction,
        other: IpAddr,
        protocol: Option<Protocol>,
        port: u16,
    ) -> bool {
        let Some(class) = self.joins.get(&own).map(|class| &self.classes[class]) else { return false };
        let rules = match direction {
            Direction::Ingress => &class.ingress,
            Direction::Egress => &class.egress,
        };
        let Rules::Only(rules) = rules else { return true };
        let mut next = 0;
        while let Some(rule) = rules.get(next) {
            let fits_peer = match rule.peer {
                PeerMatch::Any => true,
                PeerMatch::In(set) => {
                    let within = |element: &Element| matches!(element, Element::Net(net) if net.contains(other));
                    self.sets[&set].iter().any(within)
                }
                PeerMatch::PortIn(set) => {
                    protocol.is_some_and(|protocol| self.sets[&set].contains(&Element::Port(other, protocol, port)))
                }
            };
            let fits_port = match &rule.port {
                PortClause::Any => true,
                PortClause::All(wanted) => protocol == Some(*wanted),
                PortClause::Ranges(wanted, ranges) => {
                    protocol == Some(*wanted) && ranges.iter().any(|range| range.contains(port))
                }
            };
            next += 1;
            match rule.verdict {
                _ if !fits_peer || !fits_port => {}
                Verdict::Allow => return true,
                Verdict::Deny => return false,
                Verdict::Pass(to) => {
                    assert!(to >= next, "a rule passes backwards");
                    next = to;
                }
            }
        }
        false
    }

    /// The state with classes named by what they are, since their numbers depend on what happened before.
    pub(super) fn by_key(&self) -> ByKey {
        let key = |id: &ClassId| self.classes[id].key.0;
        let name = |set: &SetId| match set {
            SetId::Narrow(class, direction) => format!("{direction} of {}", key(class)),
            set => set.to_string(),
        };
        let rules = |rules: &Rules| {
            let mut text = format!("{rules:?}");
            for id in self.classes.keys() {
                text = text.replace(&format!("{id:?}"), &format!("class {}", key(id)));
            }
            text
        };
        let class = |(id, class): (_, &Class)| (key(id), [rules(&class.ingress), rules(&class.egress)]);
        ByKey {
            sets: self.sets.iter().map(|(set, members)| (name(set), members.clone())).collect(),
            classes: self.classes.iter().map(class).collect(),
            joins: self.joins.iter().map(|(address, class)| (*address, key(class))).collect(),
        }
    }
}

/// See [`Kernel::by_key`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ByKey {
    sets: BTreeMap<String, BTreeSet<Element>>,
    classes: BTreeMap<u64, [String; 2]>,
    joins: BTreeMap<IpAddr, u64>,
}
