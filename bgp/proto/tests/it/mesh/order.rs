//! The outcome is a function of the last state, whatever led to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::PeerConfig;
use bgp_proto::wire::Families;
use proptest::prelude::*;
use types::{Family, Prefix};

use super::MINUTE;
use crate::simnet::{Number, SimNet, address, block};

#[derive(Debug, Clone)]
enum NetworkStep {
    Originate(Number, BTreeSet<u8>),
    Reset(Number, Number),
    Restart(Number),
    Unpeer(Number, Number),
    Peer(Number),
    NextHop(Number, Number, bool),
    Run(u64),
}

fn step() -> impl Strategy<Value = NetworkStep> {
    let node = || 1..=3_u8;
    prop_oneof![
        (node(), proptest::collection::btree_set(1..8_u8, 0..4))
            .prop_map(|(n, blocks)| NetworkStep::Originate(n, blocks)),
        (node(), node()).prop_map(|(a, b)| NetworkStep::Reset(a, b)),
        node().prop_map(NetworkStep::Restart),
        (node(), node()).prop_map(|(a, b)| NetworkStep::Unpeer(a, b)),
        node().prop_map(NetworkStep::Peer),
        (node(), node(), any::<bool>()).prop_map(|(a, b, up)| NetworkStep::NextHop(a, b, up)),
        (0..30_000_u64).prop_map(NetworkStep::Run),
    ]
}

fn take(net: &mut SimNet, step: &NetworkStep, all_peers: &BTreeMap<Number, Vec<PeerConfig>>) {
    match step {
        NetworkStep::Originate(node, numbers) => {
            let prefixes = numbers.iter().flat_map(|number| Family::ALL.map(|family| block(*number, family))).collect();
            net.originate(*node, prefixes);
        }
        NetworkStep::Reset(a, b) => net.reset(*a, *b),
        NetworkStep::Restart(node) => {
            net.kill(*node);
            net.start(*node, Families::ALL);
        }
        NetworkStep::Unpeer(node, other) => {
            let name = format!("node {other}");
            let peers = net.peers(*node).into_iter().filter(|peer| peer.description != name).collect();
            net.configure(*node, peers, None);
        }
        NetworkStep::Peer(node) => net.configure(*node, all_peers[node].clone(), None),
        NetworkStep::NextHop(node, other, up) => {
            for family in Family::ALL {
                net.set_next_hop(*node, address(*other, family), *up);
            }
        }
        NetworkStep::Run(milliseconds) => net.run(Duration::from_millis(*milliseconds)),
    }
}

proptest! {
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
        let squashed: Vec<_> = steps.iter().filter(|step| !matches!(step, NetworkStep::Run(_))).cloned().collect();
        let split: Vec<_> = steps.iter().flat_map(|step| [step.clone(), NetworkStep::Run(7_000)]).collect();
        for steps in [steps, reversed, squashed, split] {
            let mut net = SimNet::mesh(3, seed);
            let all_peers = (1..=3).map(|number| (number, net.peers(number))).collect();
            for step in &steps {
                take(&mut net, step, &all_peers);
            }
            for number in 1..=3 {
                take(&mut net, &NetworkStep::Peer(number), &all_peers);
                for other in 1..=3 {
                    take(&mut net, &NetworkStep::NextHop(number, other, true), &all_peers);
                }
                take(&mut net, &NetworkStep::Originate(number, last[usize::from(number) - 1].clone()), &all_peers);
            }
            net.run(10 * MINUTE);
            for number in 1..=3 {
                prop_assert!(net.node(number).is_established());
                prop_assert_eq!(&net.node(number).kernel, &expected[&number], "node {}", number);
            }
        }
    }
}
