use super::*;
use crate::cmd::clean::plan::{RemovalStep, plan};
use kernel::acl::{IptablesVariant, SetKind, SetSpec};
use kernel::fake::acl::{AclOperation, FakeAcl};
use kernel::fake::{FakeKernel, Operation};
use kernel::{Netns, Route, VethSpec};

const OURS: &str = "*mangle\n:manx-forward - [0:0]\n:manx-i-1 - [0:0]\n\
    -A FORWARD -j ACCEPT\n-A FORWARD -m comment --comment manx:1 -j manx-forward\n\
    -A manx-forward -m set --match-set manx-c4 src -m comment --comment manx:2 -j manx-i-1\nCOMMIT\n";

fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

/// A node with something of ours and of others of each kind.
fn node() -> (FakeKernel, FakeAcl, HostKernel) {
    let (mut kernel, acl) = (FakeKernel::new(), FakeAcl::new());
    let netns = Netns::current().unwrap();
    for (name, peer, group) in
        [("mxaaaaaaaaaaaaa", "eth0", 0), ("mxbbbbbbbbbbbbb", "eth1", 77), ("mxother", "eth2", 77)]
    {
        let veth = VethSpec {
            host: name.parse().unwrap(),
            host_mac: ours::HOST_MAC,
            host_up: true,
            host_group: group,
            peer: peer.parse().unwrap(),
            peer_netns: &netns,
            peer_mac: None,
            mtu: 1_500,
        };
        kernel.create_veth(&veth).unwrap();
    }
    let index = kernel.link(&"mxaaaaaaaaaaaaa".parse().unwrap()).unwrap().unwrap().index;
    let routes = [
        Route::on_link("10.42.0.1/32".parse().unwrap(), 77, index),
        Route::unreachable("10.42.0.0/26".parse().unwrap(), 77),
        Route::unreachable("fd00:42::/122".parse().unwrap(), 78),
        Route::unreachable("198.51.100.0/24".parse().unwrap(), 4),
    ];
    assert!(kernel.change_routes(&routes.map(RouteChange::Add)).unwrap().is_empty());
    let spec = SetSpec { kind: SetKind::Addresses, family: Family::Ipv4, max_elements: 16, hash_size: 16 };
    for name in ["manx-c4", "KUBE-LOOP-BACK"] {
        acl.sets().create_set(&set(name), &spec).unwrap();
    }
    acl.foreign_restore(Family::Ipv4, OURS).unwrap();
    let tables: Vec<Box<dyn Tables>> = vec![Box::new(acl.tables(IptablesVariant::Nft))];
    let host = HostKernel {
        kernel: Box::new(kernel.clone()),
        sets: Box::new(acl.sets()),
        tables,
        marks: KernelMarks::default(),
        set_release_wait: Duration::ZERO,
        sets_awaited_until: None,
    };
    (kernel, acl, host)
}

fn clean(host: &mut HostKernel) -> (usize, Vec<String>) {
    let mut found = Found::default();
    let mut failed: Vec<_> = host.look(&mut found).iter().map(ToString::to_string).collect();
    let steps = plan(found);
    for step in &steps {
        let RemovalStep::Kernel(removal) = step else { panic!("{step} is not in the kernel") };
        failed.extend(host.carry_out(removal).err().map(|error| error.to_string()));
    }
    (steps.len(), failed)
}

#[test]
fn all_that_is_ours_goes_all_that_is_others_stays_and_then_there_is_nothing_to_do() {
    let (mut kernel, acl, mut host) = node();
    // A link, its route and a parked link; a block; a route by BGP; a table; a set.
    assert_eq!(clean(&mut host), (7, Vec::new()));
    let links: Vec<_> = kernel.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(links, ["lo", "mxother"]);
    let left = |family| kernel.clone().routes(&RouteFilter::main(family)).unwrap();
    assert_eq!(left(Family::Ipv4).iter().map(|route| route.protocol).collect::<Vec<_>>(), [4]);
    assert!(left(Family::Ipv6).is_empty());
    assert_eq!(acl.set_names(), [set("KUBE-LOOP-BACK")]);
    assert_eq!(acl.rules(Family::Ipv4, "mangle", "FORWARD").unwrap(), ["-j ACCEPT"]);
    assert_eq!(clean(&mut host), (0, Vec::new()));
}

#[test]
fn what_cannot_be_removed_is_named_and_the_rest_goes() {
    let (mut kernel, acl, mut host) = node();
    kernel.fail(Operation::DeleteLink, 1, libc_eperm());
    kernel.fail_route("10.42.0.0/26".parse().unwrap(), libc_eperm());
    // Somebody else's rule holds our set.
    let foreign = "*filter\n-A INPUT -m set --match-set manx-c4 src -j DROP\nCOMMIT\n";
    acl.foreign_restore(Family::Ipv4, foreign).unwrap();
    let (_, failed) = clean(&mut host);
    assert_eq!(failed.len(), 3, "{failed:?}");
    for (said, part) in failed.iter().zip(["link", "10.42.0.0/26", "manx-c4"]) {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(acl.chains(Family::Ipv4, "mangle").iter().all(|chain| !ours::is_our_chain(chain)));
    assert!(left_by_bgp(&mut kernel).is_empty());
    assert_eq!(acl.rules(Family::Ipv4, "filter", "INPUT").map(|rules| rules.len()), Some(1));
    kernel.heal();
    acl.foreign_restore(Family::Ipv4, &foreign.replace("-A", "-D")).unwrap();
    assert_eq!(clean(&mut host).1, Vec::<String>::new());
}

#[test]
fn what_cannot_be_looked_at_is_named_but_not_an_iptables_that_is_not_there() {
    let (kernel, acl, mut host) = node();
    kernel.fail_always(Operation::Links, libc_eperm());
    acl.fail_always(AclOperation::Save, 2);
    let (_, failed) = clean(&mut host);
    // The set is in use by the rules that nobody could see.
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().any(|said| said.contains("links")) && failed.iter().any(|said| said.contains("manx-c4")));
}

fn left_by_bgp(kernel: &mut FakeKernel) -> Vec<Route> {
    kernel.routes(&RouteFilter::main(Family::Ipv6).of_protocol(78)).unwrap()
}

/// Operation not permitted.
const fn libc_eperm() -> i32 {
    1
}
