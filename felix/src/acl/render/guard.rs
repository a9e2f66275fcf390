//! What is closed to pods whatever policies say: speakers of BGP and BFD, encapsulations, and the node's own ends of pods' links.
//!
//! ```text
//!   mangle FORWARD ─► manx-forward ── -i mx+ ─► manx-guard ────┐
//!   mangle INPUT ─ -i mx+ ─► manx-input ──────► manx-guard-in ─┴─► manx-refuse
//! ```
//!
//! Both come ahead of what connection tracking says, so that no connection of before goes on, and behind the translation of
//! destinations and ahead of that of sources, so that neither a Service nor a masquerade leads past them. Most packets leave
//! by the first rule of their protocol; only what has one of the ports is looked up in a set.

use std::collections::BTreeSet;

use types::Family;
use types::cni::GATEWAY_IPV4;
use types::policy::Direction;

use super::{DROP, Layout, RETURN, Rule, Rules, nflog};
use crate::acl::names::{self, SetRef};
use crate::policy::closed_udp_ports;

/// What multiport takes (XT_MULTI_PORTS).
const MULTIPORT: usize = 15;

/// UDP ports that Linux takes VXLAN at: the assigned one (RFC 7348 section 5), and its own from before.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];

/// Protocols that carry packets of their own: IPv4 (RFC 2003), IPv6 (RFC 4213), GRE (RFC 2784), ESP (RFC 4303).
const TUNNELS: [u8; 4] = [4, 41, 47, 50];

/// AH (RFC 4302). In IPv6 it is an extension header that iptables looks behind.
const AH: u8 = 51;

/// What the guards depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// TCP ports that a speaker listens on somewhere, this node's among them.
    pub(crate) ports: BTreeSet<u16>,
    /// The port that this node's speaker listens on.
    pub(crate) own_port: u16,
    /// Whether pods may send VXLAN.
    pub(crate) vxlan: bool,
    /// Whether pods may send what else encapsulates.
    pub(crate) tunnels: bool,
}

/// What passes from pods to elsewhere.
pub(super) fn forward(layout: &Layout, family: Family) -> Rules {
    let mut rules = ordinary(&layout.guard, family);
    rules.push(icmp(family));
    rules.extend(encapsulations(&layout.guard, family));
    rules.extend(["dst,dst", "dst,src"].map(|ends| refuse(&in_speakers(family, ends))));
    rules.into()
}

/// What passes from pods to their own node, where a closed port is closed at every address. The pods that this node peers with
/// speak BGP and BFD to it.
pub(super) fn input(layout: &Layout, family: Family) -> Rules {
    let guard = &layout.guard;
    let mut rules = vec![match family {
        Family::Ipv4 => refuse(&format!("-d {GATEWAY_IPV4}/32 ! -p icmp")),
        Family::Ipv6 => refuse("-d fe80::/10 ! -p ipv6-icmp"),
    }];
    rules.extend(ordinary(guard, family));
    rules.extend(router_messages(family));
    rules.push(icmp(family));
    rules.extend(encapsulations(guard, family));
    rules.push(Rule::new(&format!("-m set --match-set {} src", SetRef::Routers(family)), RETURN));
    rules.push(refuse(&format!("-p tcp -m tcp --dport {}", guard.own_port)));
    rules.push(refuse(&format!("-p udp -m multiport --dports {}", list(closed_udp_ports(family)))));
    // The set knows the port of this node's speaker also before the agent has told it.
    rules.extend(["dst,dst", "dst,src"].map(|ends| refuse(&in_speakers(family, ends))));
    rules.into()
}

/// A Service leads nobody to a speaker, wherever it comes in: kube-proxy would put this node's address on it.
pub(super) fn translated(family: Family) -> Rule {
    refuse(&format!("-m conntrack --ctstate DNAT {}", in_speakers(family, "dst,dst")))
}

/// Where what is closed to pods ends.
pub(super) fn refused(layout: &Layout) -> Rules {
    let log = layout.log.map(|group| Rule::new("", &nflog(group, Direction::Egress, 0)));
    log.into_iter().chain([Rule::new("", DROP)]).collect()
}

/// By which most packets leave: they have none of the ports.
fn ordinary(guard: &Guard, family: Family) -> Vec<Rule> {
    let others = |protocol, ports: BTreeSet<u16>| {
        let matches = format!("-p {protocol} -m multiport ! --ports {}", list(ports.iter().copied()));
        (ports.len() <= MULTIPORT).then(|| Rule::new(&matches, RETURN))
    };
    let mut udp: BTreeSet<u16> = closed_udp_ports(family).collect();
    udp.extend(VXLAN_PORTS);
    [others("tcp", guard.ports.clone()), others("udp", udp)].into_iter().flatten().collect()
}

fn icmp(family: Family) -> Rule {
    Rule::new(
        match family {
            Family::Ipv4 => "-p icmp",
            Family::Ipv6 => "-p ipv6-icmp",
        },
        RETURN,
    )
}

/// What only a router may say: redirects (RFC 792), and router advertisements and redirects (RFC 4861 sections 4.2 and 4.5).
/// They are for a link, so that no other node is to be kept from them.
fn router_messages(family: Family) -> Vec<Rule> {
    match family {
        Family::Ipv4 => vec![refuse("-p icmp -m icmp --icmp-type 5")],
        Family::Ipv6 => [134, 137].map(|kind| refuse(&format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}"))).into(),
    }
}

fn encapsulations(guard: &Guard, family: Family) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !guard.vxlan {
        rules.push(refuse(&format!("-p udp -m multiport --dports {}", list(VXLAN_PORTS))));
    }
    if !guard.tunnels {
        let ah = (family == Family::Ipv4).then_some(AH);
        rules.extend(TUNNELS.into_iter().chain(ah).map(|protocol| refuse(&format!("-p {protocol}"))));
    }
    rules
}

/// The destination is a speaker's, and the port of the packet that is meant here is one of those that are closed there.
fn in_speakers(family: Family, ends: &str) -> String {
    format!("-m set --match-set {} {ends}", SetRef::Speakers(family))
}

fn refuse(matches: &str) -> Rule {
    Rule::new(matches, &format!("-g {}", names::REFUSE))
}

fn list(ports: impl IntoIterator<Item = u16>) -> String {
    ports.into_iter().map(|port| port.to_string()).collect::<Vec<_>>().join(",")
}
