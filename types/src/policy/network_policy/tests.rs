//! One test for every point of the semantics that is decided when a policy is read, and that nothing unreadable allows.

mod properties;

use serde_json::{Value, json};

use super::*;
use crate::policy::{Operator, Requirement};

/// A policy of namespace `shop` that makes sense throughout.
fn sound(spec: Value) -> Policy {
    let (policy, problems) = network_policy("shop", &spec);
    assert_eq!(problems, [], "{spec}");
    policy
}

/// What a policy comes to in spite of what is wrong with it, which is told.
fn faulty(spec: Value) -> (Policy, Vec<String>) {
    let (policy, problems) = network_policy("shop", &spec);
    assert!(!problems.is_empty(), "{spec}");
    (policy, problems.iter().map(ToString::to_string).collect())
}

/// The one ingress rule of a sound policy.
fn rule_of(rule: Value) -> Rule {
    sound(json!({"podSelector": {}, "ingress": [rule]})).ingress.unwrap().remove(0)
}

/// The one ingress rule of a faulty policy, and the places of its faults.
fn faulty_rule(rule: Value) -> (Rule, Vec<String>) {
    let (policy, problems) = network_policy("shop", &json!({"podSelector": {}, "ingress": [rule]}));
    assert!(!problems.is_empty(), "{rule}");
    let places = problems.into_iter().map(|problem| problem.place).collect();
    (policy.ingress.unwrap().remove(0), places)
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: [(key.to_owned(), value.to_owned())].into(), match_expressions: Vec::new() }
}

fn own_namespace(endpoints: LabelSelector) -> Peer {
    Peer::Endpoints(EndpointSelector { namespaces: NamespaceSelector::Named("shop".to_owned()), endpoints })
}

fn any() -> Rule {
    Rule { action: Action::Allow, peers: Peers::Any, ports: Ports::Any }
}

fn nothing() -> Rule {
    Rule { action: Action::Allow, peers: Peers::Only(Vec::new()), ports: Ports::Only(Vec::new()) }
}

#[test]
fn d1_only_the_directions_of_policy_types_are_governed() {
    let policy = sound(json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    assert_eq!((policy.ingress, policy.egress), (None, Some(Vec::new())));
    let policy = sound(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}));
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), None));
}

#[test]
fn d2_policy_types_default_to_ingress_and_to_egress_if_it_has_rules() {
    for absent in [json!({}), json!({"policyTypes": null}), json!({"policyTypes": [], "egress": []})] {
        let policy = sound(absent);
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), None));
    }
    let policy = sound(json!({"egress": [{}]}));
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(vec![any()])));
    let policy = sound(json!({"policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]}));
    assert_eq!((policy.ingress, policy.egress), (None, Some(vec![any()])));
    let policy = sound(json!({"policyTypes": ["Ingress", "Egress"]}));
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())));
}

#[test]
fn d3_the_pod_selector_stays_in_its_namespace_and_selects_all_of_it_when_empty() {
    for spec in [json!({}), json!({"podSelector": null}), json!({"podSelector": {}})] {
        let subject = sound(spec).subject;
        assert_eq!(subject.namespaces, NamespaceSelector::Named("shop".to_owned()));
        assert!(subject.endpoints.is_empty());
    }
    let subject = sound(json!({"podSelector": {"matchLabels": {"app": "web"}}})).subject;
    assert_eq!(subject.endpoints, labelled("app", "web"));
}

#[test]
fn d6_absent_null_and_empty_peers_and_ports_are_all_of_them() {
    for rule in [json!({}), json!({"from": null, "ports": null}), json!({"from": [], "ports": []})] {
        assert_eq!(rule_of(rule), any());
    }
    assert_eq!(sound(json!({"ingress": []})).ingress, Some(Vec::new()));
    assert_eq!(sound(json!({"ingress": null})).ingress, Some(Vec::new()));
}

