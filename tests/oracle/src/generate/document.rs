//! The `spec` of a NetworkPolicy, in all the ways in which one may be written.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::people::NAMESPACES;

/// A field that may be absent.
type Field = Option<Value>;

/// Generates a spec; about one in eight has a part that makes no sense.
pub fn spec() -> BoxedStrategy<Value> {
    let written =
        (subject(), policy_types(), rules("from"), rules("to")).prop_map(|(subject, types, ingress, egress)| {
            object([("podSelector", subject), ("policyTypes", types), ("ingress", ingress), ("egress", egress)])
        });
    let odd = prop_oneof![
        3 => invalid_spec(),
        1 => written.clone().prop_map(|mut spec| {
            if let Some(fields) = spec.as_object_mut() {
                fields.insert("order".to_owned(), json!(1));
            }
            spec
        }),
    ];
    prop_oneof![60 => written, 1 => odd].boxed()
}

/// Generates what is no spec at all, or has outermost parts of the wrong kind.
pub fn invalid_spec() -> impl Strategy<Value = Value> {
    let wrong = || select(vec![json!("all"), json!(1), json!({}), json!({"x": 1}), json!([1]), json!(true)]);
    prop_oneof![
        Just(json!("deny")),
        Just(json!([])),
        Just(json!(null)),
        wrong().prop_map(|wrong| json!({"podSelector": wrong})),
        wrong().prop_map(|wrong| json!({"podSelector": {}, "policyTypes": wrong, "egress": [{}]})),
        wrong().prop_map(|wrong| json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": wrong})),
        wrong().prop_map(|wrong| json!({"podSelector": {}, "egress": wrong, "ingress": [{}]})),
    ]
}

fn subject() -> impl Strategy<Value = Field> + Clone {
    prop_oneof![
        5 => Just(Some(json!({}))),
        10 => selector(POD_KEYS).prop_map(Some),
        1 => Just(Some(Value::Null)),
        1 => Just(None),
    ]
}

fn policy_types() -> impl Strategy<Value = Field> + Clone {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!([]))),
        4 => Just(Some(json!(["Ingress"]))),
        4 => Just(Some(json!(["Egress"]))),
        4 => Just(Some(json!(["Ingress", "Egress"]))),
        1 => select(vec![json!(["Egress", "ingress"]), json!(["Both"]), json!([1])]).prop_map(Some),
    ]
}

/// Generates the rules of a direction, whose peers are called `peers`.
fn rules(peers: &'static str) -> impl Strategy<Value = Field> + Clone {
    let rule =
        (listed(peer(), 3), listed(port(), 3)).prop_map(move |(list, ports)| object([(peers, list), ("ports", ports)]));
    let odd = prop_oneof![
        Just(Value::Null),
        Just(json!("all")),
        Just(object([("form", Some(json!([])))])),
        Just(object([(peers, Some(json!({})))])),
        Just(object([("ports", Some(json!({"port": 80})))])),
        Just(object([(if peers == "to" { "from" } else { "to" }, Some(json!([])))])),
    ];
    listed(prop_oneof![30 => rule, 1 => odd], 2)
}

fn peer() -> impl Strategy<Value = Value> + Clone {
    let namespaces = || selector(NAMESPACE_KEYS);
    let pods = || selector(POD_KEYS);
    prop_oneof![
        6 => pods().prop_map(|pods| json!({"podSelector": pods})),
        5 => namespaces().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        6 => (namespaces(), pods())
            .prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        12 => block().prop_map(|block| json!({"ipBlock": block})),
        1 => pods().prop_map(|pods| json!({"podSelector": pods, "namespaceSelector": null, "ipBlock": null})),
        1 => (block(), pods()).prop_map(|(block, pods)| json!({"ipBlock": block, "podSelector": pods})),
        1 => select(vec![
            json!({}), Value::Null, json!("pods"), json!({"podSelector": null}), json!({"podselector": {}}),
            json!({"ipBlock": {}}), json!({"ipBlock": "10.65.0.0/24"}), json!({"podSelector": {}, "serviceSelector": {}}),
        ]),
    ]
}

/// Generates blocks that contain each other, lie side by side, are everything or one address, and cut between pods.
const BLOCKS: [&str; 34] = [
    "10.65.0.4/32",
    "10.65.0.5/32",
    "10.65.0.8/32",
    "10.65.0.12/32",
    "10.65.0.13/32",
    "10.65.0.4/31",
    "10.65.0.6/31",
    "10.65.0.4/30",
    "10.65.0.8/30",
    "10.65.0.0/29",
    "10.65.0.8/29",
    "10.65.0.0/28",
    "10.65.0.0/24",
    "10.65.0.77/24",
    "10.64.0.0/10",
    "10.0.0.0/8",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "0.0.0.0/0",
    "192.168.0.1/32",
    "192.168.0.0/24",
    "203.0.113.0/24",
    "203.0.113.5/32",
    "fd00:65::4/128",
    "fd00:65::c/128",
    "fd00:65::4/127",
    "fd00:65::/125",
    "fd00:65::8/125",
    "fd00:65::/64",
    "fd00::/8",
    "::/1",
    "::/0",
    "fd00:1::1/128",
    "2001:db8::/32",
];

