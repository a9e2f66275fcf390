//! What documents come to, and what is refused of them.

use super::*;
use serde_json::json;

fn resource(kind: &str, name: &str, spec: Value) -> Result<Resource, String> {
    let document =
        json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "uid": "x"}, "spec": spec});
    Resource::from_value(document).map_err(|error| error.to_string())
}

#[test]
fn yaml_written_for_calico_applies_unchanged_and_comes_back_the_same() {
    let pool = resource(
        "IPPool",
        "pods",
        json!({"cidr": "10.65.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never",
               "nodeSelector": "all()", "natOutgoing": true, "disabled": false, "allowedUses": ["Workload"]}),
    )
    .unwrap();
    assert_eq!(Resource::from_value(pool.to_value().unwrap()).unwrap(), pool);
    let peer = resource(
        "BGPPeer",
        "tor",
        json!({"peerIP": "192.0.2.1:1790", "asNumber": "64601", "nodeSelector": "rack == 'a'"}),
    )
    .unwrap();
    assert_eq!(Resource::from_value(peer.to_value().unwrap()).unwrap(), peer);
}

#[test]
fn every_refused_field_is_named_at_once() {
    let error = resource(
        "IPPool",
        "pods",
        json!({"cidr": "10.65.0.0/16", "ipipMode": "Always", "vxlanMode": "Always", "assignmentMode": "Manual"}),
    )
    .unwrap_err();
    for field in ["ipipMode: Always", "vxlanMode: Always", "assignmentMode"] {
        assert!(error.contains(field), "{field} in {error}");
    }
    let error =
        resource("BGPPeer", "tor", json!({"peerIP": "192.0.2.1", "asNumber": 1, "filters": [], "reachableBy": "::1"}));
    let error = error.unwrap_err();
    assert!(error.contains("filters") && error.contains("reachableBy"), "{error}");
}

#[test]
fn peers_that_are_pods_have_a_selector_and_an_as_number_and_nothing_that_lets_their_routes_in() {
    let peer = |more: Value| {
        let mut spec = json!({"localWorkloadSelector": "app == 'router'", "asNumber": 65010});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource("BGPPeer", "pods", spec)
    };
    assert!(peer(json!({})).is_ok() && peer(json!({"originValidation": "enforce", "nodeSelector": "all()"})).is_ok());
    for (more, part) in [
        (json!({"peerIP": "192.0.2.1"}), "excludes peerIP"),
        (json!({"asNumber": null}), "needs asNumber"),
        (json!({"originValidation": "off"}), "inside of pools is refused"),
        (json!({"acceptAggregates": ["10.42.0.0/18"]}), "inside of pools is refused"),
    ] {
        let error = peer(more).unwrap_err();
        assert!(error.contains(part), "{part} in {error}");
    }
    let error =
        resource("BGPConfiguration", "default", json!({"localWorkloadPeeringIPV4": "169.254.9.9"})).unwrap_err();
    assert!(error.contains("spec.localWorkloadPeeringIPV4 (") && error.contains("status.hostIP"), "{error}");
}

#[test]
fn an_unimplemented_kind_is_an_error_naming_it() {
    let error = resource("BGPFilter", "f", json!({})).unwrap_err();
    assert!(error.contains("kind BGPFilter of projectcalico.org/v3 is not implemented"), "{error}");
}

