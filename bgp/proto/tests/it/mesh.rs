//! Whole networks of speakers in virtual time: what a user would see of meshes, reflectors and routers, and of everything
//! that can happen to them.

mod graceful;
mod identity;
mod order;
mod origins;
mod reflectors;
mod routers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::PeerEvent;
use bgp_proto::session::DownReason;
use bgp_proto::wire::Families;
use types::{Asn, Family, Prefix};

use crate::simnet::{Link, Number, SimNet, address, block};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
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
fn a_mesh_of_many_nodes_that_all_start_at_once_converges_with_one_session_each() {
    let mut net = SimNet::mesh(30, 41);
    net.run_until(MINUTE, |net| is_converged(net, 30));
    net.run(MINUTE);
    for number in 1..=30 {
        assert!(net.node(number).is_established());
        assert_eq!((established(&net, number), net.node(number).lost.len()), (58, 0));
    }
}

#[test]
fn a_slow_link_delays_routes_and_breaks_nothing() {
    let mut net = SimNet::new(13);
    net.set_link(1, 2, Link::Slow(4 * SECOND));
    let mut net = net.with_mesh(3);
    net.run_until(2 * MINUTE, |net| is_converged(net, 3));
    net.run(10 * MINUTE);
    assert!(is_converged(&net, 3) && (1..=3).all(|number| net.node(number).is_established()));
    assert_eq!(net.node(1).lost, []);
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