#[test]
fn d7_selectors_of_one_peer_must_both_fit_and_an_absent_one_is_not_an_empty_one() {
    let rule = rule_of(json!({"from": [
        {"podSelector": {}},
        {"namespaceSelector": {}},
        {"podSelector": null, "namespaceSelector": {"matchLabels": {"team": "a"}}},
        {"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}},
    ]}));
    let peer = |namespaces, endpoints| Peer::Endpoints(EndpointSelector { namespaces, endpoints });
    let all = LabelSelector::default;
    assert_eq!(
        rule.peers,
        Peers::Only(vec![
            own_namespace(all()),
            peer(NamespaceSelector::Labelled(all()), all()),
            peer(NamespaceSelector::Labelled(labelled("team", "a")), all()),
            peer(NamespaceSelector::Labelled(all()), labelled("app", "web")),
        ])
    );
}

#[test]
fn d8_expressions_and_labels_are_read_with_all_four_operators() {
    let subject = sound(json!({"podSelector": {
        "matchLabels": {"kubernetes.io/metadata.name": "shop", "empty": ""},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "tier", "operator": "NotIn", "values": ["c"]},
            {"key": "app", "operator": "Exists"},
            {"key": "debug", "operator": "DoesNotExist", "values": null},
        ],
    }}))
    .subject;
    let operators: Vec<_> = subject.endpoints.match_expressions.iter().map(|r: &Requirement| r.operator).collect();
    assert_eq!(operators, [Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
    assert_eq!(subject.endpoints.match_labels.len(), 2);
}

#[test]
fn d9_blocks_are_of_either_family_without_their_host_bits_and_with_holes_inside() {
    let rule = rule_of(json!({"from": [
        {"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.1.0.0/16", "10.2.2.2/16"]}},
        {"ipBlock": {"cidr": "fd00::1/48", "except": null}, "podSelector": null},
        {"ipBlock": {"cidr": "0.0.0.0/0"}},
    ]}));
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    assert_eq!(
        rule.peers,
        Peers::Only(vec![
            Peer::Block { cidr: prefix("10.0.0.0/8"), except: vec![prefix("10.1.0.0/16"), prefix("10.2.0.0/16")] },
            Peer::Block { cidr: prefix("fd00::/48"), except: Vec::new() },
            Peer::Block { cidr: prefix("0.0.0.0/0"), except: Vec::new() },
        ])
    );
}

#[test]
fn d11_the_protocol_defaults_to_tcp_and_sctp_is_never_taken_for_it() {
    let rule = rule_of(json!({"ports": [{}, {"protocol": null}, {"protocol": "UDP"}, {"protocol": "SCTP"}]}));
    let all = PortMatch::All;
    assert_eq!(
        rule.ports,
        Ports::Only(vec![all(Protocol::Tcp), all(Protocol::Tcp), all(Protocol::Udp), all(Protocol::Sctp)])
    );
}

#[test]
fn d12_ports_are_numbers_names_ranges_or_every_one_of_a_protocol() {
    let rule = rule_of(json!({"ports": [
        {"port": 80},
        {"port": "dns", "protocol": "UDP"},
        {"port": 8000, "endPort": 8080},
        {"port": 7, "endPort": 7, "protocol": "SCTP"},
        {"port": 1, "endPort": 65535},
        {"port": null, "endPort": null, "protocol": "SCTP"},
    ]}));
    let range = |protocol, first, last| PortMatch::Range(protocol, PortRange::new(first, last).unwrap());
    assert_eq!(
        rule.ports,
        Ports::Only(vec![
            range(Protocol::Tcp, 80, 80),
            PortMatch::Named(Protocol::Udp, "dns".to_owned()),
            range(Protocol::Tcp, 8000, 8080),
            range(Protocol::Sctp, 7, 7),
            range(Protocol::Tcp, 1, 65535),
            PortMatch::All(Protocol::Sctp),
        ])
    );
}

