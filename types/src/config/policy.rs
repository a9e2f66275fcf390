//! `policy.*`: how policies are enforced.

use std::str::FromStr;

/// `policy.*`: how policies are enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// `policy.endpointToHost`: what becomes of a pod's traffic to its own node. By default `accept`.
    pub endpoint_to_host: EndpointToHost,
    /// `policy.allowVXLANPacketsFromWorkloads`: whether pods may send VXLAN (UDP to port 4789 or 8472). By default `false`.
    pub allow_vxlan: bool,
    /// `policy.allowIPIPPacketsFromWorkloads`: whether pods may send what else carries packets of its own: IPIP, SIT, GRE and
    /// IPsec. By default `false`.
    pub allow_tunnels: bool,
    /// `policy.natOutgoingExclusions`: which destinations the masquerade of pools with `natOutgoing` leaves out. By default
    /// `IPPoolsOnly`.
    pub nat_outgoing_exclusions: NatOutgoingExclusions,
    /// `policy.cutConnections`: whether a tightened policy also ends the connections that it forbids. By default `true`.
    pub cut_connections: bool,
    /// `policy.iptables`: the variant to use. By default (`auto`) the one that the host's other programs use.
    pub iptables: Option<IptablesVariant>,
    /// `policy.logGroup`: the NFLOG group that denied packets are shown on while somebody looks, 0 to 65535. By default 77.
    pub log_group: u16,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            endpoint_to_host: EndpointToHost::Accept,
            allow_vxlan: false,
            allow_tunnels: false,
            nat_outgoing_exclusions: NatOutgoingExclusions::IpPoolsOnly,
            cut_connections: true,
            iptables: None,
            log_group: 77,
        }
    }
}

/// What becomes of traffic from a pod to the node that it is on. The other way round is always open (Kubernetes: a node
/// reaches its own pods whatever policies say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointToHost {
    /// `accept`: it is let through, whatever policies say, as Kubernetes documents it.
    Accept,
    /// `policed`: the pod's egress policies decide.
    Policed,
    /// `drop`: it is dropped, but for answers and neighbour discovery.
    Drop,
}

impl FromStr for EndpointToHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "accept" => Ok(Self::Accept),
            "policed" => Ok(Self::Policed),
            "drop" => Ok(Self::Drop),
            _ => Err("not accept, policed or drop"),
        }
    }
}

/// Which destinations the masquerade of pools with `natOutgoing` leaves out, by the names that `projectcalico.org/v3` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatOutgoingExclusions {
    /// `IPPoolsOnly`: addresses of pools.
    IpPoolsOnly,
    /// `IPPoolsAndHostIPs`: those, and the addresses that nodes peer from. Nodes then see the pod's own address, and need a way
    /// back to it.
    IpPoolsAndHostIps,
}

impl FromStr for NatOutgoingExclusions {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "ippoolsonly" => Ok(Self::IpPoolsOnly),
            "ippoolsandhostips" => Ok(Self::IpPoolsAndHostIps),
            _ => Err("not IPPoolsOnly or IPPoolsAndHostIPs"),
        }
    }
}

/// The two implementations of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IptablesVariant {
    /// `nft`: `iptables-nft`, over nftables.
    Nft,
    /// `legacy`: `iptables-legacy`, the older tables, changed as a whole under a lock.
    Legacy,
}
