//! Whatever is written into a policy: reading it never fails, and what makes no sense of it allows nothing that the sound
//! policy did not.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::super::*;
use crate::policy::Labels;

/// The words that NetworkPolicies are made of, so that arbitrary documents reach every part of the reader.
const WORDS: &[&str] = &[
    "podSelector",
    "namespaceSelector",
    "ipBlock",
    "policyTypes",
    "ingress",
    "egress",
    "from",
    "to",
    "ports",
    "port",
    "endPort",
    "protocol",
    "cidr",
    "except",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "Ingress",
    "Egress",
    "TCP",
    "UDP",
    "SCTP",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "app",
    "web",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "fd00::/48",
    "::/0",
    "http",
    "",
];

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..70_000_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(WORDS).prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, |inner| {
        let key = prop_oneof![8 => select(WORDS).prop_map(str::to_owned), 1 => ".*"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn selectors() -> impl Strategy<Value = Value> {
    let value = || select(&["a", "b", "c"]);
    let label = || select(&["app", "tier"]);
    prop_oneof![
        Just(json!({})),
        (label(), value()).prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
        (label(), select(&["In", "NotIn"]), value())
            .prop_map(|(key, op, v)| json!({"matchExpressions": [{"key": key, "operator": op, "values": [v]}]})),
        (label(), select(&["Exists", "DoesNotExist"]), value()).prop_map(
            |(key, op, v)| json!({"matchLabels": {"app": v}, "matchExpressions": [{"key": key, "operator": op}]})
        ),
    ]
}

fn peers() -> impl Strategy<Value = Value> {
    prop_oneof![
        selectors().prop_map(|pods| json!({"podSelector": pods})),
        selectors().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selectors(), selectors()).prop_map(|(p, n)| json!({"podSelector": p, "namespaceSelector": n})),
        select(&["10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16"]).prop_map(|cidr| json!({"ipBlock": {"cidr": cidr}})),
        Just(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.1.1.0/24"]}})),
    ]
}

fn ports() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(&["TCP", "UDP"]).prop_map(|protocol| json!({"protocol": protocol})),
        (78..82_u16, select(&["TCP", "UDP"])).prop_map(|(port, protocol)| json!({"port": port, "protocol": protocol})),
        (78..82_u16, 82..84_u16).prop_map(|(first, last)| json!({"port": first, "endPort": last})),
        Just(json!({"port": "http"})),
    ]
}

fn rules(field: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let rule = (prop::collection::vec(peers(), 0..3), prop::collection::vec(ports(), 0..3))
        .prop_map(move |(peers, ports)| json!({field: peers, "ports": ports}));
    prop::collection::vec(rule, 0..3)
}

fn sound_specs() -> impl Strategy<Value = Value> {
    let types =
        select(vec![None, Some(json!(["Ingress"])), Some(json!(["Egress"])), Some(json!(["Ingress", "Egress"]))]);
    (selectors(), types, rules("from"), rules("to")).prop_map(|(selector, types, ingress, egress)| {
        json!({"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress})
    })
}

/// Everything that can be spoiled, as paths of what to go into.
fn places(value: &Value) -> Vec<Vec<String>> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let deeper = children.into_iter().flat_map(|(step, child)| {
        places(child).into_iter().map(move |mut path| {
            path.insert(0, step.clone());
            path
        })
    });
    std::iter::once(Vec::new()).chain(deeper).collect()
}

/// Puts in the place of something what makes no sense anywhere.
fn spoil(value: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else {
        *value = json!({"nonsense": 1});
        return;
    };
    let child = match value {
        Value::Object(fields) => fields.get_mut(step),
        Value::Array(items) => items.get_mut(step.parse::<usize>().unwrap()),
        _ => None,
    };
    spoil(child.unwrap(), rest);
}

/// One end of a connection, as seen from the policy: the pod that it may govern, and the other.
#[derive(Debug, Clone)]
struct Packet {
    pod: Labels,
    peer: Option<(Labels, Labels)>,
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    /// What the destination calls the port.
    name: &'static str,
}

fn packets() -> impl Strategy<Value = Packet> {
    let labels = || {
        (select(&[None, Some("a"), Some("b")][..]), select(&[None, Some("a")][..])).prop_map(|(app, tier)| {
            let label = |key: &str, value: Option<&str>| value.map(|value| (key.to_owned(), value.to_owned()));
            [label("app", app), label("tier", tier)].into_iter().flatten().collect::<Labels>()
        })
    };
    let address = select(&["10.1.1.1", "10.1.2.1", "10.2.0.1", "192.0.2.1"]);
    let port = (select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..]), 78..84_u16, select(&["http", "dns"]));
    (labels(), prop::option::of((labels(), labels())), address, port).prop_map(
        |(pod, peer, address, (protocol, port, name))| Packet {
            pod,
            peer,
            address: address.parse().unwrap(),
            protocol,
            port,
            name,
        },
    )
}

