use super::*;

#[test]
fn policies_hold_until_no_pod_is_left_and_the_lock_goes_last() {
    let route = Route::unreachable("10.42.0.0/26".parse().unwrap(), 77);
    let link = Link {
        index: 7,
        name: "mxaaaaaaaaaaaaa".to_owned(),
        mac: None,
        mtu: 1_500,
        up: true,
        running: true,
        group: 0,
        kind: Some("veth".to_owned()),
        peer_index: None,
        peer_netns: None,
    };
    let remains = Remains {
        variant: kernel::acl::IptablesVariant::Nft,
        family: types::Family::Ipv6,
        table: "raw".to_owned(),
        chains: vec!["manx-raw".to_owned()],
        rules: Vec::new(),
    };
    let found = Found {
        runtime: vec!["/etc/cni/net.d/10-manx.conflist".into()],
        links: vec![link],
        routes: vec![route],
        rules: vec![remains],
        sets: vec![SetName::new("manx-c4").unwrap()],
        files: vec!["/var/lib/manx/lock".into()],
        folders: vec!["/var/lib/manx".into()],
        trees: vec!["/var/lib/manx-etcd".into()],
    };
    let steps: Vec<_> = plan(found).iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "/etc/cni/net.d/10-manx.conflist",
            "interface mxaaaaaaaaaaaaa",
            "route unreachable 10.42.0.0/26 (protocol 77)",
            "ipv6 table raw (nft): 1 chain, 0 rules",
            "set manx-c4",
            "/var/lib/manx-etcd",
            "/var/lib/manx/lock",
            "/var/lib/manx",
        ]
    );
}
