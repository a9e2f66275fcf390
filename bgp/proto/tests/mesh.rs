//! Whole networks of speakers in virtual time: what a user would see of meshes, reflectors and routers, and of everything
//! that can happen to them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

mod simnet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp_proto::session::{DownReason, StateName, StopReason};
use bgp_proto::wire::Families;
use bgp_proto::{ImportPolicy, Input, PeerConfig, PeerEvent};
use proptest::prelude::*;
use simnet::{ASN, Link, Number, SimNet, address, block, blocks, import, peer};
use types::{Asn, ClusterId, Family, Prefix};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn cluster(number: u8) -> ClusterId {
    ClusterId(Ipv4Addr::new(1, 1, 1, number))
}

/// The kernel routes to the blocks of these nodes, through the nodes themselves.
fn routes_to(numbers: impl IntoIterator<Item = Number>) -> BTreeMap<Prefix, Vec<IpAddr>> {
    let both = numbers.into_iter().flat_map(|number| Family::ALL.map(|family| (number, family)));
    both.map(|(number, family)| (block(number, family), vec![address(number, family)])).collect()
}

fn others(count: Number, number: Number) -> BTreeMap<Prefix, Vec<IpAddr>> {
    routes_to((1..=count).filter(|other| *other != number))
}

fn is_converged(net: &SimNet, count: Number) -> bool {
    (1..=count).all(|number| net.node(number).kernel == others(count, number))
}

fn converged_mesh(count: Number) -> SimNet {
    let mut net = SimNet::mesh(count, 7);
    net.run_until(MINUTE, |net| {
        is_converged(net, count) && (1..=count).all(|number| net.node(number).is_established())
    });
    net
}

/// What the node was told of the peer's sessions going down.
fn downs(net: &SimNet, number: Number, of: Number) -> Vec<(DownReason, Families)> {
    let events = net.node(number).events.iter().filter(|(peer, _)| Family::ALL.map(|f| address(of, f)).contains(peer));
    let downs = events.filter_map(|(_, event)| match event {
        PeerEvent::Down { reason, retained } => Some((reason.clone(), *retained)),
        _ => None,
    });
    downs.collect()
}

fn established(net: &SimNet, number: Number) -> u64 {
    net.node(number).speaker.iter().flat_map(|speaker| speaker.peers()).map(|peer| peer.counters.established).sum()
}

#[test]
fn a_full_mesh_converges_and_stays_quiet() {
    let mut net = converged_mesh(6);
    net.run(SECOND);
    for number in 1..=6 {
        assert_eq!(net.node(number).in_sync.len(), 2, "node {number}");
        assert!(net.node(number).lost.is_empty());
    }
    let sent: Vec<_> = (1..=6).map(|number| net.node(number).updates_sent()).collect();
    net.run(10 * MINUTE);
    assert!(is_converged(&net, 6));
    assert_eq!(sent, (1..=6).map(|number| net.node(number).updates_sent()).collect::<Vec<_>>());
    for number in 1..=6 {
        assert_eq!(established(&net, number), 10, "no session of node {number} ended");
    }
}

#[test]
fn rfc4271_6_8_both_sides_dial_at_once_and_one_connection_stays() {
    let net = converged_mesh(2);
    for number in [1, 2] {
        assert_eq!(established(&net, number), 2);
        assert_eq!(downs(&net, number, 3 - number), []);
    }
}

#[test]
fn a_block_that_is_given_up_is_withdrawn_at_once_and_a_new_one_spread() {
    let mut net = converged_mesh(3);
    net.originate(1, [block(1, Family::Ipv4), block(77, Family::Ipv4)].into());
    net.run(SECOND);
    for number in [2, 3] {
        let kernel = &net.node(number).kernel;
        assert!(!kernel.contains_key(&block(1, Family::Ipv6)));
        assert_eq!(kernel.get(&block(77, Family::Ipv4)), Some(&vec![address(1, Family::Ipv4)]));
    }
}

