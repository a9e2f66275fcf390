//! Tests of links, addresses, neighbours and sysctls.

use std::process::Command;

use kernel::netns::run_in;
use kernel::{
    AddressFlags, Change, InterfaceAddress, Kernel, KernelError, LinkChange, Linux, Neighbour, Netns, Route,
    RouteChange, RouteFilter, RouteNextHop, SysctlKey, VethSpec, ours,
};
use types::{Family, InterfaceName, Prefix};

use crate::{in_fresh_namespace, ip, link_scoped, name, set_up, veth};

#[test]
fn a_veth_is_born_with_one_end_in_the_pods_namespace() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        let wanted = VethSpec { host_group: 5, peer_mac: Some([2, 0, 0, 0, 0, 1]), ..veth("mxaaaaaaaaaaaaa", &pod) };
        let index = host.create_veth(&wanted).unwrap();

        let end = host.link(&wanted.host).unwrap().unwrap();
        assert_eq!((end.index, end.mac, end.mtu, end.group), (index, Some(ours::HOST_MAC), 1450, 5));
        assert!(end.up && !end.running);
        assert_eq!(end.kind.as_deref(), Some("veth"));
        assert!(end.peer_netns.is_some() && ours::is_our_link(&end));

        let mut inside = Linux::open_in(&pod).unwrap();
        let peer = inside.link(&name("eth0")).unwrap().unwrap();
        assert_eq!((peer.mac, peer.mtu, peer.up), (Some([2, 0, 0, 0, 0, 1]), 1450, false));
        assert_eq!((end.peer_index, peer.peer_index), (Some(peer.index), Some(index)));

        set_up(&mut inside, peer.index, true);
        assert!(host.link(&wanted.host).unwrap().unwrap().running);
    });
}

#[test]
fn a_pair_has_one_queue_in_each_direction_at_both_ends() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        Linux::open().unwrap().create_veth(&veth("mx0", &pod)).unwrap();
        let shown = |link: &str| {
            let output = Command::new("ip").args(["-d", "-o", "link", "show", link]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        for shown in [shown("mx0"), run_in(&pod, || shown("eth0")).unwrap()] {
            assert!(shown.contains("numtxqueues 1 ") && shown.contains("numrxqueues 1 "), "{shown}");
        }
    });
}

#[test]
fn changes_of_all_kinds_are_made_in_order_and_the_first_that_is_refused_is_the_error() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        let index = host.create_veth(&veth("mx0", &pod)).unwrap();
        let mut inside = Linux::open_in(&pod).unwrap();
        let eth0 = inside.link(&name("eth0")).unwrap().unwrap().index;
        let (own, gateway) = (ip("10.0.0.1"), ip("169.254.1.1"));
        let mut route = Route::via(Prefix::default_route(Family::Ipv4), 3, []);
        route.next_hops = vec![RouteNextHop { interface: Some(eth0), ..RouteNextHop::via(gateway) }];
        let changes = [
            Change::Address(InterfaceAddress::new(eth0, own, 32)),
            Change::Link(eth0, LinkChange { up: Some(true), ..LinkChange::default() }),
            Change::Neighbour(Neighbour::permanent(eth0, gateway, ours::HOST_MAC)),
            Change::Route(RouteChange::Add(Route::on_link(Prefix::host(gateway), 3, eth0))),
            Change::Route(RouteChange::Add(route.clone())),
        ];
        inside.change_all(&changes).unwrap();
        assert!(host.link(&name("mx0")).unwrap().unwrap().running);
        assert!(inside.addresses().unwrap().iter().any(|address| address.address == own));
        assert_eq!(inside.neighbours().unwrap(), [Neighbour::permanent(eth0, gateway, ours::HOST_MAC)]);
        let routes = inside.routes(&RouteFilter::main(Family::Ipv4)).unwrap();
        assert!(routes.iter().any(|there| there.prefix == route.prefix), "{routes:?}");

        // An address that is there is none; then the same route again, and a link that is not there.
        let gone = Change::Link(index + 1_000, LinkChange { up: Some(true), ..LinkChange::default() });
        let again = [changes[0].clone(), changes[4].clone(), gone];
        let error = inside.change_all(&again).unwrap_err();
        assert!(matches!(error, KernelError::Exists(_)), "{error}");
        assert!(error.to_string().starts_with("cannot add route 0.0.0.0/0 via 169.254.1.1"), "{error}");
        inside.change_all(&[]).unwrap();
    });
}

#[test]
fn a_taken_name_at_either_end_is_exists_and_makes_nothing() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        host.create_veth(&veth("mx0", &pod)).unwrap();
        for taken in [veth("mx0", &Netns::create().unwrap()), veth("mx1", &pod)] {
            let error = host.create_veth(&taken).unwrap_err();
            assert!(matches!(error, KernelError::Exists(_)), "{error}");
        }
        assert_eq!(host.links().unwrap().iter().filter(|link| link.name.starts_with("mx")).count(), 1);
    });
}