/// Whether a policy lets a packet pass in a direction; the peer is in the policy's own namespace.
fn allows(policy: &Policy, direction: Direction, packet: &Packet) -> bool {
    let Some(rules) = policy.rules(direction) else { return true };
    if !policy.subject.endpoints.matches(&packet.pod) {
        return true;
    }
    let peer_fits = |peer: &Peer| match (peer, &packet.peer) {
        (Peer::Block { cidr, except }, _) => {
            cidr.contains(packet.address) && !except.iter().any(|hole| hole.contains(packet.address))
        }
        (Peer::Endpoints(_), None) => false,
        (Peer::Endpoints(selector), Some((namespace, labels))) => {
            let namespace_fits = match &selector.namespaces {
                NamespaceSelector::Named(name) => name == "shop",
                NamespaceSelector::Labelled(selector) => selector.matches(namespace),
            };
            namespace_fits && selector.endpoints.matches(labels)
        }
    };
    let port_fits = |port: &PortMatch| match port {
        PortMatch::All(protocol) => *protocol == packet.protocol,
        PortMatch::Range(protocol, range) => *protocol == packet.protocol && range.contains(packet.port),
        PortMatch::Named(protocol, name) => *protocol == packet.protocol && name == packet.name,
    };
    rules.iter().any(|rule| {
        let peers = match &rule.peers {
            Peers::Any => true,
            Peers::Only(peers) => peers.iter().any(peer_fits),
        };
        peers
            && match &rule.ports {
                Ports::Any => true,
                Ports::Only(ports) => ports.iter().any(port_fits),
            }
    })
}

/// Whether it governs a pod, and allows it something: what another policy's pods must not gain.
fn admits(policy: &Policy, direction: Direction, packet: &Packet) -> bool {
    policy.rules(direction).is_some()
        && policy.subject.endpoints.matches(&packet.pod)
        && allows(policy, direction, packet)
}

proptest! {
    #[test]
    fn d24_no_document_at_all_makes_reading_fail(document in documents()) {
        let (policy, problems) = network_policy("shop", &document);
        prop_assert!(policy.ingress.is_some() || policy.egress.is_some(), "some direction is always governed");
        prop_assert!(problems.iter().all(|problem| problem.place.starts_with("spec")));
    }

    #[test]
    fn d24_nonsense_in_any_place_is_told_and_never_widens_a_policy(
        spec in sound_specs(),
        place: prop::sample::Index,
        packets in prop::collection::vec(packets(), 64),
    ) {
        let (before, problems) = network_policy("shop", &spec);
        prop_assert_eq!(problems, Vec::new());
        let places = places(&spec);
        let place = place.get(&places);
        let mut spoiled = spec.clone();
        spoil(&mut spoiled, place);
        let (after, problems) = network_policy("shop", &spoiled);
        prop_assert!(!problems.is_empty(), "{}", spoiled);
        for packet in &packets {
            for direction in Direction::ALL {
                prop_assert!(
                    allows(&before, direction, packet) || !allows(&after, direction, packet),
                    "{direction} of {packet:?} opened by {spoiled}"
                );
                prop_assert!(
                    admits(&before, direction, packet) || !admits(&after, direction, packet),
                    "{direction} of {packet:?} admitted by {spoiled}"
                );
            }
        }
    }

    #[test]
    fn null_is_the_same_as_absent_in_every_mapping_of_a_policy(spec in sound_specs()) {
        let (with_nulls, problems) = network_policy("shop", &add_nulls(&spec));
        prop_assert_eq!(problems, Vec::new());
        prop_assert_eq!(with_nulls, network_policy("shop", &spec).0);
    }
}

/// Every known optional field that is absent, as `null`.
fn add_nulls(value: &Value) -> Value {
    let kinds: [&[&str]; 6] = [
        &["podSelector", "namespaceSelector", "ipBlock"],
        &["matchLabels", "matchExpressions"],
        &["key", "operator", "values"],
        &["cidr", "except"],
        &["port", "endPort", "protocol"],
        &["podSelector", "policyTypes", "ingress", "egress"],
    ];
    match value {
        Value::Array(items) => items.iter().map(add_nulls).collect(),
        Value::Object(fields) => {
            let mut out: Map<String, Value> =
                fields.iter().map(|(key, value)| (key.clone(), add_nulls(value))).collect();
            let known = kinds.iter().filter(|kind| fields.keys().all(|key| kind.contains(&key.as_str())));
            // `{}` may be a selector or nothing else that takes a null.
            let known =
                if fields.is_empty() { Some(kinds.get(1).copied().unwrap_or_default()) } else { known.copied().next() };
            for field in known.unwrap_or_default() {
                out.entry((*field).to_owned()).or_insert(Value::Null);
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}
