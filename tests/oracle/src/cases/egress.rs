//! Cases about where a pod may connect to.

use serde_json::json;

use super::{ALL, Case, Reach, TCP_80, UDP, case};

pub(super) fn cases() -> Vec<Case> {
    let a = || json!({"matchLabels": {"pod": "a"}});
    let to = |peers| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": [{"to": peers}]});
    vec![
        case(
            "deny of a pod's egress leaves its ingress alone",
            &[("x", json!({"podSelector": a(), "policyTypes": ["Egress"]}))],
            Reach::open().out("x/a", &[]),
        ),
        case(
            "deny of a namespace's egress",
            &[("x", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}))],
            Reach::open().out("x/*", &[]),
        ),
        case(
            "egress rules without policyTypes make a policy of both directions",
            &[("x", json!({"podSelector": a(), "egress": [{}]}))],
            Reach::open().into("x/a", &[]),
        ),
        case(
            "and what those rules do not allow does not go",
            &[("x", json!({"podSelector": a(), "ingress": [{}], "egress": [{"to": [{"podSelector": {}}]}]}))],
            Reach::open().out("x/a", &[("x/*", ALL)]),
        ),
        case(
            "rules of a direction that policyTypes does not name are ignored",
            &[("x", json!({"podSelector": a(), "policyTypes": ["Egress"], "ingress": [{}], "egress": []}))],
            Reach::open().out("x/a", &[]),
        ),
        case(
            "an egress denied at the client is denied though the server allows it",
            &[
                ("x", json!({"podSelector": a(), "policyTypes": ["Egress"]})),
                (
                    "y",
                    json!({"podSelector": a(), "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}}]}]}),
                ),
            ],
            Reach::open().out("x/a", &[]).into("y/a", &[("x/*", ALL)]),
        ),
        case(
            "ingress and egress of one policy",
            &[(
                "x",
                json!({"podSelector": a(), "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}, "podSelector": {"matchLabels": {"pod": "b"}}}]}],
                    "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 80}]}, {"ports": [{"protocol": "UDP"}]}]}),
            )],
            Reach::open().into("x/a", &[("x/b", ALL)]).out("x/a", &[("y/*", TCP_80), ("*", UDP)]),
        ),
        case(
            "ingress and egress are governed apart, by policies of their own",
            &[
                (
                    "x",
                    json!({"podSelector": a(), "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]}),
                ),
                (
                    "x",
                    json!({"podSelector": a(), "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {"matchLabels": {"pod": "c"}}}]}]}),
                ),
            ],
            Reach::open().into("x/a", &[("x/b", ALL)]).out("x/a", &[("x/c", ALL)]),
        ),
        case(
            "to a pod of another namespace, by both selectors",
            &[("x", to(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": a()}])))],
            Reach::open().out("x/a", &[("y/a", ALL)]),
        ),
        case(
            "allow-all of egress beside deny-all allows all",
            &[
                ("x", json!({"podSelector": a(), "policyTypes": ["Egress"], "egress": []})),
                ("x", json!({"podSelector": a(), "policyTypes": ["Egress"], "egress": [{}]})),
            ],
            Reach::open(),
        ),
        case(
            "to a block of one address",
            &[("x", to(json!([{"ipBlock": {"cidr": "10.65.0.8/32"}}, {"ipBlock": {"cidr": "fd00:65::8/128"}}])))],
            Reach::open().out("x/a", &[("y/b", ALL)]),
        ),
        case(
            "to a block with exceptions",
            &[(
                "x",
                to(json!([{"ipBlock": {"cidr": "10.65.0.0/24", "except": ["10.65.0.8/30", "10.65.0.12/32"]}},
                    {"ipBlock": {"cidr": "fd00:65::/64", "except": ["fd00:65::8/126", "fd00:65::c/128"]}}])),
            )],
            Reach::open().out("x/a", &[("x/*", ALL), ("y/a", ALL), ("near", ALL)]),
        ),
        case(
            "an address both in a block and in another's exception is allowed",
            &[
                (
                    "x",
                    to(
                        json!([{"ipBlock": {"cidr": "10.65.0.0/24", "except": ["10.65.0.8/30"]}}, {"ipBlock": {"cidr": "fd00:65::/64", "except": ["fd00:65::8/126"]}}]),
                    ),
                ),
                ("x", to(json!([{"ipBlock": {"cidr": "10.65.0.8/32"}}, {"ipBlock": {"cidr": "fd00:65::8/128"}}]))),
            ],
            Reach::open().out("x/a", &[("x/*", ALL), ("y/a", ALL), ("y/b", ALL), ("z/c", ALL), ("near", ALL)]),
        ),
        case(
            "to everything but the cluster",
            &[(
                "x",
                to(
                    json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.0/16"]}}, {"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}}]),
                ),
            )],
            Reach::open().out("x/a", &[("far", ALL)]),
        ),
    ]
}
