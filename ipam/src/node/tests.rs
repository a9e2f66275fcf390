mod crashes;

use std::time::Duration;

use store::{JournalWrite, Listing, Row, StoreError, Write, keys};
use types::BlockClaim;

use super::*;
use crate::plan::claims::ClaimOutcome;
use crate::plan::publications::Ask;
use crate::testing::{endpoint, id, node, pool, prefix, request};

const COOL_DOWN: Duration = Duration::from_secs(30);

fn config(boot_id: &str) -> IpamConfig {
    IpamConfig { boot_id: boot_id.to_owned(), ..IpamConfig::new(node("n1")) }
}

fn start(shared: bool, restored: Restored) -> Node {
    Node::new(&config("boot"), shared, restored, Instant::now())
}

pub(super) fn same_boot(restored: Restored) -> Restored {
    Restored { boot_id: Some("boot".to_owned()), ..restored }
}

pub(super) fn set_pools(node: &mut Node, pools: &[Pool]) {
    node.pool_update(Update::Restart);
    for pool in pools {
        node.pool_update(Update::Set(pool.name.clone(), pool.clone()));
    }
    node.pool_update(Update::InSync);
}

pub(super) fn claim(block: &str, owner: &str, created: u64) -> Update<Key, Entry> {
    let key = keys::block(&prefix(block));
    let value = store::encode(&BlockClaim { owner: node(owner) });
    let version = Version::new(created);
    Update::Set(key.clone(), Entry { key, value, version, created: version })
}

pub(super) fn unclaim(block: &str) -> Update<Key, Entry> {
    Update::Delete(keys::block(&prefix(block)))
}

pub(super) fn list_claims(node: &mut Node, claims: impl IntoIterator<Item = Update<Key, Entry>>) {
    node.claim_update(Update::Restart, Instant::now());
    claims.into_iter().for_each(|update| node.claim_update(update, Instant::now()));
    node.claim_update(Update::InSync, Instant::now());
}

pub(super) fn blocks(node: &Node) -> Vec<String> {
    node.blocks().iter().map(ToString::to_string).collect()
}

pub(super) fn claim_jobs(node: &mut Node, now: Instant) -> Vec<Job> {
    node.jobs(now).into_iter().filter(|job| !matches!(job, Job::Publication(_))).collect()
}

/// Answers claims as an empty store would, the watch included, until nothing more is claimed.
pub(super) fn grant_claims(node: &mut Node, now: Instant) {
    for created in 100.. {
        let jobs = claim_jobs(node, now);
        let [Job::Claim(block)] = jobs.as_slice() else { return };
        node.claim_update(claim(&block.to_string(), "n1", created), Instant::now());
        node.answered(Answer::Claim(*block, Ok(ClaimOutcome::Claimed)), now);
    }
}

pub(super) fn committed() -> Result<Outcome, StoreError> {
    Ok(Outcome::Committed(Version::new(1)))
}

pub(super) fn unavailable() -> StoreError {
    StoreError::Unavailable { endpoints: "e1".to_owned(), what: "refused".to_owned() }
}

pub(super) fn attach(node: &mut Node, container: &str) -> WorkloadEndpoint {
    let endpoint = node.reserve(&id(container), request(container)).unwrap();
    node.commit(&id(container)).unwrap();
    node.journalled(id(container));
    endpoint
}

#[test]
fn a_node_claims_its_first_block_of_each_family_before_anything_is_asked_of_it() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    assert_eq!(claim_jobs(&mut node, now), []);
    set_pools(&mut node, &[pool("v4", "10.0.0.0/24", 26), pool("v6", "fd00::/64", 122)]);
    assert_eq!(claim_jobs(&mut node, now), [], "claimed before other nodes' claims were known");
    list_claims(
        &mut node,
        [claim("10.0.0.0/26", "n2", 1), claim("10.0.0.64/26", "n3", 2), claim("10.0.0.128/26", "n4", 3)],
    );
    assert_eq!(claim_jobs(&mut node, now), [Job::Claim(prefix("10.0.0.192/26"))]);
    assert_eq!(claim_jobs(&mut node, now), [], "one claim at a time");
    node.claim_update(claim("10.0.0.192/26", "n1", 4), Instant::now());
    node.answered(Answer::Claim(prefix("10.0.0.192/26"), Ok(ClaimOutcome::Claimed)), now);
    grant_claims(&mut node, now);
    assert_eq!(node.blocks().len(), 2);
    assert_eq!(node.reserve(&id("a"), request("a")).unwrap().addresses.len(), 2);
}

