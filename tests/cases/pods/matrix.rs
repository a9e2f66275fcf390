//! What a privileged pod puts on its wire by hand, and what becomes of it.
//!
//! Every packet has a name and a token. What is forbidden is named where its token is seen beyond the pod's node, at another
//! pod, or by the node's own sockets; what is allowed has to arrive. Afterwards the node's addresses, routes and neighbours are
//! what they were, and what policies allow goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tests::raw::frame::{self, Head, protocol};
use tests::raw::{Tap, Token, Wire};
use tests::{CONVERGENCE, Place, Pod, PodSpec, TestResult, can_run_labs, wait_until};
use types::Family;
use types::cni::{GATEWAY_IPV4, GATEWAY_IPV6, HOST_MAC};

use crate::policy::guarded::Guarded;
use crate::policy::world::node_addresses;

/// A port that the nodes do not close.
const ORDINARY: u16 = 9000;

/// The port that policies admit friends on.
const ADMITTED: u16 = 80;
/// A port that the server admits nobody on.
const DENIED: u16 = 81;

/// The port of BGP (RFC 4271 section 8.2.1).
const BGP: u16 = 179;

/// Neighbours that a pod may make its node remember at a time: a quarter of what its table has room for.
const MOST_INVENTED: usize = 256;

/// Where a packet may be seen that should not.
const PLACES: [&str; 5] = ["node1", "node2", "the host outside", "x/server", "x/friend-node2"];

/// All that is sent, by token.
#[derive(Default)]
struct Sent {
    names: BTreeMap<Token, String>,
    /// Those that have to arrive somewhere, and where.
    allowed: BTreeMap<Token, &'static str>,
}

impl Sent {
    fn name(&mut self, name: String, arrives_at: Option<&'static str>) -> Token {
        let token = Token(u32::try_from(self.names.len()).unwrap_or_default());
        self.names.insert(token, name);
        self.allowed.extend(arrives_at.map(|place| (token, place)));
        token
    }
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    /// The beginning of a connection.
    Tcp,
}

impl Transport {
    const fn protocol(self) -> u8 {
        match self {
            Self::Udp => protocol::UDP,
            Self::Tcp => protocol::TCP,
        }
    }

    /// A datagram or segment to this port, full of the token.
    fn carry(self, ends: [IpAddr; 2], port: u16, token: Token) -> Vec<u8> {
        match self {
            Self::Udp => frame::udp(ends, [40_000, port], &token.fill(64)),
            // Each a connection of its own: what a node answers to one changes nothing for the next.
            Self::Tcp => {
                let from = 20_000 + u16::try_from(token.0 % 40_000).unwrap_or_default();
                frame::tcp(ends, [from, port], 2, &token.fill(64))
            }
        }
    }
}

/// Where packets are sent to: its name, its address and port, and where they have to arrive.
type Target = (&'static str, IpAddr, u16, Option<&'static str>);

/// How a datagram is laid out in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    OneHop,
    TinyFragments,
    OverlappingFragments,
    LaterFragmentAlone,
    HopByHop,
    DestinationOptions,
    Routing(u8),
    AtomicFragment,
}

impl Shape {
    fn of(family: Family) -> Vec<Self> {
        let mut shapes =
            vec![Self::Whole, Self::OneHop, Self::TinyFragments, Self::OverlappingFragments, Self::LaterFragmentAlone];
        if family == Family::Ipv6 {
            shapes.extend([Self::HopByHop, Self::DestinationOptions, Self::AtomicFragment]);
            shapes.extend([0, 2, 3, 4].map(Self::Routing));
        }
        shapes
    }

    /// Whether it is as good as a whole packet. A first fragment of IPv6 has the whole header of TCP in it, or it is discarded
    /// (RFC 8200 section 4.5); that of UDP is as long as the fragment.
    const fn is_proper(self, family: Family, transport: Transport) -> bool {
        match self {
            Self::TinyFragments => !matches!((family, transport), (Family::Ipv6, Transport::Tcp)),
            Self::Whole | Self::HopByHop | Self::DestinationOptions | Self::AtomicFragment => true,
            _ => false,
        }
    }