#[test]
fn the_same_prefix_from_two_nodes_is_reached_through_both() {
    let mut net = converged_mesh(4);
    let anycast = block(99, Family::Ipv6);
    for number in [1, 2] {
        net.originate(number, [anycast].into());
    }
    net.run(SECOND);
    let both = [1, 2].map(|number| address(number, Family::Ipv6)).to_vec();
    assert_eq!(net.node(3).kernel.get(&anycast), Some(&both));
    assert_eq!(net.node(1).kernel.get(&anycast), None, "an own prefix is not replaced");
    net.set_next_hop(3, both[0], false);
    net.run(SECOND);
    assert_eq!(net.node(3).kernel.get(&anycast), Some(&vec![both[1]]));
    net.originate(2, BTreeSet::new());
    net.run(SECOND);
    assert_eq!(net.node(3).kernel.get(&anycast), None, "what is left cannot be reached");
    assert_eq!(net.node(4).kernel.get(&anycast), Some(&vec![both[0]]));
}

#[test]
fn a_peer_that_flaps_takes_nothing_from_the_kernel_and_comes_back() {
    let mut net = converged_mesh(3);
    for _ in 0..5 {
        net.reset(1, 2);
        net.run(90 * SECOND);
    }
    assert!(is_converged(&net, 3));
    for number in 1..=3 {
        assert!(net.node(number).is_established());
        assert_eq!(net.node(number).lost, []);
    }
}

#[test]
fn rfc4271_6_5_a_silent_link_ends_the_session_after_the_hold_time_and_the_routes_with_it() {
    let mut net = converged_mesh(3);
    net.set_link(1, 2, Link::Silent);
    net.run(58 * SECOND);
    assert!(is_converged(&net, 3), "nobody has noticed yet");
    net.run(40 * SECOND);
    assert_eq!(net.node(1).kernel, routes_to([3]));
    let reasons = downs(&net, 1, 2);
    assert!(reasons.iter().all(|(reason, _)| matches!(reason, DownReason::HoldTimerExpired(_))), "{reasons:?}");
    assert!(reasons.iter().all(|(_, retained)| retained.is_empty()), "RFC 4724: a NOTIFICATION was sent");
    net.set_link(1, 2, Link::Up);
    net.run(5 * MINUTE);
    assert!(is_converged(&net, 3));
}

// --- reflectors ---

/// Node 9 reflects for its clients 1 to `clients`; node 8 is an internal peer of it that is no client.
fn reflected(clients: Number) -> SimNet {
    let mut net = SimNet::new(3);
    net.add(9);
    net.add(8);
    let client =
        |number| Family::ALL.map(|family| PeerConfig { route_reflector_client: true, ..peer(9, number, family) });
    let mut peers: Vec<_> = (1..=clients).flat_map(client).collect();
    peers.extend(Family::ALL.map(|family| peer(9, 8, family)));
    net.configure(9, peers, Some(cluster(9)));
    net.originate(9, BTreeSet::new());
    for number in (1..=clients).chain([8]) {
        if number != 8 {
            net.add(number);
        }
        net.configure(number, Family::ALL.map(|family| peer(number, 9, family)).to_vec(), None);
        net.originate(number, blocks(number));
    }
    net.run(MINUTE);
    net
}

#[test]
fn rfc4456_6_clients_and_other_internal_peers_learn_of_each_other_through_the_reflector() {
    let mut net = reflected(4);
    for number in 1..=4 {
        let expected = routes_to((1..=4).chain([8]).filter(|other| *other != number));
        assert_eq!(net.node(number).kernel, expected, "node {number}");
    }
    assert_eq!(net.node(8).kernel, routes_to(1..=4));
    assert_eq!(net.node(9).kernel, routes_to((1..=4).chain([8])));
    let sent = net.node(9).updates_sent();
    net.run(10 * MINUTE);
    assert_eq!(net.node(9).updates_sent(), sent, "nothing goes round");
}

