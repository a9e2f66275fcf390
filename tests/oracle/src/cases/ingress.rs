//! Cases about who may connect to a pod.

use serde_json::json;

use super::{ALL, Case, Reach, TCP, TCP_80, case};

pub(super) fn cases() -> Vec<Case> {
    [isolation(), peers(), several(), blocks(), unreadable()].concat()
}

fn isolation() -> Vec<Case> {
    vec![
        case("without policies everything passes", &[], Reach::open()),
        case(
            "default-deny of ingress: an empty selector and no rule isolates the whole namespace and no other",
            &[("x", json!({"podSelector": {}, "policyTypes": ["Ingress"]}))],
            Reach::open().into("x/*", &[]),
        ),
        case(
            "default-deny of both: nothing comes and nothing goes",
            &[("x", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))],
            Reach::open().into("x/*", &[]).out("x/*", &[]),
        ),
        case(
            "without policyTypes and egress rules a policy is of ingress",
            &[("x", json!({"podSelector": {}}))],
            Reach::open().into("x/*", &[]),
        ),
        case(
            "policyTypes null and empty are as absent",
            &[
                ("x", json!({"podSelector": {}, "policyTypes": null, "egress": []})),
                ("y", json!({"podSelector": {}, "policyTypes": [], "egress": null})),
            ],
            Reach::open().into("x/*", &[]).into("y/*", &[]),
        ),
        case(
            "a policy without podSelector is for its whole namespace",
            &[("x", json!({})), ("y", json!({"podSelector": null}))],
            Reach::open().into("x/*", &[]).into("y/*", &[]),
        ),
        case(
            "ingress null and absent allow nothing, as an empty list does",
            &[("x", json!({"podSelector": {}, "ingress": null})), ("y", json!({"podSelector": {}, "ingress": []}))],
            Reach::open().into("x/*", &[]).into("y/*", &[]),
        ),
        case(
            "one empty rule allows everything, ICMP too",
            &[("x", json!({"podSelector": {}, "ingress": [{}]}))],
            Reach::open(),
        ),
        case(
            "from and ports null or empty are any",
            &[
                ("x", json!({"podSelector": {}, "ingress": [{"from": null, "ports": []}]})),
                ("y", json!({"podSelector": {}, "ingress": [{"from": [], "ports": null}]})),
            ],
            Reach::open(),
        ),
        case(
            "a policy of one pod leaves the others of its namespace alone",
            &[("x", json!({"podSelector": {"matchLabels": {"pod": "a"}}}))],
            Reach::open().into("x/a", &[]),
        ),
        case(
            "a target chosen by an expression",
            &[(
                "x",
                json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["a"]}]}}),
            )],
            Reach::open().into("x/b", &[]).into("x/c", &[]),
        ),
    ]
}

