//! Against the fake kernel, through the handle and with the thread.

use std::collections::BTreeSet;

use felix::routes::{RouteError, Routes, RoutesConfig};
use kernel::fake::FakeKernel;
use kernel::{Route, RouteChange};
use proptest::prelude::*;
use types::{Family, FibUpdate};

use crate::{block_on, interface, ip, prefix, set, track, wait_until};

fn start(kernel: &FakeKernel) -> Routes {
    let events = kernel.events().unwrap();
    felix::routes::start(RoutesConfig::default(), Box::new(kernel.clone()), Box::new(events)).unwrap()
}

/// A fake kernel with a fabric interface `eth1` on which 192.0.2.0/24 is connected.
fn fabric() -> FakeKernel {
    let kernel = FakeKernel::new();
    let index = kernel.add_link("eth1", true);
    kernel.put_route(Route::on_link(prefix("192.0.2.0/24"), 2, index)).unwrap();
    kernel
}

fn ours(kernel: &FakeKernel) -> Vec<String> {
    let mut routes: Vec<_> = kernel.all_routes().into_iter().filter(|route| route.protocol >= 77).collect();
    routes.sort();
    routes.iter().map(ToString::to_string).collect()
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
        let told = async |felix: &Routes| {
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
