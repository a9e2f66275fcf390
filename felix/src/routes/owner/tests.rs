//! The owner on the fake kernel, round by round, without a thread and with time as a number.

mod last_state;

use std::collections::{BTreeMap, BTreeSet};

use kernel::events::Event;
use kernel::fake::{FakeKernel, Operation};
use kernel::{InterfaceAddress, Netns, Route, VethSpec, ours};
use types::{FibUpdate, NextHopWatch};

use super::*;
use crate::routes::table::metric;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn pod_interface(pod: u8) -> InterfaceName {
    format!("mxaaaaaaaaaaaa{}", char::from(b'a' + pod)).parse().unwrap()
}

fn set(text: &str, next_hops: &[&str]) -> FibUpdate {
    FibUpdate::Set { prefix: prefix(text), next_hops: next_hops.iter().map(|hop| ip(hop)).collect() }
}

fn withdraw(text: &str) -> FibUpdate {
    FibUpdate::Withdraw { prefix: prefix(text) }
}

/// A node with two fabric interfaces, `eth1` (index 2) and `eth2` (index 3), and the links of four pods (from index 4 on).
fn node() -> FakeKernel {
    let mut kernel = FakeKernel::new();
    for (name, addresses) in
        [("eth1", [("192.0.2.9", 24), ("2001:db8:1::9", 64)]), ("eth2", [("198.51.100.9", 24), ("2001:db8:2::9", 64)])]
    {
        let index = kernel.add_link(name, true);
        for (address, len) in addresses {
            kernel.add_address(&InterfaceAddress::new(index, ip(address), len)).unwrap();
        }
    }
    let netns = Netns::current().unwrap();
    for pod in 0..4 {
        let veth = VethSpec {
            host: pod_interface(pod),
            host_mac: ours::HOST_MAC,
            host_up: true,
            host_group: 0,
            peer: format!("eth{pod}").parse().unwrap(),
            peer_netns: &netns,
            peer_mac: None,
            mtu: 1500,
        };
        kernel.create_veth(&veth).unwrap();
    }
    kernel
}

const NEXT_HOPS: [&str; 5] = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8:1::1", "2001:db8:2::1"];

/// An owner, and the other ends of its channels.
struct Routes {
    owner: Owner,
    now: Instant,
    states: mpsc::Receiver<NextHopState>,
    mtu: watch::Receiver<Option<u32>>,
    _commands: mpsc::Sender<Command>,
}

impl Routes {
    /// An owner on this kernel that follows [`NEXT_HOPS`].
    fn start(kernel: &FakeKernel) -> Self {
        Self::start_with(kernel, RoutesConfig::default())
    }

    fn start_with(kernel: &FakeKernel, config: RoutesConfig) -> Self {
        let (commands, requests) = mpsc::channel(256);
        let (states, next_hops) = mpsc::channel(4_096);
        let (mtu, mtus) = watch::channel(None);
        let events = Box::new(kernel.events().unwrap());
        let ends = Ends { kernel: Box::new(kernel.clone()), events, commands: requests, states, mtu };
        let now = Instant::now();
        let owner = Owner::new(config, ends, now);
        let mut routes = Self { owner, now, states: next_hops, mtu: mtus, _commands: commands };
        routes.tell(Command::Watch(NEXT_HOPS.map(|hop| NextHopWatch::Track(ip(hop))).to_vec()));
        routes.round();
        routes
    }

    fn tell(&mut self, command: Command) {
        self.owner.command(command);
    }

    fn fib(&mut self, updates: impl Into<Vec<FibUpdate>>) {
        self.tell(Command::Fib(updates.into()));
        self.round();
    }

    fn attach(&mut self, pod: u8, address: &str) -> oneshot::Receiver<Result<(), RouteError>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Attach { interface: pod_interface(pod), addresses: vec![ip(address)], reply });
        answer
    }

    fn detach(&mut self, address: &str) -> oneshot::Receiver<Result<(), RouteError>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Detach { addresses: vec![ip(address)], reply });
        answer
    }

    fn view(&mut self) -> RoutesView {
        let (reply, mut answer) = oneshot::channel();
        self.tell(Command::View(reply));
        self.round();
        answer.try_recv().unwrap()
    }

    fn round(&mut self) {
        assert!(self.owner.round(self.now));
    }

    /// Lets this much time pass.
    fn after(&mut self, time: Duration) {
        self.now += time;
        self.round();
    }

    fn states(&mut self) -> BTreeMap<IpAddr, Option<u32>> {
        std::iter::from_fn(|| self.states.try_recv().ok()).map(|state| (state.address, state.metric)).collect()
    }
}

