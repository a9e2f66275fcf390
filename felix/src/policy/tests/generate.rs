//! Generated worlds that are so small that everything in them meets everything else.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use types::policy::{
    Action, Direction, EndpointSelector, LabelSelector, Labels, NamespaceSelector, Operator, Peer, Peers, Policy,
    PolicyId, PolicyKind, PortMatch, PortRange, Ports, Protocol, Requirement, Rule, Tier, TierEnd,
};
use types::{EndpointId, EndpointPort, NamespacedName, Prefix, Update};

use super::world::{Event, Probe};
use crate::policy::{EndpointFacts, PolicyUpdate, RemoteKey};

/// Which policies a generated world may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Policies that a `NetworkPolicy` can express.
    NetworkPolicies,
    /// The same policies in a single namespace, so that endpoints often share a class and part again.
    OneNamespace,
    /// Every policy that the model can express.
    All,
}

impl Kinds {
    /// How many namespaces the endpoints are spread over.
    const fn namespaces(self) -> u8 {
        match self {
            Self::OneNamespace => 1,
            Self::NetworkPolicies | Self::All => 3,
        }
    }
}

const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "10.0.0.0/30",
    "10.0.0.2/31",
    "10.0.0.3/32",
    "192.0.2.0/24",
    "fd00::/126",
    "fd00::2/128",
];
const OUTSIDE: [&str; 3] = ["192.0.2.7", "10.9.9.9", "2001:db8::1"];
const PORTS: [(Option<Protocol>, u16); 7] = [
    (Some(Protocol::Tcp), 80),
    (Some(Protocol::Tcp), 81),
    (Some(Protocol::Tcp), 9000),
    (Some(Protocol::Udp), 80),
    (Some(Protocol::Udp), 53),
    (Some(Protocol::Sctp), 80),
    (None, 0),
];

/// Every packet that the properties ask about.
pub(super) fn probes() -> Vec<Probe> {
    let addresses: Vec<IpAddr> =
        (0..6).flat_map(both).chain(OUTSIDE.iter().map(|text| text.parse().unwrap())).collect();
    let own = (0..3).flat_map(both);
    let mut probes = Vec::new();
    for own in own {
        for other in addresses.iter().copied().filter(|other| other.is_ipv4() == own.is_ipv4() && *other != own) {
            for direction in Direction::ALL {
                probes.extend(PORTS.map(|(protocol, port)| Probe { own, direction, other, protocol, port }));
            }
        }
    }
    probes
}

/// Both addresses of the endpoint with this number; this node's endpoints are 0, 1 and 2.
pub(super) fn both(number: u8) -> [IpAddr; 2] {
    [IpAddr::from([10, 0, 0, number]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number.into()])]
}

pub(super) fn local_id(number: u8) -> EndpointId {
    format!("manx/{:064x}/eth0", number).parse().unwrap()
}

pub(super) fn remote_key(number: u8) -> RemoteKey {
    // One container id is not hexadecimal, since such ids are stored in another form.
    let container = if number == 0 { "plain-name".to_owned() } else { format!("{number:064x}") };
    RemoteKey {
        node: format!("node{}", number % 2).parse().unwrap(),
        id: format!("manx/{container}/eth0").parse().unwrap(),
    }
}

pub(super) fn policy_id(number: u8) -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "n0".to_owned(), name: format!("p{number}") }
}

/// Generates a sequence of events, `most` at the longest.
pub(super) fn events(kinds: Kinds, most: usize) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(kinds), 1..most)
}

fn event(kinds: Kinds) -> impl Strategy<Value = Event> {
    let update = |update| Event::Update(update);
    prop_oneof![
        8 => (0..5_u8, policy(kinds)).prop_map(move |(number, policy)| {
            update(PolicyUpdate::Policy(Update::Set(policy_id(number), Arc::new(policy))))
        }),
        2 => (0..5_u8).prop_map(move |number| update(PolicyUpdate::Policy(Update::Delete(policy_id(number))))),
        3 => (0..3_u8, labels()).prop_map(move |(number, labels)| {
            update(PolicyUpdate::Namespace(Update::Set(format!("n{number}"), labels)))
        }),
        1 => (0..3_u8).prop_map(move |number| update(PolicyUpdate::Namespace(Update::Delete(format!("n{number}"))))),
        6 => (0..5_u8, facts(kinds, 1..6)).prop_map(move |(number, facts)| {
            update(PolicyUpdate::Remote(Update::Set(remote_key(number), facts)))
        }),
        2 => (0..5_u8).prop_map(move |number| update(PolicyUpdate::Remote(Update::Delete(remote_key(number))))),
        6 => (0..3_u8, facts(kinds, 0..1), any::<bool>()).prop_map(move |(number, facts, dual)| {
            // No two endpoints of this node share an address, but now and then another node claims one of them.
            let addresses = both(number).into_iter().take(if dual { 2 } else { 1 }).collect();
            Event::SetLocal(local_id(number), EndpointFacts { addresses, ..facts })
        }),
        1 => (0..3_u8).prop_map(|number| Event::RemoveLocal(local_id(number))),
        1 => (0..2_u8, facts(kinds, 0..1)).prop_map(move |(number, facts)| {
            let key = NamespacedName { namespace: "n0".to_owned(), name: format!("e{number}") };
            update(PolicyUpdate::Expected(Update::Set(key, facts)))
        }),
        1 => (0..2_u8).prop_map(move |number| {
            let key = NamespacedName { namespace: "n0".to_owned(), name: format!("e{number}") };
            update(PolicyUpdate::Expected(Update::Delete(key)))
        }),
    ]
}

