//! Graceful restart (RFC 4724), both roles and both families, in whole networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bgp_proto::session::DownReason;
use bgp_proto::wire::Families;
use bgp_proto::{Input, PeerEvent};
use types::Family;

use super::{MINUTE, SECOND, converged_mesh, downs, is_converged, routes_to};
use crate::simnet::{Link, address, block};

#[test]
fn rfc4724_4_1_and_4_2_a_killed_agent_that_comes_back_costs_no_route_anywhere() {
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
fn rfc4724_4_1_all_agents_killed_at_once_cost_no_route_anywhere() {
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
fn rfc4724_4_2_a_peer_that_comes_back_after_a_power_failure_is_known_by_its_kernels_reset() {
    let mut net = converged_mesh(2);
    net.run(10 * SECOND);
    net.power_off(2);
    net.run(3 * SECOND);
    assert_eq!(downs(&net, 1, 2), [], "nobody has noticed");
    net.start(2, Families::ALL);
    net.run_until(2 * SECOND, |net| (1..=2).all(|number| net.node(number).is_established()));
    net.run(MINUTE);
    assert!(is_converged(&net, 2));
    assert_eq!(net.node(1).lost, [], "what leads to a node that restarts stays");
    for (reason, _) in downs(&net, 1, 2) {
        assert_eq!(reason, DownReason::ConnectionLost);
    }
}

#[test]
fn a_connection_that_somebody_else_opens_with_a_peers_address_ends_no_session() {
    let mut net = converged_mesh(3);
    net.run(10 * SECOND);
    for family in Family::ALL {
        let speaker = net.node_mut(1).speaker.as_mut().unwrap();
        let conn = speaker.conn_id();
        let [local, remote] = [1, 2].map(|number| SocketAddr::new(address(number, family), 50_001));
        net.input(1, Input::Accepted { conn, local, remote });
        net.run(SECOND);
    }
    net.run(MINUTE);
    assert!(is_converged(&net, 3));
    assert_eq!(downs(&net, 1, 2), []);
    let refused = net.node(1).events.iter().filter(|(_, event)| *event == PeerEvent::SecondRefused(1)).count();
    assert_eq!(refused, 2);
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
