//! Against the real kernel, in namespaces of each test's own.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use felix::routes::{Routes, RoutesConfig};
use kernel::events::{Event, EventSource, Events, Group, Wait};
use kernel::netns::run_in;
use kernel::{
    AddressFlags, InterfaceAddress, Kernel, LinkChange, Linux, Netns, Route, RouteChange, RouteFilter, VethSpec, ours,
};
use types::{Family, FibUpdate};

use crate::{block_on, interface, ip, prefix, set, track, wait_until};

const STATIC: u8 = 4;
const POD: &str = "mxaaaaaaaaaaaaa";

/// A node: `eth1` and `eth2` with an address of each family, and a pod's link, their other ends in a second namespace.
struct Node {
    here: Netns,
    there: Netns,
    /// What other programs do, and what tests see.
    kernel: Linux,
}

impl Node {
    /// None, loudly, where namespaces cannot be made.
    fn new() -> Option<Self> {
        let (Ok(here), Ok(there)) = (Netns::create(), Netns::create()) else {
            tests::say_skipped(&"network namespaces need root");
            return None;
        };
        let kernel = Linux::open_in(&here).unwrap();
        let mut node = Self { here, there, kernel };
        node.wire("eth1", &[("192.0.2.9", 24), ("2001:db8:1::9", 64)]);
        node.wire("eth2", &[("198.51.100.9", 24), ("2001:db8:2::9", 64)]);
        node.wire(POD, &[]);
        // The kernel reports carriers and finishes with addresses in its own time.
        wait_until("the carriers", || {
            node.kernel.links().unwrap().iter().all(|link| link.name == "lo" || link.running)
        });
        Some(node)
    }

    fn wire(&mut self, name: &str, addresses: &[(&str, u8)]) {
        let veth = VethSpec {
            host: interface(name),
            host_mac: ours::HOST_MAC,
            host_up: true,
            host_group: 0,
            peer: interface(name),
            peer_netns: &self.there,
            peer_mac: None,
            mtu: 1450,
        };
        let index = self.kernel.create_veth(&veth).unwrap();
        self.set_other_end_up(name, true);
        for (address, len) in addresses {
            let address = InterfaceAddress::new(index, ip(address), *len).with_flags(AddressFlags::NO_DAD);
            self.kernel.add_address(&address).unwrap();
        }
    }

    fn start(&self) -> Routes {
        self.start_with(RoutesConfig::default())
    }

    fn start_with(&self, config: RoutesConfig) -> Routes {
        let mut kernel = Linux::open_in(&self.here).unwrap();
        let groups = [Group::Links, Group::Addresses, Group::Routes];
        let events = Events::subscribe_in(&self.here, &groups).unwrap().except(kernel.port().unwrap());
        felix::routes::start(config, Box::new(kernel), Box::new(events)).unwrap()
    }

    fn change(&mut self, change: RouteChange) {
        assert_eq!(self.kernel.change_routes(&[change]).unwrap(), []);
    }

    fn set_up(&mut self, name: &str, up: bool) {
        set_up(&mut self.kernel, name, up);
    }

    fn set_other_end_up(&self, name: &str, up: bool) {
        set_up(&mut Linux::open_in(&self.there).unwrap(), name, up);
    }

    /// Routes of a protocol in the main table, in order.
    fn shown(&mut self, protocol: u8) -> Vec<String> {
        let of_family = |family| self.kernel.routes(&RouteFilter::main(family).of_protocol(protocol)).unwrap();
        let mut routes: Vec<_> = Family::ALL.into_iter().flat_map(of_family).collect();
        routes.sort();
        routes.iter().map(ToString::to_string).collect()
    }

    fn bgp(&mut self) -> Vec<String> {
        self.shown(ours::ROUTE_PROTOCOL_BGP)
    }

    fn local(&mut self) -> Vec<String> {
        self.shown(ours::ROUTE_PROTOCOL_LOCAL)
    }

    fn index(&mut self, name: &str) -> u32 {
        self.kernel.link(&interface(name)).unwrap().unwrap().index
    }