fn peers() -> Vec<Case> {
    let a = || json!({"matchLabels": {"pod": "a"}});
    let not_a = || json!({"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["a"]}]});
    let from = |peers| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": peers}]});
    vec![
        case(
            "podSelector alone is of the policy's own namespace",
            &[("x", from(json!([{"podSelector": {"matchLabels": {"pod": "b"}}}])))],
            Reach::open().into("x/a", &[("x/b", ALL)]),
        ),
        case(
            "an empty podSelector is every pod of the own namespace, and nobody else",
            &[("x", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}))],
            Reach::open().into("x/*", &[("x/*", ALL)]),
        ),
        case(
            "an empty namespaceSelector is every pod of every namespace, and neither nodes nor hosts outside",
            &[("x", from(json!([{"namespaceSelector": {}}])))],
            Reach::open().into("x/a", &[("*/*", ALL)]),
        ),
        case(
            "a rule without peers is also for nodes and hosts outside",
            &[("x", json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}))],
            Reach::open().into("x/*", &[("*", TCP_80)]),
        ),
        case(
            "namespaceSelector by label",
            &[("x", from(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}])))],
            Reach::open().into("x/a", &[("y/*", ALL)]),
        ),
        case(
            "namespaceSelector by the name that the API server puts on every namespace",
            &[("x", from(json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}])))],
            Reach::open().into("x/a", &[("z/*", ALL)]),
        ),
        case(
            "namespaceSelector by an expression over that name",
            &[(
                "x",
                from(json!([{"namespaceSelector": {"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["x", "y"]}]}}])),
            )],
            Reach::open().into("x/a", &[("z/*", ALL)]),
        ),
        case(
            "podSelector by expressions",
            &[("x", from(json!([{"podSelector": not_a()}])))],
            Reach::open().into("x/a", &[("x/b", ALL), ("x/c", ALL)]),
        ),
        case(
            "both selectors in one peer must both fit",
            &[("x", from(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": a()}])))],
            Reach::open().into("x/a", &[("y/a", ALL)]),
        ),
        case(
            "the same selectors in two peers: either fits",
            &[(
                "x",
                from(
                    json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}, {"podSelector": {"matchLabels": {"pod": "b"}}}]),
                ),
            )],
            Reach::open().into("x/a", &[("y/*", ALL), ("x/b", ALL)]),
        ),
        case(
            "several peers of both selectors",
            &[(
                "x",
                from(json!([
                    {"namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "In", "values": ["y", "z"]}]}, "podSelector": a()},
                    {"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": not_a()},
                ])),
            )],
            Reach::open().into("x/a", &[("y/*", ALL), ("z/a", ALL)]),
        ),
        case(
            "pods of one name in all namespaces",
            &[("x", from(json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "b"}}}])))],
            Reach::open().into("x/a", &[("*/b", ALL)]),
        ),
        case(
            "a namespaceSelector of null beside a podSelector is none: the own namespace",
            &[("x", from(json!([{"namespaceSelector": null, "podSelector": {}}])))],
            Reach::open().into("x/a", &[("x/*", ALL)]),
        ),
        case(
            "namespaces without a label fit what asks for its absence",
            &[(
                "x",
                from(
                    json!([{"namespaceSelector": {"matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}]}}]),
                ),
            )],
            Reach::open().into("x/a", &[("*/*", ALL)]),
        ),
        case(
            "a peer that nobody fits still isolates",
            &[("x", from(json!([{"podSelector": {"matchLabels": {"pod": "nobody"}}}])))],
            Reach::open().into("x/a", &[]),
        ),
    ]
}

fn several() -> Vec<Case> {
    let b = || json!({"podSelector": {"matchLabels": {"pod": "b"}}});
    vec![
        case(
            "policies add up: what any of them allows passes",
            &[
                ("x", json!({"podSelector": {}, "ingress": [{"from": [b()], "ports": [{"port": 80}]}]})),
                (
                    "x",
                    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 80}, {"port": 81}]}]}),
                ),
            ],
            Reach::open()
                .into("x/a", &[("x/b", TCP_80), ("y/*", TCP)])
                .into("x/b", &[("x/b", TCP_80)])
                .into("x/c", &[("x/b", TCP_80)]),
        ),
        case(
            "allow-all beside deny-all allows all",
            &[
                ("x", json!({"podSelector": {}, "ingress": []})),
                ("x", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{}]})),
            ],
            Reach::open().into("x/b", &[]).into("x/c", &[]),
        ),
        case(
            "rules of one policy do not mix their peers and ports",
            &[(
                "x",
                json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [
                    {"from": [b()], "ports": [{"port": 80}]},
                    {"from": [{"podSelector": {"matchLabels": {"pod": "c"}}}], "ports": [{"port": 81}]}]}),
            )],
            Reach::open().into("x/a", &[("x/b", TCP_80), ("x/c", super::TCP_81)]),
        ),
        case(
            "deny from other namespaces",
            &[(
                "x",
                json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"podSelector": {}}]}]}),
            )],
            Reach::open().into("x/a", &[("x/*", ALL)]),
        ),
        case(
            "policies of other namespaces say nothing about a pod",
            &[
                ("y", json!({"podSelector": {"matchLabels": {"pod": "a"}}})),
                ("x", json!({"podSelector": {"matchLabels": {"pod": "nobody"}}})),
            ],
            Reach::open().into("y/a", &[]),
        ),
    ]
}