#[test]
fn rfc4456_6_a_speaker_that_is_no_reflector_passes_nothing_on() {
    let mut net = SimNet::new(5);
    for number in 1..=3 {
        net.add(number);
        net.originate(number, blocks(number));
    }
    net.configure(2, vec![peer(2, 1, Family::Ipv4), peer(2, 3, Family::Ipv4)], None);
    net.configure(1, vec![peer(1, 2, Family::Ipv4)], None);
    net.configure(3, vec![peer(3, 2, Family::Ipv4)], None);
    net.run(MINUTE);
    assert_eq!(net.node(2).kernel.len(), 2);
    assert_eq!(net.node(1).kernel.keys().collect::<Vec<_>>(), [&block(2, Family::Ipv4)]);
}

/// Reflectors 8 and 9, of these clusters, are peers of each other and both have clients 1 to 4.
fn redundant(clusters: [u8; 2]) -> SimNet {
    let mut net = SimNet::new(11);
    for (number, other, cluster_number) in [(8, 9, clusters[0]), (9, 8, clusters[1])] {
        net.add(number);
        let client =
            |node| Family::ALL.map(|family| PeerConfig { route_reflector_client: true, ..peer(number, node, family) });
        let mut peers: Vec<_> = (1..=4).flat_map(client).collect();
        peers.extend(Family::ALL.map(|family| peer(number, other, family)));
        net.configure(number, peers, Some(cluster(cluster_number)));
        net.originate(number, BTreeSet::new());
    }
    for number in 1..=4 {
        net.add(number);
        let peers = [8, 9].into_iter().flat_map(|reflector| Family::ALL.map(|family| peer(number, reflector, family)));
        net.configure(number, peers.collect(), None);
        net.originate(number, blocks(number));
    }
    net.run(MINUTE);
    net
}

#[test]
fn rfc4456_7_two_reflectors_make_no_loop_and_one_of_them_is_enough() {
    for clusters in [[1, 1], [1, 2]] {
        let mut net = redundant(clusters);
        assert!(is_converged(&net, 4), "{clusters:?}");
        let sent: Vec<_> = [8, 9].map(|number| net.node(number).updates_sent()).to_vec();
        net.run(10 * MINUTE);
        assert_eq!(sent, [8, 9].map(|number| net.node(number).updates_sent()));
        net.power_off(8);
        for number in 1..=4 {
            net.set_link(number, 8, Link::Silent);
        }
        net.run(5 * MINUTE);
        assert!(is_converged(&net, 4), "{clusters:?}");
        for number in 1..=4 {
            assert_eq!(net.node(number).lost, [], "the other reflector has told it as well");
        }
    }
}

#[test]
fn rfc4456_8_a_client_drops_its_own_routes_that_come_back() {
    let net = reflected(2);
    let status = net.node(1).speaker.as_ref().unwrap();
    assert_eq!(status.peers().map(|peer| peer.loops).sum::<u64>(), 2, "the reflector need not single it out");
    assert!(!net.node(1).kernel.contains_key(&block(1, Family::Ipv4)));
}

#[test]
fn a_restarted_reflector_costs_its_clients_nothing() {
    let mut net = reflected(4);
    net.kill(9);
    net.run(20 * SECOND);
    net.start(9, Families::ALL);
    net.run(5 * MINUTE);
    for number in (1..=4).chain([8, 9]) {
        assert_eq!(net.node(number).lost, [], "node {number}");
        assert!(net.node(number).is_established());
    }
}

#[test]
fn a_node_becomes_a_reflector_and_ceases_to_be_one_while_it_runs() {
    let mut net = SimNet::new(23);
    for number in [1, 2, 9] {
        net.add(number);
        net.originate(number, if number == 9 { BTreeSet::new() } else { blocks(number) });
    }
    for number in [1, 2] {
        net.configure(number, Family::ALL.map(|family| peer(number, 9, family)).to_vec(), None);
    }
    let peers: Vec<_> = [1, 2].into_iter().flat_map(|node| Family::ALL.map(|family| peer(9, node, family))).collect();
    let clients: Vec<_> =
        peers.iter().map(|peer| PeerConfig { route_reflector_client: true, ..peer.clone() }).collect();
    net.configure(9, peers.clone(), None);
    net.run(MINUTE);
    assert_eq!(net.node(1).kernel, BTreeMap::new());
    net.configure(9, clients, None);
    net.run(2 * MINUTE);
    assert_eq!(net.node(1).kernel, routes_to([2]));
    net.configure(9, peers, None);
    net.run(2 * MINUTE);
    assert_eq!(net.node(1).kernel, BTreeMap::new());
}