    /// `ip` in the node's namespace, as an administrator would; `false` where there is none.
    fn ip(&self, arguments: &str) -> bool {
        let run = || Command::new("ip").args(arguments.split_whitespace()).status();
        match run_in(&self.here, run).unwrap() {
            Ok(status) => {
                assert!(status.success(), "ip {arguments}");
                true
            }
            Err(error) => {
                tests::say_skipped(&format!("ip(8) cannot be run: {error}"));
                false
            }
        }
    }
}

fn set_up(kernel: &mut Linux, name: &str, up: bool) {
    let index = kernel.link(&interface(name)).unwrap().unwrap().index;
    kernel.change_link(index, &LinkChange { up: Some(up), ..LinkChange::default() }).unwrap();
}

#[test]
fn routes_come_back_after_their_link_was_down() {
    let Some(mut node) = Node::new() else { return };
    block_on(async {
        let felix = node.start();
        track(&felix, &["192.0.2.1"]).await;
        felix.attach(interface(POD), vec![ip("10.0.0.1"), ip("fd00::1")]).await.unwrap();
        felix.fib(vec![set("10.0.1.0/26", &["192.0.2.1"])]).await;
        felix.view().await.unwrap();
        let (bgp, local) = (node.bgp(), node.local());
        assert_eq!((bgp.len(), local.len()), (1, 2));
        for name in ["eth1", POD] {
            node.set_up(name, false);
        }
        assert_eq!((node.bgp().len(), node.local().len()), (0, 0), "the kernel drops them");
        while felix.view().await.unwrap().failures.len() < 2 {
            tokio::task::yield_now().await;
        }
        for name in ["eth1", POD] {
            node.set_up(name, true);
        }
        wait_until("the routes", || node.bgp() == bgp && node.local() == local);
        let view = felix.view().await.unwrap();
        assert_eq!((view.conflicts, view.failures), (0, Vec::new()));
    });
}

