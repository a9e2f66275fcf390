//! Tests of routes: batches, multipath, ownership, look-ups.

use std::collections::BTreeSet;

use kernel::{Kernel, KernelError, Linux, Route, RouteChange, RouteFilter, RouteKind, RouteNextHop, SysctlKey, ours};
use types::{Family, Prefix};

use crate::{Node, in_fresh_namespace, ip, link_scoped, prefix, set_up};

const LOCAL: u8 = ours::ROUTE_PROTOCOL_LOCAL;
const BGP: u8 = ours::ROUTE_PROTOCOL_BGP;

fn put(kernel: &mut Linux, route: &Route) {
    assert_eq!(kernel.change_routes(&[RouteChange::Replace(route.clone())]).unwrap(), []);
}

fn delete(kernel: &mut Linux, route: &Route) {
    assert_eq!(kernel.change_routes(&[RouteChange::Delete(route.clone())]).unwrap(), []);
}

fn shown(kernel: &mut Linux, family: Family, protocol: u8) -> Vec<Route> {
    kernel.routes(&RouteFilter::main(family).of_protocol(protocol)).unwrap()
}

#[test]
fn one_bad_route_of_a_batch_is_named_and_all_others_are_put() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let mut changes: Vec<RouteChange> = (0..300_u32)
            .map(|n| Prefix::new(std::net::Ipv4Addr::from_bits(0x0a41_0000 + (n << 6)).into(), 26).unwrap())
            .map(|block| RouteChange::Replace(Route::via(block, BGP, [ip("192.0.2.1")])))
            .collect();
        for bad in [0, 63, 64, 200, 299] {
            let block = changes[bad].route().prefix;
            changes[bad] = RouteChange::Replace(Route::via(block, BGP, [ip("198.51.100.1")]));
        }
        let failures = node.kernel.change_routes(&changes).unwrap();
        assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [0, 63, 64, 200, 299]);
        let error = &failures[0].error;
        assert!(matches!(error, KernelError::Unreachable(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with("cannot replace route 10.65.0.0/26 via 198.51.100.1: network is unreachable"),
            "{text}"
        );
        let there: BTreeSet<Prefix> = shown(&mut node.kernel, Family::Ipv4, BGP).iter().map(|r| r.prefix).collect();
        assert_eq!(there.len(), 295);

        let deletes: Vec<RouteChange> = changes.iter().map(|c| RouteChange::Delete(c.route().clone())).collect();
        assert_eq!(node.kernel.change_routes(&deletes).unwrap(), [], "an absent route deletes without error");
        assert_eq!(shown(&mut node.kernel, Family::Ipv4, BGP), []);
    });
}

#[test]
fn no_changes_are_no_request() {
    in_fresh_namespace(|| assert_eq!(Linux::open().unwrap().change_routes(&[]).unwrap(), []));
}

#[test]
fn replacing_ends_in_exactly_the_wanted_next_hops() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let sets: &[&[&str]] =
            &[&["1"], &["1", "2"], &["2", "3"], &["3"], &["3", "2", "1"], &["4", "5", "6"], &["1"], &[]];
        for (block, network) in [("10.0.0.0/26", "192.0.2."), ("fd00::/122", "2001:db8::")] {
            for (step, hosts) in sets.iter().chain(sets.iter().rev()).enumerate() {
                let wanted = match hosts {
                    [] => Route::on_link(prefix(block), BGP, node.eth0),
                    hosts => Route::via(prefix(block), BGP, hosts.iter().map(|host| ip(&format!("{network}{host}")))),
                };
                put(&mut node.kernel, &wanted);
                let shown = shown(&mut node.kernel, prefix(block).family(), BGP);
                assert_eq!(shown.len(), 1, "{block} step {step}: {shown:?}");
                assert!(wanted.clone().canonical().is_met_by(&shown[0]), "{block} step {step}: {:?}", shown[0]);
            }
            put(
                &mut node.kernel,
                &Route::via(prefix(block), BGP, ["1", "2"].map(|host| ip(&format!("{network}{host}")))),
            );
            delete(&mut node.kernel, &Route::via(prefix(block), BGP, []));
            assert_eq!(shown(&mut node.kernel, prefix(block).family(), BGP), [], "all next hops go with one deletion");
        }
    });
}

