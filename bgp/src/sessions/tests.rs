use super::*;
use types::ClusterId;

fn node(name: &str, number: u8) -> ClusterNode {
    ClusterNode {
        name: name.parse().unwrap(),
        ipv4: Some(std::net::Ipv4Addr::new(192, 0, 2, number)),
        ipv6: Some(format!("2001:db8::{number}").parse().unwrap()),
        asn: None,
        listen_port: None,
        cluster_id: None,
        labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        ttl_security_subnets: Vec::new(),
    }
}

fn peer(json: &str) -> (ResourceName, BgpPeerSpec) {
    ("p".parse().unwrap(), serde_json::from_str(json).unwrap())
}

fn addresses(own: &str, nodes: &[ClusterNode], peers: &[(ResourceName, BgpPeerSpec)], mesh: bool) -> Vec<String> {
    let configuration =
        BgpConfigurationSpec { node_to_node_mesh_enabled: Some(mesh), ..BgpConfigurationSpec::default() };
    let declared = DeclaredPeering { nodes, peers, configuration: &configuration, pods: &[] };
    sessions(&own.parse().unwrap(), &declared).iter().map(|s| format!("{} as {}", s.address, s.asn)).collect()
}

#[test]
fn the_mesh_is_a_session_per_family_with_every_other_node_and_none_with_oneself() {
    let nodes = [node("a", 1), node("b", 2), ClusterNode { ipv6: None, ..node("c", 3) }];
    let expected = ["192.0.2.2 as 64512", "192.0.2.3 as 64512", "2001:db8::2 as 64512"];
    assert_eq!(addresses("a", &nodes, &[], true), expected);
    assert!(addresses("a", &nodes, &[], false).is_empty());
    assert!(addresses("unknown", &nodes, &[], true).is_empty());
}

