//! Routers of another AS, and peers that are not what was expected.

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::session::{DownReason, StopReason};
use bgp_proto::wire::Families;
use bgp_proto::{ImportPolicy, Input, LimitAction, PeerConfig, PeerEvent};
use types::{Family, Prefix, SessionState};

use super::{MINUTE, SECOND, asn, converged_mesh, downs, established, is_converged, routes_to};
use crate::simnet::{ASN, SimNet, address, block, blocks, import, peer};

const ROUTER: u32 = 64_601;

/// Nodes 1 to 3 in a full mesh, each with router 9 of another AS above it.
fn with_router(change: impl Fn(&mut PeerConfig)) -> SimNet {
    let mut net = converged_mesh(3);
    net.add(9);
    let to_node = |number| Family::ALL.map(|family| PeerConfig { local_asn: asn(ROUTER), ..peer(9, number, family) });
    net.configure(9, (1..=3).flat_map(to_node).collect(), None);
    net.originate(9, [Prefix::default_route(Family::Ipv4), block(200, Family::Ipv4)].into());
    for number in 1..=3 {
        let mut peers = net.peers(number);
        for family in Family::ALL {
            let mut router = PeerConfig { asn: asn(ROUTER), ..peer(number, 9, family) };
            change(&mut router);
            peers.push(router);
        }
        net.configure(number, peers, None);
    }
    net.run(MINUTE);
    net
}

#[test]
fn a_router_learns_each_block_from_its_own_node_only() {
    let net = with_router(|_| {});
    assert_eq!(net.node(9).kernel, routes_to(1..=3));
    let paths: Vec<_> = net.node(9).speaker.as_ref().unwrap().routes(Family::Ipv4, None).collect();
    for view in paths.iter().filter(|view| !view.own) {
        assert_eq!(view.paths.len(), 1, "{view:?}");
        assert_eq!(view.paths[0].attributes.as_path.to_string(), ASN.to_string());
        assert_eq!(view.paths[0].attributes.local_pref, None, "RFC 4271 section 5.1.5");
    }
}

#[test]
fn rfc4271_5_1_3_a_router_that_wants_them_learns_other_nodes_blocks_with_next_hops_on_the_shared_subnet_kept() {
    let subnet = |peer: &PeerConfig| match Family::of(peer.address) {
        Family::Ipv4 => "192.0.2.0/24",
        Family::Ipv6 => "2001:db8::/64",
    };
    let mut net = with_router(|peer| {
        peer.export_all = true;
        peer.shared_subnet = Some(subnet(peer).parse().unwrap());
    });
    let speaker = net.node(9).speaker.as_ref().unwrap();
    for number in 1..=3 {
        let view = speaker.routes(Family::Ipv4, Some(block(number, Family::Ipv4))).next().unwrap();
        assert_eq!(view.paths.len(), 3);
        assert!(view.paths.iter().all(|path| path.next_hop == address(number, Family::Ipv4)), "{view:?}");
    }
    net.originate(2, BTreeSet::new());
    net.run(SECOND);
    assert_eq!(net.node(9).kernel, routes_to([1, 3]));
}

#[test]
fn a_router_is_told_of_the_rest_on_the_same_session_when_it_comes_to_want_it() {
    let mut net = with_router(|_| {});
    let before = downs(&net, 1, 9);
    let mut peers = net.peers(1);
    peers.iter_mut().filter(|peer| peer.asn == asn(ROUTER)).for_each(|peer| peer.export_all = true);
    net.configure(1, peers, None);
    net.run(SECOND);
    let speaker = net.node(9).speaker.as_ref().unwrap();
    let paths = |number| speaker.routes(Family::Ipv4, Some(block(number, Family::Ipv4))).next().unwrap().paths.len();
    assert_eq!([1, 2, 3].map(paths), [1, 2, 2]);
    assert_eq!(downs(&net, 1, 9), before);
    // What it was told too much is taken back with the session.
    net.configure(1, with_router(|_| {}).peers(1), None);
    net.run(MINUTE);
    assert_eq!(net.node(9).kernel, routes_to(1..=3));
    let speaker = net.node(9).speaker.as_ref().unwrap();
    assert_eq!(speaker.routes(Family::Ipv4, Some(block(2, Family::Ipv4))).next().unwrap().paths.len(), 1);
}