    /// The packets. `also` is where a routing header leads on to, and the port that an overlapping fragment writes.
    fn packets(
        self,
        transport: Transport,
        ends: [IpAddr; 2],
        port: u16,
        token: Token,
        also: (IpAddr, u16),
    ) -> Vec<Vec<u8>> {
        let [source, destination] = ends;
        let id = u16::try_from(token.0 & 0xffff).unwrap_or_default();
        let inner = transport.protocol();
        let head = Head::new(source, destination, inner).id(id);
        let datagram = transport.carry(ends, port, token);
        let cut = |from: usize, to: usize| datagram.get(from..to).unwrap_or_default().to_vec();
        match self {
            Self::Whole => vec![head.packet(&datagram)],
            Self::OneHop => vec![head.hops(1).packet(&datagram)],
            Self::TinyFragments => vec![
                head.fragment(0, true, &cut(0, 8)),
                head.fragment(8, true, &cut(8, 16)),
                head.fragment(16, false, &cut(16, datagram.len())),
            ],
            Self::OverlappingFragments => {
                let other = transport.carry(ends, also.1, token);
                // One that is whole within another would be taken for a repetition.
                vec![
                    head.fragment(0, true, &cut(0, 8)),
                    head.fragment(0, true, other.get(..16).unwrap_or_default()),
                    head.fragment(16, false, &cut(16, datagram.len())),
                ]
            }
            Self::LaterFragmentAlone => vec![head.fragment(16, false, &cut(16, datagram.len()))],
            Self::HopByHop => {
                vec![Head { protocol: protocol::HOP_BY_HOP, ..head }.packet(&frame::padding(inner, &datagram))]
            }
            Self::DestinationOptions => {
                let head = Head { protocol: protocol::DESTINATION_OPTIONS, ..head };
                vec![head.packet(&frame::padding(inner, &datagram))]
            }
            Self::Routing(kind) => {
                let IpAddr::V6(last) = also.0 else { return Vec::new() };
                // The checksum is over the last destination (RFC 8200 section 8.1).
                let datagram = transport.carry([source, also.0], also.1, token);
                let head = Head { protocol: protocol::ROUTING, ..head };
                vec![head.packet(&frame::routing(inner, kind, last, &datagram))]
            }
            Self::AtomicFragment => vec![head.fragment(0, false, &datagram)],
        }
    }
}

/// Who a packet says that it is from. `other` is what the same pod has on another interface.
fn sources(guarded: &Guarded, [own, other]: [IpAddr; 2], family: Family) -> Vec<(&'static str, IpAddr)> {
    let of = |addresses: [IpAddr; 2]| addresses.into_iter().find(|address| Family::of(*address) == family);
    let (gateway, loopback, nobody, group): (IpAddr, IpAddr, IpAddr, IpAddr) = match family {
        Family::Ipv4 => (
            GATEWAY_IPV4.into(),
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(224, 0, 0, 1).into(),
        ),
        Family::Ipv6 => (
            GATEWAY_IPV6.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::UNSPECIFIED.into(),
            "ff02::1".parse().unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ),
    };
    let named = [
        ("its own address", Some(own)),
        ("the address of its other interface", Some(other)),
        ("its node's address", of(node_addresses("node1"))),
        ("another node's address", of(node_addresses("node2"))),
        ("the gateway's address", Some(gateway)),
        ("the address of a pod on its node", Some(guarded.strangers[0].address(family))),
        ("the address of a pod on another node", Some(guarded.friends[1].address(family))),
        ("the server's own address", Some(guarded.server.address(family))),
        ("loopback", Some(loopback)),
        ("no address", Some(nobody)),
        ("a group's address", Some(group)),
    ];
    named.into_iter().filter_map(|(name, address)| Some((name, address?))).collect()
}

