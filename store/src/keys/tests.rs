use super::*;

#[test]
fn every_key_is_valid_and_reads_back_as_what_it_is_about() {
    let node = NodeName::new("node-1.example").unwrap();
    let name = ResourceName::new("default").unwrap();
    let policy = ResourceName::new("allow-web").unwrap();
    let id: EndpointId = "manx/0123abc/eth0".parse().unwrap();
    let v4: Prefix = "10.0.0.64/26".parse().unwrap();
    let v6: Prefix = "fd00:1::/122".parse().unwrap();
    let cases = [
        (schema_version(), "version", Subject::SchemaVersion),
        (gone(&node), "elected/gone/node-1.example", Subject::Gone(node.clone())),
        (resource(Kind::IpPool, &name), "resources/IPPool/default", Subject::Resource(Kind::IpPool, name.clone())),
        (
            resource(Kind::Namespace, &name),
            "resources/Namespace/default",
            Subject::Resource(Kind::Namespace, name.clone()),
        ),
        (
            namespaced_resource(Kind::NetworkPolicy, &name, &policy),
            "resources/NetworkPolicy/default/allow-web",
            Subject::NamespacedResource(Kind::NetworkPolicy, name.clone(), policy.clone()),
        ),
        (block(&v4), "blocks/10.0.0.64-26", Subject::Block(v4)),
        (block(&v6), "blocks/fd00:1::-122", Subject::Block(v6)),
        (registration(&node), "nodes/node-1.example/registration", Subject::Registration(node.clone())),
        (alive(&node), "nodes/node-1.example/alive", Subject::Alive(node.clone())),
        (
            endpoint(&node, &id),
            "nodes/node-1.example/endpoints/manx/0123abc/eth0",
            Subject::Endpoint(node.clone(), id.clone()),
        ),
    ];
    for (key, text, about) in cases {
        assert_eq!(key.as_str(), text);
        assert_eq!(Key::new(text), Ok(key.clone()));
        assert_eq!(subject(&key), Ok(about));
    }
    assert!(endpoint(&node, &id).is_under(&endpoints(&node)));
    assert!(endpoints(&node).is_under(&self::node(&node)));
    assert!(resource(Kind::Node, &name).is_under(&resources(Kind::Node)));
    let in_namespace = namespaced_resource(Kind::NetworkPolicy, &name, &policy);
    assert!(in_namespace.is_under(&namespaced_resources(Kind::NetworkPolicy, &name)));
    assert!(in_namespace.is_under(&resources(Kind::NetworkPolicy)));
    let reference = ResourceRef { kind: Kind::NetworkPolicy, namespace: Some(name), name: policy };
    assert_eq!(resource_named(&reference), in_namespace);
    assert!(block(&v4).is_under(&blocks()) && alive(&node).is_under(&nodes()));
}

#[test]
fn a_key_of_another_layout_is_refused_by_name() {
    for text in [
        "blocks/10.0.0.1-26",
        "blocks/ten",
        "nodes/a/other",
        "nodes/a/endpoints/x",
        "resources/Pod/a",
        "resources/NetworkPolicy/a",
        "resources/NetworkPolicy/a/b/c",
        "resources/Namespace/a/b",
        "x",
    ] {
        let error = subject(&Key::new(text).unwrap()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    for text in ["", "/a", "a//b", "a b", "a\n", "é"] {
        assert!(Key::new(text).is_err(), "{text:?}");
    }
}
