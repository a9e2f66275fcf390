//! Tests of the filter: IP sets, iptables, connection tracking, their events and logs.

mod connections;
mod drop_log;
mod events;
mod sets;
mod speed;
mod tables;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use kernel::acl::{Iptables, IptablesVariant, SetKind, SetName, SetSpec, Tables};
use kernel::events::{Events, Group};
use kernel::{InterfaceAddress, Kernel, Linux, Netns};
use types::Family;

use crate::{ip, name, set_up, veth};

/// A namespace that forwards between two pods, `10.65.0.5`/`fd00::5` and `10.65.0.6`/`fd00::6`.
struct Forwarder {
    client: Netns,
    server: Netns,
    /// The host's ends, the client's first.
    links: [u32; 2],
}

const CLIENT: [&str; 2] = ["10.65.0.5", "fd00::5"];
const SERVER: [&str; 2] = ["10.65.0.6", "fd00::6"];

impl Forwarder {
    fn new() -> Self {
        let mut host = Linux::open().unwrap();
        let mut events = Events::subscribe_to(&[Group::Routes]).unwrap();
        let set = |key: &str, value: &str| std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
        // Duplicate address detection takes a second, and nobody else can have these addresses.
        let trust_addresses = || set("ipv6/conf/default/accept_dad", "0");
        let [client, server] = [Netns::create().unwrap(), Netns::create().unwrap()];
        for pod in [&client, &server] {
            kernel::netns::run_in(pod, trust_addresses).unwrap();
        }
        trust_addresses();
        set("ipv4/ip_forward", "1");
        set("ipv6/conf/all/forwarding", "1");
        let mut links = [0, 0];
        let pods = [(&client, CLIENT, "mx0"), (&server, SERVER, "mx1")];
        for (link, (netns, addresses, host_end)) in links.iter_mut().zip(pods) {
            *link = host.create_veth(&veth(host_end, netns)).unwrap();
            let mut pod = Linux::open_in(netns).unwrap();
            let eth0 = pod.link(&name("eth0")).unwrap().unwrap().index;
            let lo = pod.link(&name("lo")).unwrap().unwrap().index;
            set_up(&mut pod, lo, true);
            set_up(&mut pod, eth0, true);
            // The gateway is in each pod's own subnet, so that no neighbour entry has to be made by hand.
            for (address, gateway, length) in gateways(addresses) {
                pod.add_address(&InterfaceAddress::new(eth0, address, length).with_flags(kernel::AddressFlags::NO_DAD))
                    .unwrap();
                host.add_address(
                    &InterfaceAddress::new(*link, gateway, length).with_flags(kernel::AddressFlags::NO_DAD),
                )
                .unwrap();
                if gateway.is_ipv6() {
                    // IPv6 makes the route to an address's subnet some time after the request was answered.
                    let own = types::Prefix::host(gateway);
                    crate::events::await_event(
                        &mut events,
                        |event| matches!(event, kernel::events::Event::RouteChanged(route) if route.prefix == own),
                    );
                }
                let default = types::Prefix::default_route(Family::of(address));
                let route = kernel::Route::via(default, 4, [gateway]);
                assert_eq!(pod.change_routes(&[kernel::RouteChange::Replace(route)]).unwrap(), []);
            }
        }
        Self { client, server, links }
    }
}

impl Drop for Forwarder {
    /// Deletes the pair, so that the next namespace finds the names of its interfaces free.
    fn drop(&mut self) {
        let mut host = Linux::open().unwrap();
        for link in self.links {
            host.delete_link(link).unwrap();
        }
    }
}

/// A pod's address, the host's address in the same subnet, and the subnet's length: a /31 or a /127.
fn gateways([v4, v6]: [&str; 2]) -> [(IpAddr, IpAddr, u8); 2] {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (ip(v4), ip(v6)) else { panic!("one of each family") };
    let gateway4 = std::net::Ipv4Addr::from_bits(v4.to_bits() ^ 1);
    let gateway6 = std::net::Ipv6Addr::from_bits(v6.to_bits() ^ 1);
    [(v4.into(), gateway4.into(), 31), (v6.into(), gateway6.into(), 127)]
}

/// Both ends of a TCP connection from the client to the server.
fn connect(node: &Forwarder, server: &str, port: u16) -> (TcpStream, TcpStream) {
    let address = SocketAddr::new(ip(server), port);
    let listener = kernel::netns::run_in(&node.server, || TcpListener::bind(address)).unwrap().unwrap();
    let client = kernel::netns::run_in(&node.client, || TcpStream::connect(address)).unwrap().unwrap();
    let (served, _) = listener.accept().unwrap();
    (client, served)
}

/// A UDP socket in a namespace.
fn udp(netns: &Netns, address: &str, port: u16) -> UdpSocket {
    let bind = || UdpSocket::bind(SocketAddr::new(ip(address), port));
    let socket = kernel::netns::run_in(netns, bind).unwrap().unwrap();
    // The wait is this long only in a test that fails.
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    socket
}

/// Runs a program in the calling thread's namespace; returns what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a program is installed. If not, says that the test is skipped.
fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if !found {
        tests::say_skipped(&format!("{program} is not installed"));
    }
    found
}

/// Each variant of iptables that is installed.
fn each_variant(test: impl Fn(Iptables)) {
    for (variant, program) in
        [(IptablesVariant::Nft, "iptables-nft-restore"), (IptablesVariant::Legacy, "iptables-legacy-restore")]
    {
        if installed(program) {
            test(Iptables::new(variant));
        }
    }
}

/// Puts rules into a built-in chain, for both families.
fn rule(tables: &mut Iptables, family: Family, table: &str, rule: &str) {
    tables.restore(family, &format!("*{table}\n{rule}\nCOMMIT\n")).unwrap();
}

fn set_name(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

fn spec(kind: SetKind, family: Family, max_elements: u32) -> SetSpec {
    SetSpec { kind, family, max_elements, hash_size: 64 }
}
