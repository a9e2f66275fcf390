//! Whole invocations in fresh namespaces of the real kernel, with a fake agent that puts the routes as the real one does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use ::tests::say_skipped;
use kernel::{AddressFlags, InterfaceAddress, Link, LinkChange, Netns, Route, RouteChange, SysctlKey, netns};
use serde_json::{Value, json};
use tempfile::TempDir;
use types::cni::{GATEWAY_IPV4, GATEWAY_IPV6, HOST_MAC, Park, Reply};
use types::host_ports::HostPort;
use types::policy::Protocol;
use types::{InterfaceName, Prefix};

use super::super::*;
use crate::fake_agent::{FakeAgent, Play};

const GROUP: u32 = 4_077;
/// Where the package of the reference plugins puts them.
const PLUGINS: &str = "/usr/lib/cni";
const NODE_IPV4: &str = "192.0.2.1";
const NODE_IPV6: &str = "2001:db8::1";

/// A node's namespace and a scratch run folder.
struct Lab {
    node: Netns,
    run_dir: TempDir,
}

impl Lab {
    /// `None`, loudly, where the test cannot run.
    fn new() -> Option<Self> {
        let node = match Netns::create() {
            Ok(node) => node,
            Err(error) => {
                say_skipped(&format!("network namespaces need root: {error}"));
                return None;
            }
        };
        let lab = Self { node, run_dir: tempfile::tempdir().unwrap() };
        lab.on_node(|kernel| {
            kernel.write_sysctl(&SysctlKey::global("ipv4/ip_forward"), "1").unwrap();
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            kernel.change_link(1, &up).unwrap();
            kernel.add_address(&InterfaceAddress::new(1, ip(NODE_IPV4), 32)).unwrap();
            kernel.add_address(&InterfaceAddress::new(1, ip(NODE_IPV6), 128)).unwrap();
        });
        Some(lab)
    }

    fn on_node<T: Send>(&self, work: impl FnOnce(&mut Linux) -> T + Send) -> T {
        inside(&self.node, work)
    }

    /// An agent that serves ADD, and DEL where `scripts` says so.
    fn agent(&self, verbs: &str) -> FakeAgent {
        let scripts = verbs.chars().map(|verb| match verb {
            'A' => {
                let node = Netns::open(path(&self.node)).unwrap();
                vec![Play::Say(Reply::Wire(wire())), Play::After(Box::new(move || put_routes(&node)), Reply::Done)]
            }
            'C' => vec![Play::Say(Reply::Wire(wire()))],
            _ => vec![Play::Say(Reply::Park(park())), Play::Say(Reply::Done)],
        });
        FakeAgent::start(&self.run_dir.path().join("cni.sock"), scripts.collect())
    }

    fn call(&self, command: &str, pod: Option<&Netns>) -> Outcome {
        let netns = pod.map(path).unwrap_or_default();
        self.call_at(command, netns.to_str().unwrap())
    }

    fn call_at(&self, command: &str, netns: &str) -> Outcome {
        self.call_with(command, netns, &json!({}))
    }

    fn call_with(&self, command: &str, netns: &str, keys: &Value) -> Outcome {
        let variables = BTreeMap::from([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", PLUGINS),
        ]);
        let mut config = json!({ "cniVersion": "1.0.0", "name": "net", "type": "manx", "runDir": self.run_dir.path() });
        for (key, value) in keys.as_object().unwrap() {
            config[key.as_str()] = value.clone();
        }
        let config = config.to_string();
        let variable = |name: &str| variables.get(name).map(OsString::from);
        netns::run_in(&self.node, || run(variable, &mut config.as_bytes(), &Node)).unwrap()
    }

    fn host_link(&self) -> Option<Link> {
        self.on_node(|kernel| kernel.link(&host_interface()).unwrap())
    }
}

fn inside<T: Send>(netns: &Netns, work: impl FnOnce(&mut Linux) -> T + Send) -> T {
    netns::run_in(netns, || work(&mut Linux::open().unwrap())).unwrap()
}

