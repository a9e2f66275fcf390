//! The wiring of a pod as data: which steps, in which order, and what has to be taken back if a later one fails.
//!
//! ```text
//!   node                                    pod
//!   lo       169.254.1.1/32 scope link      lo     up
//!   mx…      ee:ee:ee:ee:ee:ee ◄─ veth ─►   eth0   10.65.0.2/32, fd00::2/128
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
    /// Families with a default route, through another network's interface. Those stay as they are.
    pub default_routes: BTreeSet<Family>,
}

impl Pairing {
    /// The pod's families, in the order of its addresses.
    fn families(&self) -> impl Iterator<Item = Family> {
        self.addresses.iter().map(|address| Family::of(*address))
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
pub enum Step {
    /// Node: 169.254.1.1/32 on `lo`. Proxy ARP alone answers for it only where the node has a default route. The scope is
    /// link, or the address would become a source of the node's own packets.
    GatewayAddress,
    /// Node: the pair, its host's end up.
    MakePair,
    /// Either side: a sysctl.
    Sysctl(Sysctl),
    /// Node: the host end's link-local address. The kernel would derive the same from the MAC, but later, and not where
    /// `addr_gen_mode` says otherwise.
    GatewayLinkLocal,
    /// Pod: `lo` up.
    RaiseLoopback,
    /// Pod: an address as /32 or /128, without duplicate address detection.
    Address(IpAddr),
    /// Pod: the pod's end up.
    RaisePod,
    /// Pod: the gateway's MAC, for ever: the first packet waits for no ARP or neighbour discovery.
    GatewayNeighbour(Family),
    /// Pod: the IPv4 gateway is on the link, though no prefix of the pod's covers it.
    GatewayOnLink,
    /// Pod: the default route.
    DefaultRoute(Family),
    /// Either side: wait until the end runs. The kernel switches its queue on some time after carrier (in its linkwatch
    /// worker) and drops what is sent before; since Linux 6.7 looking at the link makes it do so at once.
    AwaitCarrier(Side),
}

/// A sysctl to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Whose.
    pub side: Side,
    /// Which.
    pub key: SysctlKey,
    /// To what.
    pub value: &'static str,
    /// What it means if the kernel has no such key.
    pub absent: Absent,
    /// What becomes of it if a later step fails.
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
    /// It goes with the pair.
    WithPair,
    /// Delete the pair.
    DeletePair,
    /// It belongs to the sandbox and is put back to what it was.
    Restore,
    /// It belongs to the node, for all pods, and stays.
    Stays,
}

impl Step {
    /// Where it happens.
    pub const fn side(&self) -> Side {
        match self {
            Self::GatewayAddress | Self::MakePair | Self::GatewayLinkLocal => Side::Host,
            Self::Sysctl(sysctl) => sysctl.side,
            Self::AwaitCarrier(side) => *side,
            Self::RaiseLoopback
            | Self::Address(_)
            | Self::RaisePod
            | Self::GatewayNeighbour(_)
            | Self::GatewayOnLink
            | Self::DefaultRoute(_) => Side::Pod,
        }
    }