#[test]
fn a_group_of_parked_links_goes_in_one_request_and_others_stay() {
    in_fresh_namespace(|| {
        let mut host = Linux::open().unwrap();
        let pods: Vec<Netns> = (0..5).map(|_| Netns::create().unwrap()).collect();
        let links: Vec<u32> =
            (0..).zip(&pods).map(|(n, pod)| host.create_veth(&veth(&format!("mx{n}"), pod)).unwrap()).collect();
        for &index in &links[..4] {
            let park = LinkChange { up: Some(false), group: Some(ours::LINK_GROUP), ..LinkChange::default() };
            host.change_link(index, &park).unwrap();
        }
        let parked =
            host.links().unwrap().into_iter().filter(|link| link.group == ours::LINK_GROUP && !link.up).count();
        assert_eq!(parked, 4);
        host.delete_link_group(ours::LINK_GROUP).unwrap();
        let left: Vec<u32> =
            host.links().unwrap().into_iter().map(|link| link.index).filter(|&index| index != 1).collect();
        assert_eq!(left, links[4..]);
        host.delete_link_group(ours::LINK_GROUP).expect("an empty group is success");
    });
}

#[test]
fn what_is_gone_already_deletes_without_error_but_changes_with_one() {
    in_fresh_namespace(|| {
        let mut host = Linux::open().unwrap();
        host.delete_link(4711).unwrap();
        assert_eq!(host.link(&name("mx0")).unwrap(), None);
        let error = host.change_link(4711, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap_err();
        assert_eq!(error.to_string(), "cannot change link 4711: no such device");
        let address = link_scoped(1, "169.254.1.1");
        host.delete_address(&address).unwrap();
        host.delete_address(&InterfaceAddress::new(1, ip("fd00::1"), 128)).unwrap();
        assert!(matches!(host.add_address(&link_scoped(4711, "169.254.1.1")), Err(KernelError::Gone(_))));
    });
}

#[test]
fn addresses_keep_scope_flags_and_the_other_side() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        let index = host.create_veth(&veth("mx0", &pod)).unwrap();
        let wanted = [
            link_scoped(1, "169.254.1.1"),
            InterfaceAddress::new(index, ip("10.0.0.1"), 32).with_peer(ip("10.0.0.2")),
            InterfaceAddress::new(index, ip("fd00::1"), 64)
                .with_flags(AddressFlags::NO_DAD | AddressFlags::NO_PREFIX_ROUTE),
        ];
        for address in &wanted {
            host.add_address(address).unwrap();
            host.add_address(address).expect("one that is there already is success");
        }
        let shown = host.addresses().unwrap();
        for address in &wanted {
            let found = shown.iter().find(|other| other.address == address.address).unwrap();
            assert_eq!((found.index, found.prefix_len), (address.index, address.prefix_len));
            assert_eq!((found.scope, found.peer), (address.scope, address.peer));
            assert!(found.flags.contains(address.flags) && !found.flags.contains(AddressFlags::TENTATIVE));
            host.delete_address(address).unwrap();
        }
        let left = host.addresses().unwrap();
        assert!(wanted.iter().all(|address| left.iter().all(|other| other.address != address.address)));
    });
}

#[test]
fn a_permanent_neighbour_takes_the_place_of_another() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        let index = host.create_veth(&veth("mx0", &pod)).unwrap();
        for gateway in ["169.254.1.1", "fe80::1"] {
            host.set_neighbour(&Neighbour::permanent(index, ip(gateway), [2; 6])).unwrap();
            let wanted = Neighbour::permanent(index, ip(gateway), ours::HOST_MAC);
            host.set_neighbour(&wanted).unwrap();
            let shown = host.neighbours().unwrap();
            assert_eq!(shown.iter().filter(|entry| entry.address == ip(gateway)).collect::<Vec<_>>(), [&wanted]);
        }
    });
}

#[test]
fn sysctls_are_those_of_the_threads_namespace_and_of_names_with_dots() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        let dotted = InterfaceName::new("mx.100").unwrap();
        host.create_veth(&veth(dotted.as_str(), &pod)).unwrap();
        let key = SysctlKey::ipv4_conf(&dotted, "proxy_arp");
        assert_eq!(host.read_sysctl(&key).unwrap(), "0");
        host.write_sysctl(&key, "1").unwrap();
        assert_eq!(host.read_sysctl(&key).unwrap(), "1");
        host.write_sysctl(&SysctlKey::ipv4_neigh(&dotted, "proxy_delay"), "0").unwrap();
        host.write_sysctl(&SysctlKey::ipv6_conf(&dotted, "accept_dad"), "0").unwrap();
        let foreign = run_in(&pod, || host.read_sysctl(&key)).unwrap();
        assert!(matches!(foreign, Err(KernelError::Gone(_))));
        let error = host.write_sysctl(&key, "many").unwrap_err();
        assert!(error.to_string().starts_with("cannot set sysctl net/ipv4/conf/mx.100/proxy_arp to many: "), "{error}");
    });
}

#[test]
fn a_thousand_links_are_listed_whole() {
    in_fresh_namespace(|| {
        let pod = Netns::create().unwrap();
        let mut host = Linux::open().unwrap();
        for number in 0..500 {
            let peer = name(&format!("e{number}"));
            host.create_veth(&VethSpec { peer, host_group: 9, ..veth(&format!("mx{number}"), &pod) }).unwrap();
        }
        assert_eq!(host.links().unwrap().iter().filter(|link| link.group == 9).count(), 500);
        assert_eq!(Linux::open_in(&pod).unwrap().links().unwrap().iter().filter(|link| link.name != "lo").count(), 500);
        host.delete_link_group(9).unwrap();
    });
}