/// A path to a namespace that has no name.
fn path(netns: &Netns) -> PathBuf {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    format!("/proc/{}/fd/{}", process::id(), netns.as_fd().as_raw_fd()).into()
}

fn put_routes(node: &Netns) {
    inside(node, |kernel| {
        let index = kernel.link(&host_interface()).unwrap().unwrap().index;
        let routes = wire().addresses.into_iter().map(|address| Route::on_link(Prefix::host(address), 77, index));
        let changes: Vec<_> = routes.map(RouteChange::Replace).collect();
        assert_eq!(kernel.change_routes(&changes).unwrap(), []);
    });
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn eth0() -> InterfaceName {
    "eth0".parse().unwrap()
}

fn host_interface() -> InterfaceName {
    InterfaceName::of_attachment(&"c1".parse().unwrap(), &eth0())
}

fn wire() -> Wire {
    Wire {
        host_interface: host_interface(),
        addresses: vec![ip("10.65.0.2"), ip("fd00::2")],
        subnets: Vec::new(),
        mtu: 1_450,
        parked_group: GROUP,
        host_ports: Vec::new(),
        stale_mappings: Vec::new(),
        hears_made: true,
    }
}

fn park() -> Park {
    Park { host_interface: host_interface(), parked_group: GROUP }
}

fn succeeded(outcome: &Outcome) {
    assert!(outcome.success, "{outcome:?}");
}

/// Sends one datagram from the pod and waits for the echo from `server`'s address on the node.
fn echoes(lab: &Lab, pod: &Netns, server: IpAddr) {
    let bind = |address: IpAddr| {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let listener = netns::run_in(&lab.node, || bind(server)).unwrap();
    let unspecified = if server.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let client = netns::run_in(pod, || bind(unspecified)).unwrap();
    client.send_to(b"mew", listener.local_addr().unwrap()).unwrap();
    let mut heard = [0; 8];
    let (count, from) = listener.recv_from(&mut heard).expect("the pod's packet reaches the node");
    assert!(wire().addresses.contains(&from.ip()), "{from}");
    listener.send_to(&heard[..count], from).unwrap();
    assert_eq!(client.recv_from(&mut heard).expect("the echo reaches the pod").0, 3);
}

#[test]
fn a_pods_first_packet_gets_through_and_the_gateway_answers_without_a_default_route() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    let _agent = lab.agent("A");
    let outcome = lab.call("ADD", Some(&pod));
    succeeded(&outcome);
    for server in [NODE_IPV4, NODE_IPV6, "169.254.1.1"] {
        echoes(&lab, &pod, ip(server));
    }
    // ARP has to be answered too, for whoever drops the permanent entry.
    inside(&pod, |kernel| {
        let link = kernel.link(&eth0()).unwrap().unwrap();
        let flush = |up| LinkChange { up: Some(up), ..LinkChange::default() };
        kernel.change_link(link.index, &flush(false)).unwrap();
        kernel.change_link(link.index, &flush(true)).unwrap();
        let gateway = Prefix::host(IpAddr::V4(GATEWAY_IPV4));
        assert_eq!(kernel.change_routes(&[RouteChange::Add(Route::on_link(gateway, 3, link.index))]).unwrap(), []);
        assert!(kernel.neighbours().unwrap().iter().all(|entry| entry.address != IpAddr::V4(GATEWAY_IPV4)));
    });
    put_routes(&lab.node);
    echoes(&lab, &pod, IpAddr::V4(GATEWAY_IPV4));

    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let link = inside(&pod, |kernel| kernel.link(&eth0()).unwrap().unwrap());
    let mac = link.mac.unwrap().map(|byte| format!("{byte:02x}")).join(":");
    assert_eq!(result["interfaces"][1], json!({ "name": "eth0", "mac": mac, "sandbox": path(&pod) }));
    assert_eq!(link.mtu, 1_450);
}

#[test]
fn the_gateway_answers_a_pod_without_its_entry_or_with_another_mac_whatever_the_nodes_arp_sysctls_are() {
    for (sysctls, order) in [
        (vec![("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")], "before"),
        (vec![("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")], "after"),
        (vec![("ipv4/conf/all/arp_ignore", "3")], "after"),
        (vec![("ipv4/conf/all/arp_filter", "1")], "after"),
        (vec![], "after"),
    ] {
        let Some(lab) = Lab::new() else { return };
        let set = || {
            lab.on_node(|kernel| {
                for (name, value) in &sysctls {
                    kernel.write_sysctl(&SysctlKey::global(name), value).unwrap();
                }
            });
        };
        if order == "before" {
            set();
        }
        let pod = Netns::create().unwrap();
        let _agent = lab.agent("A");
        succeeded(&lab.call("ADD", Some(&pod)));
        if order == "after" {
            set();
        }
        echoes(&lab, &pod, ip(NODE_IPV4));
        // As the tuning plugin changes a MAC: the kernel forgets every neighbour with it, the permanent ones too.
        inside(&pod, |kernel| {
            let index = kernel.link(&eth0()).unwrap().unwrap().index;
            let mac = LinkChange { mac: Some([2, 0, 0, 0, 0, 9]), ..LinkChange::default() };
            kernel.change_link(index, &mac).unwrap();
            let gone = |entry: &kernel::Neighbour| entry.address != IpAddr::V4(GATEWAY_IPV4);
            assert!(kernel.neighbours().unwrap().iter().all(gone));
        });
        for server in [NODE_IPV4, NODE_IPV6] {
            echoes(&lab, &pod, ip(server));
        }
    }
}

#[test]
fn the_gateways_address_is_no_source_of_what_the_node_sends_to_the_pod() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    let _agent = lab.agent("A");
    succeeded(&lab.call("ADD", Some(&pod)));
    let source = netns::run_in(&lab.node, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((wire().addresses[0], 9)).unwrap();
        socket.local_addr().unwrap().ip()
    });
    assert_eq!(source.unwrap(), ip(NODE_IPV4));
}