/// What a node knows of the network that a pod should not change: its addresses, its routes, and whom it takes for a neighbour on
/// the pod's link or at the pod's Ethernet address. Link-local neighbours are not among them.
fn knowledge(node: &dyn Place, pod: &Pod, mac: [u8; 6]) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let way = node.exec(&["ip", "-o", "route", "get", &pod.address(Family::Ipv4).to_string()])?;
    let link = way.split_whitespace().find(|word| word.starts_with("mx")).ok_or("no link")?.to_owned();
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    let mut lines = BTreeSet::new();
    for words in [
        &["ip", "-o", "address", "show"][..],
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
    ] {
        for line in node.exec(words)?.lines() {
            // What is left of a lifetime changes by itself.
            let words = line.split_whitespace().take_while(|word| !["expires", "valid_lft"].contains(word));
            lines.insert(words.collect::<Vec<_>>().join(" "));
        }
    }
    for line in node.exec(&["ip", "neigh", "show", "nud", "all"])?.lines() {
        let address: IpAddr = line.split_whitespace().next().unwrap_or_default().parse()?;
        let is_local = matches!(address, IpAddr::V6(ipv6) if ipv6.is_unicast_link_local() || ipv6.is_multicast());
        let is_group = matches!(address, IpAddr::V4(ipv4) if ipv4.is_multicast());
        if (line.contains(&link) || line.contains(&mac))
            && !pod.addresses().contains(&address)
            && !is_local
            && !is_group
        {
            lines.insert(format!("neighbour {line}"));
        }
    }
    Ok(lines)
}

#[test]
fn nothing_forbidden_that_a_privileged_pod_makes_by_hand_arrives_and_its_node_learns_nothing_from_it() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = Guarded::with("matrix", &[])?;
    let attacker = guarded.friends[0].clone();
    let wire = Wire::open(&attacker, "eth0")?;
    // The pod has addresses on a second interface too, each of which is its own there alone.
    let second = second_interface(&guarded, &attacker)?;
    let second_wire = Wire::open(&attacker, "eth1")?;
    let own = Family::ALL.map(|family| {
        let second = second.iter().copied().find(|address| Family::of(*address) == family);
        [Some(attacker.address(family)), second]
    });
    let host = guarded.world.lab.node("client");
    let (node1, node2) = (guarded.world.node("node1"), guarded.world.node("node2"));
    let taps = [
        Tap::delivered(node1)?,
        Tap::on_the_wire(node2)?,
        Tap::on_the_wire(host)?,
        Tap::on_the_wire(&guarded.server)?,
        Tap::on_the_wire(&guarded.friends[1])?,
    ];
    let mut sent = Sent::default();
    for ([_, source], target) in own.iter().zip(Family::ALL.map(|family| guarded.friends[1].address(family))) {
        let source = source.ok_or("the second interface lacks a family")?;
        let token = sent.name(format!("the first packet from {source}"), Some(PLACES[4]));
        wait_until("the other node knowing the second interface", CONVERGENCE, || {
            let packets = Shape::Whole.packets(Transport::Udp, [source, target], ADMITTED, token, (target, DENIED));
            let frame = |packet: &Vec<u8>| frame::ethernet(HOST_MAC, second_wire.mac, frame::ethertype(source), packet);
            packets.iter().all(|packet| second_wire.send(&frame(packet)).is_ok()) && taps[4].seen().contains(&token)
        })?;
    }
    let before = knowledge(node1, &attacker, wire.mac)?;
    for (family, [first, second]) in Family::ALL.into_iter().zip(own) {
        let (first, second) = (first.ok_or("no address")?, second.ok_or("no second address")?);
        for (wire, of_wire, owns) in [(&wire, "", [first, second]), (&second_wire, "on eth1, ", [second, first])] {
            for (source_name, source) in sources(&guarded, owns, family) {
                for (transport, targets) in
                    [(Transport::Udp, datagrams(&guarded, family)), (Transport::Tcp, connections(family))]
                {
                    let also = match transport {
                        Transport::Udp => (guarded.server.address(family), DENIED),
                        Transport::Tcp => (node_address("node1", family), BGP),
                    };
                    for (target_name, target, port, place) in targets {
                        for shape in Shape::of(family) {
                            let place = place.filter(|_| source == owns[0] && shape.is_proper(family, transport));
                            let name = format!("{of_wire}{family}, from {source_name}, to {target_name}, {shape:?}");
                            let token = sent.name(name, place);
                            for packet in shape.packets(transport, [source, target], port, token, also) {
                                wire.send(&frame::ethernet(HOST_MAC, wire.mac, frame::ethertype(source), &packet))?;
                            }
                        }
                    }
                }
            }
        }
    }
    lies(&wire, &attacker, &guarded, &mut sent)?;
    // What is allowed has arrived, and what was sent ahead of it would have too.
    let arrived = |tap: &Tap, place: &str| {
        let seen = tap.seen();
        sent.allowed.iter().all(|(token, at)| *at != place || seen.contains(token))
    };
    let waited = wait_until("what is allowed arriving", CONVERGENCE, || {
        taps.iter().zip(PLACES).all(|(tap, place)| arrived(tap, place))
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut wrong = Vec::new();
    for (tap, place) in taps.iter().zip(PLACES) {
        let seen = tap.seen();
        for (token, name) in &sent.names {
            let allowed = sent.allowed.get(token);
            // An allowed packet passes other places on its way; one that is sent on by its node with a hop less is too.
            if seen.contains(token) && allowed.is_none() && !is_harmless(name, place) {
                wrong.push(format!("arrived at {place}: {name}"));
            }
            if allowed.is_some_and(|at| *at == place) && !seen.contains(token) {
                wrong.push(format!("did not arrive at {place}: {name}"));
            }
        }
    }
    // Neighbours that a pod invents are few: the node's table is that of all its links.
    for number in 0..3_000_u16 {
        let invented = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xbad, 0, 0, number);
        for (kind, body) in [
            (135, [&[0; 4][..], &GATEWAY_IPV6.octets(), &[1, 1], &wire.mac].concat()),
            (133, [&[0; 4][..], &[1, 1], &wire.mac].concat()),
            (128, vec![0; 8]),
        ] {
            let ends = [invented.into(), GATEWAY_IPV6.into()];
            let message = frame::icmp(ends, kind, 0, &body);
            let packet = Head::new(ends[0], ends[1], protocol::ICMPV6).hops(255).packet(&message);
            wire.send(&frame::ethernet(HOST_MAC, wire.mac, 0x86dd, &packet))?;
        }
    }
    let invented =
        node1.exec(&["ip", "-6", "neigh", "show", "nud", "all"])?.lines().filter(|line| line.contains("bad:")).count();
    if invented > MOST_INVENTED {
        wrong.push(format!("its node remembers {invented} neighbours that it invented"));
    }
    let after = knowledge(node1, &attacker, wire.mac)?;
    wrong.extend(after.difference(&before).map(|line| format!("its node has come to know: {line}")));
    wrong.extend(before.difference(&after).map(|line| format!("its node has forgotten: {line}")));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sent.names.len(), wrong.join("\n"));
    waited?;
    drop(taps);
    guarded.stands()?;
    let late = guarded.world.plug("node1", PodSpec::in_namespace("x", "late").label("friend", "yes"))?;
    for family in Family::ALL {
        wait_until("a new pod's first packet", CONVERGENCE, || {
            late.ping(guarded.friends[1].address(family)) || { connects(&late, guarded.server.address(family)) }
        })?;
    }
    guarded.world.lab.down()?;
    Ok(())
}

