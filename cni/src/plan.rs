//! The wiring of a pod as data: which steps, in which order, and what has to be taken back if a later one fails.
//!
//! ```text
//!   node                                    pod
//!   lo       169.254.1.1/32 scope link      lo     up
//!   mx…      ee:ee:ee:ee:ee:ee ◄─ veth ─►   eth0   10.65.0.2/32, fd00::2/128
//!            169.254.1.1/32 scope host
//!            fe80::ecee:eeff:feee:eeee             default via 169.254.1.1 and fe80::ecee:eeff:feee:eeee
//! ```
//!
//! The host's end is up from its birth but has no carrier before the pod's end is up, which comes after every sysctl and
//! address: neither side sends or takes a packet half configured. The route to the pod is not here; the agent puts it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::SysctlKey;
use types::cni::{GATEWAY_IPV4, GATEWAY_IPV6};
use types::{Family, InterfaceName};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// The host's end.
    pub host: InterfaceName,
    /// The pod's end, CNI_IFNAME.
    pub pod: InterfaceName,
    /// The pod's addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// The MTU of both ends, in octets.
    pub mtu: u32,
    /// What the pod's namespace was found to have.
    pub sandbox: Sandbox,
}

/// A pod's namespace before it is touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Its `lo` is up already (containerd's loopback plugin was quicker).
    pub loopback_up: bool,
    /// Families with a default route, through another network's interface. Those stay as they are; the pair gets tables of its own.
    pub default_routes: BTreeSet<Family>,
}

impl Pairing {
    /// The pod's families, in the order of its addresses.
    fn families(&self) -> impl Iterator<Item = Family> {
        self.addresses.iter().map(|address| Family::of(*address))
    }

    /// The families whose default route leads elsewhere: packets from this pair's addresses are routed by their source.
    pub fn by_source(&self) -> impl Iterator<Item = Family> {
        self.families().filter(|family| self.sandbox.default_routes.contains(family))
    }

    /// The families whose default route leads through this pair.
    pub fn default_routes(&self) -> impl Iterator<Item = Family> {
        self.families().filter(|family| !self.sandbox.default_routes.contains(family))
    }
}

/// The pod's next hop.
pub const fn gateway(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(GATEWAY_IPV4),
        Family::Ipv6 => IpAddr::V6(GATEWAY_IPV6),
    }
}

/// Which namespace a step works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The node's.
    Host,
    /// The pod's.
    Pod,
}

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WiringStep {
    /// Node: 169.254.1.1/32 on `lo`. Proxy ARP alone answers for it only where the node has a default route. The scope is
    /// link, or the address would become a source of the node's own packets.
    GatewayAddress,
    /// Node: 169.254.1.1/32 on the host's end too. A node whose `arp_ignore` is 1 (kube-proxy's strictARP sets it for all
    /// interfaces) answers for no address of another interface, so the one on `lo` is silent there. The scope is host, or the
    /// address would be the source of what the node sends to the pod.
    GatewayOfPair,
    /// On the node: makes the pair, with the host's end up.
    MakePair,
    /// On either side: sets a sysctl.
    Sysctl(Sysctl),
    /// Node: the host end's link-local address. The kernel would derive the same from the MAC, but later, and not where
    /// `addr_gen_mode` says otherwise.
    GatewayLinkLocal,
    /// Pod: an address as /32 or /128, without duplicate address detection.
    Address(IpAddr),
    /// In the pod: brings the pod's end up.
    RaisePod,
    /// Pod: the gateway's MAC, for ever: the first packet waits for no ARP or neighbour discovery.
    GatewayNeighbour(Family),
    /// Pod: the IPv4 gateway is on the link, though no prefix of the pod's covers it.
    GatewayOnLink,
    /// In the pod: puts the default route.
    DefaultRoute(Family),
    /// Pod: the default route of the interface's own table, where another interface has that of the main table.
    SourceRoute(Family),
    /// In the pod: sends packets from this address by the interface's own table.
    SourceRule(IpAddr),
    /// Either side: wait until the end runs. The kernel switches its queue on some time after carrier (in its linkwatch
    /// worker) and drops what is sent before; since Linux 6.7 looking at the link makes it do so at once.
    AwaitCarrier(Side),
}

/// A sysctl to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The interface, or all of them, whose sysctl it is.
    pub side: Side,
    /// The key.
    pub key: SysctlKey,
    /// The value that it gets.
    pub value: &'static str,
    /// What it means if the kernel has no such key.
    pub absent: Absent,
    /// How the step is undone if a later one fails.
    pub undo: Undo,
}

/// What the absence of a sysctl means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The wiring cannot work.
    Fails,
    /// There is nothing to protect from: the kernel runs without IPv6.
    IsFine,
}

/// How a step is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// The step's effect goes with the pair.
    WithPair,
    /// The pair is deleted.
    DeletePair,
    /// The rule is deleted: it would outlive the pair.
    DeleteRule,
    /// It belongs to the sandbox and is put back to what it was.
    Restore,
    /// It belongs to the node, for all pods, and stays.
    Stays,
}

