//! What the compiler's output means: sets, classes and joins, kept as a backend would keep them, and asked about packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use felix::policy::program::{
    Change, Class, ClassId, ClassRule, Element, PeerMatch, PortClause, Rules, SetId, SetShape, Verdict,
};
use oracle::{Direction, Packet, handover};

/// The state that the compiler's changes have brought into force on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) sets: BTreeMap<SetId, BTreeSet<Element>>,
    pub(crate) classes: BTreeMap<ClassId, Class>,
    pub(crate) joins: BTreeMap<IpAddr, ClassId>,
}

impl Program {
    /// Carries out a step, and refuses one that a kernel would refuse or that contradicts what is in force.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), String> {
        let fault = |what: &str| Err(format!("{what}: {change:?}"));
        match change {
            Change::CreateSet { set, .. } => {
                if self.sets.insert(*set, BTreeSet::new()).is_some() {
                    return fault("the set is there already");
                }
            }
            Change::Add(set, element) => {
                check_shape(*set, element)?;
                let Some(members) = self.sets.get_mut(set) else { return fault("no such set") };
                if !members.insert(*element) {
                    return fault("the member is there already");
                }
            }
            Change::Remove(set, element) => {
                let Some(members) = self.sets.get_mut(set) else { return fault("no such set") };
                if !members.remove(element) {
                    return fault("no such member");
                }
            }
            Change::PutClass(id, class) => {
                if let Some(missing) = sets_of(class).find(|set| !self.sets.contains_key(set)) {
                    return fault(&format!("set {missing} is not there"));
                }
                self.classes.insert(*id, class.clone());
            }
            Change::Join(address, class) => {
                if !self.classes.contains_key(class) {
                    return fault("no such class");
                }
                self.joins.insert(*address, *class);
            }
            Change::Leave(address) => {
                if self.joins.remove(address).is_none() {
                    return fault("the address is in no class");
                }
            }
            Change::DropClass(id) => {
                if self.joins.values().any(|class| class == id) {
                    return fault("somebody is in the class");
                }
                if self.classes.remove(id).is_none() {
                    return fault("no such class");
                }
            }
            Change::DestroySet(set) => {
                if self.classes.values().any(|class| sets_of(class).any(|used| used == *set)) {
                    return fault("a class speaks of the set");
                }
                if self.sets.remove(set).is_none() {
                    return fault("no such set");
                }
            }
        }
        Ok(())
    }

    /// Whether an end of a packet lets it pass; none if the end's address has no class, so that a pod there has no
    /// network.
    pub(crate) fn allows(&self, packet: &Packet, direction: Direction) -> Option<bool> {
        let (own, other) = match direction {
            Direction::Ingress => (packet.destination, packet.source),
            Direction::Egress => (packet.source, packet.destination),
        };
        let class = self.classes.get(self.joins.get(&own)?)?;
        let rules = match direction {
            Direction::Ingress => &class.ingress,
            Direction::Egress => &class.egress,
        };
        let Rules::Only(rules) = rules else { return Some(true) };
        let mut next = 0;
        while let Some(rule) = rules.get(next) {
            next += 1;
            if self.fits(rule, packet, other) {
                match rule.verdict {
                    Verdict::Allow => return Some(true),
                    Verdict::Deny => return Some(false),
                    Verdict::Pass(to) => next = to.max(next),
                }
            }
        }
        Some(false)
    }

    fn fits(&self, rule: &ClassRule, packet: &Packet, other: IpAddr) -> bool {
        let protocol = handover::protocol(packet.protocol);
        let port = match &rule.port {
            PortClause::Any => true,
            PortClause::All(wanted) => protocol == Some(*wanted),
            PortClause::Ranges(wanted, ranges) => {
                protocol == Some(*wanted)
                    && ranges.iter().any(|range| (range.first()..=range.last()).contains(&packet.port))
            }
        };
        let members = |set: &SetId| self.sets.get(set).into_iter().flatten();
        let peer = match &rule.peer {
            PeerMatch::Any => true,
            PeerMatch::In(set) => members(set).any(|member| match member {
                Element::Net(net) => {
                    oracle::Cidr::of(net.addr(), u32::from(net.len())).is_some_and(|net| net.contains(other))
                }
                Element::Port(..) => false,
            }),
            PeerMatch::PortIn(set) => members(set).any(|member| match member {
                Element::Port(address, wanted, port) => {
                    (*address, Some(*wanted), *port) == (other, protocol, packet.port)
                }
                Element::Net(_) => false,
            }),
        };
        port && peer
    }

    /// Checks what holds between any two lists of changes: no set is left over, prefixes of a block do not overlap,
    /// ports are in order and do not touch.
    pub(crate) fn check(&self) -> Result<(), String> {
        for set in self.sets.keys() {
            let of_class = matches!(set, SetId::Narrow(class, _) if self.classes.contains_key(class));
            if !of_class && !self.classes.values().any(|class| sets_of(class).any(|used| used == *set)) {
                return Err(format!("no class speaks of set {set}"));
            }
        }
        for (set, members) in &self.sets {
            let nets: Vec<_> = members
                .iter()
                .filter_map(|member| match member {
                    Element::Net(net) => oracle::Cidr::of(net.addr(), u32::from(net.len())),
                    Element::Port(..) => None,
                })
                .collect();
            for (index, net) in nets.iter().enumerate() {
                if let Some(other) = nets.iter().skip(index + 1).find(|other| net.overlaps(other)) {
                    return Err(format!("{net} and {other} of set {set} overlap"));
                }
            }
        }
        for rule in self.classes.values().flat_map(|class| [&class.ingress, &class.egress]).flat_map(of_rules) {
            if let PortClause::Ranges(_, ranges) = &rule.port
                && (ranges.is_empty() || ranges.windows(2).any(|pair| pair[0].last() >= pair[1].first()))
            {
                return Err(format!("ports are not in order and apart: {rule:?}"));
            }
        }
        Ok(())
    }
}

fn check_shape(set: SetId, element: &Element) -> Result<(), String> {
    let fits = match (set.shape(), element) {
        (SetShape::Addresses, Element::Net(net)) => net.is_host(),
        (SetShape::Nets, Element::Net(net)) => net.len() > 0,
        (SetShape::Ports, Element::Port(..)) => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{element:?} is no member for {set}")) }
}

fn of_rules(rules: &Rules) -> &[ClassRule] {
    match rules {
        Rules::Open => &[],
        Rules::Only(rules) => rules,
    }
}

fn sets_of(class: &Class) -> impl Iterator<Item = SetId> {
    let rules = of_rules(&class.ingress).iter().chain(of_rules(&class.egress));
    rules.filter_map(|rule| match rule.peer {
        PeerMatch::Any => None,
        PeerMatch::In(set) | PeerMatch::PortIn(set) => Some(set),
    })
}
