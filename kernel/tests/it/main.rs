//! The promises of [`kernel::Linux`] against the kernel itself, each test in namespaces of its own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]

mod acl;
mod events;
mod links;
mod netns;
mod routes;
mod rules;
mod sockopt;

use std::net::IpAddr;

use kernel::events::{Event, Events, Group};
use kernel::netns::run_in;
use kernel::{InterfaceAddress, Kernel, LinkChange, Linux, Netns, RouteKind, Scope, VethSpec, ours};
use tests::say_skipped;
use types::{InterfaceName, Prefix};

/// Runs a test in a fresh namespace, or says that it cannot.
fn in_fresh_namespace(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        say_skipped(&"network namespaces need root");
        return;
    }
    let netns = Netns::create().expect("a fresh network namespace");
    run_in(&netns, test).expect("a thread in it");
}

/// A namespace like a node's: `eth0` with 192.0.2.9/24 and 2001:db8::9/64, its other end in another namespace.
struct Node {
    kernel: Linux,
    eth0: u32,
    /// The namespace in which the other end of `eth0` is.
    fabric: Netns,
}

impl Node {
    fn new() -> Self {
        let mut kernel = Linux::open().unwrap();
        let mut events = Events::subscribe_to(&[Group::Routes]).unwrap();
        let fabric = Netns::create().unwrap();
        let eth0 = kernel.create_veth(&veth("eth0", &fabric)).unwrap();
        let mut outside = Linux::open_in(&fabric).unwrap();
        let peer = outside.link(&name("eth0")).unwrap().unwrap().index;
        set_up(&mut outside, peer, true);
        for (address, len) in [("192.0.2.9", 24), ("2001:db8::9", 64)] {
            let address = InterfaceAddress::new(eth0, ip(address), len).with_flags(kernel::AddressFlags::NO_DAD);
            kernel.add_address(&address).unwrap();
        }
        // IPv6 makes the local route of a new address in a work queue, some time after the request was answered.
        let own = Prefix::host(ip("2001:db8::9"));
        events::await_event(
            &mut events,
            |event| matches!(event, Event::RouteChanged(route) if route.prefix == own && route.kind == RouteKind::Local),
        );
        Self { kernel, eth0, fabric }
    }
}

/// A pair whose other end is called `eth0`, both with the MTU 1450.
fn veth<'a>(host: &str, peer_netns: &'a Netns) -> VethSpec<'a> {
    VethSpec {
        host: name(host),
        host_mac: ours::HOST_MAC,
        host_up: true,
        host_group: 0,
        peer: name("eth0"),
        peer_netns,
        peer_mac: None,
        mtu: 1450,
    }
}

fn set_up(kernel: &mut Linux, index: u32, up: bool) {
    kernel.change_link(index, &LinkChange { up: Some(up), ..LinkChange::default() }).unwrap();
}

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// An address that does not leave its link.
fn link_scoped(index: u32, address: &str) -> InterfaceAddress {
    InterfaceAddress::new(index, ip(address), 32).with_scope(Scope::Link)
}
