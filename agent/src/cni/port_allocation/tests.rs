use proptest::prelude::*;

use super::*;
use crate::testing::{id, reference};

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

fn wanted(of: &[(u16, &[Protocol])]) -> Wanted {
    of.iter().map(|(port, protocols)| (*port, protocols.iter().copied().collect())).collect()
}

fn owner(name: &str) -> (PodRef, Vec<IpAddr>) {
    (reference(name, Some(name)), vec!["10.65.0.2".parse().unwrap()])
}

fn ports(given: &Given) -> Vec<(u16, u16)> {
    given.ports.iter().map(|port| (port.container_port, port.host_port)).collect()
}

#[test]
fn a_container_port_has_one_host_port_in_all_its_protocols() {
    let mut allocation = Allocation::new(range(20_000, 20_009), AllGiven::new());
    let dns = wanted(&[(53, &BOTH), (80, &[Protocol::Tcp])]);
    let udp_taken = |protocol, port| protocol == Protocol::Udp && port == 20_000;
    let given = allocation.give(&id("a"), owner("a"), &dns, udp_taken).unwrap();
    assert_eq!(ports(&given), [(53, 20_001), (53, 20_001), (80, 20_002)]);
}

#[test]
fn the_last_port_goes_to_the_first_and_the_other_is_refused_by_name() {
    let mut allocation = Allocation::new(range(20_000, 20_001), AllGiven::new());
    let http = wanted(&[(8080, &[Protocol::Tcp])]);
    let in_use = |_, port| port == 20_000;
    let given = allocation.give(&id("a"), owner("a"), &http, in_use).unwrap();
    assert_eq!(ports(&given), [(8080, 20_001)]);
    let refused = allocation.give(&id("b"), owner("b"), &http, in_use).unwrap_err().to_string();
    assert_eq!(refused, "no host port of 20000-20001 is free for container port 8080/TCP (hostPorts.range)");
    // Another protocol's ports are others.
    let given = allocation.give(&id("c"), owner("c"), &wanted(&[(53, &[Protocol::Udp])]), in_use).unwrap();
    assert_eq!(ports(&given), [(53, 20_001)]);
    assert!(allocation.release(&id("a")) && !allocation.release(&id("a")));
    assert!(allocation.give(&id("b"), owner("b"), &http, in_use).is_ok());
}

#[test]
fn who_is_refused_a_port_is_given_none_of_the_others() {
    let mut allocation = Allocation::new(range(20_000, 20_001), AllGiven::new());
    let three = wanted(&[(1, &[Protocol::Tcp]), (2, &[Protocol::Tcp]), (3, &[Protocol::Tcp])]);
    allocation.give(&id("a"), owner("a"), &three, |_, _| false).unwrap_err();
    assert!(allocation.given().is_empty());
}

#[test]
fn a_port_that_was_given_back_is_the_last_to_be_given_again_also_over_a_restart() {
    let http = wanted(&[(8080, &[Protocol::Tcp])]);
    let mut allocation = Allocation::new(range(20_000, 20_002), AllGiven::new());
    for (name, port) in [("a", 20_000), ("b", 20_001)] {
        assert_eq!(ports(&allocation.give(&id(name), owner(name), &http, |_, _| false).unwrap()), [(8080, port)]);
    }
    allocation.release(&id("a"));
    let mut allocation = Allocation::new(range(20_000, 20_002), allocation.given().clone());
    for (name, port) in [("c", 20_002), ("d", 20_000)] {
        assert_eq!(ports(&allocation.give(&id(name), owner(name), &http, |_, _| false).unwrap()), [(8080, port)]);
    }
}

proptest! {
    #[test]
    fn no_port_is_given_twice_nor_one_that_is_taken_and_refused_is_only_who_cannot_be_served(
        steps in prop::collection::vec((0..6_u8, prop::collection::btree_map(1..4_u16, 0..3_usize, 1..3), any::<bool>()), 1..60),
        taken in prop::collection::btree_set((0..2_usize, 20_000..20_008_u16), 0..8),
    ) {
        let range = range(20_000, 20_007);
        let is_taken = |protocol, port| taken.contains(&(usize::from(protocol == Protocol::Udp), port));
        let mut allocation = Allocation::new(range, AllGiven::new());
        for (container, wish, release) in steps {
            let id = id(&format!("c{container}"));
            if release {
                allocation.release(&id);
                continue;
            }
            let protocols: [&[Protocol]; 3] = [&BOTH, &[Protocol::Tcp], &[Protocol::Udp]];
            let wish: Vec<_> = wish.into_iter().map(|(port, which)| (port, protocols[which])).collect();
            let before = allocation.given().clone();
            let refused = allocation.give(&id, owner("p"), &wanted(&wish), is_taken).is_err();
            if refused {
                prop_assert_eq!(&before, allocation.given());
            }
            let mut seen = BTreeSet::new();
            for port in allocation.given().values().flat_map(|given| &given.ports) {
                prop_assert!(range.ports().contains(&port.host_port));
                prop_assert!(!is_taken(port.protocol, port.host_port));
                prop_assert!(seen.insert((port.protocol, port.host_port)));
            }
            if let [(_, protocols)] = wish.as_slice() && refused {
                // One port is wanted, and none is free in all its protocols.
                let others: BTreeSet<_> = before.iter().filter(|(other, _)| **other != id)
                    .flat_map(|(_, given)| &given.ports).map(|port| (port.protocol, port.host_port)).collect();
                let is_free = |port: u16| protocols.iter().all(|protocol| {
                    !is_taken(*protocol, port) && !others.contains(&(*protocol, port))
                });
                prop_assert!(!range.ports().any(is_free));
            }
        }
    }
}
