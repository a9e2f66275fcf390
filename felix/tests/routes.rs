//! felix against the fake kernel, and against the real one in namespaces of the tests' own.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use felix::{Felix, FelixConfig, RouteError};
use kernel::events::{Events, Group};
use kernel::fake::FakeKernel;
use kernel::{Kernel, Linux, Netns, Route, RouteChange, RouteFilter};
use proptest::prelude::*;
use types::{Family, FibUpdate, InterfaceName, NextHopWatch, Prefix};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn interface(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn set(text: &str, next_hops: &[&str]) -> FibUpdate {
    FibUpdate::Set { prefix: prefix(text), next_hops: next_hops.iter().map(|hop| ip(hop)).collect() }
}

fn start(kernel: &FakeKernel) -> Felix {
    let events = kernel.events().unwrap();
    felix::start(FelixConfig::default(), Box::new(kernel.clone()), Box::new(events)).unwrap()
}

/// A fake kernel with a fabric interface `eth1` on which 192.0.2.0/24 is connected.
fn fabric() -> FakeKernel {
    let kernel = FakeKernel::new();
    let index = kernel.add_link("eth1", true);
    kernel.put_route(Route::on_link(prefix("192.0.2.0/24"), 2, index)).unwrap();
    kernel
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Waits until a condition holds; felix answers to events on its own thread.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::yield_now();
    }
}

fn ours(kernel: &FakeKernel) -> Vec<String> {
    let mut routes: Vec<_> = kernel.all_routes().into_iter().filter(|route| route.protocol >= 77).collect();
    routes.sort();
    routes.iter().map(ToString::to_string).collect()
}

async fn track(felix: &Felix, hops: &[&str]) {
    for hop in hops {
        felix.watch(NextHopWatch::Track(ip(hop))).await;
    }
}

#[test]
fn a_pods_routes_are_in_the_kernel_when_attach_returns_and_gone_when_detach_does() {
    let kernel = fabric();
    kernel.add_link("mxpod", true);
    block_on(async {
        let felix = start(&kernel);
        felix.attach(interface("mxpod"), vec![ip("10.0.0.5"), ip("fd00::5")]).await.unwrap();
        assert_eq!(ours(&kernel), ["10.0.0.5/32 dev 3", "fd00::5/128 dev 3"]);
        felix.detach(vec![ip("10.0.0.5"), ip("fd00::5")]).await.unwrap();
        assert!(ours(&kernel).is_empty());
    });
}

#[test]
fn an_attachment_that_the_kernel_refuses_is_an_error_that_names_the_prefix() {
    let kernel = fabric();
    kernel.add_link("mxpod", true);
    kernel.fail_route(prefix("10.0.0.5/32"), 12);
    block_on(async {
        let felix = start(&kernel);
        let error = felix.attach(interface("mxpod"), vec![ip("10.0.0.5"), ip("10.0.0.6")]).await.unwrap_err();
        assert!(matches!(&error, RouteError::Kernel { prefix: p, .. } if *p == prefix("10.0.0.5/32")), "{error}");
        assert_eq!(ours(&kernel), ["10.0.0.6/32 dev 3"], "one bad route does not block another");
        let error = felix.attach(interface("mxnone"), vec![ip("10.0.0.7")]).await.unwrap_err();
        assert_eq!(error.to_string(), "interface mxnone does not exist");
    });
}

#[test]
fn next_hops_make_an_ecmp_route_that_shrinks_and_goes_with_them() {
    let kernel = fabric();
    block_on(async {
        let felix = start(&kernel);
        track(&felix, &["192.0.2.1", "192.0.2.2"]).await;
        felix.fib(vec![set("10.0.1.0/26", &["192.0.2.1", "192.0.2.2"])]).await;
        felix.view().await.unwrap();
        assert_eq!(ours(&kernel), ["10.0.1.0/26 via 192.0.2.1 dev 2 via 192.0.2.2 dev 2"]);
        felix.fib(vec![set("10.0.1.0/26", &["192.0.2.2"])]).await;
        felix.view().await.unwrap();
        assert_eq!(ours(&kernel), ["10.0.1.0/26 via 192.0.2.2 dev 2"]);
        felix.fib(vec![FibUpdate::Withdraw { prefix: prefix("10.0.1.0/26") }]).await;
        felix.view().await.unwrap();
        assert!(ours(&kernel).is_empty());
    });
}