#[test]
fn the_next_block_is_claimed_when_less_than_a_quarter_is_free() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, now);
    for number in 0..48 {
        attach(&mut node, &format!("c{number}"));
    }
    assert_eq!(claim_jobs(&mut node, now), []);
    attach(&mut node, "c48");
    assert_eq!(claim_jobs(&mut node, now).len(), 1);
}

#[test]
fn a_claim_that_another_node_has_made_first_leads_to_the_next_candidate() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    list_claims(&mut node, []);
    let [Job::Claim(wanted)] = claim_jobs(&mut node, now)[..] else { panic!() };
    let theirs = Claim { owner: Some(crate::testing::node("n2")), created: Version::new(1) };
    node.answered(Answer::Claim(wanted, Ok(ClaimOutcome::Taken(theirs))), now);
    let [Job::Claim(next)] = claim_jobs(&mut node, now)[..] else { panic!() };
    assert_ne!(next, wanted);
    assert!(node.blocks().is_empty());
}

#[test]
fn a_claim_whose_reply_was_lost_is_found_to_be_ours() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    list_claims(&mut node, []);
    let [Job::Claim(wanted)] = claim_jobs(&mut node, now)[..] else { panic!() };
    node.answered(Answer::Claim(wanted, Err(unavailable())), now);
    assert_eq!(claim_jobs(&mut node, now), [], "no pause after a failure");
    let later = now + Duration::from_secs(1);
    assert_eq!(claim_jobs(&mut node, later), [Job::Claim(wanted)]);
    let ours = Claim { owner: Some(crate::testing::node("n1")), created: Version::new(1) };
    node.answered(Answer::Claim(wanted, Ok(ClaimOutcome::Taken(ours))), later);
    assert_eq!(claim_jobs(&mut node, later), []);
    node.claim_update(claim(&wanted.to_string(), "n1", 1), Instant::now());
    assert_eq!(blocks(&node), [wanted.to_string()]);
    assert_eq!(claim_jobs(&mut node, later), []);
}

#[test]
fn of_two_overlapping_claims_the_older_one_counts_and_the_younger_one_is_taken_back() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    list_claims(&mut node, [claim("10.0.0.0/26", "n1", 5), claim("10.0.0.32/27", "n2", 7)]);
    assert_eq!(blocks(&node), ["10.0.0.0/26"]);

    node.claim_update(claim("10.0.1.0/25", "n2", 8), Instant::now());
    node.claim_update(claim("10.0.1.64/26", "n1", 9), Instant::now());
    assert_eq!(blocks(&node), ["10.0.0.0/26"]);
    set_pools(&mut node, &[]);
    let withdraw = Job::Withdraw(prefix("10.0.1.64/26"), Version::new(9));
    assert_eq!(claim_jobs(&mut node, now), [withdraw]);
    node.answered(Answer::Withdraw(prefix("10.0.1.64/26"), Ok(())), now);
    assert_eq!(claim_jobs(&mut node, now), []);
    node.claim_update(unclaim("10.0.1.64/26"), Instant::now());
    assert_eq!(claim_jobs(&mut node, now), []);
}

#[test]
fn claims_that_are_listed_count_only_when_all_older_ones_are_known() {
    let mut node = start(true, Restored::default());
    node.claim_update(Update::Restart, Instant::now());
    node.claim_update(claim("10.0.0.0/26", "n1", 9), Instant::now());
    assert!(node.blocks().is_empty());
    node.claim_update(claim("10.0.0.32/27", "n2", 3), Instant::now());
    node.claim_update(Update::InSync, Instant::now());
    assert!(node.blocks().is_empty());
}

#[test]
fn a_reinstalled_node_takes_its_blocks_back_and_lets_what_was_published_rest() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    set_pools(&mut node, &[pool("v4", "10.0.0.0/24", 31)]);
    list_claims(&mut node, [claim("10.0.0.0/31", "n1", 1), claim("10.0.0.2/31", "n1", 2)]);
    assert_eq!(blocks(&node), ["10.0.0.0/31", "10.0.0.2/31"]);
    let jobs = node.jobs(now);
    let Some(Job::Publication(Ask::List(_))) = jobs.last() else { panic!("{jobs:?}") };
    let old = endpoint("old", &["10.0.0.0"]);
    let key = keys::endpoint(&crate::testing::node("n1"), &old.id);
    let entry =
        Entry { value: store::encode(&old), key: key.clone(), version: Version::new(3), created: Version::new(3) };
    let listing = Listing { entries: vec![entry], version: Version::new(3), incarnation: store::Incarnation::new("x") };
    node.answered(Answer::Listed(Ok(listing)), now);
    assert_eq!(node.reserve(&id("a"), request("a")).unwrap().addresses[0].to_string(), "10.0.0.1");
    let jobs = node.jobs(now);
    assert!(jobs.contains(&Job::Publication(Ask::Write(Vec::new(), vec![Write::delete(key)]))), "{jobs:?}");
}