#[test]
fn rfc4271_5_1_3_without_a_shared_subnet_a_node_is_the_next_hop_of_what_it_passes_on() {
    let net = with_router(|peer| peer.export_all = true);
    let speaker = net.node(9).speaker.as_ref().unwrap();
    let view = speaker.routes(Family::Ipv4, Some(block(1, Family::Ipv4))).next().unwrap();
    assert!(view.paths.iter().all(|path| path.next_hop == path.peer), "{view:?}");
}

#[test]
fn what_a_router_says_is_used_within_pools_and_import_prefixes_and_not_spread_in_the_mesh() {
    let mut net = with_router(|_| {});
    let default = Prefix::default_route(Family::Ipv4);
    let router = address(9, Family::Ipv4);
    let via_router = |net: &SimNet, prefix| net.node(1).kernel.get(&prefix) == Some(&vec![router]);
    assert!(via_router(&net, block(200, Family::Ipv4)));
    assert!(!via_router(&net, default));
    let refused = |net: &SimNet| {
        let speaker = net.node(1).speaker.as_ref().unwrap();
        speaker.peers().map(|peer| peer.routes.ipv4.refused).sum::<u32>()
    };
    assert_eq!(refused(&net), 1);

    net.input(1, Input::Import(ImportPolicy { prefixes: vec![default], ..import() }));
    net.run(SECOND);
    assert!(via_router(&net, default));
    assert_eq!(refused(&net), 0);
    // Node 2 hears nothing of it from node 1.
    let speaker = net.node(2).speaker.as_ref().unwrap();
    let view = speaker.routes(Family::Ipv4, None).find(|view| view.prefix == default).unwrap();
    assert_eq!(view.paths.iter().map(|path| path.peer).collect::<Vec<_>>(), [router]);
}

#[test]
fn a_peer_with_the_wrong_as_is_named_and_disturbs_nobody() {
    let mut net = converged_mesh(2);
    net.add(3);
    net.configure(3, vec![PeerConfig { local_asn: asn(65_009), asn: ASN, ..peer(3, 1, Family::Ipv4) }], None);
    let mut peers = net.peers(1);
    peers.push(peer(1, 3, Family::Ipv4));
    net.configure(1, peers, None);
    net.run(MINUTE);
    let wrong = DownReason::BadPeerAs { expected: ASN, got: asn(65_009) };
    assert!(net.node(1).events.contains(&(address(3, Family::Ipv4), PeerEvent::AttemptFailed(wrong))));
    assert!(is_converged(&net, 2));
    assert_eq!(established(&net, 1), 2);
}

#[test]
fn rfc4486_4_a_stranger_is_turned_away() {
    let mut net = converged_mesh(2);
    net.add(3);
    net.configure(3, vec![peer(3, 1, Family::Ipv4)], None);
    net.run(MINUTE);
    assert!(net.node(1).events.contains(&(address(3, Family::Ipv4), PeerEvent::Rejected)));
    assert!(net.node(1).speaker.as_ref().unwrap().rejected_connections() > 0);
    let refused = net.node(3).events.iter().any(|(_, event)| {
        matches!(event, PeerEvent::AttemptFailed(DownReason::NotificationReceived(n)) if n.to_string().contains("reject"))
    });
    assert!(refused, "{:?}", net.node(3).events);
}

#[test]
fn rfc4271_6_7_and_rfc4486_4_too_many_prefixes_end_the_session_for_a_while() {
    let mut net = converged_mesh(2);
    let mut peers = net.peers(1);
    for peer in &mut peers {
        peer.max_prefixes = Some(3);
        peer.max_prefixes_action = LimitAction::Restart;
    }
    net.configure(1, peers, None);
    assert_eq!(established(&net, 1), 2, "a limit that is kept ends nothing");
    net.originate(2, (1..=4).map(|number| block(number, Family::Ipv4)).collect());
    net.run(SECOND);
    assert_eq!(net.node(1).kernel, BTreeMap::new());
    let limit = StopReason::MaximumPrefixes { family: Family::Ipv4, limit: 3 };
    assert!(downs(&net, 1, 2).contains(&(DownReason::Stopped(limit), Families::NONE)));
    net.originate(2, blocks(2));
    net.run(2 * MINUTE);
    let state = |net: &SimNet| net.node(1).speaker.as_ref().unwrap().peers().next().unwrap().state;
    assert_eq!(state(&net), SessionState::Idle);
    net.run(10 * MINUTE);
    assert!(is_converged(&net, 2));
}
