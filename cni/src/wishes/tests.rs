use serde_json::json;

use super::*;

fn refused(object: Value) -> Vec<String> {
    let Value::Object(object) = object else { panic!("{object}") };
    of(&object, None).into_iter().map(|wish| wish.into_cni().msg).collect()
}

#[test]
fn every_key_that_asks_for_what_is_not_done_is_named_with_its_value_and_words() {
    for (object, begins) in [
        (json!({ "ipam": { "type": "calico-ipam" } }), "ipam.type=\"calico-ipam\" is not supported: manx gives"),
        (json!({ "ipam": { "type": "host-local", "subnet": "10.0.0.0/24" } }), "ipam.subnet=\"10.0.0.0/24\" is not"),
        (json!({ "ipam": { "ipv4_pools": ["10.0.0.0/16"] } }), "ipam.ipv4_pools=[\"10.0.0.0/16\"] is not supported"),
        (json!({ "ipam": { "type": "manx", "assign_ipv6": "false" } }), "ipam.assign_ipv6=\"false\" is not supported"),
        (json!({ "ipam": { "type": 3 } }), "ipam.type=3 is not supported"),
        (json!({ "ipam": "host-local" }), "ipam=\"host-local\" is not supported"),
        (json!({ "policy": { "type": "k8s" } }), "policy={\"type\":\"k8s\"} is not supported: NetworkPolicies hold"),
        (json!({ "kubernetes": { "kubeconfig": "/k" } }), "kubernetes={\"kubeconfig\":\"/k\"} is not supported"),
        (json!({ "nodename": "n1" }), "nodename=\"n1\" is not supported: that is a setting of the agent"),
        (json!({ "ipMasq": true }), "ipMasq=true is not supported: masquerading is said by natOutgoing"),
    ] {
        let told = refused(object.clone());
        assert!(told.iter().any(|told| told.starts_with(begins)), "{object}: {told:?}");
    }
}

#[test]
fn what_asks_for_nothing_is_no_wish_and_other_unknown_keys_are_tolerated() {
    let nothing = json!({
        "ipam": { "type": "manx", "ipv4_pools": [] }, "policy": {}, "kubernetes": { "kubeconfig": "" },
        "ipMasq": false, "vlan": 0, "nodename": null, "cni.dev/x": 1, "x": "y",
    });
    assert_eq!(refused(nothing), Vec::<String>::new());
    assert_eq!(refused(json!({ "ipam": {} })), Vec::<String>::new());
}

#[test]
fn values_for_capabilities_that_belong_to_other_plugins_are_refused_in_any_case() {
    let runtime = json!({ "IPs": ["10.0.0.1/24"], "bandwidth": { "IngressRate": 0 }, "Mac": "02:00:00:00:00:01" });
    let Value::Object(runtime) = runtime else { panic!("{runtime}") };
    let told: Vec<_> = of(&Map::new(), Some(&runtime)).into_iter().map(|wish| wish.into_cni().msg).collect();
    assert_eq!(
        told,
        [
            "runtimeConfig.ips=[\"10.0.0.1/24\"] is not supported: addresses come from the node's pools",
            "runtimeConfig.mac=\"02:00:00:00:00:01\" is not supported: put the tuning plugin behind manx, with the capability mac",
        ]
    );
}
