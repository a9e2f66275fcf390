use super::*;
use types::Update;

fn resource(kind: &str, name: &str, spec: serde_json::Value) -> ClusterUpdate {
    let document = serde_json::json!({
        "apiVersion": types::resource::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let resource = Resource::from_value(document).unwrap();
    ClusterUpdate::Resource(resource.kind(), Update::Set(resource.metadata.name.clone(), Box::new(resource)))
}

fn registration(name: &str, ipv4: &str) -> ClusterUpdate {
    let registration = Registration { ipv4: Some(ipv4.parse().unwrap()), ..Registration::default() };
    ClusterUpdate::Registration(Update::Set(name.parse().unwrap(), registration))
}

fn in_sync() -> impl Iterator<Item = ClusterUpdate> {
    Kind::CLUSTER
        .into_iter()
        .map(|kind| ClusterUpdate::Resource(kind, Update::InSync))
        .chain([ClusterUpdate::Registration(Update::InSync), ClusterUpdate::Gone(Update::InSync)])
}

fn updates() -> Vec<ClusterUpdate> {
    vec![
        registration("a", "192.0.2.1"),
        registration("b", "192.0.2.2"),
        resource("IPPool", "p", serde_json::json!({"cidr": "10.0.0.0/16", "nodeSelector": "rack == '1'"})),
        resource("IPPool", "q", serde_json::json!({"cidr": "10.1.0.0/16", "disableBGPExport": true})),
        resource("IPPool", "lb", serde_json::json!({"cidr": "10.2.0.0/16", "allowedUses": ["LoadBalancer"]})),
        resource(
            "BGPConfiguration",
            "default",
            serde_json::json!({"asNumber": 65001, "serviceLoadBalancerIPs": [{"cidr": "10.2.0.0/16"}]}),
        ),
    ]
}

fn desired(updates: impl IntoIterator<Item = ClusterUpdate>) -> Option<Desired> {
    let mut cluster = ClusterState::new("a".parse().unwrap(), vec!["192.0.2.1".parse().unwrap()]);
    for update in updates {
        cluster.apply(update);
    }
    cluster.desired()
}

#[test]
fn nothing_follows_before_every_source_is_known() {
    assert_eq!(desired(updates()), None);
    assert_eq!(desired(updates().into_iter().chain(in_sync().skip(1))), None);
}

#[test]
fn nobody_peers_with_a_node_whose_things_were_taken_back() {
    let gone = |reclaimed| {
        let gone = Gone { since: 1, waited: std::time::Duration::ZERO, reclaimed };
        updates().into_iter().chain([ClusterUpdate::Gone(Update::Set("b".parse().unwrap(), gone))])
    };
    let sessions = |reclaimed| desired(gone(reclaimed).chain(in_sync())).unwrap().sessions.len();
    assert_eq!((sessions(false), sessions(true)), (1, 0));
}

#[test]
fn what_this_node_knows_of_its_addresses_wins_over_what_the_store_has_heard() {
    let mut cluster = ClusterState::new("a".parse().unwrap(), vec!["192.0.2.1".parse().unwrap()]);
    updates().into_iter().chain(in_sync()).for_each(|update| {
        cluster.apply(update);
    });
    let renumbered = "192.0.2.9".parse().unwrap();
    cluster.readdress(vec![renumbered]);
    let local: Vec<_> = cluster.desired().unwrap().sessions.iter().map(|session| session.local_address).collect();
    assert_eq!(local, [Some(renumbered)]);
}

#[test]
fn an_address_that_two_nodes_claim_is_named_unless_the_other_is_gone() {
    let twin = || updates().into_iter().chain([registration("c", "192.0.2.1")]);
    let contested = |updates| desired(updates).unwrap().contested;
    assert_eq!(
        contested(twin().chain(in_sync()).collect::<Vec<_>>()),
        [("192.0.2.1".parse().unwrap(), "c".parse().unwrap())]
    );
    let gone = Gone { since: 1, waited: std::time::Duration::ZERO, reclaimed: false };
    let gone = ClusterUpdate::Gone(Update::Set("c".parse().unwrap(), gone));
    assert_eq!(contested(twin().chain([gone]).chain(in_sync()).collect()), []);
}

#[test]
fn what_follows_does_not_depend_on_the_order_of_arrival() {
    let forward = desired(updates().into_iter().chain(in_sync())).unwrap();
    let backward = desired(updates().into_iter().rev().chain(in_sync())).unwrap();
    assert_eq!(forward, backward);
    assert_eq!(forward.asn.number(), 65_001);
    assert_eq!(forward.sessions.len(), 1);
    assert_eq!(forward.pools.iter().map(|(_, _, ours)| *ours).collect::<Vec<_>>(), [false, true]);
    assert_eq!(forward.unexported.len(), 1);
    assert_eq!((forward.ranges.len(), forward.load_balancers.len()), (2, 1), "a pool for Services is none for pods");
    assert_eq!(forward.services.all().collect::<Vec<_>>(), [&forward.load_balancers[0].cidr]);
}

#[test]
fn every_node_and_every_router_is_closed_to_pods_at_the_port_that_it_listens_on() {
    let own_port =
        Registration { ipv4: Some([192, 0, 2, 3].into()), listen_port: Some(1790), ..Registration::default() };
    let more = [
        ClusterUpdate::Registration(Update::Set("c".parse().unwrap(), own_port)),
        resource("BGPPeer", "tor", serde_json::json!({"node": "b", "peerIP": "198.51.100.1", "asNumber": 65002})),
        resource("BGPPeer", "far", serde_json::json!({"peerIP": "[2001:db8::1]:1179", "asNumber": 65002})),
    ];
    let desired = desired(updates().into_iter().chain(more).chain(in_sync())).unwrap();
    let speakers =
        [("192.0.2.1", 179), ("192.0.2.2", 179), ("192.0.2.3", 1790), ("198.51.100.1", 179), ("2001:db8::1", 1179)];
    let speakers = speakers.map(|(address, port)| (address.parse().unwrap(), port)).into();
    assert_eq!(desired.infrastructure, Infrastructure { speakers, own_port: 179, routers: Vec::new() });
}
