use std::net::Ipv4Addr;

use super::*;
use crate::wire::{AsPath, Families, PeerType};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn id(last: u8) -> RouterId {
    RouterId::new(Ipv4Addr::new(192, 0, 2, last)).unwrap()
}

fn cluster(last: u8) -> ClusterId {
    ClusterId(Ipv4Addr::new(1, 1, 1, last))
}

fn import() -> ImportPolicy {
    ImportPolicy { pools: vec![prefix("10.65.0.0/16")], prefixes: vec![prefix("0.0.0.0/0"), prefix("198.51.100.0/24")] }
}

fn policy(audience: Audience) -> ExportPolicy {
    let peer_type = match audience {
        Audience::External { .. } => PeerType::External,
        Audience::Internal { .. } => PeerType::Internal,
    };
    let codec = Codec { four_octet_as: true, peer_type, families: Families::ALL };
    ExportPolicy { family: Family::Ipv4, codec, audience, own_next_hop: [192, 0, 2, 1].into() }
}

fn router(transit: Option<SharedSubnet>) -> ExportPolicy {
    policy(Audience::External { remote: asn(65_001), local: Asn::DEFAULT, transit })
}

fn internal(reflector: Option<ClusterId>, clients: bool) -> ExportPolicy {
    policy(Audience::Internal { reflector, clients })
}

fn route(path: PathAttributes) -> RouteAttributes {
    RouteAttributes { path, next_hop: Some([192, 0, 2, 7].into()) }
}

fn admitted(policy: &ExportPolicy, text: &str) -> Vec<Source> {
    let sources = [Source::Local, Source::External, Source::Client, Source::Internal];
    let route = route(PathAttributes::default());
    sources.into_iter().filter(|source| policy.admits(&prefix(text), *source, &route, &import())).collect()
}

#[test]
fn pools_and_import_prefixes_are_accepted_and_the_default_entry_means_the_default_route_alone() {
    for accepted in ["10.65.0.0/16", "10.65.3.64/26", "10.65.0.1/32", "0.0.0.0/0", "198.51.100.128/25"] {
        assert!(import().accepts(&prefix(accepted)), "{accepted}");
    }
    for refused in ["10.64.0.0/15", "10.66.0.0/26", "203.0.113.0/24", "0.0.0.0/1", "::/0", "fd00::/64"] {
        assert!(!import().accepts(&prefix(refused)), "{refused}");
    }
}

#[test]
fn the_table_of_who_is_told_what_holds() {
    let pooled = "10.65.0.0/26";
    let all = [Source::Local, Source::External, Source::Client, Source::Internal];
    assert_eq!(admitted(&router(None), pooled), [Source::Local]);
    assert_eq!(admitted(&router(Some(SharedSubnet(None))), pooled), all);
    assert_eq!(admitted(&router(Some(SharedSubnet(None))), "0.0.0.0/0"), [Source::Local], "no transit between routers");
    assert_eq!(admitted(&internal(None, false), pooled), [Source::Local]);
    assert_eq!(admitted(&internal(Some(cluster(1)), false), pooled), [Source::Local, Source::Client]);
    let to_clients = [Source::Local, Source::Client, Source::Internal];
    assert_eq!(admitted(&internal(Some(cluster(1)), true), pooled), to_clients);
}

#[test]
fn rfc1997_well_known_communities_are_honoured() {
    let with = |community| route(PathAttributes { communities: vec![community], ..PathAttributes::default() });
    let pooled = prefix("10.65.0.0/26");
    let transit = router(Some(SharedSubnet(None)));
    let reflector = internal(Some(cluster(1)), true);
    assert!(!transit.admits(&pooled, Source::Client, &with(NO_EXPORT), &import()));
    assert!(reflector.admits(&pooled, Source::Client, &with(NO_EXPORT), &import()));
    assert!(!reflector.admits(&pooled, Source::Client, &with(NO_ADVERTISE), &import()));
}

#[test]
fn a_router_is_not_told_what_has_been_in_its_as() {
    let path = PathAttributes { as_path: AsPath::sequence([asn(65_009), asn(65_001)]), ..PathAttributes::default() };
    let transit = router(Some(SharedSubnet(None)));
    assert!(!transit.admits(&prefix("10.65.0.0/26"), Source::External, &route(path), &import()));
}

