use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::tests::{blocks, grant_claims, list_claims, same_boot, set_pools};
use super::*;
use crate::rows::{self, Restored};
use crate::testing::{id, node, pool, request};
use crate::{IpamConfig, Request};

fn start(restored: Restored) -> Node {
    let config = IpamConfig { boot_id: "boot".to_owned(), ..IpamConfig::new(node("n1")) };
    Node::new(&config, true, restored, Instant::now())
}

fn wanting(link: LinkKind) -> Request {
    Request { link: Some(link), ..request("pod") }
}

fn of_network(network: &str, container: &str) -> EndpointId {
    EndpointId { network: network.parse().unwrap(), ..id(container) }
}

#[test]
fn another_block_is_claimed_for_a_subnet_that_has_no_room_though_addresses_are_free() {
    let now = Instant::now();
    let mut node = start(same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, now);
    node.reserve(&id("plain"), request("plain")).unwrap();
    assert_eq!(blocks(&node).len(), 1);
    let lan = of_network("lan", "a");
    let error = node.reserve(&lan, wanting(LinkKind::Shared)).unwrap_err();
    assert!(matches!(error, ReserveError::NoSubnet { .. }) && node.may_wait(&error), "{error}");
    grant_claims(&mut node, now);
    assert_eq!(blocks(&node).len(), 2, "one more, and no more than that");
    let endpoint = node.reserve(&lan, wanting(LinkKind::Shared)).unwrap();
    assert!(endpoint.is_wired_elsewhere());
    let second = node.reserve(&of_network("lan", "b"), wanting(LinkKind::Shared)).unwrap();
    assert_eq!(endpoint.subnets, second.subnets);
}

#[test]
fn pools_whose_blocks_are_too_small_for_a_subnet_are_not_claimed_to_their_end() {
    let now = Instant::now();
    let mut node = start(same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 30)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, now);
    let before = blocks(&node).len();
    let error = node.reserve(&of_network("lan", "a"), wanting(LinkKind::Shared)).unwrap_err();
    assert!(error.to_string().contains("an unused block of 8 addresses or more"), "{error}");
    grant_claims(&mut node, now);
    assert_eq!(blocks(&node).len(), before);
}

#[test]
fn what_other_plugins_wire_outlives_a_look_at_the_kernel_and_ends_with_the_boot() {
    let mut node = start(same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, Instant::now());
    let mut journal = crate::testing::JournalRows::default();
    for (network, link) in [("lan", LinkKind::Shared), ("ptp", LinkKind::PointToPoint)] {
        let id = of_network(network, "a");
        if node.reserve(&id, wanting(link)).is_err() {
            grant_claims(&mut node, Instant::now());
            node.reserve(&id, wanting(link)).unwrap();
        }
        node.commit(&id).unwrap();
        node.journalled(id);
    }
    assert_eq!(node.reconcile(&BTreeSet::new(), Instant::now()), []);
    journal.take(node.journal());

    let restored = rows::restore(journal.rows(), &crate::testing::node("n1")).unwrap();
    let subnet = node.endpoint(&of_network("lan", "a")).unwrap().addresses[0];
    let block = *node.blocks().iter().find(|block| block.contains(subnet)).unwrap();
    assert_eq!(restored.shared, BTreeMap::from([(block, "lan".parse().unwrap())]));
    let mut next = start(same_boot(restored.clone()));
    assert_eq!(next.endpoints().len(), 2);
    assert_eq!(next.reconcile(&BTreeSet::new(), Instant::now()), []);

    let mut rebooted = start(Restored { boot_id: Some("before".to_owned()), ..restored });
    assert_eq!(rebooted.endpoints().len(), 0);
    let writes = rebooted.journal().writes();
    assert!(writes.contains(&rows::unshared(&block)), "{writes:?}");
}