#[test]
fn a_bgp_peer_is_for_the_nodes_that_it_selects_and_wins_over_the_mesh() {
    let nodes = [node("a", 1), node("b", 2)];
    let tor = [peer(r#"{"peerIP": "198.51.100.1", "asNumber": 64601, "nodeSelector": "name == 'a'"}"#)];
    assert_eq!(addresses("a", &nodes, &tor, false), ["198.51.100.1 as 64601"]);
    assert!(addresses("b", &nodes, &tor, false).is_empty());
    let other = [peer(r#"{"peerIP": "192.0.2.2", "asNumber": 65000, "node": "a"}"#)];
    assert!(addresses("a", &nodes, &other, true).contains(&"192.0.2.2 as 65000".to_owned()));
}

#[test]
fn pods_with_the_labels_of_a_bgp_peer_are_peers_of_their_own_node_and_of_no_other() {
    let nodes = [node("a", 1), node("b", 2)];
    let pod = |name: &str, app: &str, finished: bool| -> WorkloadEndpoint {
        serde_json::from_value(serde_json::json!({
            "id": format!("manx/{name}/eth0"), "pod": {"namespace": "n", "name": name},
            "host_interface": "mx1", "addresses": [format!("10.42.1.{}", name.len()), "fd00:42::7"], "labels": {"app": app},
            "finished": finished,
        }))
        .unwrap()
    };
    let pods = [pod("r", "router", false), pod("web", "web", false), pod("ended", "router", true)];
    let peers = [peer(
        r#"{"localWorkloadSelector": "app == 'router'", "asNumber": 65010, "nodeSelector": "name == 'a'", "maxPrefixes": 9}"#,
    )];
    // What holds for everybody's routes does not let a pod's in.
    let configuration = BgpConfigurationSpec {
        node_to_node_mesh_enabled: Some(false),
        origin_validation: Some(OriginValidation::Off),
        ..BgpConfigurationSpec::default()
    };
    let declared = DeclaredPeering { nodes: &nodes, peers: &peers, configuration: &configuration, pods: &pods };
    let of_a = sessions(&"a".parse().unwrap(), &declared);
    assert_eq!(of_a.iter().map(|session| session.address.to_string()).collect::<Vec<_>>(), ["10.42.1.1", "fd00:42::7"]);
    for session in &of_a {
        assert_eq!((session.asn.to_string().as_str(), session.max_prefixes), ("65010", Some(9)));
        assert_eq!((session.import.role, session.import.validation), (PeerRole::Pod, OriginValidation::Enforce));
    }
    assert!(sessions(&"b".parse().unwrap(), &declared).is_empty());
    assert_eq!(declared.router_pods(&nodes[1]).count(), 0);
}

#[test]
fn reflectors_leave_the_mesh_and_both_sides_of_a_selected_session_have_it() {
    let reflector = ClusterNode { cluster_id: Some(ClusterId([1, 1, 1, 1].into())), ..node("rr", 9) };
    let nodes = [node("a", 1), node("b", 2), reflector];
    let peers = [peer(r#"{"nodeSelector": "name != 'rr'", "peerSelector": "name == 'rr'"}"#)];
    let configuration =
        BgpConfigurationSpec { node_to_node_mesh_enabled: Some(false), ..BgpConfigurationSpec::default() };
    let declared = DeclaredPeering { nodes: &nodes, peers: &peers, configuration: &configuration, pods: &[] };
    let of_reflector = sessions(&"rr".parse().unwrap(), &declared);
    assert_eq!(of_reflector.len(), 4);
    assert!(of_reflector.iter().all(|session| session.route_reflector_client));
    let of_client = sessions(&"a".parse().unwrap(), &declared);
    assert_eq!(of_client.len(), 2);
    assert!(of_client.iter().all(|session| !session.route_reflector_client));
    // The mesh, where it is on, is among the others.
    assert_eq!(addresses("a", &nodes, &[], true), ["192.0.2.2 as 64512", "2001:db8::2 as 64512"]);
}

#[test]
fn other_nodes_blocks_are_for_external_peers_that_ask_for_them() {
    let nodes = [node("a", 1), node("b", 2)];
    let asks = |asn: u32| {
        let json = format!(r#"{{"peerIP": "198.51.100.1", "asNumber": {asn}, "exportOtherNodes": true}}"#);
        let peers = [peer(&json)];
        let configuration = BgpConfigurationSpec::default();
        let declared = DeclaredPeering { nodes: &nodes, peers: &peers, configuration: &configuration, pods: &[] };
        let sessions = sessions(&"a".parse().unwrap(), &declared);
        sessions.iter().filter(|session| session.export_all).map(|session| session.address).collect::<Vec<_>>()
    };
    assert_eq!(asks(64_601), [IpAddr::from([198, 51, 100, 1])]);
    assert!(asks(64_512).is_empty());
}

#[test]
fn a_node_with_an_as_number_of_its_own_is_an_ebgp_peer() {
    let nodes = [node("a", 1), ClusterNode { asn: Asn::new(65_001).ok(), ipv6: None, ..node("b", 2) }];
    assert_eq!(addresses("a", &nodes, &[], true), ["192.0.2.2 as 65001"]);
}

#[test]
fn what_a_peer_is_to_the_cluster_follows_from_who_it_is() {
    let reflector = ClusterNode { cluster_id: Some(ClusterId([1, 1, 1, 1].into())), ..node("rr", 4) };
    let abroad = ClusterNode { asn: Some(Asn::new(65_001).unwrap()), ..node("abroad", 3) };
    let nodes = [node("a", 1), node("b", 2), abroad, reflector];
    let router = |name: &str, json: &str| (name.parse().unwrap(), serde_json::from_str(json).unwrap());
    let peers = [
        router("tor", r#"{"peerIP": "198.51.100.1", "asNumber": 64601, "acceptAggregates": ["10.42.64.0/18"]}"#),
        router(
            "rr-router",
            r#"{"peerIP": "198.51.100.2", "asNumber": 64512, "maxPrefixes": 9, "maxPrefixesAction": "restart"}"#,
        ),
        router("rr", r#"{"node": "a", "peerSelector": "name == 'rr'", "originValidation": "off"}"#),
    ];
    let configuration =
        BgpConfigurationSpec { origin_validation: Some(OriginValidation::Warn), ..BgpConfigurationSpec::default() };
    let declared = DeclaredPeering { nodes: &nodes, peers: &peers, configuration: &configuration, pods: &[] };
    let found = sessions(&"a".parse().unwrap(), &declared);
    let of =
        |address: &str| found.iter().find(|session| session.address == address.parse::<IpAddr>().unwrap()).unwrap();
    for (address, role, validation) in [
        ("192.0.2.2", PeerRole::Node, OriginValidation::Warn),
        ("192.0.2.3", PeerRole::Node, OriginValidation::Warn),
        ("192.0.2.4", PeerRole::Reflector, OriginValidation::Off),
        ("198.51.100.1", PeerRole::Fabric, OriginValidation::Warn),
        ("198.51.100.2", PeerRole::Reflector, OriginValidation::Warn),
    ] {
        let import = &of(address).import;
        assert_eq!((import.role, import.validation), (role, validation), "{address}");
    }
    assert_eq!(of("198.51.100.1").import.aggregates, ["10.42.64.0/18".parse::<Prefix>().unwrap()]);
    assert_eq!(
        (of("198.51.100.2").max_prefixes, of("198.51.100.2").max_prefixes_action),
        (Some(9), LimitAction::Restart)
    );
    // Nodes of two ASes that pass other nodes' blocks on, as the resource between them says.
    let relays = [router("relay", r#"{"node": "a", "peerSelector": "name == 'abroad'", "exportOtherNodes": true}"#)];
    let declared = DeclaredPeering { peers: &relays, ..declared };
    for (own, address) in [("a", "192.0.2.3"), ("abroad", "192.0.2.1")] {
        let found = sessions(&own.parse().unwrap(), &declared);
        let session = found.iter().find(|session| session.address == address.parse::<IpAddr>().unwrap()).unwrap();
        assert_eq!(session.import.role, PeerRole::Relay, "{own}");
    }
}

#[test]
fn a_node_is_heard_at_the_address_that_it_knows_alone_and_a_router_at_any() {
    let nodes = [node("a", 1), node("b", 2), node("c", 3)];
    let peers = [
        peer(r#"{"peerIP": "198.51.100.1", "asNumber": 64601}"#),
        peer(r#"{"peerIP": "192.0.2.2", "asNumber": 64512}"#),
    ];
    let configuration = BgpConfigurationSpec::default();
    let declared = DeclaredPeering { nodes: &nodes, peers: &peers, configuration: &configuration, pods: &[] };
    for session in sessions(&"a".parse().unwrap(), &declared) {
        let is_router = session.address == IpAddr::from([198, 51, 100, 1]);
        assert_eq!(session.dials_local_address, !is_router, "{}", session.address);
    }
}

/// What is asked of the transport of the sessions of node a, as text.
fn security(nodes: &[ClusterNode], peers: &[(ResourceName, BgpPeerSpec)], configuration: &str) -> Vec<String> {
    let configuration: BgpConfigurationSpec = serde_json::from_str(configuration).unwrap();
    let declared = DeclaredPeering { nodes, peers, configuration: &configuration, pods: &[] };
    let shown = |session: &PeerConfig| {
        let source = session.security.password.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        let ttl = session.security.ttl_security.map_or(0, Hops::least_ttl);
        format!("{}: {source}, TTL {ttl}", session.address)
    };
    sessions(&"a".parse().unwrap(), &declared).iter().map(shown).collect()
}

#[test]
fn sessions_have_the_password_that_their_resource_names() {
    let nodes = [node("a", 1), node("b", 2)];
    let secret = |key: &str| format!(r#"{{"secretKeyRef": {{"name": "bgp-secrets", "key": "{key}"}}}}"#);
    let tor = |more: &str| peer(&format!(r#"{{"peerIP": "198.51.100.1", "asNumber": 64601, {more}}}"#));
    let mesh = format!(r#"{{"nodeMeshPassword": {}}}"#, secret("mesh"));
    for (more, shown) in [
        (format!(r#""password": {}"#, secret("rack1")), "key rack1 of Secret bgp-secrets, TTL 0"),
        (r#""passwordFile": "/etc/manx/rack1", "ttlSecurity": 2"#.to_owned(), "file /etc/manx/rack1, TTL 254"),
        (r#""ttlSecurity": 1"#.to_owned(), "none, TTL 255"),
    ] {
        let expected = [
            "192.0.2.2: key mesh of Secret bgp-secrets, TTL 0".to_owned(),
            format!("198.51.100.1: {shown}"),
            "2001:db8::2: key mesh of Secret bgp-secrets, TTL 0".to_owned(),
        ];
        assert_eq!(security(&nodes, &[tor(&more)], &mesh), expected);
    }
    // A node that a BGPPeer selects is that resource's, not the mesh's.
    let selected = peer(r#"{"peerSelector": "name == 'b'", "nodeSelector": "name == 'a'", "ttlSecurity": 3}"#);
    assert_eq!(security(&nodes, &[selected], &mesh), ["192.0.2.2: none, TTL 253", "2001:db8::2: none, TTL 253"]);
}

#[test]
fn rfc5082_3_nodes_of_one_subnet_ask_for_a_neighbours_ttl_once_both_say_so() {
    let with = |name: &str, number: u8, subnets: &[&str]| ClusterNode {
        ttl_security_subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        ..node(name, number)
    };
    let both = ["192.0.2.0/24", "2001:db8::/64"];
    let a = || with("a", 1, &both);
    let ttl = |other: ClusterNode, configuration: &str| security(&[a(), other], &[], configuration);
    assert_eq!(ttl(with("b", 2, &both), "{}"), ["192.0.2.2: none, TTL 255", "2001:db8::2: none, TTL 255"]);
    // An older agent, one of another subnet, one of whom it is known for one family, and an operator who knows better.
    assert_eq!(ttl(node("b", 2), "{}"), ["192.0.2.2: none, TTL 0", "2001:db8::2: none, TTL 0"]);
    assert_eq!(ttl(with("b", 2, &["192.0.2.2/31"]), "{}")[0], "192.0.2.2: none, TTL 0");
    assert_eq!(ttl(with("b", 2, &both[1..]), "{}"), ["192.0.2.2: none, TTL 0", "2001:db8::2: none, TTL 255"]);
    let disabled = r#"{"nodeMeshTTLSecurity": "Disabled"}"#;
    assert_eq!(ttl(with("b", 2, &both), disabled), ["192.0.2.2: none, TTL 0", "2001:db8::2: none, TTL 0"]);
}