fn is_ours(route: &Route) -> bool {
    [ours::ROUTE_PROTOCOL_LOCAL, ours::ROUTE_PROTOCOL_BGP].contains(&route.protocol)
}

/// Our routes in the kernel, as text.
fn shown(kernel: &FakeKernel) -> Vec<String> {
    kernel.all_routes().iter().filter(|route| is_ours(route)).map(ToString::to_string).collect()
}

fn foreign(kernel: &FakeKernel) -> Vec<Route> {
    let static_route = |route: &Route| route.protocol == 4;
    kernel.all_routes().into_iter().filter(static_route).collect()
}

const P: &str = "10.0.1.0/26";

#[test]
fn an_ecmp_route_loses_the_next_hop_whose_link_went_down_and_gets_it_back() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.fib([set(P, &["192.0.2.1", "198.51.100.1"])]);
    let both = ["10.0.1.0/26 via 192.0.2.1 dev 2 via 198.51.100.1 dev 3"];
    assert_eq!(shown(&kernel), both);
    routes.states();
    kernel.set_link_up(2, false);
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.1.0/26 via 198.51.100.1 dev 3"]);
    let lost = routes.states();
    assert_eq!(lost.get(&ip("192.0.2.1")), Some(&None), "bgp is told");
    assert!(!lost.contains_key(&ip("198.51.100.1")), "and of nothing else");
    kernel.set_link_up(2, true);
    routes.round();
    assert_eq!(shown(&kernel), both);
    assert_eq!(routes.view().conflicts, 0);
}

#[test]
fn a_route_without_any_resolved_next_hop_goes_and_comes_back_when_one_resolves() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.fib([set(P, &["203.0.113.1"])]);
    assert!(shown(&kernel).is_empty());
    kernel.put_route(Route::via(prefix("203.0.113.0/24"), 4, [ip("192.0.2.254")]).with_metric(20)).unwrap();
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.1.0/26 via 192.0.2.254 dev 2"]);
    assert_eq!(routes.states().get(&ip("203.0.113.1")), Some(&Some(20)));
    kernel.remove_routes(prefix("203.0.113.0/24"));
    routes.round();
    assert!(shown(&kernel).is_empty());
    assert_eq!(routes.view().learned, 1, "still wanted");
}

#[test]
fn rfc4271_9_1_2_1_a_route_that_covers_next_hops_does_not_resolve_them() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.fib([set("192.0.2.0/25", &["192.0.2.1"]), set(P, &["192.0.2.1"])]);
    let there = ["10.0.1.0/26 via 192.0.2.1 dev 2", "192.0.2.0/25 via 192.0.2.1 dev 2"];
    assert_eq!(shown(&kernel), there);
    routes.after(Duration::from_secs(100));
    assert_eq!(shown(&kernel), there, "and this is stable");
    kernel.take_route_changes();
    routes.after(Duration::from_secs(100));
    assert!(kernel.take_route_changes().is_empty());
    kernel.set_link_up(2, false);
    routes.round();
    assert!(shown(&kernel).is_empty());
}

#[test]
fn a_link_that_went_down_and_up_between_two_looks_has_its_routes_back() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.fib([set(P, &["192.0.2.1"])]);
    let _answer = routes.attach(0, "10.0.0.1");
    routes.round();
    let there = shown(&kernel);
    assert_eq!(there.len(), 2);
    for link in [2, 4] {
        kernel.set_link_up(link, false);
        kernel.set_link_up(link, true);
    }
    assert!(shown(&kernel).is_empty(), "the kernel drops them silently");
    routes.round();
    assert_eq!(shown(&kernel), there);
}