    /// How it is taken back.
    pub const fn undo(&self) -> Undo {
        match self {
            Self::GatewayAddress => Undo::Stays,
            Self::MakePair => Undo::DeletePair,
            Self::Sysctl(sysctl) => sysctl.undo,
            Self::RaiseLoopback => Undo::Restore,
            Self::GatewayLinkLocal
            | Self::Address(_)
            | Self::RaisePod
            | Self::GatewayNeighbour(_)
            | Self::GatewayOnLink
            | Self::DefaultRoute(_)
            | Self::AwaitCarrier(_) => Undo::WithPair,
        }
    }
}

/// The steps, in order: the node's, then the pod's, and at the end a look from the node.
pub fn plan(pairing: &Pairing) -> Vec<Step> {
    let families: BTreeSet<Family> = pairing.families().collect();
    let ipv4 = families.contains(&Family::Ipv4);
    let ipv6 = families.contains(&Family::Ipv6);
    let mut steps = Vec::with_capacity(32);
    if ipv4 {
        steps.push(Step::GatewayAddress);
    }
    steps.push(Step::MakePair);
    host_sysctls(&mut steps, &pairing.host, ipv4, ipv6);
    if ipv6 {
        steps.push(Step::GatewayLinkLocal);
    }

    if !pairing.sandbox.loopback_up {
        steps.push(Step::RaiseLoopback);
    }
    pod_sysctls(&mut steps, &pairing.pod, ipv6);
    steps.extend(pairing.addresses.iter().copied().map(Step::Address));
    steps.push(Step::RaisePod);
    steps.extend(families.iter().copied().map(Step::GatewayNeighbour));
    for family in pairing.default_routes() {
        if family == Family::Ipv4 {
            steps.push(Step::GatewayOnLink);
        }
        steps.push(Step::DefaultRoute(family));
    }
    steps.push(Step::AwaitCarrier(Side::Pod));
    steps.push(Step::AwaitCarrier(Side::Host));
    steps
}

/// `route_localnet` is not among them: it would let the pod reach what the node serves on 127.0.0.1 only. Portmap sets it
/// itself where it is wanted.
fn host_sysctls(steps: &mut Vec<Step>, host: &InterfaceName, ipv4: bool, ipv6: bool) {
    let mut set = |key, value, absent| {
        let undo = Undo::WithPair;
        steps.push(Step::Sysctl(Sysctl { side: Side::Host, key, value, absent, undo }));
    };
    if ipv4 {
        set(SysctlKey::ipv4_conf(host, "proxy_arp"), "1", Absent::Fails);
        // The default is up to 0.8 s at random before each answer.
        set(SysctlKey::ipv4_neigh(host, "proxy_delay"), "0", Absent::Fails);
        set(SysctlKey::ipv4_conf(host, "forwarding"), "1", Absent::Fails);
        // Strict: the pod sends from its own address or not at all (RFC 3704 section 2.2).
        set(SysctlKey::ipv4_conf(host, "rp_filter"), "1", Absent::Fails);
    }
    if ipv6 {
        // Before carrier: the link-local address is usable at once, and again after every time the link was down.
        set(SysctlKey::ipv6_conf(host, "accept_dad"), "0", Absent::Fails);
        set(SysctlKey::ipv6_conf(host, "disable_ipv6"), "0", Absent::Fails);
        set(SysctlKey::ipv6_conf(host, "forwarding"), "1", Absent::Fails);
    }
    // Also for a pod without IPv6: its router advertisements must not change the node's routes.
    set(SysctlKey::ipv6_conf(host, "accept_ra"), "0", Absent::IsFine);
}

fn pod_sysctls(steps: &mut Vec<Step>, pod: &InterfaceName, ipv6: bool) {
    let mut set = |key, value, absent, undo| {
        steps.push(Step::Sysctl(Sysctl { side: Side::Pod, key, value, absent, undo }));
    };
    if ipv6 {
        // Runtimes make namespaces in which new interfaces have IPv6 off.
        set(SysctlKey::global("ipv6/conf/lo/disable_ipv6"), "0", Absent::Fails, Undo::Restore);
        set(SysctlKey::ipv6_conf(pod, "disable_ipv6"), "0", Absent::Fails, Undo::WithPair);
    }
    set(SysctlKey::ipv6_conf(pod, "accept_ra"), "0", Absent::IsFine, Undo::WithPair);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairing(addresses: &[&str], sandbox: Sandbox) -> Pairing {
        Pairing {
            host: "mxabc".parse().unwrap(),
            pod: "eth0".parse().unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            mtu: 1_500,
            sandbox,
        }
    }

    fn position(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> usize {
        steps.iter().position(wanted).unwrap()
    }

    fn key(step: &Step) -> &str {
        match step {
            Step::Sysctl(sysctl) => sysctl.key.path(),
            _ => "",
        }
    }

    #[test]
    fn nothing_moves_before_sysctls_and_addresses_are_in_place() {
        let steps = plan(&pairing(&["10.65.0.2", "fd00::2"], Sandbox::default()));
        let raised = position(&steps, |step| *step == Step::RaisePod);
        for (place, step) in steps.iter().enumerate() {
            match step {
                Step::Sysctl(_) | Step::Address(_) | Step::MakePair | Step::GatewayLinkLocal => {
                    assert!(place < raised, "{step:?}");
                }
                Step::DefaultRoute(_) | Step::GatewayNeighbour(_) | Step::GatewayOnLink => {
                    assert!(place > raised, "{step:?}");
                }
                _ => {}
            }
        }
        for wanted in ["ipv4/conf/mxabc/proxy_arp", "ipv4/neigh/mxabc/proxy_delay", "ipv6/conf/mxabc/accept_dad"] {
            assert!(steps.iter().any(|step| key(step).ends_with(wanted)), "{wanted}");
        }
    }

    #[test]
    fn the_pods_namespace_is_entered_once() {
        let steps = plan(&pairing(&["10.65.0.2", "fd00::2"], Sandbox::default()));
        let sides: Vec<_> =
            steps.chunk_by(|one, next| one.side() == next.side()).map(|steps| steps[0].side()).collect();
        assert_eq!(sides, [Side::Host, Side::Pod, Side::Host]);
    }

    #[test]
    fn a_family_without_an_address_is_left_alone_but_router_advertisements_are_never_taken() {
        let steps = plan(&pairing(&["10.65.0.2"], Sandbox::default()));
        let ipv6: Vec<_> = steps.iter().filter(|step| key(step).contains("ipv6")).collect();
        assert_eq!(ipv6.len(), 2);
        for step in ipv6 {
            assert!(matches!(step, Step::Sysctl(Sysctl { absent: Absent::IsFine, .. })), "{step:?}");
            assert!(key(step).ends_with("accept_ra"));
        }
        let steps = plan(&pairing(&["fd00::2"], Sandbox::default()));
        assert!(!steps.iter().any(|step| key(step).contains("ipv4") || *step == Step::GatewayAddress));
    }

    #[test]
    fn another_networks_default_route_stays_and_ours_is_not_put() {
        let sandbox = Sandbox { loopback_up: true, default_routes: BTreeSet::from([Family::Ipv4]) };
        let pairing = pairing(&["10.65.0.2", "fd00::2"], sandbox);
        let steps = plan(&pairing);
        assert!(!steps.contains(&Step::DefaultRoute(Family::Ipv4)) && !steps.contains(&Step::GatewayOnLink));
        assert!(steps.contains(&Step::DefaultRoute(Family::Ipv6)));
        assert!(!steps.contains(&Step::RaiseLoopback));
        assert_eq!(pairing.default_routes().collect::<Vec<_>>(), [Family::Ipv6]);
    }

    #[test]
    fn only_the_nodes_shared_address_outlives_a_failure() {
        let steps = plan(&pairing(&["10.65.0.2", "fd00::2"], Sandbox::default()));
        let stays: Vec<_> = steps.iter().filter(|step| step.undo() == Undo::Stays).collect();
        assert_eq!(stays, [&Step::GatewayAddress]);
    }
}