#[test]
fn d24_a_rule_whose_only_peer_makes_no_sense_is_not_a_rule_for_any_peer() {
    for (peer, place) in [
        (json!({}), "spec.ingress[0].from[0]"),
        (json!(null), "spec.ingress[0].from[0]"),
        (json!("web"), "spec.ingress[0].from[0]"),
        (json!({"podSelector": null}), "spec.ingress[0].from[0]"),
        (json!({"podSelector": []}), "spec.ingress[0].from[0].podSelector"),
        (json!({"podSelector": {}, "serviceSelector": {}}), "spec.ingress[0].from[0].serviceSelector"),
        (json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}), "spec.ingress[0].from[0]"),
        (json!({"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}), "spec.ingress[0].from[0]"),
        (json!({"ipBlock": {}}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (json!({"ipBlock": {"cidr": "10.0.0.0"}}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/33"}}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/+8"}}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (json!({"ipBlock": {"cidr": "010.0.0.0/8"}}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (json!({"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}), "spec.ingress[0].from[0].ipBlock.cidr"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8", "xcept": ["10.0.0.0/9"]}}), "spec.ingress[0].from[0].ipBlock.xcept"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.0.0.0/9"}}), "spec.ingress[0].from[0].ipBlock.except"),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}), "spec.ingress[0].from[0].ipBlock.except[0]"),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.0.0.0/8"]}}),
            "spec.ingress[0].from[0].ipBlock.except[1]",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
    ] {
        let (rule, places) = faulty_rule(json!({"from": [peer]}));
        assert_eq!(rule.peers, Peers::Only(Vec::new()), "{peer}");
        assert_eq!(places, [place], "{peer}");
        let (rule, _) = faulty_rule(json!({"from": [{"podSelector": {}}, peer]}));
        assert_eq!(rule.peers, Peers::Only(vec![own_namespace(LabelSelector::default())]), "the others stay: {peer}");
    }
}

#[test]
fn d24_a_selector_is_never_read_without_one_of_its_requirements() {
    let at = "spec.ingress[0].from[0].podSelector";
    for (selector, place) in [
        (json!({"matchLabels": ["a"]}), ".matchLabels"),
        (json!({"matchLabels": {"app": null}}), ".matchLabels.app"),
        (json!({"matchLabels": {"app": 1}}), ".matchLabels.app"),
        (json!({"matchLabels": {"a/b": "my web"}}), ".matchLabels[\"a/b\"]"),
        (json!({"matchLabels": {"-a": "b"}}), ".matchLabels[\"-a\"]"),
        (json!({"matchLabel": {"app": "b"}}), ".matchLabel"),
        (json!({"matchExpressions": {}}), ".matchExpressions"),
        (json!({"matchExpressions": [null]}), ".matchExpressions[0]"),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}),
            ".matchExpressions[0].operator",
        ),
        (json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), ".matchExpressions[0].values"),
        (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}), ".matchExpressions[0].values"),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            ".matchExpressions[0].values",
        ),
        (json!({"matchExpressions": [{"operator": "Exists"}]}), ".matchExpressions[0].key"),
        (json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]}), ".matchExpressions[0].key"),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}),
            ".matchExpressions[0].values[0]",
        ),
        (json!({"matchExpressions": [{"key": "a", "operator": "Exists", "x": 1}]}), ".matchExpressions[0].x"),
    ] {
        let (rule, places) = faulty_rule(json!({"from": [{"podSelector": selector}]}));
        assert_eq!(rule.peers, Peers::Only(Vec::new()), "{selector}");
        assert_eq!(places, [format!("{at}{place}")], "{selector}");
    }
}

#[test]
fn d24_a_value_that_no_label_has_is_told_and_taken_at_its_word() {
    let (rule, places) = faulty_rule(json!({"from": [{"podSelector": {"matchExpressions": [
        {"key": "app", "operator": "NotIn", "values": ["my web"]},
    ]}}]}));
    assert_eq!(places, ["spec.ingress[0].from[0].podSelector.matchExpressions[0].values[0]"]);
    let Peers::Only(peers) = rule.peers else { panic!("any") };
    assert_eq!(peers.len(), 1);
}