#[test]
fn a_pod_behind_a_link_that_is_down_is_refused_and_served_once_the_link_is_up() {
    let kernel = node();
    kernel.set_link_up(4, false);
    let mut routes = Routes::start(&kernel);
    let mut answer = routes.attach(0, "10.0.0.1");
    routes.round();
    assert_eq!(answer.try_recv().unwrap(), Err(RouteError::InterfaceDown(pod_interface(0))));
    assert_eq!(routes.view().failures, [format!("route to 10.0.0.1/32: interface {} is down", pod_interface(0))]);
    kernel.take_route_changes();
    routes.after(Duration::from_secs(40));
    assert!(kernel.take_route_changes().is_empty(), "the link is waited for, not the kernel asked again and again");
    kernel.set_link_up(4, true);
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.0.1/32 dev 4"]);
    assert!(routes.view().failures.is_empty());
}

#[test]
fn a_pods_interface_that_was_made_anew_is_found_by_its_name() {
    let mut kernel = node();
    let mut routes = Routes::start(&kernel);
    let _answer = routes.attach(0, "10.0.0.1");
    routes.round();
    kernel.remove_link(4);
    routes.round();
    assert!(shown(&kernel).is_empty());
    let netns = Netns::current().unwrap();
    let veth = VethSpec {
        host: pod_interface(0),
        host_mac: ours::HOST_MAC,
        host_up: true,
        host_group: 0,
        peer: "eth9".parse().unwrap(),
        peer_netns: &netns,
        peer_mac: None,
        mtu: 1500,
    };
    let index = kernel.create_veth(&veth).unwrap();
    routes.round();
    assert_eq!(shown(&kernel), [format!("10.0.0.1/32 dev {index}")]);
}

#[test]
fn detach_deletes_also_what_an_earlier_life_has_put() {
    let kernel = node();
    let mut earlier = Routes::start(&kernel);
    let _answer = earlier.attach(0, "10.0.0.1");
    let _answer = earlier.attach(1, "10.0.0.2");
    earlier.round();
    let mut routes = Routes::start(&kernel);
    assert_eq!(routes.view().stale, 2);
    let mut answer = routes.detach("10.0.0.1");
    routes.round();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert_eq!(shown(&kernel), ["10.0.0.2/32 dev 5"], "the other is not spoken of yet");
    routes.tell(Command::LocalInSync);
    routes.round();
    assert!(shown(&kernel).is_empty());
}

#[test]
fn detach_succeeds_also_where_the_kernel_has_dropped_the_routes_with_the_link() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    let _answer = routes.attach(0, "10.0.0.1");
    routes.round();
    kernel.set_link_up(4, false);
    let mut unheard = routes.detach("10.0.0.1");
    routes.owner.settle(routes.now);
    assert_eq!(unheard.try_recv().unwrap(), Ok(()));
    let view = routes.view();
    assert_eq!((view.local, view.failures.len()), (0, 0));
}

#[test]
fn a_stale_route_that_went_with_its_link_is_not_taken_to_be_there() {
    let kernel = node();
    let mut earlier = Routes::start(&kernel);
    let _answer = earlier.attach(0, "10.0.0.1");
    earlier.round();
    let mut routes = Routes::start(&kernel);
    kernel.set_link_up(4, false);
    kernel.set_link_up(4, true);
    routes.round();
    let mut answer = routes.attach(0, "10.0.0.1");
    routes.round();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert_eq!(shown(&kernel), ["10.0.0.1/32 dev 4"]);
}

#[test]
fn a_sources_stale_routes_go_only_with_its_own_family_in_sync() {
    let kernel = node();
    let mut earlier = Routes::start(&kernel);
    earlier.fib([set(P, &["192.0.2.1"]), set("fd00:1::/122", &["2001:db8:1::1"])]);
    earlier.tell(Command::OwnBlocks(BTreeSet::from([prefix("10.0.0.0/26")])));
    earlier.round();
    let mut routes = Routes::start(&kernel);
    assert_eq!(shown(&kernel).len(), 3);
    routes.after(Duration::from_secs(100));
    routes.fib([FibUpdate::InSync { family: Family::Ipv6 }]);
    assert_eq!(shown(&kernel), ["unreachable 10.0.0.0/26", "10.0.1.0/26 via 192.0.2.1 dev 2"]);
    routes.tell(Command::LocalInSync);
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.1.0/26 via 192.0.2.1 dev 2"]);
    routes.fib([FibUpdate::InSync { family: Family::Ipv4 }]);
    assert!(shown(&kernel).is_empty());
}

