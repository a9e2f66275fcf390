use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn claims(claims: &[(&str, Option<&str>, u64)]) -> Claims {
    let mut all = Claims::default();
    for (block, owner, created) in claims {
        all.set(prefix(block), Claim { owner: owner.map(node), created: *created });
    }
    all
}

/// Who owns an address where these claims are, in words.
fn owner(claims: Option<&Claims>, address: &str) -> String {
    let ranges = [prefix("10.42.0.0/16"), prefix("fd00:42::/64")];
    let borrowed = BTreeMap::from([("10.42.0.9".parse().unwrap(), node("c"))]);
    match (View { ranges: &ranges, claims, borrowed: &borrowed }).owner(address.parse().unwrap()) {
        Owner::Node(node) => node.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn an_address_is_its_blocks_owners_or_its_borrowers() {
    let claims =
        claims(&[("10.42.0.0/26", Some("a"), 1), ("10.42.0.64/26", Some("b"), 2), ("10.99.0.0/26", Some("a"), 3)]);
    for (address, expected) in [
        ("10.42.0.63", "a"),
        ("10.42.0.64", "b"),
        ("10.42.0.9", "c"),
        ("10.42.0.128", "Nobody"),
        ("fd00:42::1", "Nobody"),
        ("10.43.0.0", "NotCovered"),
        ("10.99.0.1", "a"),
        ("10.99.0.64", "NotCovered"),
    ] {
        assert_eq!(owner(Some(&claims), address), expected, "{address}");
    }
}

#[test]
fn before_claims_are_known_nobody_can_tell_and_of_one_that_cannot_be_read_neither() {
    assert_eq!(owner(None, "10.42.0.1"), "Unknown");
    let claims = claims(&[("10.42.0.0/26", None, 1)]);
    assert_eq!(owner(Some(&claims), "10.42.0.1"), "Unknown");
    assert_eq!(owner(Some(&claims), "10.42.0.64"), "Nobody");
}

#[test]
fn of_claims_that_overlap_the_oldest_counts_and_what_only_younger_ones_cover_is_nobodys() {
    let claims = claims(&[
        ("10.42.0.0/24", Some("late"), 9),
        ("10.42.0.64/26", Some("early"), 3),
        ("10.42.0.0/28", Some("later"), 12),
        ("10.42.1.0/24", Some("first"), 1),
        ("10.42.1.0/26", None, 5),
    ]);
    assert_eq!(owner(Some(&claims), "10.42.0.65"), "early");
    // The /24 does not count, so none of it is its owner's; and the /28 within it is younger than the /24.
    assert_eq!(owner(Some(&claims), "10.42.0.130"), "Nobody");
    assert_eq!(owner(Some(&claims), "10.42.0.1"), "Nobody");
    assert_eq!(owner(Some(&claims), "10.42.1.1"), "first");
    let overlapped = Standing::Overlapped { owner: Some(&node("late")), by: &prefix("10.42.0.64/26") };
    assert_eq!(claims.standing(&prefix("10.42.0.0/24")), overlapped);
    for block in claims.by_block().keys() {
        assert_eq!(claims.standing(block), standing(claims.by_block(), block), "{block}: with and without sizes");
    }
}

proptest! {
    #[test]
    fn ranges_that_overlap_are_found_and_no_others(
        ranges in prop::collection::btree_set((0_u32..64, 26_u8..=32), 0..12), addr in 0_u32..64, len in 24_u8..=32,
    ) {
        let prefix = |(addr, len)| Prefix::new(Ipv4Addr::from_bits(addr).into(), len).unwrap();
        let ranges: BTreeMap<Prefix, ()> = ranges.into_iter().map(|range| (prefix(range), ())).collect();
        let range = prefix((addr, len));
        let found: BTreeSet<&Prefix> = overlapping(&ranges, &range).map(|(found, ())| found).collect();
        let expected: BTreeSet<&Prefix> = ranges.keys().filter(|other| other.overlaps(&range)).collect();
        prop_assert_eq!(found, expected);
    }
}
