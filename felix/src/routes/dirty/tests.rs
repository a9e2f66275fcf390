use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use types::Prefix;

use super::Dirty;

fn prefix(number: u32) -> Prefix {
    Prefix::host(Ipv4Addr::from_bits(number).into())
}

fn hop(number: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(192, 0, 2, number).into())
}

#[test]
fn what_one_router_says_does_not_wait_for_another_ones_table() {
    let mut dirty = Dirty::default();
    (0..100_000).for_each(|number| dirty.insert_through(hop(1), prefix(number)));
    let late = prefix(u32::MAX);
    dirty.insert_through(hop(2), late);
    let first = dirty.take(100);
    assert!(first.contains(&late));
    assert_eq!(first.len(), 100, "a round is full although a line is short");
}

#[test]
fn every_line_has_its_turn_also_where_there_are_more_lines_than_a_round_takes() {
    let mut dirty = Dirty::default();
    (0..200).for_each(|number| dirty.insert_through(hop(number), prefix(u32::from(number))));
    assert_eq!(dirty.take(10).len(), 200);
    assert!(dirty.is_empty());
}

#[test]
fn everything_is_taken_once_its_next_hop_has_changed_or_not() {
    let mut dirty = Dirty::default();
    for number in 0..50 {
        dirty.insert_through(hop(1), prefix(number));
        dirty.insert_through(hop(2), prefix(number * 2));
        dirty.insert(prefix(number * 3));
    }
    let mut all = BTreeSet::new();
    while !dirty.is_empty() {
        all.extend(dirty.take(7));
    }
    assert_eq!(all, (0..50).flat_map(|number| [number, number * 2, number * 3]).map(prefix).collect());
}

#[test]
fn what_is_removed_stands_in_no_line() {
    let mut dirty = Dirty::default();
    dirty.insert_through(hop(1), prefix(1));
    dirty.insert(prefix(1));
    dirty.insert(prefix(2));
    assert!(dirty.contains(&prefix(1)));
    dirty.remove(&prefix(1));
    assert!(!dirty.contains(&prefix(1)) && dirty.contains(&prefix(2)));
}