impl WiringStep {
    /// The namespace in which the step is taken.
    pub const fn side(&self) -> Side {
        match self {
            Self::GatewayAddress | Self::GatewayOfPair | Self::MakePair | Self::GatewayLinkLocal => Side::Host,
            Self::Sysctl(sysctl) => sysctl.side,
            Self::AwaitCarrier(side) => *side,
            Self::Address(_)
            | Self::RaisePod
            | Self::GatewayNeighbour(_)
            | Self::GatewayOnLink
            | Self::DefaultRoute(_)
            | Self::SourceRoute(_)
            | Self::SourceRule(_) => Side::Pod,
        }
    }

    /// How it is taken back.
    pub const fn undo(&self) -> Undo {
        match self {
            Self::GatewayAddress => Undo::Stays,
            Self::MakePair => Undo::DeletePair,
            Self::Sysctl(sysctl) => sysctl.undo,
            Self::SourceRule(_) => Undo::DeleteRule,
            Self::GatewayLinkLocal
            | Self::GatewayOfPair
            | Self::Address(_)
            | Self::RaisePod
            | Self::GatewayNeighbour(_)
            | Self::GatewayOnLink
            | Self::DefaultRoute(_)
            | Self::SourceRoute(_)
            | Self::AwaitCarrier(_) => Undo::WithPair,
        }
    }
}

/// The steps, in order: the node's, then the pod's, and at the end a look from the node. What depends on nothing that the agent
/// answers is not among them: `lo` is brought up while the answer is waited for.
pub fn plan(pairing: &Pairing) -> Vec<WiringStep> {
    let families: BTreeSet<Family> = pairing.families().collect();
    let ipv4 = families.contains(&Family::Ipv4);
    let ipv6 = families.contains(&Family::Ipv6);
    let mut steps = Vec::with_capacity(32);
    steps.push(WiringStep::MakePair);
    host_sysctls(&mut steps, &pairing.host, ipv4, ipv6);
    if ipv4 {
        steps.extend([WiringStep::GatewayAddress, WiringStep::GatewayOfPair]);
    }
    if ipv6 {
        steps.push(WiringStep::GatewayLinkLocal);
    }

    pod_sysctls(&mut steps, &pairing.pod, ipv6);
    steps.extend(pairing.addresses.iter().copied().map(WiringStep::Address));
    steps.push(WiringStep::RaisePod);
    steps.extend(families.iter().copied().map(WiringStep::GatewayNeighbour));
    for family in pairing.default_routes() {
        if family == Family::Ipv4 {
            steps.push(WiringStep::GatewayOnLink);
        }
        steps.push(WiringStep::DefaultRoute(family));
    }
    for family in pairing.by_source() {
        steps.push(WiringStep::SourceRoute(family));
        let of_family = pairing.addresses.iter().copied().filter(|address| Family::of(*address) == family);
        steps.extend(of_family.map(WiringStep::SourceRule));
    }
    steps.push(WiringStep::AwaitCarrier(Side::Pod));
    steps.push(WiringStep::AwaitCarrier(Side::Host));
    steps
}

/// `route_localnet` is not among them: it would let the pod reach what the node serves on 127.0.0.1 only. Portmap sets it
/// itself where it is wanted.
fn host_sysctls(steps: &mut Vec<WiringStep>, host: &InterfaceName, ipv4: bool, ipv6: bool) {
    let mut set = |key, value, absent| {
        let undo = Undo::WithPair;
        steps.push(WiringStep::Sysctl(Sysctl { side: Side::Host, key, value, absent, undo }));
    };
    if ipv4 {
        set(SysctlKey::ipv4_conf(host, "proxy_arp"), "1", Absent::Fails);
        // By default the kernel waits up to 0.8 s at random before it answers for an address by proxy.
        set(SysctlKey::ipv4_neigh(host, "proxy_delay"), "0", Absent::Fails);
        set(SysctlKey::ipv4_conf(host, "forwarding"), "1", Absent::Fails);
        // Strict: the pod sends from its own address or not at all (RFC 3704 section 2.2).
        set(SysctlKey::ipv4_conf(host, "rp_filter"), "1", Absent::Fails);
    }
    if ipv6 {
        // Set before the link has carrier: the link-local address is usable at once, and again each time the link comes up.
        set(SysctlKey::ipv6_conf(host, "accept_dad"), "0", Absent::Fails);
        set(SysctlKey::ipv6_conf(host, "disable_ipv6"), "0", Absent::Fails);
        set(SysctlKey::ipv6_conf(host, "forwarding"), "1", Absent::Fails);
    }
    // Set for a pod without IPv6 as well: router advertisements that it sends must not change the node's routes.
    set(SysctlKey::ipv6_conf(host, "accept_ra"), "0", Absent::IsFine);
}

fn pod_sysctls(steps: &mut Vec<WiringStep>, pod: &InterfaceName, ipv6: bool) {
    let mut set = |key, value, absent, undo| {
        steps.push(WiringStep::Sysctl(Sysctl { side: Side::Pod, key, value, absent, undo }));
    };
    if ipv6 {
        // Runtimes make namespaces in which new interfaces have IPv6 off.
        set(SysctlKey::global("ipv6/conf/lo/disable_ipv6"), "0", Absent::Fails, Undo::Restore);
        set(SysctlKey::ipv6_conf(pod, "disable_ipv6"), "0", Absent::Fails, Undo::WithPair);
    }
    set(SysctlKey::ipv6_conf(pod, "accept_ra"), "0", Absent::IsFine, Undo::WithPair);
}

#[cfg(test)]
mod tests;
