//! Tests that the fake keeps the kernel's rules.

use std::time::Duration;

use super::*;
use crate::events::{EventSource, Wait};
use crate::ours::HOST_MAC;
use types::Family;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn node() -> (FakeKernel, u32) {
    let mut kernel = FakeKernel::new();
    let eth0 = kernel.add_link("eth0", true);
    kernel.add_address(&InterfaceAddress::new(eth0, ip("192.0.2.9"), 24)).unwrap();
    kernel.add_address(&InterfaceAddress::new(eth0, ip("2001:db8::9"), 64)).unwrap();
    (kernel, eth0)
}

#[test]
fn a_route_needs_a_gateway_on_a_link_and_the_others_are_put() {
    let (mut kernel, eth0) = node();
    let good = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1")]);
    let bad = Route::via(prefix("10.0.0.64/26"), 78, [ip("198.51.100.1")]);
    let failures = kernel.change_routes(&[RouteChange::Replace(bad), RouteChange::Replace(good.clone())]).unwrap();
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [0]);
    assert!(matches!(failures[0].error, KernelError::Unreachable(_)));
    let shown = kernel.routes(&RouteFilter::main(Family::Ipv4).of_protocol(78)).unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].next_hops[0].interface, Some(eth0));
    assert!(good.is_met_by(&shown[0]));
}

#[test]
fn a_link_that_goes_down_takes_its_ipv4_routes_silently() {
    let (mut kernel, eth0) = node();
    let routes = [
        Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1")]),
        Route::via(prefix("fd00::/122"), 78, [ip("2001:db8::1")]),
    ];
    assert_eq!(kernel.change_routes(&routes.map(RouteChange::Replace)).unwrap(), []);
    let mut events = kernel.events().unwrap();
    kernel.set_link_up(eth0, false);
    assert_eq!(kernel.all_routes(), []);
    let mut deleted = Vec::new();
    while let Wait::Event(event) = events.next(Some(Duration::ZERO)).unwrap() {
        if let Event::RouteDeleted(route) = event {
            deleted.push(route.prefix.family());
        }
    }
    assert_eq!(deleted, [Family::Ipv6, Family::Ipv6]);
}

#[test]
fn foreign_routes_survive_our_deletes_and_our_adds() {
    let (mut kernel, _) = node();
    let foreign = Route::via(prefix("10.0.0.0/26"), 4, [ip("192.0.2.2")]);
    kernel.put_route(foreign.clone()).unwrap();
    let ours = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1")]);
    let failures = kernel.change_routes(&[RouteChange::Delete(ours.clone()), RouteChange::Add(ours)]).unwrap();
    assert!(matches!(failures.as_slice(), [RouteFailure { index: 1, error: KernelError::Exists(_) }]));
    assert!(kernel.all_routes().iter().any(|route| foreign.is_met_by(route)));
}

#[test]
fn a_veth_appears_at_both_ends_and_vanishes_at_both() {
    let mut host = FakeKernel::new();
    let netns = Netns::current().unwrap();
    let veth = VethSpec {
        host: "mxaaaaaaaaaaaaa".parse().unwrap(),
        host_mac: HOST_MAC,
        host_up: true,
        host_group: 0,
        peer: "eth0".parse().unwrap(),
        peer_netns: &netns,
        peer_mac: None,
        mtu: 1450,
    };
    let index = host.create_veth(&veth).unwrap();
    assert!(matches!(host.create_veth(&veth), Err(KernelError::Exists(_))));
    let mut pod = host.namespace(&netns);
    let peer = pod.link(&veth.peer).unwrap().unwrap();
    assert_eq!((peer.peer_index, peer.mtu, peer.up), (Some(index), 1450, false));
    let key = SysctlKey::ipv4_conf(&veth.host, "proxy_arp");
    host.write_sysctl(&key, "1").unwrap();
    host.delete_link(index).unwrap();
    assert_eq!(pod.link(&veth.peer).unwrap(), None);
    assert!(matches!(host.write_sysctl(&key, "1"), Err(KernelError::Gone(_))));
}

#[test]
fn look_ups_follow_the_longest_prefix_and_stop_at_unreachable() {
    let (mut kernel, eth0) = node();
    kernel.put_route(Route::via(prefix("0.0.0.0/0"), 4, [ip("192.0.2.1")])).unwrap();
    kernel.put_route(Route::unreachable(prefix("10.0.0.0/26"), 77)).unwrap();
    assert!(kernel.resolve(ip("192.0.2.7")).unwrap().unwrap().connected);
    let far = kernel.resolve(ip("198.51.100.1")).unwrap().unwrap();
    assert_eq!((far.prefix, far.connected), (prefix("0.0.0.0/0"), false));
    assert_eq!(far.next_hops[0].interface, Some(eth0));
    assert_eq!(kernel.resolve(ip("10.0.0.1")).unwrap(), None);
    assert_eq!(kernel.resolve(ip("fd00::1")).unwrap(), None);
}

#[test]
fn a_wake_ends_the_wait_before_any_event() {
    let kernel = FakeKernel::new();
    let mut events = kernel.events().unwrap();
    kernel.lose_events();
    events.waker().wake();
    events.waker().wake();
    assert_eq!(events.next(None).unwrap(), Wait::Woken);
    assert_eq!(events.next(None).unwrap(), Wait::Event(Event::Lost));
    assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Wait::TimedOut);
}
