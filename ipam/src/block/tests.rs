use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn block(cidr: &str, taken: &[&str]) -> Block {
    Block::new(cidr.parse().unwrap(), taken.iter().map(|address| address.parse().unwrap())).unwrap()
}

fn take_all(block: &mut Block) -> Vec<String> {
    std::iter::from_fn(|| block.take()).map(|address| address.to_string()).collect()
}

#[test]
fn every_address_of_a_block_is_given_out_once_from_first_to_last() {
    assert_eq!(take_all(&mut block("10.0.0.4/30", &[])), ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"]);
    assert_eq!(take_all(&mut block("10.0.0.9/32", &[])), ["10.0.0.9"]);
    assert_eq!(take_all(&mut block("fd00::8/127", &[])), ["fd00::8", "fd00::9"]);
    assert_eq!(take_all(&mut block("10.0.16.0/20", &[])).len(), 4096);
    assert_eq!(take_all(&mut block("fd00::/116", &[])).last().unwrap(), "fd00::fff");
}

#[test]
fn addresses_given_back_come_after_those_never_used_and_in_the_order_of_their_return() {
    let mut block = block("10.0.0.0/29", &[]);
    for _ in 0..5 {
        block.take();
    }
    block.give_back("10.0.0.3".parse().unwrap(), 1);
    block.give_back("10.0.0.1".parse().unwrap(), 2);
    assert_eq!(block.turn(), Some(Turn::Untouched));
    assert_eq!(take_all(&mut block), ["10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.3", "10.0.0.1"]);
    assert_eq!(block.turn(), None);
    block.give_back("10.0.0.6".parse().unwrap(), 3);
    assert_eq!(block.turn(), Some(Turn::Returned(3)));
}

#[test]
fn a_block_that_is_taken_over_in_use_skips_what_is_in_use() {
    let mut block = block("10.0.0.0/30", &["10.0.0.0", "10.0.0.2", "10.0.1.0", "fd00::"]);
    assert_eq!((block.free(), block.size()), (2, 4));
    block.give_back("10.0.0.2".parse().unwrap(), 1);
    block.give_back("10.0.0.0".parse().unwrap(), 2);
    assert_eq!(take_all(&mut block), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.0"]);
}

#[test]
fn an_address_that_is_withdrawn_is_not_given_out_until_it_is_given_back() {
    let mut block = block("10.0.0.0/30", &[]);
    let [first, last] = ["10.0.0.0", "10.0.0.3"].map(|address| address.parse().unwrap());
    block.take();
    block.give_back(first, 1);
    assert!(block.withdraw(first) && block.withdraw(last));
    assert!(!block.withdraw(first) && !block.withdraw("10.0.1.0".parse().unwrap()));
    assert_eq!(take_all(&mut block), ["10.0.0.1", "10.0.0.2"]);
    block.give_back(last, 2);
    assert_eq!(take_all(&mut block), ["10.0.0.3"]);
}

#[test]
fn a_range_of_more_than_4096_addresses_is_no_block() {
    for cidr in ["10.0.0.0/19", "fd00::/115", "::/0"] {
        let error = Block::new(cidr.parse().unwrap(), []).unwrap_err();
        assert_eq!(error.to_string(), format!("{cidr} is too large for a block: at most 4096 addresses"));
    }
}

#[test]
fn a_large_block_costs_memory_only_as_it_is_used() {
    let mut block = block("10.0.16.0/20", &[]);
    assert_eq!((block.taken.capacity(), block.returned.capacity()), (0, 0));
    block.take();
    assert!(block.taken.len() <= 1);
}

proptest! {
    #[test]
    fn a_block_gives_what_a_plain_queue_would_give(steps in prop::collection::vec((any::<bool>(), 0_u32..16), 0..200)) {
        let mut block = block("10.0.0.0/28", &[]);
        let mut queue: VecDeque<IpAddr> = (0..16).map(|ordinal| block.address(ordinal)).collect();
        let mut out = BTreeSet::new();
        for (turn, (take, which)) in steps.into_iter().enumerate() {
            if take {
                let taken = block.take();
                prop_assert_eq!(taken, queue.pop_front());
                out.extend(taken);
            } else {
                let address = block.address(which);
                block.give_back(address, turn as u64);
                if out.remove(&address) {
                    queue.push_back(address);
                }
            }
            prop_assert_eq!(block.free() as usize, queue.len());
        }
    }
}