#[test]
fn a_foreign_route_in_our_place_stays_and_is_reported_and_counted_once() {
    let kernel = node();
    let foreign_route = Route::unreachable(prefix(P), 4).with_metric(metric::bgp(Family::Ipv4));
    kernel.put_route(foreign_route.clone()).unwrap();
    let mut routes = Routes::start(&kernel);
    routes.fib([set(P, &["192.0.2.1"]), set("10.0.2.0/26", &["192.0.2.1"])]);
    for _ in 0..5 {
        routes.after(Duration::from_secs(60));
    }
    let view = routes.view();
    assert_eq!(view.failures, ["route to 10.0.1.0/26: a route of another program has this prefix and metric 78"]);
    assert_eq!((view.conflicts, view.bgp), (1, 1), "and no other route waits for it");
    routes.fib([withdraw(P)]);
    assert_eq!(foreign(&kernel), [foreign_route], "nor does our withdrawal delete it");
    assert!(routes.view().failures.is_empty());
}

#[test]
fn a_foreign_route_that_replaced_ours_is_left_alone_until_it_goes() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.fib([set(P, &["192.0.2.1"])]);
    let thief = Route::unreachable(prefix(P), 4).with_metric(metric::bgp(Family::Ipv4));
    kernel.put_route(thief.clone()).unwrap();
    routes.round();
    routes.fib([set(P, &["198.51.100.1"])]);
    assert_eq!(foreign(&kernel), [thief]);
    assert_eq!((routes.view().conflicts, routes.view().disturbed), (1, 1));
    kernel.remove_routes(prefix(P));
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.1.0/26 via 198.51.100.1 dev 3"]);
    assert!(routes.view().failures.is_empty());
}

#[test]
fn an_own_route_that_no_event_told_of_is_no_conflict() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    // The state is that of a lost event: a route that another program put under our name is in the kernel, unheard of.
    let own = Route::unreachable(prefix("10.0.0.0/26"), ours::ROUTE_PROTOCOL_LOCAL).with_metric(metric::LOCAL);
    kernel.put_route(own.clone()).unwrap();
    routes.owner.take_events();
    routes.owner.table.event(Event::RouteDeleted(own));
    routes.tell(Command::OwnBlocks(BTreeSet::from([prefix("10.0.0.0/26")])));
    let view = routes.view();
    assert_eq!((view.conflicts, view.failures.len()), (0, 0));
    assert_eq!(shown(&kernel), ["unreachable 10.0.0.0/26"]);
}

#[test]
fn a_pod_does_not_wait_for_a_full_table() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    let blocks = |count: u32| {
        (0..count).map(|n| Prefix::new(std::net::Ipv4Addr::from_bits(0x2000_0000 + (n << 8)).into(), 24).unwrap())
    };
    let count = u32::try_from(PREFIXES_PER_ROUND * 2).unwrap();
    routes.tell(Command::Fib(
        blocks(count).map(|prefix| FibUpdate::Set { prefix, next_hops: vec![ip("192.0.2.1")] }).collect(),
    ));
    let mut answer = routes.attach(0, "172.16.0.1");
    let (reply, mut view) = oneshot::channel();
    routes.tell(Command::View(reply));
    routes.round();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert!(view.try_recv().is_err(), "a view is what there is when all is written");
    assert_eq!(routes.owner.timeout(routes.now), Duration::ZERO);
    routes.round();
    assert_eq!(view.try_recv().unwrap().bgp, PREFIXES_PER_ROUND * 2);
    assert!(routes.owner.timeout(routes.now) > Duration::ZERO);
}

#[test]
fn what_others_delete_is_put_back_in_the_same_round() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.fib([set(P, &["192.0.2.1"])]);
    kernel.remove_routes(prefix(P));
    let view = routes.view();
    assert_eq!((view.bgp, view.disturbed), (1, 1));
    assert_eq!(shown(&kernel), ["10.0.1.0/26 via 192.0.2.1 dev 2"]);
}