/// Plugs the pod in once more, as a runtime does that gives it a second network; gives the addresses there.
fn second_interface(guarded: &Guarded, pod: &Pod) -> Result<Vec<IpAddr>, Box<dyn Error>> {
    let mut attachment = pod.attachment.clone();
    "eth1".clone_into(&mut attachment.interface);
    let result = guarded.world.node("node1").runtime()?.add(&attachment)?;
    let ips = result["ips"].as_array().ok_or("no addresses")?;
    let texts = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next());
    Ok(texts.map(str::parse).collect::<Result<_, _>>()?)
}

/// The address of this family that a node peers from.
fn node_address(node: &str, family: Family) -> IpAddr {
    let [ipv4, ipv6] = node_addresses(node);
    if family == Family::Ipv4 { ipv4 } else { ipv6 }
}

fn gateway(family: Family) -> IpAddr {
    if family == Family::Ipv4 { GATEWAY_IPV4.into() } else { GATEWAY_IPV6.into() }
}

/// Where datagrams are sent to.
fn datagrams(guarded: &Guarded, family: Family) -> Vec<Target> {
    let (node1, node2) = (node_address("node1", family), node_address("node2", family));
    let (server, friend) = (guarded.server.address(family), guarded.friends[1].address(family));
    vec![
        ("its node", node1, ORDINARY, Some(PLACES[0])),
        ("BFD of its node", node1, 3784, None),
        ("another node", node2, ORDINARY, Some(PLACES[1])),
        ("BFD of another node", node2, 4784, None),
        ("an allowed pod", server, ADMITTED, Some(PLACES[3])),
        ("an allowed pod on another node", friend, ADMITTED, Some(PLACES[4])),
        ("a denied pod", server, DENIED, None),
        ("a denied pod on another node", friend, DENIED, None),
        ("its gateway", gateway(family), ORDINARY, None),
    ]
}

