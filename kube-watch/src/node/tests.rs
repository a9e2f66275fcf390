use super::*;

#[test]
fn addresses_taints_labels_and_the_condition_are_read_and_null_is_none() {
    let node = Node::read(json!({
        "metadata": {
            "labels": { "rack": "a" },
            "annotations": { "projectcalico.org/ASNumber": "64601", "csi.volume.kubernetes.io/nodeid": "{}" },
        },
        "spec": { "taints": [{ "key": "manx.io/agent-not-ready", "effect": "NoSchedule" }] },
        "status": {
            "addresses": [
                { "type": "Hostname", "address": "node1" },
                { "type": "InternalIP", "address": "192.0.2.1" },
                { "type": "InternalIP", "address": "2001:db8::1" },
                { "type": "ExternalIP", "address": "203.0.113.1" },
            ],
            "conditions": [
                { "type": "Ready", "status": "False" },
                { "type": "NetworkUnavailable", "status": "True" },
            ],
        },
    }))
    .unwrap();
    assert_eq!(node.labels, Labels::from([("rack".to_owned(), "a".to_owned())]));
    assert_eq!(node.annotations, [("projectcalico.org/ASNumber".to_owned(), "64601".to_owned())].into());
    assert_eq!(node.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(
        (node.taints.as_slice(), node.network_unavailable),
        (&["manx.io/agent-not-ready".to_owned()][..], Some(true))
    );
    let bare = json!({ "metadata": { "labels": null }, "spec": { "taints": null }, "status": null });
    assert_eq!(Node::read(bare).unwrap(), Node::default());
}
