use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn a_next_hop_is_watched_from_its_first_use_to_its_last() {
    let mut next_hops = NextHops::default();
    let id = next_hops.acquire(ADDRESS);
    assert_eq!(next_hops.acquire(ADDRESS), id);
    assert_eq!(next_hops.watches(), [NextHopWatch::Track(ADDRESS)]);
    next_hops.release(id);
    assert!(next_hops.watches().is_empty());
    next_hops.release(id);
    next_hops.acquire(ADDRESS);
    assert!(next_hops.watches().is_empty(), "taken up again within a round");
    next_hops.release(id);
    assert_eq!(next_hops.watches(), [NextHopWatch::Untrack(ADDRESS)]);
    assert!(next_hops.watches().is_empty());
    let again = next_hops.acquire(ADDRESS);
    next_hops.release(again);
    assert!(next_hops.watches().is_empty(), "used for less than a round");
}

#[test]
fn rfc4271_9_1_2_1_a_next_hop_is_unreachable_until_the_kernel_says_otherwise() {
    let mut next_hops = NextHops::default();
    let id = next_hops.acquire(ADDRESS);
    assert_eq!(next_hops.metric(id), None);
    assert!(!next_hops.knows_all());
    next_hops.set(NextHopState { address: ADDRESS, metric: Some(7) });
    next_hops.set(NextHopState { address: ADDRESS, metric: Some(7) });
    assert_eq!(next_hops.metric(id), Some(7));
    assert!(next_hops.knows_all());
    assert_eq!(next_hops.take_changed().len(), 1);
    assert!(next_hops.take_changed().is_empty());
}