#[test]
fn a_refused_route_is_tried_again_later_and_later_and_blocks_no_other() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    kernel.fail_route(prefix(P), 12);
    routes.fib([set(P, &["192.0.2.1"]), set("10.0.2.0/26", &["192.0.2.1"])]);
    assert_eq!(shown(&kernel), ["10.0.2.0/26 via 192.0.2.1 dev 2"]);
    let view = routes.view();
    assert!(view.failures[0].contains("10.0.1.0/26"), "{:?}", view.failures);
    let asked = kernel.count(Operation::ChangeRoutes);
    (0..100).for_each(|_| routes.after(Duration::from_millis(100)));
    let attempts = kernel.count(Operation::ChangeRoutes) - asked;
    assert!((3..=8).contains(&attempts), "{attempts} in 10 s");
    kernel.heal();
    routes.after(Duration::from_secs(30));
    assert_eq!(shown(&kernel).len(), 2);
    assert!(routes.view().failures.is_empty());
}

#[test]
fn a_kernel_that_takes_nothing_is_an_error_to_who_waits_and_asked_again() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    kernel.fail_always(Operation::ChangeRoutes, 105);
    let mut answer = routes.attach(0, "10.0.0.1");
    routes.round();
    assert!(matches!(answer.try_recv().unwrap(), Err(RouteError::Unavailable(KernelError::Busy(_)))));
    kernel.heal();
    routes.after(Duration::from_secs(1));
    assert_eq!(shown(&kernel), ["10.0.0.1/32 dev 4"]);
}

#[test]
fn pods_hear_from_the_nodes_address_while_it_has_it() {
    let mut kernel = node();
    let config =
        RoutesConfig { node_addresses: vec![ip("192.0.2.9"), ip("2001:db8:77::9")], ..RoutesConfig::default() };
    let mut routes = Routes::start_with(&kernel, config);
    let _answer = routes.attach(0, "10.0.0.1");
    let _answer = routes.attach(0, "fd00::1");
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.0.1/32 dev 4 src 192.0.2.9", "fd00::1/128 dev 4"]);
    kernel.add_address(&InterfaceAddress::new(2, ip("2001:db8:77::9"), 64)).unwrap();
    kernel.delete_address(&InterfaceAddress::new(2, ip("192.0.2.9"), 24)).unwrap();
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.0.1/32 dev 4", "fd00::1/128 dev 4 src 2001:db8:77::9"]);
    routes.tell(Command::NodeAddresses(vec![ip("198.51.100.9")]));
    routes.round();
    assert_eq!(shown(&kernel), ["10.0.0.1/32 dev 4 src 198.51.100.9", "fd00::1/128 dev 4"]);
}

#[test]
fn the_mtu_is_the_smallest_toward_next_hops_and_follows_changes() {
    let mut kernel = node();
    let mut routes = Routes::start(&kernel);
    assert_eq!(*routes.mtu.borrow_and_update(), Some(1500));
    let jumbo = kernel::LinkChange { mtu: Some(9000), ..kernel::LinkChange::default() };
    kernel.change_link(2, &jumbo).unwrap();
    kernel.change_link(4, &kernel::LinkChange { mtu: Some(1280), ..kernel::LinkChange::default() }).unwrap();
    routes.round();
    assert_eq!(*routes.mtu.borrow_and_update(), Some(1500), "a pod's interface leads to no next hop");
    kernel.change_link(3, &jumbo).unwrap();
    routes.round();
    assert_eq!(*routes.mtu.borrow_and_update(), Some(9000));
}

#[test]
fn states_that_bgp_does_not_take_are_kept_the_latest_of_each() {
    let kernel = node();
    let mut routes = Routes::start(&kernel);
    routes.states();
    let (states, mut next_hops) = mpsc::channel(1);
    routes.owner.ends.states = states;
    kernel.set_link_up(2, false);
    routes.round();
    kernel.set_link_up(3, false);
    kernel.set_link_up(2, true);
    routes.round();
    assert!(routes.owner.timeout(routes.now) <= BGP_RETELL_DELAY, "bgp is asked again soon");
    let mut told = BTreeMap::new();
    while let Ok(state) = next_hops.try_recv() {
        told.insert(state.address, state.metric);
        routes.round();
    }
    let reachable = |text| told.get(&ip(text)).copied().flatten().is_some();
    assert_eq!(NEXT_HOPS.map(reachable), [true, false, false, true, false]);
}