#[test]
fn a_journalled_block_that_another_node_owns_is_given_up_and_its_pods_are_named() {
    let restored = Restored {
        endpoints: vec![endpoint("a", &["10.0.0.1"]), endpoint("b", &["10.0.1.1"])],
        blocks: BTreeSet::from([prefix("10.0.0.0/26"), prefix("10.0.1.0/26")]),
        ..Restored::default()
    };
    let mut node = start(true, same_boot(restored));
    list_claims(&mut node, [claim("10.0.0.0/26", "n2", 1), claim("10.0.1.0/26", "n1", 2)]);
    assert_eq!(blocks(&node), ["10.0.1.0/26"]);
    let endpoints = vec!["default/a (manx/a/eth0)".to_owned()];
    let lost = Event::Lost { block: prefix("10.0.0.0/26"), to: "node n2".to_owned(), endpoints };
    assert_eq!(node.take_events(), [lost]);
    assert_eq!(node.endpoints().len(), 2);
}

#[test]
fn a_block_that_the_store_has_forgotten_is_claimed_again_and_nothing_is_given_out_of_it_meanwhile() {
    let now = Instant::now();
    let restored = Restored { blocks: BTreeSet::from([prefix("10.0.0.0/26")]), ..Restored::default() };
    let mut node = start(true, same_boot(restored));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    attach(&mut node, "before");
    list_claims(&mut node, []);
    assert_eq!(claim_jobs(&mut node, now), [Job::Claim(prefix("10.0.0.0/26"))]);
    let refused = node.reserve(&id("a"), request("a")).unwrap_err();
    assert!(node.may_wait(&refused) && refused.to_string().ends_with("is being found out"), "{refused}");
    let theirs = Claim { owner: Some(crate::testing::node("n2")), created: Version::new(1) };
    node.answered(Answer::Claim(prefix("10.0.0.0/26"), Ok(ClaimOutcome::Taken(theirs))), now);
    assert!(node.blocks().is_empty());
}

#[test]
fn a_disabled_pool_gives_no_new_addresses_and_takes_none_away() {
    let now = Instant::now();
    let mut node = start(false, same_boot(Restored::default()));
    let open = pool("v4", "10.0.0.0/24", 26);
    set_pools(&mut node, std::slice::from_ref(&open));
    node.jobs(now);
    attach(&mut node, "a");
    for closed in [Pool { disabled: true, ..open.clone() }, Pool { selects_this_node: false, ..open.clone() }] {
        set_pools(&mut node, &[closed]);
        let error = node.reserve(&id("b"), request("b")).unwrap_err();
        assert_eq!(error, ReserveError::NoPool { refused: Vec::new() });
        assert_eq!((node.endpoints().len(), node.blocks().len()), (1, 1));
    }
    set_pools(&mut node, &[open]);
    attach(&mut node, "b");
}

#[test]
fn a_pool_whose_block_size_does_not_fit_is_refused_by_name_and_disturbs_no_other() {
    let now = Instant::now();
    let mut node = start(false, same_boot(Restored::default()));
    let bad = pool("bad", "10.0.0.0/27", 26);
    set_pools(&mut node, std::slice::from_ref(&bad));
    let refused = bad.check().unwrap_err();
    assert_eq!(node.take_events(), [Event::PoolRefused(refused.clone())]);
    let error = node.reserve(&id("a"), request("a")).unwrap_err();
    assert_eq!(error, ReserveError::NoPool { refused: vec![refused] });
    set_pools(&mut node, &[bad, pool("good", "10.1.0.0/24", 26)]);
    assert_eq!(node.take_events(), [], "said again though nothing changed");
    node.jobs(now);
    assert_eq!(attach(&mut node, "a").addresses.len(), 1);
}

