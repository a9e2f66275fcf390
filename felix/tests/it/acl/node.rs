//! A node with pods and a host beside it, each in a namespace, wired as the CNI binary does it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use felix::acl::{Acl, AclBackend, AclConfig};
use kernel::acl::{ConnectionTable, Iptables, IptablesVariant, LinuxSets, NftEvents};
use kernel::netns::run_in;
use kernel::{Linux, Netns};

use crate::ip;

/// How long a packet that should not come is waited for.
pub(super) const REPLY_WAIT: Duration = Duration::from_millis(300);

pub(super) struct Node {
    pub(super) netns: Netns,
    pub(super) outside: Netns,
    pub(super) pods: Vec<Netns>,
    pub(super) variant: IptablesVariant,
}

impl Node {
    /// With so many pods (1, 2, ...); none, loudly, where that cannot be had.
    pub(super) fn new(variant: IptablesVariant, pods: u8) -> Option<Self> {
        let (Ok(netns), Ok(outside)) = (Netns::create(), Netns::create()) else {
            tests::say_skipped(&"network namespaces need root");
            return None;
        };
        let name = match variant {
            IptablesVariant::Nft => "iptables-nft-restore",
            IptablesVariant::Legacy => "iptables-legacy-restore",
        };
        if Command::new(name).arg("--version").output().is_err() {
            tests::say_skipped(&format!("{name} is not installed"));
            return None;
        }
        let mut node = Self { netns, outside, pods: Vec::new(), variant };
        node.sh("ip link set lo up; ip addr add 169.254.1.1/32 dev lo scope link
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0");
        wire(&node.netns, "eth1", &node.outside, "eth0");
        node.sh("ip addr add 192.0.2.9/24 dev eth1; ip addr add 2001:db8:1::9/64 dev eth1 nodad");
        sh(
            &node.outside,
            "ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8:1::1/64 dev eth0 nodad
             ip route add 10.65.0.0/24 via 192.0.2.9; ip route add fd65::/64 via 2001:db8:1::9",
        );
        (1..=pods).for_each(|pod| node.add_pod(pod));
        Some(node)
    }

    fn add_pod(&mut self, pod: u8) {
        let there = Netns::create().unwrap();
        let host = format!("mxpod{pod}");
        wire(&self.netns, &host, &there, "eth0");
        self.sh(&format!(
            "ip link set {host} address ee:ee:ee:ee:ee:ee; sysctl -qw net.ipv4.conf.{host}.proxy_arp=1
             sysctl -qw net.ipv4.neigh.{host}.proxy_delay=0; ip addr add fe80::1/64 dev {host} nodad
             ip route add 10.65.0.{pod}/32 dev {host} src 192.0.2.9; ip route add fd65::{pod}/128 dev {host}",
        ));
        sh(
            &there,
            &format!(
                "ip addr add 10.65.0.{pod}/32 dev eth0; ip addr add fd65::{pod}/128 dev eth0 nodad
                 ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1
                 ip route add default via fe80::1 dev eth0",
            ),
        );
        self.pods.push(there);
    }

    pub(super) fn start(&self) -> Acl {
        self.start_with(AclConfig { families: super::families(), ..AclConfig::default() })
    }

    pub(super) fn start_with(&self, config: AclConfig) -> Acl {
        self.start_by(config, |iptables| iptables)
    }

    /// With iptables changed: other programs, less patience.
    pub(super) fn start_by(&self, config: AclConfig, change: impl FnOnce(Iptables) -> Iptables) -> Acl {
        let tables = change(self.iptables());
        let events = NftEvents::subscribe_in(&self.netns).unwrap().except(tables.own_restores());
        let backend = AclBackend {
            sets: Box::new(LinuxSets::open_in(&self.netns).unwrap()),
            tables: Box::new(tables),
            connections: Box::new(ConnectionTable::open_in(&self.netns).unwrap()),
            events: Box::new(events),
            host: Box::new(Linux::open_in(&self.netns).unwrap()),
        };
        felix::acl::start(config, backend).unwrap()
    }

    pub(super) fn iptables(&self) -> Iptables {
        Iptables::new(self.variant).in_netns(self.netns_again())
    }

    fn netns_again(&self) -> Netns {
        run_in(&self.netns, || Netns::current().unwrap()).unwrap()
    }

    /// A shell in the node's namespace.
    pub(super) fn sh(&self, script: &str) {
        sh(&self.netns, script);
    }

    /// iptables of this node's variant, of both families.
    pub(super) fn iptables_sh(&self, arguments: &str) {
        let variant = if self.variant == IptablesVariant::Nft { "nft" } else { "legacy" };
        for program in ["iptables", "ip6tables"] {
            self.sh(&format!("{program}-{variant} {arguments}"));
        }
    }

    pub(super) fn pod(&self, pod: u8) -> &Netns {
        self.pods.get(usize::from(pod) - 1).unwrap()
    }

    /// Whether a pod can connect to another by TCP, by either family; both must agree.
    pub(super) fn connects(&self, from: u8, to: u8, port: u16) -> bool {
        let [v4, v6] = addresses(to).map(|address| connect(self.pod(from), address, port).is_some());
        assert_eq!(v4, v6, "pod {from} to pod {to} port {port}: IPv4 and IPv6");
        v4
    }
}

/// The addresses of a pod.
pub(super) fn addresses(pod: u8) -> [IpAddr; 2] {
    [ip(&format!("10.65.0.{pod}")), ip(&format!("fd65::{pod}"))]
}

fn wire(here: &Netns, name: &str, there: &Netns, peer: &str) {
    use kernel::{Kernel, VethSpec};
    let veth = VethSpec {
        host: name.parse().unwrap(),
        host_mac: [2, 0, 0, 0, 0, 9],
        host_up: true,
        host_group: 0,
        peer: peer.parse().unwrap(),
        peer_netns: there,
        peer_mac: None,
        mtu: 1450,
    };
    Linux::open_in(here).unwrap().create_veth(&veth).unwrap();
    sh(there, &format!("ip link set lo up; ip link set {peer} up"));
}

pub(super) fn sh(netns: &Netns, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    let output = run_in(netns, run).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A TCP connection from a namespace, if one comes about; a byte goes and comes back.
pub(super) fn connect(from: &Netns, to: IpAddr, port: u16) -> Option<TcpStream> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, port), REPLY_WAIT).ok();
    let mut stream = run_in(from, connect).unwrap()?;
    stream.set_nodelay(true).unwrap();
    echoes(&mut stream).then_some(stream)
}

/// Whether a byte comes back.
pub(super) fn echoes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(REPLY_WAIT)).unwrap();
    stream.write_all(&[7]).is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// Sends back what comes, on this port of all addresses of a namespace, for the rest of the test.
pub(super) fn serve(netns: &Netns, port: u16) {
    let listener = run_in(netns, || TcpListener::bind(("::", port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(buffer.split_at(read).0).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A UDP socket of a namespace.
pub(super) fn udp(netns: &Netns, at: SocketAddr) -> UdpSocket {
    let socket = run_in(netns, || UdpSocket::bind(at).unwrap()).unwrap();
    socket.set_read_timeout(Some(REPLY_WAIT)).unwrap();
    socket
}