#[test]
fn every_field_of_a_route_survives_the_kernel() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        node.kernel.add_address(&link_scoped(1, "169.254.1.1")).unwrap();
        let weighted = |gateways: [&str; 2]| {
            let hop = |gateway: &str, weight| RouteNextHop {
                interface: Some(node.eth0),
                weight,
                ..RouteNextHop::via(ip(gateway))
            };
            vec![hop(gateways[0], 1), hop(gateways[1], 9)]
        };
        let ecmp =
            |block: &str, gateways| Route { next_hops: weighted(gateways), ..Route::via(prefix(block), BGP, []) };
        let onlink = RouteNextHop { onlink: true, interface: Some(node.eth0), ..RouteNextHop::via(ip("203.0.113.1")) };
        let unnumbered = RouteNextHop { interface: Some(node.eth0), ..RouteNextHop::via(ip("fe80::1")) };
        let wanted = [
            Route::on_link(prefix("10.1.0.1/32"), LOCAL, node.eth0).with_preferred_source(Some(ip("192.0.2.9"))),
            Route::on_link(prefix("fd01::1/128"), LOCAL, node.eth0).with_preferred_source(Some(ip("2001:db8::9"))),
            Route::unreachable(prefix("10.1.0.0/26"), LOCAL),
            Route::unreachable(prefix("fd01::/122"), LOCAL),
            Route::on_link(prefix("10.2.0.0/26"), LOCAL, node.eth0).with_metric(50),
            Route { kind: RouteKind::Blackhole, ..Route::unreachable(prefix("10.3.0.0/26"), LOCAL) },
            Route { next_hops: vec![onlink], ..Route::via(prefix("10.4.0.0/26"), LOCAL, []) },
            Route { next_hops: vec![unnumbered], ..Route::via(prefix("10.5.0.0/26"), LOCAL, []) },
            ecmp("10.6.0.0/26", ["192.0.2.1", "192.0.2.2"]),
            ecmp("fd06::/122", ["2001:db8::1", "2001:db8::2"]),
            Route { table: 100_000, ..Route::unreachable(prefix("10.7.0.0/26"), LOCAL) },
        ];
        let changes = wanted.clone().map(RouteChange::Replace);
        assert_eq!(node.kernel.change_routes(&changes).unwrap(), []);
        for route in wanted {
            let filter =
                RouteFilter { family: route.prefix.family(), table: route.table, protocol: Some(route.protocol) };
            let shown = node.kernel.routes(&filter).unwrap();
            assert_eq!(shown.iter().filter(|other| other.prefix == route.prefix).collect::<Vec<_>>(), [&route]);
            // Putting the same route again is no error and makes no second route.
            put(&mut node.kernel, &route);
            assert_eq!(node.kernel.routes(&filter).unwrap(), shown);
        }
    });
}

#[test]
fn foreign_routes_are_neither_shown_by_the_filter_nor_deleted_nor_overwritten_by_add() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        const STATIC: u8 = libc::RTPROT_STATIC;
        for (block, gateway, mine) in
            [("10.0.0.0/26", "192.0.2.1", "192.0.2.2"), ("fd00::/122", "2001:db8::1", "2001:db8::2")]
        {
            let block = prefix(block);
            put(&mut node.kernel, &Route::via(block, STATIC, [ip(gateway)]));
            let before = shown(&mut node.kernel, block.family(), STATIC);
            let ours = Route::via(block, BGP, [ip(mine)]);
            delete(&mut node.kernel, &ours);
            let failures = node.kernel.change_routes(&[RouteChange::Add(ours.clone())]).unwrap();
            assert!(matches!(failures[0].error, KernelError::Exists(_)), "{failures:?}");
            assert_eq!(shown(&mut node.kernel, block.family(), STATIC), before);

            // With another metric both routes exist, and deleting ours leaves theirs.
            let ours = ours.with_metric(4_000);
            assert_eq!(node.kernel.change_routes(&[RouteChange::Add(ours.clone())]).unwrap(), []);
            assert_eq!(shown(&mut node.kernel, block.family(), BGP).len(), 1);
            delete(&mut node.kernel, &ours);
            assert_eq!(shown(&mut node.kernel, block.family(), BGP), []);
            assert_eq!(shown(&mut node.kernel, block.family(), STATIC), before);
        }
    });
}

#[test]
fn a_table_that_does_not_exist_is_empty() {
    in_fresh_namespace(|| {
        let mut kernel = Linux::open().unwrap();
        for family in Family::ALL {
            assert_eq!(kernel.routes(&RouteFilter { family, table: 4_711, protocol: None }).unwrap(), []);
        }
    });
}

#[test]
fn a_link_that_goes_down_takes_its_ipv4_routes_and_leaves_the_unreachable_one() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        put(&mut node.kernel, &Route::via(prefix("10.0.0.0/26"), BGP, [ip("192.0.2.1")]));
        put(&mut node.kernel, &Route::unreachable(prefix("10.0.0.64/26"), LOCAL));
        set_up(&mut node.kernel, node.eth0, false);
        assert_eq!(shown(&mut node.kernel, Family::Ipv4, BGP), []);
        assert_eq!(shown(&mut node.kernel, Family::Ipv4, LOCAL).len(), 1);
        let failures = node
            .kernel
            .change_routes(&[RouteChange::Replace(Route::on_link(prefix("10.0.0.1/32"), LOCAL, node.eth0))])
            .unwrap();
        assert!(matches!(failures[0].error, KernelError::Unreachable(_)), "{failures:?}");
    });
}

