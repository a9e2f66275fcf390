//! What of the network itself is closed to pods, whatever policies say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use types::Family;
use types::policy::{Flow, Labels, Protocol};
use types::selector::Selector;

/// The UDP ports of BFD: control and echo (RFC 5881 section 4), and control over several hops (RFC 5883 section 5).
const BFD_PORTS: [u16; 3] = [3784, 3785, 4784];

/// The port of BGP (RFC 4271 section 8.2.1).
const BGP_PORT: u16 = 179;

/// The UDP ports that are closed to pods wherever a speaker is: those of BFD, and the one at which hosts take answers of DHCP
/// (RFC 2131 section 4.1, RFC 8415 section 7.2).
pub(crate) fn closed_udp_ports(family: Family) -> impl Iterator<Item = u16> + Clone {
    let dhcp_client = match family {
        Family::Ipv4 => 68,
        Family::Ipv6 => 546,
    };
    BFD_PORTS.into_iter().chain([dhcp_client])
}

/// Who routes for the pods, and which pods are routers themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Infrastructure {
    /// The addresses of all nodes and of all configured peers, each with the TCP port that its speaker listens on. At each
    /// of them the ports of BFD and that of DHCP's clients are closed as well.
    pub speakers: BTreeSet<(IpAddr, u16)>,
    /// The port of this node's own speaker: it is closed at every address of the node.
    pub own_port: u16,
    /// Pods of this node that it peers with: to them its speaker is open.
    pub routers: Vec<Selector>,
}

impl Default for Infrastructure {
    fn default() -> Self {
        Self { speakers: BTreeSet::new(), own_port: BGP_PORT, routers: Vec::new() }
    }
}

impl Infrastructure {
    /// The TCP ports that a speaker listens on somewhere.
    pub(crate) fn speaker_ports(&self) -> BTreeSet<u16> {
        self.speakers.iter().map(|(_, port)| *port).chain([self.own_port]).collect()
    }

    /// The closed ports of a family.
    pub(crate) fn closed(&self, family: Family) -> impl Iterator<Item = (IpAddr, Protocol, u16)> {
        let of_family = self.speakers.iter().filter(move |(address, _)| Family::of(*address) == family);
        of_family.flat_map(move |(address, port)| {
            let udp = closed_udp_ports(family).map(|port| (*address, Protocol::Udp, port));
            udp.chain([(*address, Protocol::Tcp, *port)])
        })
    }

    /// Whether a pod with these labels is one that the node peers with.
    pub(crate) fn is_router(&self, labels: &Labels) -> bool {
        self.routers.iter().any(|selector| selector.matches(labels))
    }

    /// Whether what a flow goes to is closed to pods.
    pub(crate) fn is_closed(&self, flow: &Flow) -> bool {
        let is_meant = |(address, protocol, port)| {
            address == flow.destination && Some(protocol) == flow.protocol && port == flow.port
        };
        self.closed(Family::of(flow.destination)).any(is_meant)
    }
}