#[test]
fn values_that_make_no_sense_are_errors_naming_the_resource_and_the_value() {
    for (kind, name, spec, part) in [
        ("IPPool", "p", json!({"cidr": "10.65.0.1/16"}), "10.65.0.1/16 has host bits set"),
        ("IPPool", "p", json!({"cidr": "10.65.0.0/28", "blockSize": 26}), "blockSize 26 does not fit 10.65.0.0/28"),
        ("IPPool", "p", json!({"cidr": "10.65.0.0/16", "blockSize": 19}), "blockSize 19"),
        ("IPPool", "p", json!({"cidr": "fd00::/48", "blockSize": 115}), "blockSize 115"),
        ("BGPPeer", "p", json!({"peerIP": "192.0.2.1", "asNumber": 1, "maxPrefixes": 0}), "maxPrefixes 0"),
        (
            "BGPPeer",
            "p",
            json!({"peerIP": "192.0.2.1", "asNumber": 1, "acceptAggregates": ["0.0.0.0/0"]}),
            "acceptAggregates: 0.0.0.0/0",
        ),
        ("BGPPeer", "p", json!({"peerIP": "192.0.2.1", "asNumber": 1, "originValidation": "strict"}), "strict"),
        ("IPPool", "p", json!({"cidr": "10.65.0.0/16", "allowedUses": ["Workload", "LoadBalancer"]}), "and not both"),
        ("IPPool", "p", json!({"cidr": "10.65.0.0/16", "allowedUses": ["Tunnel"]}), "has to have Workload"),
        ("IPPool", "p", json!({"cidr": "10.65.0.0/16", "allowedUses": ["Service"]}), "Service"),
        ("BGPConfiguration", "default", json!({"serviceClusterIPs": [{"cidr": "0.0.0.0/0"}]}), "0.0.0.0/0"),
        ("BGPPeer", "p", json!({"peerIP": "192.0.2.1"}), "asNumber"),
        ("BGPPeer", "p", json!({"peerIP": "tor", "asNumber": 1}), "\"tor\""),
        ("BGPPeer", "p", json!({"peerIP": "192.0.2.1", "asNumber": 0}), "AS number 0"),
        ("BGPPeer", "p", json!({"asNumber": 1}), "peerIP, peerSelector or localWorkloadSelector"),
        ("BGPPeer", "p", json!({"peerIP": "192.0.2.1", "asNumber": 1, "password": {}}), "password needs secretKeyRef"),
        ("BGPPeer", "p", router(json!({"password": {"value": "x"}})), "spec.password.value"),
        ("BGPPeer", "p", router(secret(json!({"name": "s", "key": "k", "optional": true}))), "optional: true"),
        ("BGPPeer", "p", router(secret(json!({"name": "s,x=y", "key": "k"}))), "\"s,x=y\""),
        ("BGPPeer", "p", router(secret(json!({"name": "s", "key": "a/b"}))), "\"a/b\" is not a key of a Secret"),
        ("BGPPeer", "p", router(secret(json!({"name": "s"}))), "key"),
        ("BGPPeer", "p", router(json!({"passwordFile": "rack1"})), "\"rack1\" is not a path that begins with /"),
        ("BGPPeer", "p", router(json!({"passwordFile": "/a", "password": {}})), "exclude each other"),
        ("BGPPeer", "p", router(json!({"ttlSecurity": 0})), "0 is not a number of hops"),
        ("BGPPeer", "p", router(json!({"ttlSecurity": 256})), "256 is not a number of hops"),
        ("BGPConfiguration", "default", json!({"nodeMeshPassword": {}}), "nodeMeshPassword needs secretKeyRef"),
        ("BGPConfiguration", "default", json!({"nodeMeshTTLSecurity": true}), "nodeMeshTTLSecurity"),
        ("BGPConfiguration", "other", json!({}), "named default"),
        ("Node", "n", json!({"bgp": {"ipv4Address": "fd00::1"}}), "ipv4Address"),
    ] {
        let error = resource(kind, name, spec).unwrap_err();
        assert!(error.contains(part) && error.contains(name), "{part} in {error}");
    }
}

