use super::*;
use std::collections::BTreeSet;

fn pool(cidr: &str, block_size: u8) -> Pool {
    let name = ResourceName::new("default").unwrap();
    Pool { name, cidr: cidr.parse().unwrap(), block_size, disabled: false, selects_this_node: true }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn known(blocks: &[&str]) -> BTreeMap<Prefix, ()> {
    blocks.iter().map(|block| (block.parse().unwrap(), ())).collect()
}

#[test]
fn a_block_size_that_does_not_fit_names_pool_range_and_size() {
    let error = |cidr, block_size| pool(cidr, block_size).check().unwrap_err().to_string();
    assert_eq!(error("10.0.0.0/27", 26), "pool default: blockSize 26 does not fit 10.0.0.0/27");
    assert_eq!(error("10.0.0.0/8", 19), "pool default: blockSize 19 of 10.0.0.0/8 is not within 20 to 32");
    assert_eq!(error("fd00::/64", 26), "pool default: blockSize 26 of fd00::/64 is not within 116 to 128");
    assert_eq!(error("fd00::/124", 122), "pool default: blockSize 122 does not fit fd00::/124");
    for (cidr, block_size) in [("10.0.0.0/26", 26), ("10.0.0.0/8", 20), ("10.0.0.0/8", 32), ("::/0", 128)] {
        assert_eq!(pool(cidr, block_size).check(), Ok(()));
    }
}

#[test]
fn every_block_of_a_pool_is_a_candidate_once_from_a_place_that_the_name_decides() {
    let pool = pool("10.0.0.0/20", 26);
    let blocks: Vec<Prefix> = pool.candidates(&node("node-1"), &known(&[])).collect();
    assert_eq!(blocks.len(), 64);
    assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), 64);
    assert!(blocks.iter().all(|block| pool.cidr.covers(block) && block.len() == 26));
    assert_eq!(blocks, pool.candidates(&node("node-1"), &known(&[])).collect::<Vec<_>>());

    let names = (0..64).map(|number| node(&format!("node-{number}")));
    let firsts: BTreeSet<Prefix> = names.filter_map(|node| pool.candidates(&node, &known(&[])).next()).collect();
    assert!(firsts.len() > 32, "{} of 64 nodes begin apart", firsts.len());
}

#[test]
fn what_overlaps_a_known_block_of_any_size_is_no_candidate() {
    let known = known(&["10.0.0.0/26", "10.0.0.200/32", "10.0.0.64/27", "10.0.1.0/25", "10.9.0.0/26"]);
    let mut left: Vec<String> =
        pool("10.0.0.0/23", 26).candidates(&node("a"), &known).map(|block| block.to_string()).collect();
    left.sort();
    assert_eq!(left, ["10.0.0.128/26", "10.0.1.128/26", "10.0.1.192/26"]);
    assert_eq!(pool("10.9.0.0/26", 26).candidates(&node("a"), &known).next(), None);
}

#[test]
fn the_largest_pools_have_candidates_at_once() {
    for (cidr, block_size) in [("::/0", 128), ("fd00::/8", 122), ("0.0.0.0/0", 32), ("10.0.0.0/8", 26)] {
        let pool = pool(cidr, block_size);
        let block = pool.candidates(&node("a"), &known(&[])).next().unwrap();
        assert!(pool.cidr.covers(&block) && block.len() == block_size, "{block}");
    }
}
