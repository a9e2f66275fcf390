use proptest::prelude::*;

use super::*;
use crate::testing::{endpoint, id, pool, prefix, request};

const COOL_DOWN: Duration = Duration::from_secs(30);

fn allocator(acknowledged: bool, blocks: &[&str]) -> Allocator {
    let mut allocator = Allocator::new(COOL_DOWN, acknowledged);
    for block in blocks {
        allocator.adopt(prefix(block)).unwrap();
    }
    allocator
}

fn reserve(allocator: &mut Allocator, container: &str, pools: &[Pool]) -> Result<Vec<String>, Family> {
    let open: Vec<&Pool> = pools.iter().collect();
    let endpoint = allocator.reserve(id(container), request(container), &open, &BTreeSet::new())?;
    Ok(endpoint.addresses.iter().map(ToString::to_string).collect())
}

#[test]
fn an_endpoint_gets_one_address_of_each_family_that_has_a_pool() {
    let pools = [pool("v4", "10.0.0.0/16", 30), pool("other", "10.1.0.0/16", 30), pool("v6", "fd00::/64", 126)];
    let mut allocator = allocator(false, &["10.0.0.0/30", "10.1.0.0/30", "fd00::/126", "10.9.0.0/30"]);
    assert_eq!(reserve(&mut allocator, "a", &pools).unwrap(), ["10.0.0.0", "fd00::"]);
    assert_eq!(reserve(&mut allocator, "b", &pools[..1]).unwrap(), ["10.0.0.1"]);
    assert_eq!(reserve(&mut allocator, "c", &pools[2..]).unwrap(), ["fd00::1"]);
}

#[test]
fn where_one_family_is_exhausted_nothing_of_the_other_is_taken() {
    let pools = [pool("v4", "10.0.0.0/16", 31), pool("v6", "fd00::/64", 128)];
    let mut allocator = allocator(false, &["10.0.0.0/31", "fd00::/128"]);
    reserve(&mut allocator, "a", &pools).unwrap();
    assert_eq!(reserve(&mut allocator, "b", &pools), Err(Family::Ipv6));
    assert_eq!(allocator.count(&prefix("10.0.0.0/31")).free, 1);
    assert!(allocator.phase(&id("b")).is_none());
}

#[test]
fn a_released_address_is_free_only_after_the_store_shows_it_no_more_and_the_cool_down_has_passed() {
    let pools = [pool("v4", "10.0.0.0/16", 32)];
    let mut allocator = allocator(true, &["10.0.0.0/32"]);
    let start = Instant::now();
    reserve(&mut allocator, "a", &pools).unwrap();
    allocator.commit(&id("a")).unwrap();
    allocator.release(&id("a"), start).unwrap();

    let later = start + 10 * COOL_DOWN;
    allocator.tick(later);
    assert_eq!(reserve(&mut allocator, "b", &pools), Err(Family::Ipv4));
    // Others are acknowledged, and this endpoint as it was when it still had the address.
    allocator.acknowledge(&id("other"), &[], later);
    allocator.acknowledge(&id("a"), &["10.0.0.0".parse().unwrap()], later);
    allocator.tick(later + 10 * COOL_DOWN);
    assert_eq!(reserve(&mut allocator, "b", &pools), Err(Family::Ipv4));

    allocator.acknowledge(&id("a"), &["10.0.0.9".parse().unwrap()], later);
    assert_eq!(allocator.deadline(), Some(later + COOL_DOWN));
    allocator.tick(later + COOL_DOWN - Duration::from_millis(1));
    assert_eq!(reserve(&mut allocator, "b", &pools), Err(Family::Ipv4));
    let writes = allocator.tick(later + COOL_DOWN);
    assert_eq!(writes, [rows::rested("10.0.0.0".parse().unwrap())]);
    assert_eq!(reserve(&mut allocator, "b", &pools).unwrap(), ["10.0.0.0"]);
}

#[test]
fn an_abandoned_reservation_cools_without_anybody_else_having_to_know() {
    let mut allocator = allocator(true, &["10.0.0.0/32"]);
    let start = Instant::now();
    reserve(&mut allocator, "a", &[pool("v4", "10.0.0.0/16", 32)]).unwrap();
    let (_, phase, writes) = allocator.release(&id("a"), start).unwrap();
    assert_eq!((phase, writes), (Phase::Reserved, Vec::new()));
    assert_eq!(allocator.deadline(), Some(start + COOL_DOWN));
    assert!(allocator.release(&id("a"), start).is_none());
}