#[test]
fn an_ecmp_route_follows_links_and_carriers() {
    let Some(mut node) = Node::new() else { return };
    block_on(async {
        let felix = node.start();
        let mut states = felix.next_hops().unwrap();
        track(&felix, &["192.0.2.1", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1"]).await;
        felix
            .fib(vec![
                set("10.0.1.0/26", &["192.0.2.1", "198.51.100.1"]),
                set("fd00:1::/122", &["2001:db8:1::1", "2001:db8:2::1"]),
            ])
            .await;
        felix.view().await.unwrap();
        for _ in 0..4 {
            assert_eq!(states.recv().await.unwrap().metric, Some(0));
        }
        let [eth1, eth2] = ["eth1", "eth2"].map(|name| node.index(name));
        let both = [
            format!("10.0.1.0/26 via 192.0.2.1 dev {eth1} via 198.51.100.1 dev {eth2}"),
            format!("fd00:1::/122 via 2001:db8:1::1 dev {eth1} via 2001:db8:2::1 dev {eth2}"),
        ];
        let one =
            [format!("10.0.1.0/26 via 198.51.100.1 dev {eth2}"), format!("fd00:1::/122 via 2001:db8:2::1 dev {eth2}")];
        assert_eq!(node.bgp(), both);
        node.set_other_end_up("eth1", false);
        wait_until("the loss of the carrier", || node.bgp() == one);
        assert_eq!(states.recv().await.unwrap().metric, None);
        node.set_other_end_up("eth1", true);
        wait_until("the carrier", || node.bgp() == both);
        // The IPv6 address goes with the link, which keeps only those it has made itself.
        node.set_up("eth1", false);
        wait_until("the loss of the link", || node.bgp() == one);
        node.set_up("eth1", true);
        let address = InterfaceAddress::new(eth1, ip("2001:db8:1::9"), 64).with_flags(AddressFlags::NO_DAD);
        node.kernel.add_address(&address).unwrap();
        wait_until("the link", || node.bgp() == both);
        assert_eq!(felix.view().await.unwrap().conflicts, 0);
    });
}

#[test]
fn routes_that_others_delete_come_back() {
    let Some(mut node) = Node::new() else { return };
    block_on(async {
        let felix = node.start();
        track(&felix, &["192.0.2.1", "2001:db8:1::1", "2001:db8:2::1"]).await;
        felix.own_blocks(BTreeSet::from([prefix("10.0.0.0/26"), prefix("fd00::/122")])).await;
        felix.attach(interface(POD), vec![ip("10.0.0.1"), ip("fd00::1")]).await.unwrap();
        let learned =
            vec![set("10.0.1.0/26", &["192.0.2.1"]), set("fd00:1::/122", &["2001:db8:1::1", "2001:db8:2::1"])];
        felix.fib(learned).await;
        felix.view().await.unwrap();
        let (bgp, local) = (node.bgp(), node.local());
        assert_eq!((bgp.len(), local.len()), (2, 4));
        for protocol in [77, 78] {
            if !node.ip(&format!("route flush protocol {protocol}"))
                || !node.ip(&format!("-6 route flush protocol {protocol}"))
            {
                return;
            }
        }
        wait_until("the routes", || node.bgp() == bgp && node.local() == local);
        node.ip("-6 route del fd00:1::/122 via 2001:db8:1::1");
        wait_until("the next hop", || node.bgp() == bgp);
        node.ip("route replace unreachable 10.0.1.0/26 proto 78 metric 78");
        wait_until("the kind", || node.bgp() == bgp);
        let view = felix.view().await.unwrap();
        assert!(view.disturbed >= 8, "{view:?}");
        assert_eq!((view.conflicts, view.failures), (0, Vec::new()));
    });
}

#[test]
fn a_foreign_route_of_the_same_prefix_is_never_touched() {
    let Some(mut node) = Node::new() else { return };
    let mut foreign = Vec::new();
    for (prefixes, gateway, ours) in
        [(["10.0.1.0/26", "10.0.2.0/26"], "192.0.2.7", 78), (["fd00:1::/122", "fd00:2::/122"], "2001:db8:1::7", 278)]
    {
        let [usual, same_metric] = prefixes.map(|text| Route::via(prefix(text), STATIC, [ip(gateway)]));
        foreign.push((usual, same_metric.with_metric(ours)));
    }
    for (usual, same_metric) in &foreign {
        node.change(RouteChange::Add(usual.clone()));
        node.change(RouteChange::Add(same_metric.clone()));
    }
    let theirs = node.shown(STATIC);
    block_on(async {
        let felix = node.start();
        track(&felix, &["192.0.2.1", "2001:db8:1::1"]).await;
        let v4 = ["10.0.1.0/26", "10.0.2.0/26"].map(|text| set(text, &["192.0.2.1"]));
        let v6 = ["fd00:1::/122", "fd00:2::/122"].map(|text| set(text, &["2001:db8:1::1"]));
        felix.fib(v4.into_iter().chain(v6).collect()).await;
        let view = felix.view().await.unwrap();
        assert_eq!(node.shown(STATIC), theirs);
        let beside = node.bgp();
        assert_eq!(beside.len(), 2, "beside those of another metric: {beside:?}");
        assert_eq!(view.conflicts, 2, "the others' places are taken, {view:?}");
        assert!(view.failures.iter().any(|failure| failure.contains("10.0.2.0/26")), "and that is said: {view:?}");
        felix
            .fib(["10.0.1.0/26", "fd00:1::/122"].map(|text| FibUpdate::Withdraw { prefix: prefix(text) }).into())
            .await;
        felix.view().await.unwrap();
        assert_eq!((node.bgp().len(), node.shown(STATIC)), (0, theirs));
        for (_, same_metric) in &foreign {
            node.change(RouteChange::Delete(same_metric.clone()));
        }
        wait_until("our routes in the places that are free now", || node.bgp().len() == 2);
    });
}

#[test]
fn a_restart_writes_nothing_that_is_there_already() {
    let Some(mut node) = Node::new() else { return };
    let tell = async |felix: &Routes| {
        track(felix, &["192.0.2.1", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1"]).await;
        felix.own_blocks(BTreeSet::from([prefix("10.0.0.0/26"), prefix("fd00::/122")])).await;
        felix.attach(interface(POD), vec![ip("10.0.0.1"), ip("fd00::1")]).await.unwrap();
        let v4 = set("10.0.1.0/26", &["192.0.2.1", "198.51.100.1"]);
        let v6 = set("fd00:1::/122", &["2001:db8:1::1", "2001:db8:2::1"]);
        felix.fib(vec![v4, v6, set("10.0.2.0/26", &["192.0.2.1"])]).await;
        felix.local_in_sync().await;
        felix.fib(Family::ALL.map(|family| FibUpdate::InSync { family }).into()).await;
        felix.view().await.unwrap();
    };
    let config =
        || RoutesConfig { node_addresses: vec![ip("192.0.2.9"), ip("2001:db8:1::9")], ..RoutesConfig::default() };
    block_on(async {
        let felix = node.start_with(config());
        tell(&felix).await;
        drop(felix);
        let before = (node.bgp(), node.local());
        assert_eq!((before.0.len(), before.1.len()), (3, 4));
        assert!(before.1.iter().any(|route| route.ends_with("src 192.0.2.9")), "{before:?}");
        let mut events = Events::subscribe_in(&node.here, &[Group::Routes]).unwrap();
        let felix = node.start_with(config());
        tell(&felix).await;
        let written = std::iter::from_fn(|| match events.next(Some(Duration::ZERO)).unwrap() {
            Wait::Event(event) => Some(event),
            _ => None,
        });
        // The kernel's own routes of the node's addresses come when they like.
        let of_others = |event: &Event| matches!(event, Event::RouteChanged(route) if !ours::is_our_route(route));
        let written: Vec<Event> = written.filter(|event| !of_others(event)).collect();
        assert_eq!(written, []);
        assert_eq!((node.bgp(), node.local()), before);
    });
}

#[test]
fn rfc4271_9_1_2_1_a_route_that_covers_its_own_next_hop_is_put_and_stays() {
    let Some(mut node) = Node::new() else { return };
    block_on(async {
        let felix = node.start();
        track(&felix, &["192.0.2.1", "2001:db8:1::1"]).await;
        felix.fib(vec![set("192.0.2.0/25", &["192.0.2.1"]), set("2001:db8:1::/80", &["2001:db8:1::1"])]).await;
        felix.view().await.unwrap();
        felix.fib(vec![set("10.0.1.0/26", &["192.0.2.1"]), set("fd00:1::/122", &["2001:db8:1::1"])]).await;
        let view = felix.view().await.unwrap();
        assert_eq!((view.bgp, view.failures), (4, Vec::new()));
        let there = node.bgp();
        // News of the table: all is looked up again.
        node.change(RouteChange::Add(Route::unreachable(prefix("192.0.2.0/30"), STATIC)));
        wait_until("the loss of the next hop", || node.bgp().len() == 2);
        node.change(RouteChange::Delete(Route::unreachable(prefix("192.0.2.0/30"), STATIC)));
        wait_until("its return", || node.bgp() == there);
    });
}

#[test]
fn pods_keep_their_routes_when_the_nodes_address_goes_and_comes() {
    let Some(mut node) = Node::new() else { return };
    block_on(async {
        let config = RoutesConfig { node_addresses: vec![ip("192.0.2.9")], ..RoutesConfig::default() };
        let felix = node.start_with(config);
        felix.attach(interface(POD), vec![ip("10.0.0.1")]).await.unwrap();
        let pod = node.index(POD);
        let with_source = [format!("10.0.0.1/32 dev {pod} src 192.0.2.9")];
        assert_eq!(node.local(), with_source);
        let eth1 = node.index("eth1");
        let address = InterfaceAddress::new(eth1, ip("192.0.2.9"), 24);
        node.kernel.delete_address(&address).unwrap();
        wait_until("the route without it", || node.local() == [format!("10.0.0.1/32 dev {pod}")]);
        node.kernel.add_address(&address).unwrap();
        wait_until("the route with it", || node.local() == with_source);
    });
}

#[test]
fn the_mtu_toward_next_hops_is_known() {
    let Some(node) = Node::new() else { return };
    block_on(async {
        let felix = node.start();
        track(&felix, &["192.0.2.1"]).await;
        felix.view().await.unwrap();
        assert_eq!(*felix.mtu().borrow(), Some(1450));
    });
}