// --- routers ---

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
fn a_router_that_wants_them_learns_other_nodes_blocks_with_next_hops_on_the_shared_subnet_kept() {
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
fn without_a_shared_subnet_a_node_is_the_next_hop_of_what_it_passes_on() {
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
fn rfc4486_4_too_many_prefixes_end_the_session_for_a_while() {
    let mut net = converged_mesh(2);
    let mut peers = net.peers(1);
    for peer in &mut peers {
        peer.max_prefixes = Some(3);
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
    assert_eq!(state(&net), StateName::Idle);
    net.run(10 * MINUTE);
    assert!(is_converged(&net, 2));
}

// --- graceful restart ---

#[test]
fn rfc4724_a_killed_agent_that_comes_back_costs_no_route_anywhere() {
    let mut net = converged_mesh(4);
    net.kill(2);
    net.run(100 * SECOND);
    assert!(is_converged(&net, 4), "its peers wait for it");
    net.start(2, Families::ALL);
    net.run(5 * MINUTE);
    for number in 1..=4 {
        assert_eq!(net.node(number).lost, [], "node {number}");
        assert!(net.node(number).is_established());
    }
    assert_eq!(net.node(2).in_sync.len(), 2);
    let speaker = net.node(1).speaker.as_ref().unwrap();
    assert!(
        speaker.peers().all(|peer| peer.retained.is_empty() && peer.routes.ipv4.stale + peer.routes.ipv6.stale == 0)
    );
}

#[test]
fn rfc4724_all_agents_killed_at_once_cost_no_route_anywhere() {
    let mut net = converged_mesh(4);
    for number in 1..=4 {
        net.kill(number);
    }
    net.run(10 * SECOND);
    for number in 1..=4 {
        // Resolving a next hop may take longer than all else.
        net.node_mut(number).resolve_time = 3 * SECOND;
        net.start(number, Families::ALL);
    }
    net.run(5 * MINUTE);
    for number in 1..=4 {
        assert_eq!(net.node(number).lost, [], "node {number}");
        assert_eq!(net.node(number).in_sync.len(), 2);
    }
}

#[test]
fn rfc4724_4_2_what_was_given_up_during_the_restart_goes_at_end_of_rib() {
    let mut net = converged_mesh(3);
    net.kill(2);
    net.run(SECOND);
    net.node_mut(2).set_originated([block(2, Family::Ipv4)].into());
    net.start(2, Families::ALL);
    net.run(MINUTE);
    assert!(net.node(1).kernel.contains_key(&block(2, Family::Ipv4)));
    assert!(!net.node(1).kernel.contains_key(&block(2, Family::Ipv6)));
    assert_eq!(net.node(1).lost.len(), 1);
}

#[test]
fn rfc4724_4_2_routes_of_a_peer_that_does_not_come_back_go_when_its_time_is_over() {
    let mut net = converged_mesh(3);
    net.kill(2);
    net.run(119 * SECOND);
    assert!(is_converged(&net, 3));
    net.run(2 * SECOND);
    assert_eq!(net.node(1).kernel, routes_to([3]));
    let expired = |family| (address(2, family), PeerEvent::StaleExpired(family));
    assert!(Family::ALL.iter().all(|family| net.node(1).events.contains(&expired(*family))));
}

#[test]
fn rfc4724_4_2_routes_go_at_once_when_the_peer_comes_back_without_its_forwarding_state() {
    for preserved in [Families::NONE, Families::only(Family::Ipv6)] {
        let mut net = converged_mesh(2);
        net.kill(2);
        net.run(SECOND);
        net.node_mut(2).set_originated(BTreeSet::new());
        net.start(2, preserved);
        // The node has not told its blocks when its OPEN comes.
        net.run(30 * SECOND);
        let lost: Vec<_> = net.node(1).lost.iter().map(|(_, prefix)| *prefix).collect();
        assert!(lost.contains(&block(2, Family::Ipv4)), "{preserved:?}");
        assert_eq!(net.node(1).kernel, BTreeMap::new());
    }
}

#[test]
fn rfc4724_4_1_a_restarted_speaker_deletes_nothing_before_the_deadline_of_a_peer_that_is_gone() {
    let mut net = converged_mesh(3);
    net.kill(1);
    net.power_off(3);
    for number in [1, 2] {
        net.set_link(number, 3, Link::Silent);
    }
    net.run(10 * SECOND);
    net.start(1, Families::ALL);
    net.run(110 * SECOND);
    assert_eq!(net.node(1).kernel, routes_to([2, 3]), "the routes of node 3 are stale, but may be right");
    assert_eq!(net.node(1).in_sync, []);
    net.run(20 * SECOND);
    assert_eq!(net.node(1).kernel, routes_to([2]));
    assert_eq!(net.node(1).in_sync.len(), 2);
}

#[test]
fn rfc4724_4_1_deletions_wait_during_our_restart_and_announcements_do_not() {
    let mut net = converged_mesh(3);
    net.kill(1);
    net.power_off(3);
    for number in [1, 2] {
        net.set_link(number, 3, Link::Silent);
    }
    net.start(1, Families::ALL);
    net.run(10 * SECOND);
    net.originate(2, [block(2, Family::Ipv4), block(50, Family::Ipv4)].into());
    net.run(SECOND);
    assert!(net.node(1).kernel.contains_key(&block(50, Family::Ipv4)));
    assert!(net.node(1).kernel.contains_key(&block(2, Family::Ipv6)), "withdrawn by node 2, but node 3 may have it");
    net.run(3 * MINUTE);
    let left: Vec<_> = net.node(1).kernel.keys().copied().collect();
    assert_eq!(left, [block(2, Family::Ipv4), block(50, Family::Ipv4)]);
}

#[test]
fn rfc4724_4_a_notification_ends_graceful_restart() {
    let mut net = converged_mesh(3);
    let without_two = net.peers(1).into_iter().filter(|peer| peer.description != "node 2").collect();
    net.configure(1, without_two, None);
    net.run(SECOND);
    assert_eq!(net.node(1).kernel, routes_to([3]));
    assert_eq!(net.node(2).kernel, routes_to([3]), "the peer heard a Cease");
    assert!(
        downs(&net, 2, 1)
            .iter()
            .all(|(reason, retained)| { retained.is_empty() && matches!(reason, DownReason::NotificationReceived(_)) })
    );
}

// --- live changes ---

#[test]
fn peers_come_go_and_change_without_disturbing_the_others() {
    let mut net = converged_mesh(3);
    let all = net.peers(1);
    let mut peers: Vec<_> = all.iter().filter(|peer| peer.description != "node 2").cloned().collect();
    net.configure(1, peers.clone(), None);
    net.run(SECOND);
    peers[0].hold_time = 30 * SECOND;
    net.configure(1, peers.clone(), None);
    net.run(MINUTE);
    peers[1].description = "another name".to_owned();
    peers.extend(all.into_iter().filter(|peer| peer.description == "node 2"));
    net.configure(1, peers, None);
    net.run(2 * MINUTE);
    assert!(is_converged(&net, 3));
    assert_eq!(downs(&net, 1, 3).len(), 1, "only the session whose hold time changed began anew");
    assert_eq!(downs(&net, 3, 2), []);
}

// --- order ---

#[derive(Debug, Clone)]
enum Step {
    Originate(Number, BTreeSet<u8>),
    Reset(Number, Number),
    Restart(Number),
    Unpeer(Number, Number),
    Peer(Number),
    NextHop(Number, Number, bool),
    Run(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..=3_u8;
    prop_oneof![
        (node(), proptest::collection::btree_set(1..8_u8, 0..4)).prop_map(|(n, blocks)| Step::Originate(n, blocks)),
        (node(), node()).prop_map(|(a, b)| Step::Reset(a, b)),
        node().prop_map(Step::Restart),
        (node(), node()).prop_map(|(a, b)| Step::Unpeer(a, b)),
        node().prop_map(Step::Peer),
        (node(), node(), any::<bool>()).prop_map(|(a, b, up)| Step::NextHop(a, b, up)),
        (0..30_000_u64).prop_map(Step::Run),
    ]
}

fn take(net: &mut SimNet, step: &Step, all_peers: &BTreeMap<Number, Vec<PeerConfig>>) {
    match step {
        Step::Originate(node, numbers) => {
            let prefixes = numbers.iter().flat_map(|number| Family::ALL.map(|family| block(*number, family))).collect();
            net.originate(*node, prefixes);
        }
        Step::Reset(a, b) => net.reset(*a, *b),
        Step::Restart(node) => {
            net.kill(*node);
            net.start(*node, Families::ALL);
        }
        Step::Unpeer(node, other) => {
            let name = format!("node {other}");
            let peers = net.peers(*node).into_iter().filter(|peer| peer.description != name).collect();
            net.configure(*node, peers, None);
        }
        Step::Peer(node) => net.configure(*node, all_peers[node].clone(), None),
        Step::NextHop(node, other, up) => {
            for family in Family::ALL {
                net.set_next_hop(*node, address(*other, family), *up);
            }
        }
        Step::Run(milliseconds) => net.run(Duration::from_millis(*milliseconds)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The steps as they are, reversed, without any time between them, and with time between all of them: each followed by
    /// the same last state.
    #[test]
    fn the_outcome_follows_from_the_last_state_only(
        steps in proptest::collection::vec(step(), 0..12),
        last in proptest::collection::vec(proptest::collection::btree_set(1..8_u8, 0..4), 3),
        seed: u64,
    ) {
        let expected: BTreeMap<Number, BTreeMap<Prefix, Vec<IpAddr>>> = (1..=3).map(|number| {
            let mut kernel: BTreeMap<Prefix, Vec<IpAddr>> = BTreeMap::new();
            for other in (1..=3_u8).filter(|other| *other != number) {
                for offered in &last[usize::from(other) - 1] {
                    if !last[usize::from(number) - 1].contains(offered) {
                        for family in Family::ALL {
                            kernel.entry(block(*offered, family)).or_default().push(address(other, family));
                        }
                    }
                }
            }
            (number, kernel)
        }).collect();

        let reversed: Vec<_> = steps.iter().rev().cloned().collect();
        let squashed: Vec<_> = steps.iter().filter(|step| !matches!(step, Step::Run(_))).cloned().collect();
        let split: Vec<_> = steps.iter().flat_map(|step| [step.clone(), Step::Run(7_000)]).collect();
        for steps in [steps, reversed, squashed, split] {
            let mut net = SimNet::mesh(3, seed);
            let all_peers = (1..=3).map(|number| (number, net.peers(number))).collect();
            for step in &steps {
                take(&mut net, step, &all_peers);
            }
            for number in 1..=3 {
                take(&mut net, &Step::Peer(number), &all_peers);
                for other in 1..=3 {
                    take(&mut net, &Step::NextHop(number, other, true), &all_peers);
                }
                take(&mut net, &Step::Originate(number, last[usize::from(number) - 1].clone()), &all_peers);
            }
            net.run(10 * MINUTE);
            for number in 1..=3 {
                prop_assert!(net.node(number).is_established());
                prop_assert_eq!(&net.node(number).kernel, &expected[&number], "node {}", number);
            }
        }
    }
}
