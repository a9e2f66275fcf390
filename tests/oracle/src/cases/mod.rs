//! Named cases: what the conformance suites of Kubernetes ask of a network, and the corners that they leave out, each with the
//! table that a person expects. The judge is held against them here; a kernel can be as well.

mod egress;
mod ingress;
mod life;
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::generate::{Change, EXTERNALS, NODES};
use crate::table::Probe;
use crate::world::{Labels, NamedPort, Phase, Pod, PodName, PolicyName, Protocol, World};

/// A named case: what happens, and the expected table after each stage.
#[derive(Debug, Clone)]
pub struct Case {
    /// What the case shows.
    pub name: &'static str,
    /// What happens to [`world`] in each stage, one after the other.
    pub stages: Vec<Stage>,
}

/// One stage of a case.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What happens in this stage.
    pub changes: Vec<Change>,
    /// Which probes get through after it.
    pub reach: Reach,
}

/// Every case, of all four files.
pub fn cases() -> Vec<Case> {
    [ingress::cases(), egress::cases(), ports::cases(), life::cases()].concat()
}

/// The protocols and ports that every pair is asked about.
pub const ALL: &[(Protocol, u16)] = &[
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Udp, 80),
    (Protocol::Udp, 81),
    (Protocol::Sctp, 80),
    (Protocol::Sctp, 81),
    (Protocol::Icmp, 0),
];
const TCP: &[(Protocol, u16)] = &[(Protocol::Tcp, 80), (Protocol::Tcp, 81)];
const TCP_80: &[(Protocol, u16)] = &[(Protocol::Tcp, 80)];
const TCP_81: &[(Protocol, u16)] = &[(Protocol::Tcp, 81)];
const UDP: &[(Protocol, u16)] = &[(Protocol::Udp, 80), (Protocol::Udp, 81)];
const UDP_80: &[(Protocol, u16)] = &[(Protocol::Udp, 80)];
const SCTP: &[(Protocol, u16)] = &[(Protocol::Sctp, 80), (Protocol::Sctp, 81)];
const SCTP_80: &[(Protocol, u16)] = &[(Protocol::Sctp, 80)];

/// Pods a, b and c in each of the namespaces x, y and z, on two nodes so that each has neighbours on both. Pods have the label
/// `pod`, namespaces `ns`; each pod names its ports 80 and 81, c the other way round.
pub fn world() -> World {
    let mut world = World::default();
    let both = |(name, addresses): (&str, [IpAddr; 2])| (name.to_owned(), addresses.to_vec());
    world.nodes = NODES.into_iter().map(both).collect();
    world.externals = EXTERNALS.into_iter().map(both).collect();
    for (row, namespace) in ["x", "y", "z"].into_iter().enumerate() {
        let labels = labels(&[("ns", namespace), ("kubernetes.io/metadata.name", namespace)]);
        world.namespaces.insert(namespace.to_owned(), labels);
        for (column, name) in ["a", "b", "c"].into_iter().enumerate() {
            let node = if (row + column).is_multiple_of(2) { "n1" } else { "n2" };
            world.pods.insert(PodName::new(namespace, name), pod(3 * row + column, name, node));
        }
    }
    world
}

fn pod(slot: usize, name: &str, node: &str) -> Pod {
    let host = u8::try_from(slot).unwrap_or(u8::MAX).saturating_add(4);
    let numbers = if name == "c" { [81, 80] } else { [80, 81] };
    let ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().flat_map(|protocol| {
        ["serve-80", "serve-81"].into_iter().zip(numbers).map(move |(port, number)| NamedPort {
            name: format!("{port}-{}", protocol.to_string().to_lowercase()),
            protocol,
            number,
        })
    });
    Pod {
        labels: labels(&[("pod", name)]),
        node: node.to_owned(),
        addresses: vec![
            IpAddr::V4(Ipv4Addr::new(10, 65, 0, host)),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0x65, 0, 0, 0, 0, 0, u16::from(host))),
        ],
        ports: ports.collect(),
        phase: Phase::Running,
        host_network: false,
    }
}

/// An expected table: it says which pods are isolated, and what is let through to or from them all the same. Patterns:
/// `x/a`, `x/*`, `*/a`, `*/*` for all pods, `*` for every party, `n1` for a node, `far` for a host outside.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    isolated: Vec<Isolated>,
}