/// The spec of a BGPPeer with this in it.
fn router(more: Value) -> Value {
    let mut spec = json!({"peerIP": "192.0.2.1", "asNumber": 64601});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn secret(key_ref: Value) -> Value {
    json!({"password": {"secretKeyRef": key_ref}})
}

#[test]
fn a_session_may_have_a_password_and_say_how_far_away_its_peer_is() {
    let mut spec = router(secret(json!({"name": "bgp-secrets", "key": "rack1", "optional": false})));
    spec["ttlSecurity"] = json!(1);
    let peer = resource("BGPPeer", "tor", spec).unwrap();
    let Spec::BgpPeer(spec) = &peer.spec else { panic!("{peer:?}") };
    assert_eq!(spec.password_source().unwrap().to_string(), "key rack1 of Secret bgp-secrets");
    assert_eq!(spec.ttl_security.map(crate::Hops::least_ttl), Some(255));
    assert_eq!(Resource::from_value(peer.to_value().unwrap()).unwrap(), peer);
    let peer = resource("BGPPeer", "tor", router(json!({"passwordFile": "/etc/manx/rack1"}))).unwrap();
    let Spec::BgpPeer(spec) = &peer.spec else { panic!("{peer:?}") };
    assert_eq!(spec.password_source().unwrap().to_string(), "file /etc/manx/rack1");
    let mesh = json!({"nodeMeshPassword": {"secretKeyRef": {"name": "bgp-secrets", "key": "mesh"}}, "nodeMeshTTLSecurity": "Disabled"});
    let configuration = resource("BGPConfiguration", "default", mesh).unwrap();
    let Spec::BgpConfiguration(spec) = &configuration.spec else { panic!("{configuration:?}") };
    assert_eq!(spec.mesh_password_source().unwrap().to_string(), "key mesh of Secret bgp-secrets");
    assert_eq!(Resource::from_value(configuration.to_value().unwrap()).unwrap(), configuration);
}

#[test]
fn kinds_are_found_under_the_names_people_type() {
    for text in ["IPPool", "ippool", "ippools", "ip-pools"] {
        assert_eq!(text.parse::<Kind>().unwrap(), Kind::IpPool);
    }
    for text in ["NetworkPolicy", "networkpolicies", "netpol"] {
        assert_eq!(text.parse::<Kind>().unwrap(), Kind::NetworkPolicy);
    }
    assert_eq!("ns".parse::<Kind>().unwrap(), Kind::Namespace);
    assert!("pods".parse::<Kind>().is_err());
}

fn policy(metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
}

#[test]
fn a_network_policy_is_taken_as_kubectl_takes_it_and_comes_back_the_same() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}]});
    let served = json!({"name": "web", "uid": "x", "creationTimestamp": null, "managedFields": [], "labels": null});
    let policy = Resource::from_value(policy(served, spec)).unwrap();
    assert_eq!(policy.reference().to_string(), "NetworkPolicy default/web");
    let (id, meaning) = policy.policy().unwrap();
    assert_eq!(id.to_string(), "NetworkPolicy default/web");
    assert_eq!(meaning.ingress.as_ref().unwrap().len(), 1);
    assert_eq!(Resource::from_value(policy.to_value().unwrap()).unwrap(), policy);
}

#[test]
fn everything_wrong_with_a_policy_is_named_at_once_by_its_place() {
    let metadata = json!({"name": "web", "namespace": "shop", "ownerReferences": []});
    let spec = json!({"podSelectors": {}, "egress": [{"to": [{}], "ports": [{"port": 0}]}]});
    let error = Resource::from_value(policy(metadata, spec)).unwrap_err().to_string();
    assert_eq!(
        error,
        "NetworkPolicy shop/web: metadata.ownerReferences: is not implemented; spec.podSelectors: is not a known field; \
         spec.egress[0].ports[0].port: 0 is not a port number, 1 to 65535; \
         spec.egress[0].to[0]: needs podSelector, namespaceSelector or ipBlock"
    );
}

#[test]
fn a_stored_policy_that_would_be_refused_is_in_force_with_what_can_be_read_of_it() {
    let metadata = json!({"name": "web", "namespace": "shop", "newField": 1});
    let document = policy(metadata, json!({"podSelector": {}, "ingress": [{"newField": 1}, {}]}));
    let stored: Resource = serde_json::from_value(document).unwrap();
    let Spec::NetworkPolicy(spec) = &stored.spec else { panic!("{stored:?}") };
    assert_eq!(spec.problems().len(), 1);
    assert_eq!(spec.policy().ingress.as_ref().unwrap().len(), 2);
}