/// Where connections are begun to. What overlaps, or comes behind a routing header, writes BGP's port over another one.
fn connections(family: Family) -> Vec<Target> {
    let (node1, node2) = (node_address("node1", family), node_address("node2", family));
    vec![
        ("TCP of its node", node1, ORDINARY, Some(PLACES[0])),
        ("BGP of its node", node1, BGP, None),
        ("TCP of another node", node2, ORDINARY, Some(PLACES[1])),
        ("BGP of another node", node2, BGP, None),
        ("BGP of its gateway", gateway(family), BGP, None),
    ]
}

fn connects(pod: &dyn Place, to: IpAddr) -> bool {
    super::connect(pod, 0, (to, ADMITTED).into()).is_ok()
}

/// What is seen though it need not arrive: of a pod's own address, and to a place that it may speak to.
fn is_harmless(name: &str, place: &str) -> bool {
    let own = name.contains("from its own address");
    let to = |target: &str| name.contains(&format!("to {target}, "));
    let allowed = match place {
        "node1" => to("its node") || to("TCP of its node"),
        // The policies of a pod are enforced at its own node.
        "node2" => {
            let harmless = [
                "another node",
                "TCP of another node",
                "an allowed pod on another node",
                "a denied pod on another node",
            ];
            harmless.into_iter().any(to)
        }
        "x/server" => to("an allowed pod"),
        "x/friend-node2" => to("an allowed pod on another node"),
        _ => false,
    };
    // A routing header that the node does not follow is like any other; one that it follows leads to the server.
    let is_led_on = name.contains("Routing") && (place == "x/server" || name.contains("TCP of"));
    own && allowed && !is_led_on && !name.contains("Overlapping")
}