#[test]
fn check_of_a_pod_that_is_there_is_silent_and_says_what_the_kernel_has_lost() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    let _agent = lab.agent("ACCCC");
    let added = lab.call("ADD", Some(&pod));
    succeeded(&added);
    let previous: Value = serde_json::from_str(&added.stdout).unwrap();
    let check = || lab.call_with("CHECK", path(&pod).to_str().unwrap(), &json!({ "prevResult": previous }));
    succeeded(&check());
    let told = |outcome: &Outcome, what: &str| assert!(outcome.stdout.contains(what), "{outcome:?}");
    inside(&pod, |kernel| {
        let link = kernel.link(&eth0()).unwrap().unwrap();
        let all = kernel.addresses().unwrap();
        let own = all.iter().find(|own| own.index == link.index && own.address == wire().addresses[1]).unwrap();
        kernel.delete_address(own).unwrap();
    });
    told(&check(), "eth0 does not have fd00::2");
    lab.on_node(|kernel| {
        kernel.write_sysctl(&SysctlKey::ipv4_conf(&host_interface(), "proxy_arp"), "0").unwrap();
    });
    told(&check(), "proxy_arp is 0 instead of 1");
    lab.on_node(|kernel| {
        let link = kernel.link(&host_interface()).unwrap().unwrap();
        kernel.change_link(link.index, &LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
    });
    told(&check(), "the node's route to 10.65.0.2 does not lead to");
}

