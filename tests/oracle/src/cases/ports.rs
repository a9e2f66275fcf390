//! Cases about ports and protocols.

use serde_json::json;

use super::{Case, Reach, SCTP, SCTP_80, TCP, TCP_80, TCP_81, UDP, UDP_80, case};

pub(super) fn cases() -> Vec<Case> {
    let on = |ports| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"ports": ports}]});
    let all_on = |ports| json!({"podSelector": {}, "ingress": [{"ports": ports}]});
    let to = |peers, ports| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": [{"to": peers, "ports": ports}]});
    vec![
        case(
            "a number is of TCP unless said",
            &[("x", on(json!([{"port": 80}])))],
            Reach::open().into("x/a", &[("*", TCP_80)]),
        ),
        case(
            "a rule with ports says nothing for ICMP",
            &[("x", on(json!([{"protocol": "TCP"}, {"protocol": "UDP"}, {"protocol": "SCTP"}])))],
            Reach::open().into("x/a", &[("*", TCP), ("*", UDP), ("*", SCTP)]),
        ),
        case("an empty port is all of TCP", &[("x", on(json!([{}])))], Reach::open().into("x/a", &[("*", TCP)])),
        case(
            "several ports",
            &[("x", on(json!([{"port": 80}, {"port": 81}])))],
            Reach::open().into("x/a", &[("*", TCP)]),
        ),
        case(
            "a range, both ends in it",
            &[("x", on(json!([{"port": 80, "endPort": 81}])))],
            Reach::open().into("x/a", &[("*", TCP)]),
        ),
        case(
            "a range of one",
            &[("x", on(json!([{"port": 81, "endPort": 81}])))],
            Reach::open().into("x/a", &[("*", TCP_81)]),
        ),
        case(
            "a range around",
            &[("x", on(json!([{"port": 1, "endPort": 80}])))],
            Reach::open().into("x/a", &[("*", TCP_80)]),
        ),
        case(
            "egress to a range",
            &[("x", to(json!([{"namespaceSelector": {}}]), json!([{"protocol": "UDP", "port": 80, "endPort": 90}])))],
            Reach::open().out("x/a", &[("*/*", UDP)]),
        ),
        case(
            "UDP allowed is TCP denied",
            &[("x", on(json!([{"protocol": "UDP", "port": 80}])))],
            Reach::open().into("x/a", &[("*", UDP_80)]),
        ),
        case(
            "SCTP is not TCP",
            &[("x", on(json!([{"protocol": "SCTP", "port": 80}])))],
            Reach::open().into("x/a", &[("*", SCTP_80)]),
        ),
        case(
            "a policy of SCTP alone isolates from TCP",
            &[("x", on(json!([{"protocol": "SCTP", "port": 9000}])))],
            Reach::open().into("x/a", &[]),
        ),
        case(
            "SCTP denied by default",
            &[
                ("x", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"]})),
                ("y", on(json!([{"protocol": "SCTP"}]))),
            ],
            Reach::open().into("x/a", &[]).into("y/a", &[("*", SCTP)]),
        ),
        case(
            "UDP from one pod of another namespace",
            &[(
                "x",
                json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{
                    "from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"pod": "a"}}}],
                    "ports": [{"protocol": "UDP", "port": 80}]}]}),
            )],
            Reach::open().into("x/a", &[("y/a", UDP_80)]),
        ),
        case(
            "a named port is each target's own number for it",
            &[("x", all_on(json!([{"port": "serve-80-tcp"}])))],
            Reach::open().into("x/a", &[("*", TCP_80)]).into("x/b", &[("*", TCP_80)]).into("x/c", &[("*", TCP_81)]),
        ),
        case(
            "a named port from one namespace only",
            &[(
                "x",
                json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{
                "from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": "serve-81-tcp"}]}]}),
            )],
            Reach::open().into("x/a", &[("y/*", TCP_81)]),
        ),
        case(
            "on egress a named port is each peer's own number for it",
            &[(
                "x",
                to(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]), json!([{"port": "serve-80-tcp"}])),
            )],
            Reach::open().out("x/a", &[("y/a", TCP_80), ("y/b", TCP_80), ("y/c", TCP_81)]),
        ),
        case(
            "a named port of anybody is no port of what is no pod",
            &[("x", to(json!([]), json!([{"protocol": "UDP", "port": "serve-80-udp"}])))],
            Reach::open().out(
                "x/a",
                &[
                    ("x/b", UDP_80),
                    ("y/a", UDP_80),
                    ("y/b", UDP_80),
                    ("z/a", UDP_80),
                    ("z/b", UDP_80),
                    ("*/c", &[(super::Protocol::Udp, 81)]),
                ],
            ),
        ),
        case(
            "a named port is of its own protocol only",
            &[("x", all_on(json!([{"protocol": "UDP", "port": "serve-80-tcp"}])))],
            Reach::open().into("x/*", &[]),
        ),
        case("a name that nobody has", &[("x", all_on(json!([{"port": "metrics"}])))], Reach::open().into("x/*", &[])),
        case(
            "ports that make no sense allow nothing, and leave the others",
            &[(
                "x",
                on(
                    json!([{"port": 0}, {"port": 0, "endPort": 90}, {"port": 65536}, {"port": "80"}, {"port": 81, "endPort": 80}, {"endPort": 90},
                    {"port": "serve-80-tcp", "endPort": 90}, {"protocol": "tcp"}, {"protocol": "ICMP"}, {"port": 81, "endport": 90}, null,
                    {"protocol": "UDP", "port": 80}]),
                ),
            )],
            Reach::open().into("x/a", &[("*", UDP_80)]),
        ),
    ]
}
