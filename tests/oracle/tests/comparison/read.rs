//! The judge against the model that documents are read into, judged as its own words say: so that a document that is read
//! wrongly is told from a policy that is compiled wrongly.

use std::cell::Cell;

use oracle::generate::{self, PORTS};
use oracle::{Direction, Exemptions, Packet, Probe, World, handover, judge};
use types::policy::{
    Action, EndpointSelector, NamespaceSelector, Peer, Peers, Policy, PortMatch, Ports, Rule, network_policy,
};

#[test]
fn documents_are_read_as_the_specification_means_them() {
    let (probes, denied) = (Cell::new(0_usize), Cell::new(0_usize));
    generate::check("documents", 150, &generate::world(8), |world| {
        let policies: Vec<_> =
            world.policies.iter().map(|(name, spec)| network_policy(&name.namespace, spec).0).collect();
        for probe in Probe::all(world, &PORTS) {
            let expected = judge(world, &probe.packet, NO_EXEMPTION);
            probes.set(probes.get() + 1);
            denied.set(denied.get() + usize::from(!expected.allowed));
            for (direction, side) in [(Direction::Egress, &expected.egress), (Direction::Ingress, &expected.ingress)] {
                let actual = allows(world, &policies, &probe.packet, direction);
                if actual != side.allowed {
                    let Probe { from, to, packet } = &probe;
                    return Err(format!(
                        "{from} -> {to}: {packet}: {direction} is {actual}, should not be: {}",
                        side.why
                    ));
                }
            }
        }
        Ok(())
    });
    let (probes, denied) = (probes.get(), denied.get());
    assert!(probes >= 100_000, "only {probes} packets");
    assert!((probes / 5..probes / 5 * 4).contains(&denied), "{denied} of {probes} denied: the worlds are too plain");
}

const NO_EXEMPTION: Exemptions = Exemptions { from_own_node: false, to_own_node: false, itself: false };

fn allows(world: &World, policies: &[Policy], packet: &Packet, direction: Direction) -> bool {
    let (own, other, word) = match direction {
        Direction::Ingress => (packet.destination, packet.source, types::policy::Direction::Ingress),
        Direction::Egress => (packet.source, packet.destination, types::policy::Direction::Egress),
    };
    if world.pod_at(own).is_none() {
        return true;
    }
    let mut governing = policies
        .iter()
        .filter(|policy| selects(world, &policy.subject, own))
        .filter_map(|policy| policy.rules(word))
        .peekable();
    governing.peek().is_none()
        || governing.flatten().any(|rule| rule.action == Action::Allow && fits(world, rule, packet, other))
}

fn selects(world: &World, selector: &EndpointSelector, address: std::net::IpAddr) -> bool {
    world.pod_at(address).is_some_and(|(name, pod)| {
        let namespace = match &selector.namespaces {
            NamespaceSelector::Named(named) => *named == name.namespace,
            NamespaceSelector::Labelled(selector) => {
                world.namespaces.get(&name.namespace).is_some_and(|labels| selector.matches(labels))
            }
        };
        namespace && selector.endpoints.matches(&pod.labels)
    })
}

fn fits(world: &World, rule: &Rule, packet: &Packet, other: std::net::IpAddr) -> bool {
    let peer = |peer: &Peer| match peer {
        Peer::Endpoints(selector) => selects(world, selector, other),
        Peer::Block { cidr, except } => cidr.contains(other) && !except.iter().any(|hole| hole.contains(other)),
    };
    let protocol = handover::protocol(packet.protocol);
    let port = |port: &PortMatch| match port {
        PortMatch::All(wanted) => protocol == Some(*wanted),
        PortMatch::Range(wanted, range) => protocol == Some(*wanted) && range.contains(packet.port),
        PortMatch::Named(wanted, name) => {
            let named = |(_, pod): (_, &oracle::Pod)| {
                handover::ports(pod)
                    .iter()
                    .any(|has| has.name == *name && has.protocol == *wanted && has.port == packet.port)
            };
            protocol == Some(*wanted) && world.pod_at(packet.destination).is_some_and(named)
        }
    };
    let peers = match &rule.peers {
        Peers::Any => true,
        Peers::Only(peers) => peers.iter().any(peer),
    };
    let ports = match &rule.ports {
        Ports::Any => true,
        Ports::Only(ports) => ports.iter().any(port),
    };
    peers && ports
}
