//! Route reflection (RFC 4456) in whole networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bgp_proto::PeerConfig;
use bgp_proto::wire::Families;
use types::{ClusterId, Family};

use super::{MINUTE, SECOND, is_converged, routes_to};
use crate::simnet::{Link, Number, SimNet, block, blocks, peer};

fn cluster(number: u8) -> ClusterId {
    ClusterId(Ipv4Addr::new(1, 1, 1, number))
}

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
fn rfc4271_9_2_a_speaker_that_is_no_reflector_passes_nothing_on() {
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
