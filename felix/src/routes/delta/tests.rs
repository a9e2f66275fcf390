use super::*;

const BGP: u8 = 78;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A route with these gateways, the first over interface 1, the second over interface 2, and so on.
fn route(text: &str, gateways: &[&str]) -> Route {
    let mut route = Route::via(prefix(text), BGP, gateways.iter().map(|gateway| gateway.parse().unwrap()));
    for (hop, index) in route.next_hops.iter_mut().zip(1..) {
        hop.interface = Some(index);
    }
    route.with_metric(78)
}

fn changes(delta: &Delta, text: &str, desired: Option<&Route>) -> Vec<RouteChange> {
    let mut out = Changes::default();
    delta.changes(prefix(text), desired.cloned(), &mut out);
    out.into_ordered()
}

const P: &str = "10.0.0.0/26";

#[test]
fn a_route_that_is_as_desired_is_not_written() {
    let mut delta = Delta::default();
    let wanted = route(P, &["192.0.2.1"]);
    delta.read(Family::Ipv4, vec![wanted.clone()]);
    assert!(changes(&delta, P, Some(&wanted)).is_empty());
    let moved = route(P, &["192.0.2.2"]);
    assert_eq!(changes(&delta, P, Some(&moved)), [RouteChange::Replace(moved)]);
}

#[test]
fn a_place_where_none_of_ours_is_known_is_never_replaced() {
    let mut delta = Delta::default();
    let wanted = route(P, &["192.0.2.1"]);
    assert_eq!(changes(&delta, P, Some(&wanted)), [RouteChange::Add(wanted.clone())]);
    delta.applied(&RouteChange::Add(wanted.clone()));
    let foreign = Route { protocol: 4, ..wanted.clone() };
    assert!(delta.displaced(&foreign));
    assert_eq!(changes(&delta, P, Some(&wanted)), [RouteChange::Add(wanted)]);
}

#[test]
fn what_nobody_has_spoken_of_stays_until_its_source_is_in_sync() {
    let mut delta = Delta::default();
    let stale = route(P, &["192.0.2.1"]);
    assert_eq!(delta.read(Family::Ipv4, vec![stale.clone()]), [prefix(P)]);
    assert!(changes(&delta, P, None).is_empty());
    delta.spoken(77, prefix(P));
    assert!(delta.in_sync(BGP, Family::Ipv6).is_empty() && delta.in_sync(77, Family::Ipv4).is_empty());
    assert!(changes(&delta, P, None).is_empty(), "another source has no say");
    assert_eq!(delta.in_sync(BGP, Family::Ipv4), [prefix(P)]);
    assert_eq!(changes(&delta, P, None), [RouteChange::Delete(stale)]);
}

#[test]
fn what_a_source_takes_back_goes_at_once_in_sync_or_not() {
    let mut delta = Delta::default();
    let found = route(P, &["192.0.2.1"]);
    delta.read(Family::Ipv4, vec![found.clone()]);
    delta.spoken(BGP, prefix(P));
    assert_eq!(changes(&delta, P, None), [RouteChange::Delete(found)]);
}

#[test]
fn the_desired_route_is_put_before_an_other_of_ours_goes() {
    let mut delta = Delta::default();
    let old = route(P, &["192.0.2.1"]).with_metric(7);
    delta.read(Family::Ipv4, vec![old.clone()]);
    delta.spoken(BGP, prefix(P));
    let new = route(P, &["192.0.2.1"]);
    assert_eq!(changes(&delta, P, Some(&new)), [RouteChange::Add(new), RouteChange::Delete(old)]);
}

#[test]
fn reading_tells_what_differs_and_no_more() {
    let mut delta = Delta::default();
    let [one, two] = ["10.0.0.0/26", "10.0.0.64/26"].map(|text| route(text, &["192.0.2.1"]));
    delta.read(Family::Ipv4, vec![one.clone(), two.clone()]);
    assert!(delta.read(Family::Ipv4, vec![one.clone(), two]).is_empty());
    assert!(delta.read(Family::Ipv6, Vec::new()).is_empty());
    assert_eq!(delta.read(Family::Ipv4, vec![one]), [prefix("10.0.0.64/26")]);
}

#[test]
fn a_route_with_a_next_hop_left_outlives_a_link_and_one_without_does_not() {
    let mut delta = Delta::default();
    let (single, both) = (route("10.0.0.0/26", &["192.0.2.1"]), route("10.0.0.64/26", &["192.0.2.1", "198.51.100.1"]));
    delta.read(Family::Ipv4, vec![single.clone(), both.clone(), Route::unreachable(prefix("10.0.0.128/26"), 77)]);
    assert_eq!(delta.link_lost(1, None, |index| index != 1), [single.prefix]);
    assert!(delta.link_lost(2, Some(&[single.prefix]), |_| false).is_empty());
    assert_eq!(delta.link_lost(2, Some(&[both.prefix]), |_| false), [both.prefix]);
    assert_eq!(delta.count(77), 1);
}

#[test]
fn one_deleted_next_hop_leaves_the_others_and_late_news_change_nothing() {
    let mut delta = Delta::default();
    let both = route(P, &["192.0.2.1", "192.0.2.2"]);
    delta.applied(&RouteChange::Add(both.clone()));
    assert!(!delta.deleted(&route(P, &["192.0.2.9"])), "of a route that was replaced since");
    assert!(delta.deleted(&route(P, &["192.0.2.1"])));
    assert_eq!(changes(&delta, P, Some(&both)), [RouteChange::Replace(both.clone())]);
    assert!(delta.deleted(&both));
    assert_eq!(changes(&delta, P, Some(&both)), [RouteChange::Add(both)]);
}