#[test]
fn a_next_hop_that_is_not_on_link_is_followed_through_the_kernels_table() {
    let kernel = fabric();
    block_on(async {
        let felix = start(&kernel);
        let mut states = felix.next_hops().unwrap();
        track(&felix, &["198.51.100.7"]).await;
        assert_eq!(states.recv().await.unwrap().metric, None);
        felix.fib(vec![set("10.0.1.0/26", &["198.51.100.7"])]).await;
        felix.view().await.unwrap();
        assert!(ours(&kernel).is_empty(), "an unreachable next hop makes no route");
        kernel.put_route(Route::via(prefix("198.51.100.0/24"), 4, [ip("192.0.2.9")])).unwrap();
        assert!(states.recv().await.unwrap().metric.is_some());
        wait_until("the route", || ours(&kernel) == ["10.0.1.0/26 via 192.0.2.9 dev 2"]);
        kernel.remove_routes(prefix("198.51.100.0/24"));
        assert_eq!(states.recv().await.unwrap().metric, None);
        wait_until("its end", || ours(&kernel).is_empty());
    });
}

#[test]
fn a_restart_with_everything_in_place_writes_nothing_and_deletes_only_once_in_sync() {
    let kernel = fabric();
    kernel.add_link("mxpod", true);
    block_on(async {
        let told = async |felix: &Felix| {
            track(felix, &["192.0.2.1"]).await;
            felix.attach(interface("mxpod"), vec![ip("10.0.0.5")]).await.unwrap();
            felix.own_blocks(BTreeSet::from([prefix("10.0.0.0/26")])).await;
            felix.fib(vec![set("10.0.1.0/26", &["192.0.2.1"])]).await;
            felix.view().await.unwrap();
        };
        let felix = start(&kernel);
        told(&felix).await;
        felix.fib(vec![set("10.0.2.0/26", &["192.0.2.1"])]).await;
        felix.own_blocks(BTreeSet::from([prefix("10.0.0.0/26"), prefix("10.0.0.64/26")])).await;
        felix.view().await.unwrap();
        drop(felix);
        kernel.take_route_changes();

        let felix = start(&kernel);
        told(&felix).await;
        assert!(kernel.take_route_changes().is_empty(), "nothing differs yet, nothing may be deleted yet");
        felix.local_in_sync().await;
        felix.view().await.unwrap();
        let changes = kernel.take_route_changes();
        assert!(matches!(&changes[..], [RouteChange::Delete(route)] if route.prefix == prefix("10.0.0.64/26")));
        felix.fib(vec![FibUpdate::InSync { family: Family::Ipv4 }]).await;
        felix.view().await.unwrap();
        let changes = kernel.take_route_changes();
        assert!(matches!(&changes[..], [RouteChange::Delete(route)] if route.prefix == prefix("10.0.2.0/26")));
    });
}