#[test]
fn an_exhausted_pool_says_so_with_its_name_and_numbers() {
    let now = Instant::now();
    let mut node = start(true, Restored::default());
    set_pools(&mut node, &[pool("small", "10.0.0.0/30", 31)]);
    list_claims(&mut node, [claim("10.0.0.0/31", "n2", 1)]);
    grant_claims(&mut node, now);
    attach(&mut node, "a");
    attach(&mut node, "b");
    node.release(&id("b"), now);
    node.jobs(now);
    let error = node.reserve(&id("c"), request("c")).unwrap_err();
    assert!(!node.may_wait(&error));
    assert_eq!(
        error.to_string(),
        "no free ipv4 address: pool small: 1 block here with 2 addresses, 1 in use, 1 resting; every block of them is claimed"
    );
}

#[test]
fn a_second_add_is_refused_and_an_add_after_del_gets_another_address() {
    let now = Instant::now();
    let mut node = start(false, same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/24", 26)]);
    node.jobs(now);
    let first = node.reserve(&id("a"), request("a")).unwrap();
    assert_eq!(node.reserve(&id("a"), request("a")), Err(ReserveError::UnderWay(id("a"))));
    node.commit(&id("a")).unwrap();
    assert_eq!(node.commit(&id("a")), Err(IpamError::NotReserved(id("a"))));
    assert_eq!(node.reserve(&id("a"), request("a")), Err(ReserveError::AlreadyAttached(id("a"))));
    assert_eq!(node.release(&id("a"), now), Some(first.clone()));
    assert_eq!(node.release(&id("a"), now), None);
    let second = node.reserve(&id("a"), request("a")).unwrap();
    assert_ne!(second.addresses, first.addresses);
    assert_eq!(node.commit(&id("b")), Err(IpamError::NotReserved(id("b"))));
}

#[test]
fn what_is_learned_of_a_pod_is_journalled_and_published_once_and_its_addresses_stay() {
    let now = Instant::now();
    let mut node = start(true, same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/24", 26)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, now);
    let attached = attach(&mut node, "a");
    node.journal().taken();
    let described =
        Description { labels: [("app".to_owned(), "web".to_owned())].into(), finished: true, ..Description::default() };
    let endpoint = node.describe(&id("a"), described.clone()).unwrap();
    assert_eq!((&endpoint.labels, endpoint.finished), (&described.labels, true));
    assert_eq!(endpoint.addresses, attached.addresses);
    assert_eq!(node.journal().writes(), [rows::committed(&endpoint)]);
    node.journal().taken();
    assert_eq!(node.describe(&id("a"), described.clone()), Some(endpoint.clone()));
    assert!(node.journal().is_empty(), "journalled again though nothing changed");
    node.jobs(now);
    let listing = Listing { entries: Vec::new(), version: Version::new(3), incarnation: store::Incarnation::new("x") };
    node.answered(Answer::Listed(Ok(listing)), now);
    let key = keys::endpoint(&crate::testing::node("n1"), &endpoint.id);
    let published = Write::put(key, store::encode(&endpoint));
    let own = *node.blocks().first().unwrap();
    let checks = vec![store::Check::created(keys::block(&own), Version::new(100))];
    assert_eq!(node.jobs(now), [Job::Publication(Ask::Write(checks, vec![published]))]);
    assert_eq!(node.describe(&id("b"), described), None);
}

#[test]
fn another_boot_releases_all_endpoints_and_publishes_that() {
    let now = Instant::now();
    let restored = Restored {
        boot_id: Some("before".to_owned()),
        endpoints: vec![endpoint("a", &["10.0.0.0"])],
        blocks: BTreeSet::from([prefix("10.0.0.0/31")]),
        ..Restored::default()
    };
    let mut node = start(true, restored);
    assert!(node.endpoints().is_empty());
    assert_eq!(node.take_events(), [Event::Rebooted(1)]);
    let written = node.journal().writes();
    assert!(written.contains(&rows::boot_id("boot")) && written.len() == 3, "{written:?}");
    set_pools(&mut node, &[pool("v4", "10.0.0.0/31", 31)]);
    list_claims(&mut node, [claim("10.0.0.0/31", "n1", 1)]);
    assert_eq!(attach(&mut node, "b").addresses[0].to_string(), "10.0.0.1");
    node.jobs(now);
    let listing = Listing { entries: Vec::new(), version: Version::new(3), incarnation: store::Incarnation::new("x") };
    node.answered(Answer::Listed(Ok(listing)), now);
    let jobs = node.jobs(now);
    let [Job::Publication(Ask::Write(_, writes))] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(writes.len(), 2, "one endpoint gone, one new");
    node.answered(Answer::Written(committed()), now);
    assert_eq!(node.deadline(), Some(now + COOL_DOWN));
}

#[test]
fn publications_come_together_each_key_once_and_at_most_128_at_a_time() {
    let now = Instant::now();
    let mut node = start(true, same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 24)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, now);
    let listing = Listing { entries: Vec::new(), version: Version::new(3), incarnation: store::Incarnation::new("x") };
    node.answered(Answer::Listed(Ok(listing)), now);
    for number in 0..150 {
        attach(&mut node, &format!("c{number:03}"));
    }
    let jobs = node.jobs(now);
    let [Job::Publication(Ask::Write(_, first))] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(first.len(), 128);
    // Meanwhile an endpoint of the first batch goes and comes again: the latest value wins.
    node.release(&id("c000"), now);
    let again = attach(&mut node, "c000");
    assert_eq!(node.jobs(now), [], "one transaction at a time");
    node.answered(Answer::Written(Err(unavailable())), now);
    assert_eq!(node.view().unpublished, 150);
    let later = now + Duration::from_secs(1);
    let jobs = node.jobs(later);
    let [Job::Publication(Ask::Write(_, second))] = jobs.as_slice() else { panic!("{jobs:?}") };
    let key = keys::endpoint(&crate::testing::node("n1"), &id("c000"));
    assert!(second.contains(&Write::put(key, store::encode(&again))));
    node.answered(Answer::Written(committed()), later);
    let jobs = node.jobs(later);
    let [Job::Publication(Ask::Write(_, third))] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(third.len(), 22);
    node.answered(Answer::Written(committed()), later);
    assert_eq!((node.jobs(later), node.view().unpublished), (Vec::new(), 0));
    assert_eq!(node.deadline(), Some(later + COOL_DOWN), "the released address cools since its acknowledgement");
}

#[test]
fn after_the_store_has_lost_its_history_what_it_lost_is_published_again() {
    let now = Instant::now();
    let mut node = start(true, same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/16", 26)]);
    list_claims(&mut node, []);
    grant_claims(&mut node, now);
    let empty = || Listing { entries: Vec::new(), version: Version::new(3), incarnation: store::Incarnation::new("x") };
    node.answered(Answer::Listed(Ok(empty())), now);
    attach(&mut node, "a");
    assert_eq!(node.jobs(now).len(), 1);
    node.answered(Answer::Written(committed()), now);
    let own = blocks(&node);
    list_claims(&mut node, own.iter().map(|block| claim(block, "n1", 1)));
    let jobs = node.jobs(now);
    let [Job::Publication(Ask::List(_))] = jobs.as_slice() else { panic!("{jobs:?}") };
    node.answered(Answer::Listed(Ok(empty())), now);
    let jobs = node.jobs(now);
    let [Job::Publication(Ask::Write(_, writes))] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(writes.len(), 1);
}

#[test]
fn an_endpoint_that_could_not_be_journalled_is_reserved_as_before() {
    let now = Instant::now();
    let mut node = start(false, same_boot(Restored::default()));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/24", 26)]);
    node.jobs(now);
    node.reserve(&id("a"), request("a")).unwrap();
    node.commit(&id("a")).unwrap();
    node.not_journalled(&id("a"));
    assert!(node.endpoints().is_empty() && node.endpoint(&id("a")).is_some());
    let is_endpoint =
        |write: &JournalWrite| matches!(write, JournalWrite::Put(Row { kind: store::RowKind::Endpoint, .. }));
    assert!(!node.journal().writes().iter().any(is_endpoint));
    node.commit(&id("a")).unwrap();
    node.journalled(id("a"));
    assert_eq!(node.endpoints().len(), 1);
}

#[test]
fn without_a_shared_store_blocks_are_there_at_once_and_nothing_is_asked() {
    let now = Instant::now();
    let mut node = start(false, same_boot(Restored::default()));
    assert_eq!(node.reserve(&id("a"), request("a")), Err(ReserveError::PoolsUnknown));
    set_pools(&mut node, &[pool("v4", "10.0.0.0/30", 32), pool("v6", "fd00::/64", 122)]);
    assert_eq!(node.jobs(now), []);
    assert_eq!(node.blocks().len(), 2);
    for container in ["a", "b", "c", "d"] {
        attach(&mut node, container);
        assert_eq!(node.jobs(now), []);
    }
    let error = node.reserve(&id("e"), request("e")).unwrap_err();
    assert!(matches!(error, ReserveError::Exhausted { family: Family::Ipv4, .. }) && !node.may_wait(&error), "{error}");
    assert_eq!(node.view().own[0].blocks.iter().map(|block| block.in_use).sum::<u64>(), 4);
    assert_eq!(node.view().blocks.len(), 5);
}