#[test]
fn d24_a_rule_whose_only_port_makes_no_sense_is_not_a_rule_for_any_port() {
    let at = "spec.ingress[0].ports[0]";
    for (port, place) in [
        (json!(null), ""),
        (json!(80), ""),
        (json!({"port": 0}), ".port"),
        (json!({"port": 65536}), ".port"),
        (json!({"port": -1}), ".port"),
        (json!({"port": 80.0}), ".port"),
        (json!({"port": "80"}), ".port"),
        (json!({"port": ""}), ".port"),
        (json!({"port": "HTTP"}), ".port"),
        (json!({"port": "a--b"}), ".port"),
        (json!({"port": "a-very-long-name"}), ".port"),
        (json!({"port": [80]}), ".port"),
        (json!({"port": 80, "endPort": 79}), ".endPort"),
        (json!({"port": 80, "endPort": 65536}), ".endPort"),
        (json!({"port": 80, "endPort": "81"}), ".endPort"),
        (json!({"port": "http", "endPort": 81}), ".endPort"),
        (json!({"endPort": 81}), ".endPort"),
        (json!({"protocol": "tcp"}), ".protocol"),
        (json!({"protocol": ""}), ".protocol"),
        (json!({"protocol": "ICMP", "port": 80}), ".protocol"),
        (json!({"prot": 80}), ".prot"),
    ] {
        let (rule, places) = faulty_rule(json!({"ports": [port]}));
        assert_eq!((rule.peers, rule.ports), (Peers::Any, Ports::Only(Vec::new())), "{port}");
        assert_eq!(places, [format!("{at}{place}")], "{port}");
        let (rule, _) = faulty_rule(json!({"ports": [port, {"port": 80}]}));
        let kept = vec![PortMatch::Range(Protocol::Tcp, PortRange::single(80))];
        assert_eq!(rule.ports, Ports::Only(kept), "the others stay: {port}");
    }
}

#[test]
fn d24_an_unreadable_rule_fits_nothing_and_the_others_keep_their_index() {
    for rule in [
        json!(null),
        json!("allow"),
        json!([]),
        json!({"to": []}),
        json!({"from": {}, "ports": [{"port": 80}]}),
        json!({"from": [{"podSelector": {}}], "ports": 80}),
        json!({"from": [], "action": "Deny"}),
    ] {
        let (policy, problems) = faulty(json!({"ingress": [rule, {}]}));
        assert_eq!(policy.ingress, Some(vec![nothing(), any()]), "{rule}");
        assert!(problems.iter().all(|problem| problem.starts_with("spec.ingress[0]")), "{problems:?}");
    }
    let (policy, _) = faulty(json!({"ingress": {}, "egress": "all"}));
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())));
}

#[test]
fn d24_an_unreadable_pod_selector_governs_the_whole_namespace_and_allows_nothing() {
    for selector in [json!([]), json!({"matchLabels": {"app": 1}}), json!({"matchLabel": {}})] {
        let (policy, _) = faulty(json!({"podSelector": selector, "ingress": [{}], "policyTypes": ["Ingress"]}));
        assert!(policy.subject.endpoints.is_empty(), "{selector}");
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), None), "{selector}");
    }
}

#[test]
fn d24_unreadable_policy_types_govern_both_directions_and_a_direction_in_doubt_allows_nothing() {
    for types in [json!("Egress"), json!({}), json!(["egress"]), json!([null])] {
        let (policy, _) = faulty(json!({"policyTypes": types, "ingress": [{}], "egress": [{}]}));
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())), "{types}");
    }
    let (policy, problems) = faulty(json!({"policyTypes": ["Ingress", "Both"], "ingress": [{}], "egress": [{}]}));
    assert_eq!((policy.ingress, policy.egress), (Some(vec![any()]), Some(Vec::new())));
    assert_eq!(problems, ["spec.policyTypes[1]: is not Ingress or Egress"]);
}

#[test]
fn d24_an_unknown_field_of_the_spec_leaves_nothing_allowed() {
    let (policy, problems) = faulty(json!({"podSelectr": {"matchLabels": {"a": "b"}}, "ingress": [{}]}));
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())));
    assert_eq!(problems, ["spec.podSelectr: is not a known field"]);
    for spec in [json!(["spec"]), Value::Null] {
        let (policy, _) = faulty(spec);
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let (_, problems) = faulty(json!({
        "podSelector": {"matchLabels": {"app": 1}},
        "policyTypes": ["Ingress", "Outgress"],
        "ingress": [{"from": [{}, {"ipBlock": {"cidr": "x"}}], "ports": [{"port": 0}]}],
        "egress": [{"from": []}],
    }));
    assert_eq!(problems.len(), 6, "{problems:?}");
}
