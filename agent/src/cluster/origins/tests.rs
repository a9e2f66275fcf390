use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn set(block: &str, owner: &str, created: u64) -> Update<Prefix, Claim> {
    let owner = (!owner.is_empty()).then(|| node(owner));
    Update::Set(prefix(block), Claim { owner, created })
}

/// The origins as node `a` knows them after these claims, and two pools of which the second is disabled.
fn origins(claims: &[(&str, &str, u64)]) -> Origins {
    let mut origins = Origins::new(node("a"), true);
    origins.claim(Update::Restart);
    for (block, owner, created) in claims {
        origins.claim(set(block, owner, *created));
    }
    origins.claim(Update::InSync);
    let pool = |cidr: &str, disabled: bool| -> IpPoolSpec {
        serde_json::from_value(serde_json::json!({ "cidr": cidr, "disabled": disabled })).unwrap()
    };
    let pools = [("one", pool("10.42.0.0/16", false)), ("two", pool("10.43.0.0/16", true))];
    origins.declared(&pools.map(|(name, pool)| (name.parse().unwrap(), pool, true)), &[]);
    origins
}

fn holders(changes: Vec<OriginChange>) -> BTreeMap<Prefix, Option<Holder>> {
    let holder = |change| match change {
        OriginChange::Holder(prefix, holder) => Some((prefix, holder)),
        _ => None,
    };
    changes.into_iter().filter_map(holder).collect()
}

fn ranges(changes: &[OriginChange]) -> Option<Vec<String>> {
    changes.iter().find_map(|change| match change {
        OriginChange::Ranges(ranges) => Some(ranges.iter().map(|range| range.cidr.to_string()).collect()),
        _ => None,
    })
}

#[test]
fn a_claim_is_told_once_and_its_end_leaves_its_last_owner_until_another_claims_the_block() {
    let mut origins = origins(&[("10.42.0.0/26", "a", 1), ("10.42.0.64/26", "b", 2), ("10.42.0.128/26", "", 3)]);
    let told = holders(origins.take_changes());
    let expected = [
        ("10.42.0.0/26", Some(Holder::Own)),
        ("10.42.0.64/26", Some(Holder::Node(node("b")))),
        ("10.42.0.128/26", Some(Holder::Unreadable)),
    ];
    assert_eq!(told, expected.map(|(block, holder)| (prefix(block), holder)).into());
    origins.claim(set("10.42.0.64/26", "b", 2));
    assert_eq!(origins.take_changes(), []);
    origins.claim(Update::Delete(prefix("10.42.0.64/26")));
    origins.claim(Update::Delete(prefix("10.42.0.0/26")));
    let told = holders(origins.take_changes());
    assert_eq!(told[&prefix("10.42.0.64/26")], Some(Holder::Former(node("b"))));
    assert_eq!(told[&prefix("10.42.0.0/26")], None, "what this node has given up is nobody's");
    origins.claim(set("10.42.0.64/26", "c", 9));
    assert_eq!(holders(origins.take_changes())[&prefix("10.42.0.64/26")], Some(Holder::Node(node("c"))));
}

#[test]
fn a_listing_that_lacks_a_claim_ends_it() {
    let mut origins = origins(&[("10.42.0.0/26", "b", 1), ("10.42.0.64/26", "b", 2)]);
    origins.take_changes();
    origins.claim(Update::Restart);
    origins.claim(set("10.42.0.0/26", "b", 1));
    assert_eq!(origins.take_changes(), []);
    origins.claim(Update::InSync);
    let expected = OriginChange::Holder(prefix("10.42.0.64/26"), Some(Holder::Former(node("b"))));
    assert_eq!(origins.take_changes(), [expected]);
}

#[test]
fn of_overlapping_claims_the_older_one_is_told_and_a_former_owner_gives_way() {
    let mut origins = origins(&[("10.42.0.0/26", "b", 5)]);
    origins.take_changes();
    origins.claim(set("10.42.0.0/24", "c", 2));
    let told = holders(origins.take_changes());
    assert_eq!(told[&prefix("10.42.0.0/24")], Some(Holder::Node(node("c"))));
    assert_eq!(told[&prefix("10.42.0.0/26")], None);
    origins.claim(Update::Delete(prefix("10.42.0.0/24")));
    let told = holders(origins.take_changes());
    assert_eq!(told[&prefix("10.42.0.0/26")], Some(Holder::Node(node("b"))));
    assert_eq!(told[&prefix("10.42.0.0/24")], None);
}

#[test]
fn routes_are_judged_where_blocks_are_claimed_and_not_in_a_disabled_pool_without_blocks() {
    let mut origins = origins(&[]);
    assert_eq!(ranges(&origins.take_changes()), Some(vec!["10.42.0.0/16".to_owned()]));
    origins.claim(set("10.43.0.0/26", "b", 1));
    assert_eq!(ranges(&origins.take_changes()), Some(vec!["10.42.0.0/16".to_owned(), "10.43.0.0/16".to_owned()]));
    let mut alone = Origins::new(node("a"), false);
    alone.claim(Update::InSync);
    assert!(!alone.is_known());
    alone.own_blocks(&[prefix("10.42.0.0/26")].into());
    assert!(alone.is_known());
    assert_eq!(ranges(&alone.take_changes()), Some(vec!["10.42.0.0/26".to_owned()]), "without etcd this node's alone");
}

#[test]
fn only_so_many_former_owners_are_remembered() {
    let mut origins = origins(&[]);
    let block = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Prefix::new([10, 42, high, low].into(), 32).unwrap()
    };
    for number in 0..=u16::try_from(FORMER).unwrap() {
        origins.claim(Update::Set(block(number), Claim { owner: Some(node("b")), created: 1 }));
        origins.claim(Update::Delete(block(number)));
    }
    let told = holders(origins.take_changes());
    assert_eq!(told[&block(0)], None);
    assert_eq!(told[&block(1)], Some(Holder::Former(node("b"))));
}