/// Generates exceptions: mostly strict parts of the block; seldom the block itself, a range outside it, or no range at
/// all.
fn block() -> impl Strategy<Value = Value> + Clone {
    let except = (select(&BLOCKS[..]), 0..24_u8);
    let bad = select(vec![json!(""), json!("10.65.0.4"), json!("10.65.0.0/33"), json!("any"), json!(10)]);
    (select(&BLOCKS[..]), option::weighted(0.6, vec(except, 0..=3)), option::weighted(0.02, bad)).prop_map(
        |(cidr, except, bad)| {
            let within = |except: &str| match (crate::Cidr::parse(cidr), crate::Cidr::parse(except)) {
                (Some(whole), Some(part)) => whole.strictly_contains(&part),
                _ => false,
            };
            let except = except.map(|list| {
                let kept = list.into_iter().filter(|(except, luck)| within(except) || *luck == 23);
                Value::from(kept.map(|(except, _)| except).collect::<Vec<_>>())
            });
            object([("cidr", Some(bad.unwrap_or_else(|| json!(cidr)))), ("except", except)])
        },
    )
}

fn port() -> impl Strategy<Value = Value> + Clone {
    let protocol = || {
        prop_oneof![
            4 => Just(None),
            4 => Just(Some(json!("TCP"))),
            3 => Just(Some(json!("UDP"))),
            2 => Just(Some(json!("SCTP"))),
            1 => Just(Some(Value::Null)),
        ]
    };
    let number = || select(&[80_u16, 81, 82, 8080][..]).prop_map(|number| Some(json!(number)));
    let end = select(&[80_u16, 81, 82, 83, 8080, 65535][..]).prop_map(|number| Some(json!(number)));
    let name = select(&["http", "alt"][..]).prop_map(|name| Some(json!(name)));
    let of = |(protocol, port, end): (Field, Field, Field)| {
        object([("protocol", protocol), ("port", port), ("endPort", end)])
    };
    prop_oneof![
        3 => (protocol(), Just(None), Just(None)).prop_map(of),
        8 => (protocol(), number(), Just(None)).prop_map(of),
        4 => (protocol(), number(), end).prop_map(of),
        7 => (protocol(), name, Just(None)).prop_map(of),
        1 => (protocol(), Just(Some(json!(1))), Just(Some(json!(65535)))).prop_map(of),
        1 => select(vec![
            Value::Null, json!("80"), json!({"port": 0}), json!({"port": 0, "endPort": 90}), json!({"port": 65536}), json!({"port": -1}), json!({"port": "80"}),
            json!({"port": "HTTP"}), json!({"port": ""}), json!({"protocol": "tcp", "port": 80}), json!({"protocol": "ICMP"}),
            json!({"endPort": 90}), json!({"port": "http", "endPort": 90}), json!({"port": 90, "endPort": 80}),
            json!({"port": 80, "endPort": 65536}), json!({"port": 80, "endport": 90}), json!({"port": 80, "name": "http"}),
        ]),
    ]
}

type Keys = &'static [(&'static str, &'static [&'static str])];

const POD_KEYS: Keys = &[("p", &["1", "2"]), ("q", &["1", "2"])];

const NAMESPACE_KEYS: Keys = &[("t", &["1", "2"]), ("p", &["1", "2"]), ("kubernetes.io/metadata.name", &NAMESPACES)];

/// Generates a selector over these keys and values.
fn selector(keys: Keys) -> impl Strategy<Value = Value> + Clone {
    let pair = select(keys).prop_flat_map(|(key, values)| (Just(key), select(values)));
    let labels = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!({}))),
        8 => vec(pair, 1..=2).prop_map(|pairs| {
            Some(Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()))
        }),
    ];
    let expressions = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!([]))),
        6 => vec(expression(keys), 1..=2).prop_map(|list| Some(Value::from(list))),
    ];
    let odd = select(vec![
        json!("p=1"),
        json!({"matchLabels": {"p": 1}}),
        json!({"matchLabels": ["p"]}),
        json!({"matchlabels": {"p": "1"}}),
        json!({"matchExpressions": {"key": "p", "operator": "Exists"}}),
        json!({"matchLabels": {"p": "1!"}}),
        json!({"matchExpressions": [{"key": "p", "operator": "NotIn", "values": ["-"]}]}),
    ]);
    prop_oneof![
        3 => Just(json!({})),
        30 => (labels, expressions)
            .prop_map(|(labels, expressions)| object([("matchLabels", labels), ("matchExpressions", expressions)])),
        1 => odd,
    ]
}

fn expression(keys: Keys) -> impl Strategy<Value = Value> + Clone {
    select(keys).prop_flat_map(|(key, values)| {
        let some = vec(select(values), 1..=2);
        prop_oneof![
            5 => some.clone().prop_map(move |values| json!({"key": key, "operator": "In", "values": values})),
            5 => some.clone().prop_map(move |values| json!({"key": key, "operator": "NotIn", "values": values})),
            3 => Just(json!({"key": key, "operator": "Exists"})),
            3 => Just(json!({"key": key, "operator": "DoesNotExist", "values": []})),
            1 => some.prop_map(move |values| json!({"key": key, "operator": "Exists", "values": values})),
            1 => select(vec![json!("In"), json!("NotIn"), json!("Gt"), json!(null)])
                .prop_map(move |operator| json!({"key": key, "operator": operator, "values": []})),
        ]
    })
}

/// Generates a list that may be absent, null, empty or of the wrong kind.
fn listed(item: impl Strategy<Value = Value> + Clone + 'static, most: usize) -> impl Strategy<Value = Field> + Clone {
    prop_oneof![
        6 => Just(None),
        2 => Just(Some(Value::Null)),
        3 => Just(Some(json!([]))),
        24 => vec(item, 1..=most).prop_map(|list| Some(Value::from(list))),
    ]
}

fn object(fields: impl IntoIterator<Item = (&'static str, Field)>) -> Value {
    Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>())
}