/// Router advertisements, redirects, neighbours that are none, answers of DHCP and ARP.
fn lies(wire: &Wire, attacker: &Pod, guarded: &Guarded, sent: &mut Sent) -> TestResult {
    let mac = wire.mac;
    let every = [0xff; 6];
    let [node1, _] = node_addresses("node1");
    let own4 = attacker.address(Family::Ipv4);
    let own6 = attacker.address(Family::Ipv6);
    let stranger = guarded.strangers[0].address(Family::Ipv4);
    let (IpAddr::V4(own), IpAddr::V4(node), IpAddr::V4(stranger4)) = (own4, node1, stranger) else {
        return Err("no IPv4".into());
    };
    let other = Ipv4Addr::new(192, 0, 2, 2);
    let router = Ipv4Addr::new(203, 0, 113, 3);
    for claimed in [node, other, router, stranger4, GATEWAY_IPV4, Ipv4Addr::new(192, 0, 2, 77)] {
        for (operation, to, target) in [
            (1, every, (([0; 6]), GATEWAY_IPV4)),
            (1, every, ([0; 6], claimed)),
            (2, HOST_MAC, (HOST_MAC, node)),
            (2, every, (every, claimed)),
        ] {
            wire.send(&frame::ethernet(to, mac, 0x0806, &frame::arp(operation, (mac, claimed), target)))?;
        }
    }
    // Where the way to the outside leads, as its router would say it; the packet that it is about is the node's.
    let about = Head::new(node.into(), Ipv4Addr::new(198, 51, 100, 10).into(), protocol::UDP).packet(&frame::udp(
        [node.into(), Ipv4Addr::new(198, 51, 100, 10).into()],
        [1, 2],
        &[0; 8],
    ));
    for source in [own, router, GATEWAY_IPV4] {
        let token = sent.name(format!("a redirect from {source}"), None);
        let body = [own.octets().as_slice(), &about, &token.fill(16)].concat();
        let ends = [source.into(), node.into()];
        let packet = Head::new(source.into(), node.into(), protocol::ICMP).packet(&frame::icmp(ends, 5, 1, &body));
        wire.send(&frame::ethernet(HOST_MAC, mac, 0x0800, &packet))?;
    }
    let dhcp = |source: IpAddr, destination: IpAddr, ports, token: Token| {
        let datagram = frame::udp([source, destination], ports, &token.fill(240));
        Head::new(source, destination, protocol::UDP).packet(&datagram)
    };
    for (destination, to) in
        [(Ipv4Addr::BROADCAST, every), (node, HOST_MAC), (other, HOST_MAC), (Ipv4Addr::new(192, 0, 2, 255), every)]
    {
        for source in [own, Ipv4Addr::UNSPECIFIED] {
            let token = sent.name(format!("an answer of DHCP from {source} to {destination}"), None);
            let packet = dhcp(source.into(), destination.into(), [67, 68], token);
            wire.send(&frame::ethernet(to, mac, 0x0800, &packet))?;
        }
    }
    let local: Ipv6Addr = "fe80::bad".parse()?;
    let groups = ["ff02::1", "ff02::2"].map(|group| group.parse::<Ipv6Addr>().unwrap_or(Ipv6Addr::LOCALHOST));
    let IpAddr::V6(own6) = own6 else { return Err("no IPv6".into()) };
    let [_, IpAddr::V6(node6)] = node_addresses("node1") else { return Err("no IPv6".into()) };
    let far: Ipv6Addr = "2001:db8::2".parse()?;
    let outside: Ipv6Addr = "2001:db8:1::1".parse()?;
    let link = |kind: u8| [&[kind, 1][..], &mac].concat();
    for source in [local, own6, outside] {
        for destination in [groups[0], groups[1], GATEWAY_IPV6, node6] {
            let to = if destination.is_multicast() { [0x33, 0x33, 0, 0, 0, 1] } else { HOST_MAC };
            let ends = [source.into(), destination.into()];
            let send = |kind, body: &[u8]| {
                let message = frame::icmp(ends, kind, 0, body);
                let packet = Head::new(ends[0], ends[1], protocol::ICMPV6).hops(255).packet(&message);
                wire.send(&frame::ethernet(to, mac, 0x86dd, &packet))
            };
            // A router that lives for an hour, with a prefix for addresses and one for a route (RFC 4861 section 4.2).
            let mut advertisement = vec![64, 0, 0x0e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
            advertisement.extend(link(1));
            advertisement.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
            advertisement.extend("2001:db8:bad::".parse::<Ipv6Addr>()?.octets());
            advertisement.extend([24, 2, 48, 0, 0, 0, 0x0e, 0x10, 0x20, 0x01, 0x0d, 0xb8, 0xba, 0xdd, 0, 0]);
            let token = sent.name(format!("a router advertisement from {source} to {destination}"), None);
            send(134, &[advertisement, token.fill(8)].concat())?;
            let token = sent.name(format!("a redirect from {source} to {destination}"), None);
            let way = [own6.octets().as_slice(), &"2001:db8:64::10".parse::<Ipv6Addr>()?.octets(), &link(2)].concat();
            send(137, &[&[0; 4][..], &way, &token.fill(8)].concat())?;
            for claimed in [node6, far, outside, GATEWAY_IPV6, "2001:db8::77".parse()?] {
                send(135, &[&[0; 4][..], &claimed.octets(), &link(1)].concat())?;
                send(136, &[&[0x60, 0, 0, 0][..], &claimed.octets(), &link(2)].concat())?;
            }
        }
    }
    for (destination, to) in [
        ("ff02::1", [0x33, 0x33, 0, 0, 0, 1]),
        ("fe80::ecee:eeff:feee:eeee", HOST_MAC),
        ("2001:db8::1", HOST_MAC),
        ("2001:db8::2", HOST_MAC),
    ] {
        for source in [local, own6] {
            let token = sent.name(format!("an answer of DHCPv6 from {source} to {destination}"), None);
            let packet = dhcp(source.into(), destination.parse()?, [547, 546], token);
            wire.send(&frame::ethernet(to, mac, 0x86dd, &packet))?;
        }
    }
    Ok(())
}