#[test]
fn look_ups_tell_on_link_from_routed_and_know_when_there_is_no_way() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        set_up(&mut node.kernel, 1, true);
        for (near, own, far, refused, gateway, default) in [
            ("192.0.2.7", "192.0.2.9", "203.0.113.5", "10.0.0.0/26", "192.0.2.1", "0.0.0.0/0"),
            ("2001:db8::7", "2001:db8::9", "fd99::5", "fd00::/122", "2001:db8::1", "::/0"),
        ] {
            let kernel = &mut node.kernel;
            assert_eq!(kernel.resolve(ip(far)).unwrap(), None);

            let on_link = kernel.resolve(ip(near)).unwrap().unwrap();
            assert!(on_link.connected && on_link.kind == RouteKind::Unicast, "{on_link:?}");
            assert_eq!(on_link.protocol, libc::RTPROT_KERNEL);
            assert_eq!(on_link.next_hops, [RouteNextHop::on(node.eth0)]);
            assert!(on_link.prefix.contains(ip(near)) && !on_link.prefix.is_host());

            // IPv6 makes an address local a moment after it is added, when it has been found unique.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while kernel.resolve(ip(own)).unwrap().unwrap().kind != RouteKind::Local {
                assert!(std::time::Instant::now() < deadline, "{own} never became local");
                std::thread::yield_now();
            }

            put(kernel, &Route::via(prefix(default), BGP, [ip(gateway)]).with_metric(7));
            let routed = kernel.resolve(ip(far)).unwrap().unwrap();
            assert_eq!((routed.prefix, routed.protocol, routed.metric), (prefix(default), BGP, 7));
            let hop = RouteNextHop { interface: Some(node.eth0), ..RouteNextHop::via(ip(gateway)) };
            assert_eq!((routed.connected, routed.next_hops), (false, vec![hop]));

            for kind in [RouteKind::Unreachable, RouteKind::Blackhole, RouteKind::Prohibit] {
                put(kernel, &Route { kind, ..Route::unreachable(prefix(refused), LOCAL) });
                assert_eq!(kernel.resolve(prefix(refused).addr()).unwrap(), None, "{kind:?}");
            }
        }
    });
}

#[test]
fn a_look_up_shows_all_next_hops_of_a_multipath_route() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        for (block, gateways) in
            [("10.0.0.0/26", ["192.0.2.1", "192.0.2.2"]), ("fd00::/122", ["2001:db8::1", "2001:db8::2"])]
        {
            put(&mut node.kernel, &Route::via(prefix(block), BGP, gateways.map(ip)));
            let found = node.kernel.resolve(prefix(block).addr()).unwrap().unwrap();
            assert_eq!(
                found.next_hops.iter().map(|hop| hop.gateway).collect::<Vec<_>>(),
                gateways.map(|g| Some(ip(g)))
            );
        }
    });
}

#[test]
fn routes_over_another_daemons_nexthop_objects_are_read() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let script = "ip nexthop add id 7 via 192.0.2.1 dev eth0 && ip route add 10.9.0.0/26 nhid 7 proto zebra \
                      && ip nexthop add id 8 via 2001:db8::1 dev eth0 && ip -6 route add fd09::/122 nhid 8 proto zebra";
        let made = std::process::Command::new("sh").args(["-ec", script]).status();
        if !made.is_ok_and(|status| status.success()) {
            tests::say_skipped(&"ip(8) cannot make nexthop objects here");
            return;
        }
        for (family, gateway) in [(Family::Ipv4, "192.0.2.1"), (Family::Ipv6, "2001:db8::1")] {
            let routes = shown(&mut node.kernel, family, 11);
            assert_eq!(routes.len(), 1);
            assert_eq!(routes[0].next_hops[0].gateway, Some(ip(gateway)));
        }
    });
}

#[test]
fn a_dump_disturbed_by_changes_is_whole() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let block = |n: u32| Prefix::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + (n << 6)).into(), 26).unwrap();
        let stable: Vec<RouteChange> =
            (0..5_000).map(|n| RouteChange::Replace(Route::unreachable(block(n), LOCAL))).collect();
        assert_eq!(node.kernel.change_routes(&stable).unwrap(), []);
        let mut other = Linux::open().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..20 {
                    let flap = (0..64).map(|n| Route::unreachable(block(10_000 + n), BGP));
                    let changes: Vec<RouteChange> = match round % 2 {
                        0 => flap.map(RouteChange::Replace).collect(),
                        _ => flap.map(RouteChange::Delete).collect(),
                    };
                    assert_eq!(other.change_routes(&changes).unwrap(), []);
                }
            });
            for _ in 0..20 {
                match node.kernel.routes(&RouteFilter::main(Family::Ipv4).of_protocol(LOCAL)) {
                    Ok(routes) => assert_eq!(routes.len(), 5_000),
                    Err(error) => assert!(matches!(error, KernelError::Busy(_)), "{error}"),
                }
            }
        });
    });
}

#[test]
fn an_ipv6_route_without_ipv6_is_refused_with_a_reason() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        node.kernel.write_sysctl(&SysctlKey::global("ipv6/conf/all/disable_ipv6"), "1").unwrap();
        let change = RouteChange::Replace(Route::on_link(prefix("fd00::1/128"), LOCAL, node.eth0));
        let failures = node.kernel.change_routes(&[change]).unwrap();
        let text = failures[0].error.to_string();
        assert!(text.starts_with("cannot replace route fd00::1/128 dev "), "{text}");
    });
}