#[test]
fn the_real_portmap_leads_a_host_port_to_the_pod_until_its_del() {
    let Some(lab) = Lab::new() else { return };
    if !Path::new(PLUGINS).join("portmap").exists() {
        return say_skipped(&format!("there is no portmap in {PLUGINS}"));
    }
    let (pod, node) = (Netns::create().unwrap(), Netns::open(path(&lab.node)).unwrap());
    let port = HostPort { protocol: Protocol::Tcp, container_port: 8080, host_port: 20_000 };
    let wire = Wire { host_ports: vec![port], ..wire() };
    let add = vec![Play::Say(Reply::Wire(wire)), Play::After(Box::new(move || put_routes(&node)), Reply::Done)];
    let del = vec![Play::Say(Reply::Park(park())), Play::Say(Reply::Done)];
    let agent = FakeAgent::start(&lab.run_dir.path().join("cni.sock"), vec![add, del]);
    let _server = netns::run_in(&pod, || TcpListener::bind("[::]:8080").unwrap()).unwrap();
    let connect = |address| {
        let address = SocketAddr::new(ip(address), 20_000);
        netns::run_in(&lab.node, || TcpStream::connect_timeout(&address, Duration::from_secs(5))).unwrap()
    };
    let rules = |program: &str| {
        let save = || process::Command::new(program).args(["-t", "nat"]).output().unwrap().stdout;
        String::from_utf8(netns::run_in(&lab.node, save).unwrap()).unwrap()
    };

    succeeded(&lab.call("ADD", Some(&pod)));
    for address in [NODE_IPV4, NODE_IPV6] {
        connect(address).unwrap_or_else(|error| panic!("{address}: {error}; {}", rules("iptables-save")));
    }
    let localnet = |interface: &InterfaceName| {
        let key = SysctlKey::ipv4_conf(interface, "route_localnet");
        lab.on_node(|kernel| kernel.read_sysctl(&key).unwrap())
    };
    // portmap has found the host's end by the pod's route, and no other interface.
    assert_eq!((localnet(&host_interface()).as_str(), localnet(&"lo".parse().unwrap()).as_str()), ("1", "0"));

    succeeded(&lab.call("DEL", None));
    for address in [NODE_IPV4, NODE_IPV6] {
        assert!(connect(address).is_err(), "{address}");
    }
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = rules(program);
        assert!(!rules.contains("CNI-DN-"), "{rules}");
    }
    agent.heard();
}

#[test]
fn both_ends_are_as_the_design_says() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    // As a runtime makes it that has IPv6 off by default.
    netns::run_in(&pod, || {
        let mut kernel = Linux::open().unwrap();
        for key in ["ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"] {
            kernel.write_sysctl(&SysctlKey::global(key), "1").unwrap();
        }
    })
    .unwrap();
    let _agent = lab.agent("A");
    succeeded(&lab.call("ADD", Some(&pod)));

    let (link, sysctls, gateways) = lab.on_node(|kernel| {
        let host = host_interface();
        let keys = [
            SysctlKey::ipv4_conf(&host, "proxy_arp"),
            SysctlKey::ipv4_neigh(&host, "proxy_delay"),
            SysctlKey::ipv4_conf(&host, "forwarding"),
            SysctlKey::ipv4_conf(&host, "rp_filter"),
            SysctlKey::ipv4_conf(&host, "route_localnet"),
            SysctlKey::ipv6_conf(&host, "accept_dad"),
            SysctlKey::ipv6_conf(&host, "accept_ra"),
            SysctlKey::ipv6_conf(&host, "forwarding"),
        ];
        let sysctls = keys.map(|key| kernel.read_sysctl(&key).unwrap());
        (kernel.link(&host).unwrap().unwrap(), sysctls, kernel.addresses().unwrap())
    });
    assert_eq!((link.up, link.mac, link.mtu, link.group), (true, Some(HOST_MAC), 1_450, 0));
    assert_eq!(sysctls, ["1", "0", "1", "1", "0", "0", "0", "1"]);
    let gateway = |address: IpAddr| gateways.iter().filter(move |own| own.address == address);
    let places: Vec<_> = gateway(IpAddr::V4(GATEWAY_IPV4)).map(|own| (own.index, own.scope)).collect();
    assert_eq!(places, [(1, kernel::Scope::Link), (link.index, kernel::Scope::Host)]);
    let link_local: Vec<_> = gateway(IpAddr::V6(GATEWAY_IPV6)).collect();
    assert_eq!(link_local.len(), 1);
    assert!(!link_local[0].flags.contains(AddressFlags::TENTATIVE));

    inside(&pod, |kernel| {
        // Already as the dump says it, which does not make the kernel look at the carrier.
        assert!(kernel.links().unwrap().iter().all(|link| link.up && link.running));
        let index = kernel.link(&eth0()).unwrap().unwrap().index;
        let given = |own: &&InterfaceAddress| own.index == index && wire().addresses.contains(&own.address);
        let addresses = kernel.addresses().unwrap();
        let given: Vec<_> = addresses.iter().filter(given).collect();
        assert_eq!(given.iter().map(|own| own.prefix_len).collect::<Vec<_>>(), [32, 128]);
        assert!(given.iter().all(|own| !own.flags.contains(AddressFlags::TENTATIVE)));
        let neighbours = kernel.neighbours().unwrap();
        for gateway in [IpAddr::V4(GATEWAY_IPV4), IpAddr::V6(GATEWAY_IPV6)] {
            assert!(neighbours.contains(&kernel::Neighbour::permanent(index, gateway, HOST_MAC)), "{neighbours:?}");
        }
    });
}

