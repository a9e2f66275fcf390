use super::*;

#[test]
fn the_exposition_has_every_figure_once_with_its_type() {
    let mut acl = AclView { repairs: 3, ..AclView::default() };
    acl.restore.observe(std::time::Duration::from_millis(3));
    acl.drops.push(felix::acl::DropCount {
        endpoint: "manx/a/eth0".parse().unwrap(),
        namespace: "shop".to_owned(),
        pod: "web".to_owned(),
        direction: Direction::Ingress,
        packets: 7,
    });
    let status = NodeStatus {
        node: "n".parse().unwrap(),
        version: String::new(),
        ready: true,
        problems: Vec::new(),
        datastore: String::new(),
        datastore_connected: true,
        datastore_confirmed_secs: Some(9),
        asn: types::Asn::DEFAULT,
        router_id: None,
        addresses: Vec::new(),
        peers: Vec::new(),
        routes: types::api::RouteCounts::default(),
        endpoints: 2,
    };
    let text = render(Moment {
        status,
        routes: RoutesView::default(),
        acl,
        refused_endpoints: 1,
        announced_services: 3,
        turned_away: 5,
        tcp_drops: TcpDrops { wrongly_signed: 4, ..TcpDrops::default() },
    })
    .unwrap();
    for line in [
        "manx_ready 1",
        "manx_endpoints 2",
        "manx_datastore_confirmed_age_seconds 9",
        "manx_services_announced 3",
        "manx_bgp_connections_refused_total 5",
        "manx_bgp_tcp_drops_total{reason=\"md5-wrong\"} 4",
        "manx_bgp_tcp_drops_total{reason=\"low-ttl\"} 0",
        "manx_policy_repairs_total 3",
        "manx_policy_endpoints{kind=\"refused\"} 1",
        "manx_policy_drops_total{endpoint=\"manx/a/eth0\",namespace=\"shop\",pod=\"web\",direction=\"ingress\"} 7",
        "manx_policy_restore_seconds_bucket{le=\"0.005\"} 1",
        "manx_policy_restore_seconds_bucket{le=\"+Inf\"} 1",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} in {text}");
    }
    let helps: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(helps.len(), helps.iter().collect::<std::collections::BTreeSet<_>>().len());
}