#[test]
fn rfc4271_5_1_2_to_5_1_5_towards_a_router_the_as_is_prepended_and_internal_attributes_are_left_out() {
    let path = PathAttributes {
        as_path: AsPath::sequence([asn(65_009)]),
        med: Some(5),
        local_pref: Some(200),
        originator_id: Some(id(7)),
        cluster_list: vec![cluster(1)],
        communities: vec![42],
        ..PathAttributes::default()
    };
    let (told, next_hop) = router(Some(SharedSubnet(None))).rewrite(Source::Internal, &route(path.clone()), None);
    let as_path = AsPath::sequence([Asn::DEFAULT, asn(65_009)]);
    assert_eq!(told, PathAttributes { as_path, communities: vec![42], ..PathAttributes::default() });
    assert_eq!(next_hop, IpAddr::from([192, 0, 2, 1]));
    let shared = SharedSubnet(Some(prefix("192.0.2.0/24")));
    let (_, next_hop) = router(Some(shared)).rewrite(Source::Internal, &route(path), None);
    assert_eq!(next_hop, IpAddr::from([192, 0, 2, 7]));
}

#[test]
fn rfc4456_8_and_10_a_reflector_names_the_originator_once_and_puts_its_cluster_in_front() {
    let reflector = internal(Some(cluster(9)), true);
    let (told, next_hop) = reflector.rewrite(Source::Client, &route(PathAttributes::default()), Some(id(7)));
    assert_eq!((told.originator_id, told.cluster_list, told.local_pref), (Some(id(7)), vec![cluster(9)], Some(100)));
    assert_eq!(next_hop, IpAddr::from([192, 0, 2, 7]), "RFC 4456 section 10: unchanged");
    let path = PathAttributes {
        originator_id: Some(id(3)),
        cluster_list: vec![cluster(1)],
        local_pref: Some(300),
        ..PathAttributes::default()
    };
    let (told, _) = reflector.rewrite(Source::Internal, &route(path), Some(id(7)));
    assert_eq!(told.originator_id, Some(id(3)));
    assert_eq!((told.cluster_list, told.local_pref), (vec![cluster(9), cluster(1)], Some(300)));
}

#[test]
fn rfc4271_5_1_3_and_5_1_5_own_routes_go_to_internal_peers_with_the_default_preference_and_our_next_hop() {
    let own = RouteAttributes { path: PathAttributes::default(), next_hop: None };
    let (told, next_hop) = internal(Some(cluster(9)), true).rewrite(Source::Local, &own, None);
    assert_eq!(told, PathAttributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..PathAttributes::default() });
    assert_eq!(next_hop, IpAddr::from([192, 0, 2, 1]));
}

#[test]
fn rfc4271_5_1_3_and_9_1_2_and_rfc4456_8_routes_that_have_been_here_are_recognised() {
    let receiver = Receiver {
        asn: Asn::DEFAULT,
        router_id: id(1),
        cluster_id: cluster(1),
        addresses: [Some([192, 0, 2, 1].into()), None, None],
    };
    let other: IpAddr = [192, 0, 2, 7].into();
    let plain = PathAttributes::default();
    assert_eq!(receiver.detects_loop(&plain, other), None);
    let as_path = AsPath::sequence([asn(65_001), Asn::DEFAULT]);
    assert_eq!(receiver.detects_loop(&PathAttributes { as_path, ..plain.clone() }, other), Some(Loop::AsPath));
    let originator = PathAttributes { originator_id: Some(id(1)), ..plain.clone() };
    assert_eq!(receiver.detects_loop(&originator, other), Some(Loop::Originator));
    let clusters = PathAttributes { cluster_list: vec![cluster(2), cluster(1)], ..plain.clone() };
    assert_eq!(receiver.detects_loop(&clusters, other), Some(Loop::ClusterList));
    assert_eq!(receiver.detects_loop(&plain, [192, 0, 2, 1].into()), Some(Loop::NextHop));
}
