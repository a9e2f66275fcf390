//! Generates namespaces, nodes, pods and hosts outside of the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::{Labels, NamedPort, Phase, Pod, PodName, Protocol, World};

/// The names that namespaces may have.
pub const NAMESPACES: [&str; 3] = ["x", "y", "z"];

/// The names that pods of each namespace may have.
pub const POD_NAMES: [&str; 3] = ["a", "b", "c"];

/// The nodes with their addresses of both families.
pub const NODES: [(&str, [IpAddr; 2]); 2] = [
    ("n1", [v4([192, 168, 0, 1]), v6(0xfd00_0001_0000_0000_0000_0000_0000_0001)]),
    ("n2", [v4([192, 168, 0, 2]), v6(0xfd00_0001_0000_0000_0000_0000_0000_0002)]),
];

/// The hosts outside: one next to the pods' addresses, one far away.
pub const EXTERNALS: [(&str, [IpAddr; 2]); 2] = [
    ("near", [v4([10, 65, 0, 13]), v6(0xfd00_0065_0000_0000_0000_0000_0000_000d)]),
    ("far", [v4([203, 0, 113, 5]), v6(0x2001_0db8_0000_0000_0000_0000_0000_0005)]),
];

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}

/// The addresses of the pod in a slot: `10.65.0.4` and onwards, so that blocks of every length end between two of them.
fn addresses(slot: usize) -> [IpAddr; 2] {
    let host = u8::try_from(slot).unwrap_or(u8::MAX).saturating_add(4);
    [v4([10, 65, 0, host]), v6(0xfd00_0065_0000_0000_0000_0000_0000_0000 | u128::from(host))]
}

/// The place of a pod among all pods that may exist.
pub(super) fn slot(name: &PodName) -> usize {
    let place = |names: &[&str], name: &str| names.iter().position(|known| *known == name).unwrap_or(0);
    place(&NAMESPACES, &name.namespace) * POD_NAMES.len() + place(&POD_NAMES, &name.name)
}

/// Generates a world without policies.
pub(super) fn people() -> impl Strategy<Value = World> {
    let pods: Vec<_> = NAMESPACES
        .iter()
        .flat_map(|namespace| POD_NAMES.iter().map(|name| PodName::new(namespace, name)))
        .map(|name| option::weighted(0.75, pod(&name)).prop_map(move |pod| pod.map(|pod| (name.clone(), pod))))
        .collect();
    let namespaces: Vec<_> = NAMESPACES.iter().map(|name| namespace_labels(name)).collect();
    (pods, namespaces).prop_map(|(pods, namespaces)| {
        let both = |(name, addresses): (&str, [IpAddr; 2])| (name.to_owned(), addresses.to_vec());
        World {
            namespaces: NAMESPACES.iter().map(|name| (*name).to_owned()).zip(namespaces).collect(),
            nodes: NODES.into_iter().map(both).collect(),
            pods: pods.into_iter().flatten().collect(),
            externals: EXTERNALS.into_iter().map(both).collect(),
            policies: BTreeMap::new(),
        }
    })
}

/// Generates a pod of this name: most run with both families; a few have one, none, have ended, or are in the host's
/// network.
pub fn pod(name: &PodName) -> impl Strategy<Value = Pod> + use<> {
    let both = addresses(slot(name));
    let families = prop_oneof![
        10 => Just(both.to_vec()),
        1 => Just(both.iter().take(1).copied().collect()),
        1 => Just(both.iter().skip(1).copied().collect()),
        1 => Just(Vec::new()),
    ];
    let phase = prop_oneof![
        12 => Just(Phase::Running),
        1 => Just(Phase::Pending),
        1 => Just(Phase::Succeeded),
        1 => Just(Phase::Failed),
    ];
    let host_network = prop_oneof![15 => Just(false), 1 => Just(true)];
    (pod_labels(), select(&NODES[..]), families, named_ports(), phase, host_network).prop_map(
        |(labels, (node, of_node), addresses, ports, phase, host_network)| Pod {
            labels,
            node: node.to_owned(),
            addresses: if host_network { of_node.to_vec() } else { addresses },
            ports,
            phase,
            host_network,
        },
    )
}

/// Generates the labels of a pod: two keys with two values, so that many pods look alike.
pub(super) fn pod_labels() -> impl Strategy<Value = Labels> {
    (option::weighted(0.7, select(&["1", "2"][..])), option::weighted(0.4, select(&["1", "2"][..])))
        .prop_map(|(p, q)| labels([("p", p), ("q", q)]))
}

/// Generates the labels of a namespace; one of the keys is also one of pods.
pub(super) fn namespace_labels(name: &str) -> impl Strategy<Value = Labels> + use<> {
    let name = name.to_owned();
    (option::weighted(0.6, select(&["1", "2"][..])), option::weighted(0.3, select(&["1", "2"][..])))
        .prop_map(move |(t, p)| labels([("t", t), ("p", p), ("kubernetes.io/metadata.name", Some(name.as_str()))]))
}

fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Labels {
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
}

/// Generates named ports: the same name has other numbers on other pods, is of two protocols, or stands twice on one
/// pod.
pub(super) fn named_ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let port = (select(&["http", "alt"][..]), select(&Protocol::ALL[..3]), select(&[80_u16, 81, 8080][..]));
    vec(port.prop_map(|(name, protocol, number)| NamedPort { name: name.to_owned(), protocol, number }), 0..=3)
}