#[test]
fn a_namespace_always_has_the_label_of_its_name() {
    let namespace = |metadata: Value| {
        let spec = json!({"finalizers": ["kubernetes"]});
        let document =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": spec, "status": {}});
        Resource::from_value(document).map_err(|error| error.to_string())
    };
    let shop = namespace(json!({"name": "shop", "labels": {"team": "a", NAME_LABEL: "other"}})).unwrap();
    assert_eq!((shop.metadata.labels[NAME_LABEL].as_str(), shop.metadata.labels.len()), ("shop", 2));
    assert_eq!(Resource::from_value(shop.to_value().unwrap()).unwrap(), shop);
    let error = namespace(json!({"name": "a.b", "labels": {"team": "a b"}})).unwrap_err();
    assert!(error.contains("a.b") && error.contains("\"a b\""), "{error}");
    assert!(namespace(json!({"name": "a", "namespace": "b"})).unwrap_err().contains("metadata.namespace"));
}

#[test]
fn validation_that_is_off_is_off_however_a_reader_of_yaml_takes_the_word() {
    for off in [json!("off"), json!(false)] {
        let spec = json!({"peerIP": "192.0.2.1", "asNumber": 64601, "originValidation": off});
        let peer = resource("BGPPeer", "tor", spec).unwrap();
        let Spec::BgpPeer(spec) = &peer.spec else { panic!("{peer:?}") };
        assert_eq!(spec.origin_validation, Some(OriginValidation::Off));
        assert_eq!(peer.to_value().unwrap()["spec"]["originValidation"], "off");
        assert_eq!(Resource::from_value(peer.to_value().unwrap()).unwrap(), peer);
    }
}

#[test]
fn a_peer_may_be_told_of_the_blocks_of_other_nodes() {
    let spec = json!({"peerIP": "192.0.2.1", "asNumber": 64601, "exportOtherNodes": true});
    let peer = resource("BGPPeer", "tor", spec).unwrap();
    let Spec::BgpPeer(spec) = &peer.spec else { panic!("{peer:?}") };
    assert!(spec.export_other_nodes);
    assert_eq!(Resource::from_value(peer.to_value().unwrap()).unwrap(), peer);
}

#[test]
fn a_pool_is_for_pods_unless_it_says_that_it_is_for_services() {
    let uses = |uses: Value| {
        let pool = resource("IPPool", "p", json!({"cidr": "10.65.0.0/16", "allowedUses": uses})).unwrap();
        let Spec::IpPool(spec) = &pool.spec else { panic!("{pool:?}") };
        assert_eq!(Resource::from_value(pool.to_value().unwrap()).unwrap(), pool);
        (spec.is_for_pods(), spec.is_for_load_balancers())
    };
    for pods in [json!(null), json!(["Workload"]), json!(["Workload", "Tunnel"]), json!(["Tunnel", "Workload"])] {
        assert_eq!(uses(pods.clone()), (true, false), "{pods}");
    }
    assert_eq!(uses(json!(["LoadBalancer"])), (false, true));
}

#[test]
fn the_ranges_of_services_are_read_as_calico_has_them() {
    let spec = json!({
        "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}, {"cidr": "fd00:96::/112"}],
        "serviceExternalIPs": [{"cidr": "198.51.100.7/32"}],
        "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}],
        "serviceLoadBalancerAggregation": "Disabled",
    });
    let configuration = resource("BGPConfiguration", "default", spec).unwrap();
    let Spec::BgpConfiguration(spec) = &configuration.spec else { panic!("{configuration:?}") };
    let ranges = spec.service_ranges();
    let texts: Vec<_> = ranges.all().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.96.0.0/16", "fd00:96::/112", "198.51.100.7/32", "203.0.113.0/24"]);
    assert!(ranges.load_balancer_apart);
    assert_eq!(Resource::from_value(configuration.to_value().unwrap()).unwrap(), configuration);
}
