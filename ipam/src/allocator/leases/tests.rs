use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::testing::{id, pool, prefix, request};

fn of_network(network: &str, container: &str) -> EndpointId {
    EndpointId { network: network.parse().unwrap(), ..id(container) }
}

fn allocator(blocks: &[&str]) -> Allocator {
    let mut allocator = Allocator::new(Duration::ZERO, false);
    blocks.iter().for_each(|block| allocator.adopt(prefix(block)).unwrap());
    allocator
}

/// Addresses with the lengths of their subnets, and gateways.
fn lease(
    allocator: &mut Allocator,
    id: &EndpointId,
    link: LinkKind,
    pools: &[Pool],
) -> Result<Vec<(String, String)>, NoRoom> {
    let open: Vec<&Pool> = pools.iter().collect();
    let (endpoint, _) = allocator.lease(id.clone(), request("pod"), link, &open, &BTreeSet::new())?;
    let subnets = endpoint.addresses.iter().zip(&endpoint.subnets);
    Ok(subnets.map(|(address, subnet)| (format!("{address}/{}", subnet.length), subnet.gateway.to_string())).collect())
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(address, gateway)| ((*address).to_owned(), (*gateway).to_owned())).collect()
}

#[test]
fn an_interface_alone_on_its_link_gets_a_subnet_of_two_and_nobody_else_its_gateway() {
    let pools = [pool("v4", "10.0.0.0/16", 29), pool("v6", "fd00::/64", 125)];
    let mut allocator = allocator(&["10.0.0.0/29", "fd00::/125"]);
    let open: Vec<&Pool> = pools.iter().collect();
    let plain = allocator.reserve(id("plain"), request("plain"), &open, &BTreeSet::new()).unwrap();
    assert_eq!(plain.addresses[0].to_string(), "10.0.0.0");
    let leased = lease(&mut allocator, &id("a"), LinkKind::PointToPoint, &pools).unwrap();
    assert_eq!(leased, texts(&[("10.0.0.3/31", "10.0.0.2"), ("fd00::3/127", "fd00::2")]));
    let others: Vec<String> = (0..5)
        .map(|other| {
            let id = id(&format!("o{other}"));
            allocator.reserve(id, request("o"), &open, &BTreeSet::new()).unwrap().addresses[0].to_string()
        })
        .collect();
    assert_eq!(others, ["10.0.0.1", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"]);
    let full = lease(&mut allocator, &id("b"), LinkKind::PointToPoint, &pools);
    assert_eq!(full, Err(NoRoom::Family(Family::Ipv4)));
    // Both of the pair are free again together.
    allocator.commit(&id("a")).unwrap();
    let (_, _, writes) = allocator.release(&id("a"), Instant::now()).unwrap();
    assert_eq!(writes.len(), 5, "the endpoint's row, and four addresses that rest: {writes:?}");
    allocator.tick(Instant::now());
    assert_eq!(lease(&mut allocator, &id("b"), LinkKind::PointToPoint, &pools).unwrap(), leased);
}

#[test]
fn a_network_whose_pods_share_a_link_has_one_subnet_of_which_nobody_else_gets_an_address() {
    let pools = [pool("v4", "10.0.0.0/16", 29)];
    let mut allocator = allocator(&["10.0.0.0/29", "10.0.0.8/29"]);
    let open: Vec<&Pool> = pools.iter().collect();
    // A block that pods have addresses of makes no subnet.
    allocator.reserve(id("plain"), request("plain"), &open, &BTreeSet::new()).unwrap();
    for address in ["10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"] {
        let leased = lease(&mut allocator, &of_network("lan", address), LinkKind::Shared, &pools);
        assert_eq!(leased, Ok(texts(&[(&format!("{address}/29"), "10.0.0.9")])));
    }
    assert_eq!(allocator.shared, BTreeMap::from([(prefix("10.0.0.8/29"), "lan".parse().unwrap())]));
    let full = lease(&mut allocator, &of_network("lan", "last"), LinkKind::Shared, &pools);
    assert_eq!(full, Err(NoRoom::Full(prefix("10.0.0.8/29"))));
    let other = lease(&mut allocator, &of_network("other", "a"), LinkKind::Shared, &pools);
    assert_eq!(other, Err(NoRoom::Family(Family::Ipv4)));
    // Seven of the first block are left for everybody, and not one of the subnet.
    assert_eq!(allocator.free(&open, Family::Ipv4), 7);
    for other in 0..7 {
        allocator.reserve(id(&format!("o{other}")), request("o"), &open, &BTreeSet::new()).unwrap();
    }
    assert_eq!(allocator.reserve(id("o8"), request("o"), &open, &BTreeSet::new()), Err(Family::Ipv4));
}

#[test]
fn a_subnet_stays_its_networks_when_its_pods_have_gone_and_over_a_restart() {
    let pools = [pool("v4", "10.0.0.0/16", 29)];
    let mut allocator = allocator(&["10.0.0.0/29"]);
    let lan = of_network("lan", "a");
    let leased = lease(&mut allocator, &lan, LinkKind::Shared, &pools).unwrap();
    assert_eq!(leased, texts(&[("10.0.0.2/29", "10.0.0.1")]));
    allocator.release(&lan, Instant::now()).unwrap();
    allocator.tick(Instant::now());
    let open: Vec<&Pool> = pools.iter().collect();
    assert_eq!(allocator.reserve(id("o"), request("o"), &open, &BTreeSet::new()), Err(Family::Ipv4));

    let mut restored = Allocator::new(Duration::ZERO, false);
    let (blocks, shared) = (BTreeSet::from([prefix("10.0.0.0/29")]), allocator.shared.clone());
    restored.restore(rows::Restored { blocks, shared, ..rows::Restored::default() }, Instant::now());
    assert_eq!(restored.reserve(id("o"), request("o"), &open, &BTreeSet::new()), Err(Family::Ipv4));
    assert_eq!(lease(&mut restored, &lan, LinkKind::Shared, &pools).unwrap(), leased);
}
