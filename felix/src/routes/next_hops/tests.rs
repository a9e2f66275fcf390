use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(text: &str, protocol: u8, gateway: Option<&str>, metric: u32) -> Route {
    let hop = RouteNextHop { gateway: gateway.map(ip), interface: Some(3), onlink: false, weight: 1 };
    Route { next_hops: vec![hop], ..Route::via(text.parse().unwrap(), protocol, []) }.with_metric(metric)
}

fn resolution(gateway: Option<&str>, metric: u32) -> Resolution {
    let Route { prefix, protocol, metric, kind, next_hops, .. } = route("192.0.2.0/24", 4, gateway, metric);
    Resolution { prefix, protocol, metric, kind, next_hops, connected: gateway.is_none() }
}

fn looked_up(next_hops: &mut NextHops, resolution: Option<&Resolution>) -> (Option<Option<u32>>, bool) {
    let answer = next_hops.looked_up(ip("192.0.2.9"), resolution, |_| true);
    (answer.tell.map(|state| state.metric), answer.changed)
}

#[test]
fn a_next_hop_behind_a_gateway_is_reached_through_the_gateway() {
    let mut next_hops = NextHops::default();
    next_hops.track(ip("192.0.2.9"));
    let behind = resolution(Some("198.51.100.1"), 20);
    assert_eq!(looked_up(&mut next_hops, Some(&behind)), (Some(Some(20)), true));
    assert_eq!(next_hops.resolved(&[ip("192.0.2.9")])[0].gateway, Some(ip("198.51.100.1")));
    assert_eq!(looked_up(&mut next_hops, Some(&behind)), (None, false), "no news is not told");
    assert_eq!(looked_up(&mut next_hops, Some(&resolution(None, 256))), (Some(Some(0)), true));
    assert_eq!(next_hops.resolved(&[ip("192.0.2.9")])[0].gateway, Some(ip("192.0.2.9")));
}

#[test]
fn another_gateway_at_the_same_metric_changes_routes_but_is_no_news_to_bgp() {
    let mut next_hops = NextHops::default();
    next_hops.track(ip("192.0.2.9"));
    looked_up(&mut next_hops, Some(&resolution(Some("198.51.100.1"), 20)));
    assert_eq!(looked_up(&mut next_hops, Some(&resolution(Some("198.51.100.2"), 20))), (None, true));
}

#[test]
fn an_onlink_gateway_stays_onlink() {
    let mut next_hops = NextHops::default();
    next_hops.track(ip("192.0.2.9"));
    let mut behind = resolution(Some("198.51.100.1"), 20);
    behind.next_hops[0].onlink = true;
    looked_up(&mut next_hops, Some(&behind));
    assert!(next_hops.resolved(&[ip("192.0.2.9")])[0].onlink);
}

#[test]
fn a_way_over_an_interface_without_carrier_is_none() {
    let mut next_hops = NextHops::default();
    next_hops.track(ip("192.0.2.9"));
    let connected = resolution(None, 0);
    let answer = next_hops.looked_up(ip("192.0.2.9"), Some(&connected), |index| index != 3);
    assert_eq!(answer.tell, Some(NextHopState { address: ip("192.0.2.9"), metric: None }));
    assert!(next_hops.resolved(&[ip("192.0.2.9")]).is_empty());
    assert!(next_hops.interfaces().is_empty());
}

#[test]
fn who_asks_is_always_answered() {
    let mut next_hops = NextHops::default();
    for _ in 0..2 {
        next_hops.track(ip("192.0.2.9"));
        assert_eq!(looked_up(&mut next_hops, None), (Some(None), false));
    }
    next_hops.untrack(ip("192.0.2.9"));
    assert_eq!(looked_up(&mut next_hops, None), (None, false));
}

#[test]
fn a_prefix_finds_the_next_hops_in_it() {
    let mut next_hops = NextHops::default();
    for address in ["192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", "2001:db8::1"] {
        next_hops.track(ip(address));
    }
    let within = |prefix: &str| next_hops.within(prefix.parse().unwrap()).count();
    assert_eq!([within("192.0.2.0/24"), within("0.0.0.0/0"), within("::/0"), within("10.0.0.0/8")], [2, 4, 1, 0]);
}

#[test]
fn rfc4271_9_1_2_1_no_route_of_bgp_resolves_a_next_hop_of_bgp() {
    let table = [
        route("0.0.0.0/0", 4, Some("198.51.100.1"), 0),
        route("192.0.2.0/24", 4, Some("198.51.100.2"), 20),
        route("192.0.2.0/24", 4, Some("198.51.100.3"), 10),
        route("192.0.2.0/25", 78, Some("192.0.2.9"), 78),
    ];
    let found = look_up_without(78, &table, ip("192.0.2.9")).unwrap();
    assert_eq!((found.metric, found.next_hops[0].gateway), (10, Some(ip("198.51.100.3"))));
    assert!(found.next_hops[0].onlink, "or the kernel would find the route of BGP for the gateway");
    assert_eq!(look_up_without(78, &table[3..], ip("192.0.2.9")), None);
}
