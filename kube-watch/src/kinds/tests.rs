use serde_json::json;

use super::*;
use crate::object::{Content, Object};

fn object<K: Kind>(object: Value) -> Object<K> {
    serde_json::from_value(object).unwrap()
}

fn pod(fields: Value) -> Pod {
    let mut whole = json!({
        "metadata": { "name": "web-0", "namespace": "shop", "uid": "u1", "resourceVersion": "7" },
        "spec": { "containers": [{ "name": "web", "image": "web" }] },
    });
    for (section, fields) in fields.as_object().unwrap() {
        for (field, value) in fields.as_object().unwrap() {
            whole[section][field] = value.clone();
        }
    }
    match object::<Pods>(whole).content {
        Content::Read(_, pod) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_has_the_named_ports_of_its_containers_and_of_sidecars_but_not_of_init_containers() {
    let port = |name: &str, number: u16| json!({ "name": name, "containerPort": number });
    let read = pod(json!({ "spec": {
        "containers": [
            { "ports": [port("http", 80), { "containerPort": 81 }] },
            { "ports": [{ "name": "dns", "containerPort": 53, "protocol": "UDP" }] },
        ],
        "initContainers": [
            { "ports": [port("setup", 90)] },
            { "ports": [port("mesh", 91)], "restartPolicy": "Always" },
        ],
    }}));
    let named = |name: &str, protocol, port| EndpointPort { name: name.to_owned(), protocol, port };
    assert_eq!(
        read.ports,
        [named("http", Protocol::Tcp, 80), named("dns", Protocol::Udp, 53), named("mesh", Protocol::Tcp, 91)]
    );
}

#[test]
fn what_a_pod_says_of_host_ports_is_read_as_far_as_it_matters() {
    let ports =
        json!([{ "containerPort": 80, "hostPort": 8080 }, { "containerPort": 53, "protocol": "UDP", "hostPort": 0 }]);
    let read = |annotations: Value| {
        pod(json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "ports": ports }] } }))
            .host_ports
    };
    let declared = |protocol, container_port, host_port| DeclaredPort { protocol, container_port, host_port };
    let named = declared(Protocol::Tcp, 80, Some(8080));
    assert_eq!(read(json!(null)), PodPorts { wish: None, told: None, declared: vec![named.clone()] });
    let asked = PodPorts {
        wish: Some("auto".to_owned()),
        told: None,
        declared: vec![named, declared(Protocol::Udp, 53, None)],
    };
    assert_eq!(read(json!({ types::host_ports::WISH_ANNOTATION: "auto" })), asked);
}

#[test]
fn a_pod_has_ended_when_its_phase_is_succeeded_or_failed() {
    for (phase, finished) in [("Pending", false), ("Running", false), ("Succeeded", true), ("Failed", true)] {
        assert_eq!(pod(json!({ "status": { "phase": phase } })).finished, finished, "{phase}");
    }
}

#[test]
fn a_static_pod_is_known_by_the_hash_that_the_runtime_calls_its_uid() {
    let read = pod(json!({ "metadata": {
        "annotations": { "kubernetes.io/config.hash": "h1", "kubernetes.io/config.source": "file" },
    }}));
    let asked = |uid: &str| PodRef { uid: Some(uid.to_owned()), ..read.reference.clone() };
    assert!(read.is_meant_by(&asked("h1")) && read.is_meant_by(&asked("u1")) && !read.is_meant_by(&asked("h2")));
}

#[test]
fn labels_addresses_and_the_host_network_are_read_and_null_is_none() {
    let read = pod(json!({
        "metadata": { "labels": { "app": "web" }, "annotations": null },
        "spec": { "hostNetwork": true, "initContainers": null },
        "status": { "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] },
    }));
    assert_eq!(read.labels, Labels::from([("app".to_owned(), "web".to_owned())]));
    assert!(read.host_network);
    assert_eq!(read.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    assert_eq!(pod(json!({ "metadata": { "labels": null } })).labels, Labels::new());
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_keeps_its_version() {
    let read = object::<Pods>(json!({
        "metadata": { "name": "web-0", "namespace": "shop", "resourceVersion": "7" },
        "spec": { "containers": "none" },
    }));
    assert_eq!(read.version, "7");
    assert!(matches!(read.content, Content::Unreadable { name, .. } if name == "shop/web-0"));
    assert!(matches!(object::<Pods>(json!({ "metadata": 1 })).content, Content::Nameless));
}

#[test]
fn a_policy_without_a_readable_spec_governs_its_namespace_and_allows_nothing() {
    let read = object::<NetworkPolicies>(json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": [] }));
    let Content::Read(id, spec) = read.content else { panic!("{read:?}") };
    assert_eq!((id.to_string().as_str(), spec), ("NetworkPolicy shop/p", json!([])));
}

#[test]
fn a_namespace_whose_labels_cannot_be_read_is_unreadable_not_unlabelled() {
    let read = object::<Namespaces>(json!({ "metadata": { "name": "shop", "labels": { "team": 1 } } }));
    assert!(matches!(read.content, Content::Unreadable { key, .. } if key == "shop"));
}