/// Pods of x have the addresses .4 to .6 (`::4` to `::6`), of y .7 to .9, of z .10 to .12; `near` has .13.
fn blocks() -> Vec<Case> {
    let from = |peers| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": peers}]});
    let four_and_six = |cidr: &str, except: &[&str], six: &str, except_six: &[&str]| json!([{"ipBlock": {"cidr": cidr, "except": except}}, {"ipBlock": {"cidr": six, "except": except_six}}]);
    vec![
        case(
            "a block holds pods and others whose addresses are in it",
            &[("x", from(four_and_six("10.65.0.8/29", &[], "fd00:65::8/125", &[])))],
            Reach::open().into("x/a", &[("y/b", ALL), ("y/c", ALL), ("z/*", ALL), ("near", ALL)]),
        ),
        case(
            "an exception takes a part of a block away",
            &[("x", from(four_and_six("10.65.0.8/29", &["10.65.0.8/31"], "fd00:65::8/125", &["fd00:65::8/127"])))],
            Reach::open().into("x/a", &[("z/*", ALL), ("near", ALL)]),
        ),
        case(
            "an exception is no denial: another peer may fit the address",
            &[(
                "x",
                from(json!([
                    {"ipBlock": {"cidr": "10.65.0.0/24", "except": ["10.65.0.8/32"]}}, {"ipBlock": {"cidr": "10.65.0.8/32"}},
                    {"ipBlock": {"cidr": "fd00:65::/64", "except": ["fd00:65::8/128"]}}, {"ipBlock": {"cidr": "fd00:65::8/128"}},
                ])),
            )],
            Reach::open().into("x/a", &[("*/*", ALL), ("near", ALL)]),
        ),
        case(
            "nor for another policy",
            &[
                ("x", from(four_and_six("0.0.0.0/0", &["10.65.0.0/24"], "::/0", &["fd00:65::/64"]))),
                (
                    "x",
                    from(
                        json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"pod": "b"}}}]),
                    ),
                ),
            ],
            Reach::open().into("x/a", &[("n1", ALL), ("n2", ALL), ("far", ALL), ("y/b", ALL)]),
        ),
        case(
            "everything of one family, written as 0.0.0.0/0 and ::/0",
            &[("x", from(four_and_six("0.0.0.0/0", &[], "::/0", &[])))],
            Reach::open().into("x/a", &[("*", ALL)]),
        ),
        case(
            "bits behind the length do not count",
            &[("x", from(four_and_six("10.65.0.77/24", &[], "fd00:65::77/64", &[])))],
            Reach::open().into("x/a", &[("*/*", ALL), ("near", ALL)]),
        ),
        case(
            "blocks with ports",
            &[(
                "x",
                json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [
                {"from": four_and_six("203.0.113.0/24", &[], "2001:db8::/32", &[]), "ports": [{"protocol": "TCP"}]}]}),
            )],
            Reach::open().into("x/a", &[("far", TCP)]),
        ),
    ]
}

fn unreadable() -> Vec<Case> {
    let from = |peers| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": peers}]});
    vec![
        case(
            "a block together with a selector allows nothing",
            &[("x", from(json!([{"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}])))],
            Reach::open().into("x/a", &[]),
        ),
        case(
            "a peer of nothing allows nothing, and not everything",
            &[("x", from(json!([{}]))), ("y", from(json!([{"podSelector": null}])))],
            Reach::open().into("x/a", &[]).into("y/a", &[]),
        ),
        case(
            "a field that is not known makes its peer or rule allow nothing, and leaves the others",
            &[
                (
                    "x",
                    from(
                        json!([{"podSelector": {}, "serviceSelector": {}}, {"podSelector": {"matchLabels": {"pod": "b"}}}]),
                    ),
                ),
                (
                    "y",
                    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"form": []}, {"ports": [{"port": 80}]}]}),
                ),
            ],
            Reach::open().into("x/a", &[("x/b", ALL)]).into("y/a", &[("*", TCP_80)]),
        ),
        case(
            "a bad range, and an exception that is not within, make their block allow nothing",
            &[(
                "x",
                from(json!([{"ipBlock": {"cidr": "10.65.0.0/33"}}, {"ipBlock": {"cidr": "any"}},
                    {"ipBlock": {"cidr": "10.65.0.0/24", "except": ["192.168.0.0/24"]}},
                    {"ipBlock": {"cidr": "10.65.0.0/24", "except": ["10.65.0.0/24"]}},
                    {"ipBlock": {"cidr": "10.65.0.0/24", "except": ["10.0.0.0/8"]}},
                    {"ipBlock": {"cidr": "10.65.0.0/24", "except": ["fd00:65::/64"]}}])),
            )],
            Reach::open().into("x/a", &[]),
        ),
        case(
            "a policy whose own selector cannot be read isolates its whole namespace",
            &[("x", json!({"podSelector": {"matchlabels": {"pod": "a"}}, "ingress": [{"ports": [{"port": 80}]}]}))],
            Reach::open().into("x/*", &[]),
        ),
        case(
            "a direction of which it is in doubt whether it is governed is isolated, one that is named is as written",
            &[(
                "x",
                json!({"podSelector": {}, "policyTypes": ["Ingress", "egress"], "ingress": [{"ports": [{"port": 80}]}], "egress": [{}]}),
            )],
            Reach::open().into("x/*", &[("*", TCP_80)]).out("x/*", &[]),
        ),
        case(
            "a policy with a field that is not known isolates in both directions whom it selects",
            &[("x", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyType": ["Ingress"], "ingress": [{}]}))],
            Reach::open().into("x/a", &[]).out("x/a", &[]),
        ),
        case(
            "from that is no list makes its rule allow nothing",
            &[("x", from(json!({"podSelector": {}})))],
            Reach::open().into("x/a", &[]),
        ),
    ]
}