#[test]
fn addresses_are_reused_first_in_first_out_across_blocks() {
    let pools = [pool("v4", "10.0.0.0/16", 31)];
    let mut allocator = allocator(false, &["10.0.0.0/31", "10.0.0.2/31"]);
    let start = Instant::now();
    for container in ["a", "b", "c"] {
        reserve(&mut allocator, container, &pools).unwrap();
    }
    for (second, container) in (0..).zip(["c", "a", "b"]) {
        allocator.release(&id(container), start + Duration::from_secs(second)).unwrap();
    }
    allocator.tick(start + 2 * COOL_DOWN);
    let order: Vec<_> =
        ["d", "e", "f", "g"].map(|container| reserve(&mut allocator, container, &pools).unwrap()).concat();
    assert_eq!(order, ["10.0.0.3", "10.0.0.2", "10.0.0.0", "10.0.0.1"]);
}

#[test]
fn a_block_taken_over_late_does_not_give_out_what_endpoints_have_or_what_rests() {
    let restored = Restored {
        endpoints: vec![endpoint("a", &["10.0.0.1"])],
        resting: BTreeMap::from([("10.0.0.0".parse().unwrap(), id("b")), ("10.0.0.1".parse().unwrap(), id("c"))]),
        ..Restored::default()
    };
    let mut allocator = Allocator::new(COOL_DOWN, false);
    let start = Instant::now();
    allocator.restore(restored, start);
    allocator.adopt(prefix("10.0.0.0/30")).unwrap();
    let count = BlockCount { addresses: 4, in_use: 1, resting: 1, free: 2 };
    assert_eq!(allocator.count(&prefix("10.0.0.0/30")), count);
    let pools = [pool("v4", "10.0.0.0/16", 30)];
    assert_eq!(reserve(&mut allocator, "d", &pools).unwrap(), ["10.0.0.2"]);
    assert_eq!(reserve(&mut allocator, "e", &pools).unwrap(), ["10.0.0.3"]);
    allocator.tick(start + COOL_DOWN);
    assert_eq!(reserve(&mut allocator, "f", &pools).unwrap(), ["10.0.0.0"]);
}

#[test]
fn a_lost_block_names_its_endpoints_and_gets_nothing_back() {
    let pools = [pool("v4", "10.0.0.0/16", 31)];
    let mut allocator = allocator(false, &["10.0.0.0/31", "10.0.0.4/31"]);
    for container in ["a", "b", "c"] {
        reserve(&mut allocator, container, &pools).unwrap();
    }
    let lost: Vec<_> = allocator.lose(&prefix("10.0.0.0/31")).into_iter().map(|endpoint| endpoint.id.clone()).collect();
    assert_eq!(lost, [id("a"), id("b")]);
    assert!(allocator.lose(&prefix("10.0.0.0/31")).is_empty());
    assert!(allocator.endpoint(&id("a")).is_some());
    let start = Instant::now();
    allocator.release(&id("a"), start).unwrap();
    allocator.tick(start + COOL_DOWN);
    assert_eq!(allocator.free(&[&pools[0]], Family::Ipv4), 1);
}

#[test]
fn what_the_store_shows_for_an_unknown_endpoint_rests_before_it_is_given_out() {
    let pools = [pool("v4", "10.0.0.0/16", 31)];
    let mut allocator = allocator(true, &["10.0.0.0/31"]);
    let start = Instant::now();
    let published = endpoint("old", &["10.0.0.0", "fd00::1"]);
    let writes = allocator.withhold(&published, start);
    assert_eq!(writes, [rows::resting("10.0.0.0".parse().unwrap(), &id("old"))]);
    assert!(allocator.withhold(&published, start).is_empty());
    assert_eq!(reserve(&mut allocator, "a", &pools).unwrap(), ["10.0.0.1"]);
    allocator.acknowledge(&id("old"), &[], start);
    allocator.tick(start + COOL_DOWN);
    assert_eq!(reserve(&mut allocator, "b", &pools).unwrap(), ["10.0.0.0"]);
}