fn facts(kinds: Kinds, addresses: std::ops::Range<u8>) -> impl Strategy<Value = EndpointFacts> {
    let ports = prop::collection::vec((0..2_u8, 0..2_u8, prop::sample::select(vec![80_u16, 81, 53])), 0..3);
    let addresses = prop::collection::vec((addresses, any::<bool>()), 1..3);
    (0..kinds.namespaces(), labels(), ports, addresses, prop::bool::weighted(0.1)).prop_map(
        |(namespace, labels, ports, addresses, finished)| EndpointFacts {
            namespace: format!("n{namespace}"),
            name: "pod".to_owned(),
            labels,
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| EndpointPort {
                    name: port_name(name),
                    protocol: Protocol::ALL[usize::from(protocol)],
                    port,
                })
                .collect(),
            addresses: addresses.into_iter().map(|(number, v6)| both(number)[usize::from(v6)]).collect(),
            finished,
        },
    )
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[ab]", "[xy]", 0..3)
}

fn port_name(number: u8) -> String {
    ["http", "dns"][usize::from(number)].to_owned()
}

fn label_selector() -> impl Strategy<Value = LabelSelector> {
    let operator = prop::sample::select(vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
    let requirement = ("[ab]", operator, prop::collection::vec("[xy]", 0..3))
        .prop_map(|(key, operator, values)| Requirement { key, operator, values });
    prop_oneof![
        2 => Just(LabelSelector::default()),
        4 => ("[ab]", "[xy]").prop_map(|pair| LabelSelector {
            match_labels: Labels::from([pair]),
            match_expressions: Vec::new(),
        }),
        3 => (prop::collection::btree_map("[ab]", "[xy]", 0..2), prop::collection::vec(requirement, 0..3))
            .prop_map(|(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions }),
        1 => (0..3_u8).prop_map(|number| LabelSelector {
            match_labels: Labels::from([("kubernetes.io/metadata.name".to_owned(), format!("n{number}"))]),
            match_expressions: Vec::new(),
        }),
    ]
}

fn selector() -> impl Strategy<Value = EndpointSelector> {
    let namespaces = prop_oneof![
        (0..3_u8).prop_map(|number| NamespaceSelector::Named(format!("n{number}"))),
        label_selector().prop_map(NamespaceSelector::Labelled),
    ];
    (namespaces, label_selector()).prop_map(|(namespaces, endpoints)| EndpointSelector { namespaces, endpoints })
}

fn peer() -> impl Strategy<Value = Peer> {
    let prefix = || prop::sample::select(PREFIXES.to_vec()).prop_map(|text| text.parse::<Prefix>().unwrap());
    prop_oneof![
        3 => selector().prop_map(Peer::Endpoints),
        2 => (prefix(), prop::collection::vec(prefix(), 0..3)).prop_map(|(cidr, except)| Peer::Block { cidr, except }),
    ]
}

fn port() -> impl Strategy<Value = PortMatch> {
    let protocol = || prop::sample::select(Protocol::ALL.to_vec());
    let number = || prop::sample::select(vec![53_u16, 80, 81, 9000]);
    prop_oneof![
        1 => protocol().prop_map(PortMatch::All),
        4 => (protocol(), number()).prop_map(|(protocol, port)| PortMatch::Range(protocol, PortRange::single(port))),
        2 => (protocol(), number(), number()).prop_map(|(protocol, a, b)| {
            PortMatch::Range(protocol, PortRange::new(a.min(b), a.max(b)).unwrap())
        }),
        3 => (protocol(), 0..2_u8).prop_map(|(protocol, name)| PortMatch::Named(protocol, port_name(name))),
    ]
}

fn rule(kinds: Kinds) -> impl Strategy<Value = Rule> {
    let actions = match kinds {
        Kinds::NetworkPolicies | Kinds::OneNamespace => vec![Action::Allow],
        Kinds::All => vec![Action::Allow, Action::Deny, Action::Pass],
    };
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        4 => prop::collection::vec(peer(), 0..3).prop_map(Peers::Only),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Any),
        3 => prop::collection::vec(port(), 0..3).prop_map(Ports::Only),
    ];
    (prop::sample::select(actions), peers, ports).prop_map(|(action, peers, ports)| Rule { action, peers, ports })
}

fn policy(kinds: Kinds) -> impl Strategy<Value = Policy> {
    let rules = || prop::option::weighted(0.7, prop::collection::vec(rule(kinds), 0..3));
    let subject = match kinds {
        Kinds::NetworkPolicies | Kinds::OneNamespace => (0..kinds.namespaces(), label_selector())
            .prop_map(|(number, endpoints)| EndpointSelector {
                namespaces: NamespaceSelector::Named(format!("n{number}")),
                endpoints,
            })
            .boxed(),
        Kinds::All => selector().boxed(),
    };
    let tier = match kinds {
        Kinds::NetworkPolicies | Kinds::OneNamespace => Just((Tier::network_policy(), 0)).boxed(),
        Kinds::All => (0..3_u32, any::<bool>(), 0..2_u32)
            .prop_map(|(tier, pass, order)| {
                let end = if pass { TierEnd::Pass } else { TierEnd::Deny };
                (Tier { order: tier, name: format!("t{tier}"), end }, order)
            })
            .boxed(),
    };
    (tier, subject, rules(), rules()).prop_map(|((tier, order), subject, ingress, egress)| Policy {
        tier,
        order,
        subject,
        ingress,
        egress,
    })
}