#[test]
fn a_route_deleted_by_others_comes_back_and_lost_events_are_made_good() {
    let kernel = fabric();
    block_on(async {
        let felix = start(&kernel);
        felix.own_blocks(BTreeSet::from([prefix("10.0.0.0/26")])).await;
        felix.view().await.unwrap();
        let there = ours(&kernel);
        for lost in [false, true] {
            kernel.remove_routes(prefix("10.0.0.0/26"));
            if lost {
                kernel.lose_events();
            }
            wait_until("the route", || ours(&kernel) == there);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The kernel's routes are a function of the last word on each prefix: order between prefixes, repetitions and
    /// detours leave no trace.
    #[test]
    fn the_outcome_follows_from_the_last_state_alone(
        steps in proptest::collection::vec((0_u8..6, 0_u8..4), 1..40),
        batch in 1_usize..10,
    ) {
        let update = |(which, hops): &(u8, u8)| {
            let prefix = prefix(&format!("10.0.{which}.0/26"));
            let next_hops: Vec<_> = (0..2).filter(|bit| hops >> bit & 1 == 1).map(|bit| ip(&format!("192.0.2.{}", bit + 1))).collect();
            if next_hops.is_empty() { FibUpdate::Withdraw { prefix } } else { FibUpdate::Set { prefix, next_hops } }
        };
        let outcome = |updates: Vec<FibUpdate>, batch: usize| {
            let kernel = fabric();
            block_on(async {
                let felix = start(&kernel);
                track(&felix, &["192.0.2.1", "192.0.2.2"]).await;
                for updates in updates.chunks(batch) {
                    felix.fib(updates.to_vec()).await;
                }
                felix.view().await.unwrap();
            });
            ours(&kernel)
        };
        let mut last = std::collections::BTreeMap::new();
        for step in &steps {
            last.insert(step.0, update(step));
        }
        let squashed: Vec<_> = last.into_values().rev().collect();
        prop_assert_eq!(outcome(steps.iter().map(update).collect(), batch), outcome(squashed, 100));
    }
}

/// A namespace with a veth `eth1` (its other end in a second namespace) that is up and has 192.0.2.1/24.
struct RealFabric {
    here: Netns,
    _there: Netns,
    kernel: Linux,
    eth1: u32,
}

impl RealFabric {
    /// None, loudly, where namespaces cannot be made.
    fn new() -> Option<Self> {
        let (Ok(here), Ok(there)) = (Netns::create(), Netns::create()) else {
            eprintln!("SKIPPED: making network namespaces needs root");
            return None;
        };
        let mut kernel = Linux::open_in(&here).unwrap();
        let veth = kernel::VethSpec {
            host: interface("eth1"),
            host_mac: [2, 0, 0, 0, 0, 1],
            host_up: true,
            host_group: 0,
            peer: interface("eth1"),
            peer_netns: &there,
            peer_mac: None,
            mtu: 1500,
        };
        let eth1 = kernel.create_veth(&veth).unwrap();
        let mut far = Linux::open_in(&there).unwrap();
        let far_end = far.link(&interface("eth1")).unwrap().unwrap().index;
        far.change_link(far_end, &kernel::LinkChange { up: Some(true), ..Default::default() }).unwrap();
        let mut fabric = Self { here, _there: there, kernel, eth1 };
        fabric.put(RouteChange::Add(Route::on_link(prefix("192.0.2.0/24"), 4, eth1)));
        Some(fabric)
    }

    fn start(&self) -> Felix {
        let mut kernel = Linux::open_in(&self.here).unwrap();
        let groups = [Group::Links, Group::Addresses, Group::Routes];
        let events = Events::subscribe_in(&self.here, &groups).unwrap().except(kernel.port().unwrap());
        felix::start(FelixConfig::default(), Box::new(kernel), Box::new(events)).unwrap()
    }

    fn put(&mut self, change: RouteChange) {
        assert_eq!(self.kernel.change_routes(&[change]).unwrap(), []);
    }

    fn set_up(&mut self, up: bool) {
        let change = kernel::LinkChange { up: Some(up), ..Default::default() };
        self.kernel.change_link(self.eth1, &change).unwrap();
    }

    fn has(&mut self, protocol: u8, wanted: &str) -> bool {
        let routes = self.kernel.routes(&RouteFilter::main(Family::Ipv4).of_protocol(protocol)).unwrap();
        routes.iter().any(|route| route.prefix == prefix(wanted))
    }
}

#[test]
fn on_the_real_kernel_routes_come_back_after_a_link_was_down_and_after_others_deleted_them() {
    let Some(mut fabric) = RealFabric::new() else { return };
    block_on(async {
        let felix = fabric.start();
        track(&felix, &["192.0.2.9"]).await;
        felix.own_blocks(BTreeSet::from([prefix("10.0.0.0/26")])).await;
        felix.fib(vec![set("10.0.1.0/26", &["192.0.2.9"])]).await;
        felix.view().await.unwrap();
        assert!(fabric.has(77, "10.0.0.0/26") && fabric.has(78, "10.0.1.0/26"));

        // The kernel drops IPv4 routes over a link that goes down without a word about each.
        fabric.set_up(false);
        assert!(!fabric.has(78, "10.0.1.0/26"));
        fabric.set_up(true);
        fabric.put(RouteChange::Add(Route::on_link(prefix("192.0.2.0/24"), 4, fabric.eth1)));
        wait_until("the route after the link", || fabric.has(78, "10.0.1.0/26"));

        let block = Route::unreachable(prefix("10.0.0.0/26"), 77).with_metric(77);
        fabric.put(RouteChange::Delete(block));
        wait_until("the route that others deleted", || fabric.has(77, "10.0.0.0/26"));
    });
}

#[test]
fn on_the_real_kernel_a_foreign_route_of_the_same_prefix_is_never_touched() {
    let Some(mut fabric) = RealFabric::new() else { return };
    let usual = Route::via(prefix("10.0.1.0/26"), 4, [ip("192.0.2.7")]);
    let same_metric = Route::via(prefix("10.0.2.0/26"), 4, [ip("192.0.2.7")]).with_metric(78);
    fabric.put(RouteChange::Add(usual));
    fabric.put(RouteChange::Add(same_metric.clone()));
    block_on(async {
        let felix = fabric.start();
        track(&felix, &["192.0.2.9"]).await;
        felix.fib(vec![set("10.0.1.0/26", &["192.0.2.9"]), set("10.0.2.0/26", &["192.0.2.9"])]).await;
        let view = felix.view().await.unwrap();
        assert!(fabric.has(4, "10.0.1.0/26") && fabric.has(78, "10.0.1.0/26"), "side by side, told apart by metric");
        assert!(fabric.has(4, "10.0.2.0/26") && !fabric.has(78, "10.0.2.0/26"), "the place is taken");
        assert!(view.failures.iter().any(|failure| failure.contains("10.0.2.0/26")), "and that is said: {view:?}");
        felix.fib(vec![FibUpdate::Withdraw { prefix: prefix("10.0.1.0/26") }]).await;
        felix.view().await.unwrap();
        assert!(fabric.has(4, "10.0.1.0/26") && !fabric.has(78, "10.0.1.0/26"));
        // Once the foreign route has gone, ours takes its place.
        fabric.put(RouteChange::Delete(same_metric));
        wait_until("our route", || fabric.has(78, "10.0.2.0/26"));
    });
}
