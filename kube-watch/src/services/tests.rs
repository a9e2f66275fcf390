use serde_json::json;

use super::*;
use crate::object::{Content, Object};

fn read<K: Kind>(object: Value) -> K::Value {
    match serde_json::from_value::<Object<K>>(object).unwrap().content {
        Content::Read(_, value) => value,
        other => panic!("{other:?}"),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_service_is_read_with_its_addresses_and_what_it_asks_for() {
    let service = read::<Services>(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {
                "projectcalico.org/loadBalancerIPs": "[\"203.0.113.7\", \"2001:db8::7\"]",
                "projectcalico.org/ipv6pools": "[\"six\"]",
            },
        },
        "spec": {
            "type": "LoadBalancer", "loadBalancerIP": "203.0.113.7", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": ["10.96.0.7", "fd00:96::7"], "externalIPs": ["198.51.100.7"],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 30_001,
            "ports": [{ "port": 80, "nodePort": 30_000 }, { "port": 81 }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.7", "ipMode": "VIP" }] }, "conditions": [
            { "type": "other", "status": "False" },
            { "type": "manx.io/LoadBalancerAddresses", "status": "True", "reason": "Assigned", "message": "m" },
        ]},
    }));
    assert!(service.is_load_balancer && service.is_local && service.class.is_none());
    assert_eq!(service.node_ports, BTreeSet::from([30_000, 30_001]));
    assert_eq!(service.cluster_ips, [address("10.96.0.7"), address("fd00:96::7")]);
    assert_eq!((service.external_ips, service.ingress), (vec![address("198.51.100.7")], vec![address("203.0.113.7")]));
    assert_eq!(service.families, Family::ALL);
    assert_eq!(service.requested.addresses, [address("203.0.113.7"), address("2001:db8::7")]);
    assert_eq!(service.requested.pools, [(Family::Ipv6, vec!["six".to_owned()])]);
    assert_eq!(service.said.map(|said| (said.is_met, said.reason)), Some((true, "Assigned".to_owned())));
}

#[test]
fn a_service_that_is_headless_external_or_being_deleted_has_nothing_to_serve() {
    let named = |fields: Value, spec: Value| {
        let mut metadata = json!({ "name": "web", "namespace": "shop" });
        metadata.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read::<Services>(json!({ "metadata": metadata, "spec": spec, "status": { "loadBalancer": {} } }))
    };
    assert!(named(json!({}), json!({ "clusterIPs": ["None"], "clusterIP": "None" })).cluster_ips.is_empty());
    let external = json!({ "type": "ExternalName", "externalIPs": ["198.51.100.7"], "clusterIPs": ["10.96.0.1"] });
    let external = named(json!({}), external);
    assert!(external.external_ips.is_empty() && external.cluster_ips.is_empty());
    let deleted = named(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), json!({ "type": "LoadBalancer" }));
    assert!(!deleted.is_load_balancer);
}

#[test]
fn a_request_that_cannot_be_read_is_said() {
    for (annotation, part) in [("203.0.113.7", "JSON list"), ("[\"web\"]", "not an address")] {
        let service = read::<Services>(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "annotations": { "projectcalico.org/loadBalancerIPs": annotation },
            },
        }));
        let problem = service.requested.problem.unwrap();
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn the_nodes_of_ready_endpoints_are_read_and_unknown_readiness_is_ready() {
    let slice = read::<EndpointSlices>(json!({
        "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": [
            { "addresses": ["10.0.0.1"], "nodeName": "b", "conditions": { "ready": true } },
            { "addresses": ["10.0.0.2"], "nodeName": "a", "conditions": {} },
            { "addresses": ["10.0.0.3"], "nodeName": "a" },
            { "addresses": ["10.0.0.4"], "nodeName": "c", "conditions": { "ready": false, "serving": true } },
            { "addresses": ["10.0.0.5"], "conditions": { "ready": true } },
        ],
    }));
    assert_eq!(slice.service, Some(NamespacedName::new("shop", "web")));
    assert_eq!((slice.family, slice.ready_nodes), (Some(Family::Ipv4), vec!["a".to_owned(), "b".to_owned()]));
}