#[test]
fn del_then_at_once_add_with_the_same_id_works_and_del_is_repeatable() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    let agent = lab.agent("ADADD");
    succeeded(&lab.call("ADD", Some(&pod)));
    let first = lab.host_link().unwrap();
    succeeded(&lab.call("DEL", Some(&pod)));
    let parked = lab.host_link().unwrap();
    assert_eq!((parked.index, parked.up, parked.group), (first.index, false, GROUP));

    let successor = Netns::create().unwrap();
    succeeded(&lab.call("ADD", Some(&successor)));
    let second = lab.host_link().unwrap();
    assert!(second.index != first.index && second.up);
    assert!(inside(&pod, |kernel| kernel.link(&eth0()).unwrap()).is_none());
    echoes(&lab, &successor, ip(NODE_IPV4));

    // The namespace goes, and its link with it, some time later; DEL does not mind either way.
    drop(successor);
    succeeded(&lab.call("DEL", None));
    succeeded(&lab.call("DEL", None));
    assert_eq!(agent.heard().len(), 5);
    succeeded(&lab.call("DEL", None));
}

#[test]
fn an_add_into_the_same_namespace_after_del_replaces_the_parked_pair() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    let _agent = lab.agent("ADA");
    succeeded(&lab.call("ADD", Some(&pod)));
    succeeded(&lab.call("DEL", Some(&pod)));
    succeeded(&lab.call("ADD", Some(&pod)));
    echoes(&lab, &pod, ip(NODE_IPV6));
}

#[test]
fn a_refused_step_leaves_neither_end_and_lo_as_it_was() {
    let Some(lab) = Lab::new() else { return };
    let pod = Netns::create().unwrap();
    let too_big = Wire { mtu: 100_000, ..wire() };
    let refused = Reply::Refused(types::cni::Refused { code: 11, msg: "no route".to_owned() });
    for script in [vec![Play::Say(Reply::Wire(too_big))], vec![Play::Say(Reply::Wire(wire())), Play::Say(refused)]] {
        let _agent = FakeAgent::start(&lab.run_dir.path().join("cni.sock"), vec![script]);
        let outcome = lab.call("ADD", Some(&pod));
        assert!(!outcome.success, "{outcome:?}");
        assert_eq!(lab.host_link(), None);
        let links = inside(&pod, |kernel| kernel.links().unwrap());
        assert_eq!(links.iter().map(|link| (&*link.name, link.up)).collect::<Vec<_>>(), [("lo", false)]);
    }
}

#[test]
fn a_namespace_that_is_none_or_the_plugins_own_is_code_8_and_named() {
    let Some(lab) = Lab::new() else { return };
    let file = lab.run_dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let own = path(&lab.node);
    for (netns, why) in [
        ("/run/netns/no-such", "no such file or directory"),
        (file.to_str().unwrap(), "not a namespace"),
        (own.to_str().unwrap(), "is the namespace of the plugin itself"),
    ] {
        let outcome = lab.call_at("ADD", netns);
        let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(object["code"], 8, "{object}");
        let msg = object["msg"].as_str().unwrap();
        assert!(msg.contains(netns) && msg.contains(why), "{msg}");
    }
}