/// What the proptest does, with endpoints and minutes by number.
#[derive(Debug, Clone)]
enum Do {
    Reserve(u8),
    Commit(u8),
    Release(u8),
    /// The store shows the endpoint as it is now.
    Acknowledge(u8),
    Wait(u64),
    Adopt,
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let one = prop_oneof![
        4 => (0_u8..12).prop_map(Do::Reserve),
        4 => (0_u8..12).prop_map(Do::Commit),
        3 => (0_u8..12).prop_map(Do::Release),
        3 => (0_u8..12).prop_map(Do::Acknowledge),
        3 => (1_u64..40).prop_map(Do::Wait),
        1 => Just(Do::Adopt),
    ];
    prop::collection::vec(one, 0..200)
}

/// The naive model: one queue of free addresses, in the order in which they are due, and plain lists for the rest.
#[derive(Default)]
struct Model {
    untouched: BTreeSet<IpAddr>,
    returned: VecDeque<IpAddr>,
    held: BTreeMap<u8, (IpAddr, bool)>,
    releasing: Vec<(u8, IpAddr)>,
    cooling: Vec<(Instant, IpAddr)>,
}

impl Model {
    fn next(&mut self) -> Option<IpAddr> {
        self.untouched.pop_first().or_else(|| self.returned.pop_front())
    }
}

proptest! {
    #[test]
    fn the_allocator_gives_what_a_naive_model_gives_and_no_address_twice(steps in steps()) {
        let pools = [pool("v4", "10.0.0.0/16", 30)];
        let (mut allocator, mut model) = (allocator(true, &[]), Model::default());
        let (mut now, mut blocks) = (Instant::now(), 0_u8);
        let name = |number: u8| format!("c{number}");
        for step in steps {
            match step {
                Do::Reserve(number) if allocator.phase(&id(&name(number))).is_none() => {
                    let got = reserve(&mut allocator, &name(number), &pools).ok();
                    let expected = model.next();
                    prop_assert_eq!(got, expected.map(|address| vec![address.to_string()]));
                    model.held.extend(expected.map(|address| (number, (address, false))));
                }
                Do::Reserve(number) => prop_assert!(model.held.contains_key(&number)),
                Do::Commit(number) => {
                    let held = model.held.get_mut(&number).filter(|held| !held.1).map(|held| held.1 = true);
                    prop_assert_eq!(allocator.commit(&id(&name(number))).is_some(), held.is_some());
                }
                Do::Release(number) => {
                    let released = allocator.release(&id(&name(number)), now);
                    let expected = model.held.remove(&number);
                    let released = released.map(|(endpoint, phase, _)| (endpoint.addresses[0], phase == Phase::Committed));
                    prop_assert_eq!(released, expected);
                    match expected {
                        Some((address, true)) => model.releasing.push((number, address)),
                        Some((address, false)) => model.cooling.push((now + COOL_DOWN, address)),
                        None => {}
                    }
                }
                Do::Acknowledge(number) => {
                    let published: Vec<IpAddr> =
                        allocator.committed(&id(&name(number))).map(|endpoint| endpoint.addresses.clone()).unwrap_or_default();
                    allocator.acknowledge(&id(&name(number)), &published, now);
                    let mut gone: Vec<IpAddr> =
                        model.releasing.extract_if(.., |(by, _)| *by == number).map(|(_, address)| address).collect();
                    gone.sort();
                    model.cooling.extend(gone.into_iter().map(|address| (now + COOL_DOWN, address)));
                }
                Do::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    allocator.tick(now);
                    model.returned.extend(model.cooling.extract_if(.., |(until, _)| *until <= now).map(|(_, address)| address));
                }
                Do::Adopt if blocks < 3 => {
                    let block: Prefix = format!("10.0.0.{}/30", blocks * 4).parse().unwrap();
                    blocks += 1;
                    allocator.adopt(block).unwrap();
                    let first = u32::from(blocks - 1) * 4;
                    let address = |host| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + first + host));
                    model.untouched.extend((0..4).map(address));
                }
                Do::Adopt => {}
            }
            let held: Vec<IpAddr> =
                allocator.endpoints.values().flat_map(|held| held.endpoint.addresses.iter().copied()).collect();
            let distinct: BTreeSet<IpAddr> = held.iter().copied().chain(allocator.resting.iter().copied()).collect();
            prop_assert_eq!(distinct.len(), held.len() + allocator.resting.len(), "an address is in two places");
            let taken = u64::try_from(distinct.len()).unwrap();
            prop_assert_eq!(allocator.free(&[&pools[0]], Family::Ipv4) + taken, u64::from(blocks) * 4, "an address is lost");
        }
    }
}
