use super::*;
use serde_json::json;

#[test]
fn an_explanation_names_the_verdict_and_what_decided_at_either_end() {
    let explanation: Explanation = serde_json::from_value(json!({
        "flow": {"source": "10.0.0.1", "destination": "10.0.1.1", "protocol": "TCP", "port": 5432},
        "verdict": "denied",
        "source": {
            "party": {"is": "endpoint", "namespace": "shop", "name": "web", "address": "10.0.0.1"},
            "governed": ["egress"],
            "reason": {"because": "rule", "tier": "default", "rule": 1, "action": "allow",
                       "policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": "out"},
                       "peer": {"index": 0, "text": "pods app=db in namespace shop"}},
        },
        "destination": {
            "party": {"is": "endpoint", "namespace": "shop", "name": "db", "node": "b", "address": "10.0.1.1"},
            "governed": ["ingress"],
            "reason": {"because": "isolated",
                       "policies": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "deny"}]},
        },
    }))
    .unwrap();
    assert_eq!(
        explanation_text(&explanation),
        "denied: pod shop/web (10.0.0.1) to pod shop/db (10.0.1.1) on b, TCP 5432\n  \
         source, egress allowed: NetworkPolicy shop/out, egress[1], to[0]: pods app=db in namespace shop, ports: any\n  \
         destination, ingress denied: isolated by NetworkPolicy shop/deny, and no rule fits"
    );
}

#[test]
fn an_explanation_names_the_nodes_that_hide_a_client_where_that_changes_the_verdict() {
    let entry = |number: u8, verdict| json!({"node": format!("n{number}"), "address": format!("192.0.2.{number}"), "verdict": verdict});
    let text = |entries: Vec<serde_json::Value>| {
        let explanation: Explanation = serde_json::from_value(json!({
            "flow": {"source": "198.51.100.7", "destination": "10.0.1.1", "protocol": "TCP", "port": 80},
            "verdict": "allowed",
            "source": {"party": {"is": "outside", "address": "198.51.100.7"}, "reason": {"because": "notAnEndpoint"}},
            "destination": {
                "party": {"is": "endpoint", "namespace": "shop", "name": "web", "address": "10.0.1.1"},
                "reason": {"because": "ownNode"},
            },
            "entries": entries,
        }))
        .unwrap();
        entries_text(&explanation)
    };
    assert_eq!(text(vec![]), "");
    assert_eq!(text(vec![entry(1, "allowed")]), "");
    assert_eq!(
        text(vec![entry(1, "allowed"), entry(2, "denied"), entry(3, "denied")]),
        "\n  denied where it comes by a Service with externalTrafficPolicy Cluster and enters at n2 (192.0.2.2), n3 \
         (192.0.2.3): that node's address is judged in place of the client's"
    );
    assert!(text((1..12).map(|number| entry(number, "denied")).collect()).contains("n8 (192.0.2.8), 3 more: "));
}

#[test]
fn effective_rules_are_shown_by_direction_with_what_selectors_and_names_come_to() {
    let policy = |rules| {
        json!({"policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": "p"}, "tier": "default",
                                "rules": rules})
    };
    let rule = json!({"action": "allow", "peers": [{"text": "all pods in namespace shop", "members": 3},
                      {"text": "10.0.0.0/8"}], "ports": [{"text": "TCP http", "numbers": [80, 8080]}]});
    let effective: EffectivePolicy = serde_json::from_value(json!({
        "namespace": "shop", "name": "web", "addresses": ["10.0.0.1"],
        "ingress": {"is": "governed", "policies": [policy(json!([rule])), policy(json!([]))]},
        "egress": {"is": "open"},
    }))
    .unwrap();
    let text = policy_text(&effective);
    for part in [
        "Pod shop/web (10.0.0.1)",
        "all pods in namespace shop (3 now), 10.0.0.0/8",
        "TCP http (80, 8080 now)",
        "allows nothing",
        "egress: open",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_denied_packet_is_a_line_that_says_who_was_denied_what_and_by_which_policies() {
    let record: DropRecord = serde_json::from_value(json!({
        "timeMs": 1_795_258_020_123_u64, "direction": "ingress", "pod": {"namespace": "shop", "name": "db"},
        "source": "fd00::1", "destination": "fd00::2", "protocol": 6, "sourcePort": 40000, "destinationPort": 5432,
        "policies": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "deny"}], "missed": 2,
    }))
    .unwrap();
    assert_eq!(
        record_text(&record),
        "2026-11-21T10:47:00.123Z ingress of pod shop/db: TCP [fd00::1]:40000 -> [fd00::2]:5432: \
         isolated by NetworkPolicy shop/deny (2 more before it)"
    );
}

#[test]
fn the_two_ends_are_compared_in_a_family_that_both_have() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let (both, v6) = (addresses(&["10.0.0.1", "fd00::1"]), addresses(&["fd00::2"]));
    let pair = |source: &str, destination: &str| (source.parse().unwrap(), destination.parse().unwrap());
    assert_eq!(common(&both, &both, None).unwrap(), pair("10.0.0.1", "10.0.0.1"));
    assert_eq!(common(&both, &v6, None).unwrap(), pair("fd00::1", "fd00::2"));
    assert_eq!(common(&both, &both, Some(Family::Ipv6)).unwrap(), pair("fd00::1", "fd00::1"));
    assert!(common(&both, &v6, Some(Family::Ipv4)).unwrap_err().to_string().contains("ipv4"));
}