#[derive(Debug, Clone)]
struct Isolated {
    pods: &'static str,
    incoming: bool,
    admitted: Vec<(&'static str, &'static [(Protocol, u16)])>,
}

impl Reach {
    /// A table in which every party reaches every other.
    pub fn open() -> Self {
        Self::default()
    }

    /// Isolates `pods` for ingress, except what is admitted: these other parties on these ports.
    fn into(self, pods: &'static str, admitted: &[(&'static str, &'static [(Protocol, u16)])]) -> Self {
        self.isolate(pods, true, admitted)
    }

    /// Isolates `pods` for egress, except what is admitted: these other parties on these ports of theirs.
    fn out(self, pods: &'static str, admitted: &[(&'static str, &'static [(Protocol, u16)])]) -> Self {
        self.isolate(pods, false, admitted)
    }

    fn isolate(
        mut self,
        pods: &'static str,
        incoming: bool,
        admitted: &[(&'static str, &'static [(Protocol, u16)])],
    ) -> Self {
        self.isolated.push(Isolated { pods, incoming, admitted: admitted.to_vec() });
        self
    }

    /// Whether a probe of [`world`] is expected to get through. Between a pod and its own node everything is.
    pub fn lets(&self, world: &World, probe: &Probe) -> bool {
        let pod_on =
            |pod: &str, node: &str| world.pods.iter().any(|(name, has)| name.to_string() == pod && has.node == node);
        if pod_on(&probe.from, &probe.to) || pod_on(&probe.to, &probe.from) {
            return true;
        }
        self.isolated.iter().all(|isolated| {
            let (own, other) = match isolated.incoming {
                true => (&probe.to, &probe.from),
                false => (&probe.from, &probe.to),
            };
            !fits(isolated.pods, own)
                || isolated.admitted.iter().any(|(others, ports)| {
                    fits(others, other) && ports.contains(&(probe.packet.protocol, probe.packet.port))
                })
        })
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.split_once('/'), name.split_once('/')) {
        _ if pattern == "*" => true,
        (Some((namespaces, pods)), Some((namespace, pod))) => {
            (namespaces == "*" || namespaces == namespace) && (pods == "*" || pods == pod)
        }
        _ => pattern == name,
    }
}

/// A case with one stage.
fn case(name: &'static str, policies: &[(&str, Value)], reach: Reach) -> Case {
    Case { name, stages: vec![stage(puts(policies), reach)] }
}

/// A case with several stages.
fn story(name: &'static str, stages: Vec<Stage>) -> Case {
    Case { name, stages }
}

fn stage(changes: Vec<Change>, reach: Reach) -> Stage {
    Stage { changes, reach }
}

/// The change that sets these policies, given by namespace; each is named by its place in the list.
fn puts(policies: &[(&str, Value)]) -> Vec<Change> {
    let put = |(index, (namespace, spec)): (usize, &(&str, Value))| put(namespace, index, spec.clone());
    policies.iter().enumerate().map(put).collect()
}

fn put(namespace: &str, index: usize, spec: Value) -> Change {
    Change::PutPolicy(PolicyName::new(namespace, &format!("p{index}")), spec)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Exemptions, judge};

    #[test]
    fn the_judge_says_of_every_named_case_what_a_person_expects() {
        let mut asked = 0;
        for case in cases() {
            let mut world = world();
            for (index, stage) in case.stages.iter().enumerate() {
                stage.changes.iter().for_each(|change| change.apply(&mut world));
                for probe in Probe::all(&world, ALL) {
                    let verdict = judge(&world, &probe.packet, Exemptions::default());
                    let expected = stage.reach.lets(&world, &probe);
                    assert_eq!(
                        verdict.allowed, expected,
                        "{}, stage {index}: {} -> {}: {}: {verdict}\n{world}",
                        case.name, probe.from, probe.to, probe.packet
                    );
                    asked += 1;
                }
            }
        }
        assert!(asked > 100_000, "only {asked} probes");
    }

    #[test]
    fn names_of_cases_are_their_own() {
        let names: Vec<_> = cases().iter().map(|case| case.name).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
        assert!(names.len() >= 48, "{} cases", names.len());
    }
}
