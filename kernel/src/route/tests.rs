use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_order_of_next_hops_does_not_make_routes_different() {
    let one = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.2"), ip("192.0.2.1")]).canonical();
    let other = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1"), ip("192.0.2.2")]).canonical();
    assert_eq!(one, other);
}

#[test]
fn ipv6_routes_have_no_scope_and_never_metric_zero() {
    let mut route = Route::on_link(prefix("fd00::1/128"), 77, 3);
    route.scope = Scope::Link;
    route.metric = 0;
    let route = route.canonical();
    assert_eq!((route.scope, route.metric), (Scope::Universe, 1024));
}

#[test]
fn a_wanted_gateway_is_met_on_whatever_interface_the_kernel_found() {
    let wanted = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1"), ip("192.0.2.2")]).canonical();
    let mut installed = wanted.clone();
    for hop in &mut installed.next_hops {
        hop.interface = Some(7);
    }
    assert!(wanted.is_met_by(&installed));
    assert!(!installed.is_met_by(&wanted));
    installed.next_hops.pop();
    assert!(!wanted.is_met_by(&installed));
}

#[test]
fn a_route_reads_as_in_ip_route() {
    assert_eq!(Route::unreachable(prefix("10.0.0.0/26"), 77).to_string(), "unreachable 10.0.0.0/26");
    let route = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1")]).with_preferred_source(Some(ip("192.0.2.9")));
    assert_eq!(RouteChange::Replace(route).to_string(), "replace route 10.0.0.0/26 via 192.0.2.1 src 192.0.2.9");
}
