//! A cluster as a test sees it: who is there, and which policies stand.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// Namespaces with their labels, `kubernetes.io/metadata.name` among them where somebody set it.
    pub namespaces: BTreeMap<String, Labels>,
    /// Nodes with their addresses; pods in the host's network have these.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Pods, the ended ones too until their object is gone.
    pub pods: BTreeMap<PodName, Pod>,
    /// Hosts outside the cluster.
    pub externals: BTreeMap<String, Vec<IpAddr>>,
    /// The `spec` of every NetworkPolicy, as it was written.
    pub policies: BTreeMap<PolicyName, Value>,
}

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Namespace and name of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its labels.
    pub labels: Labels,
    /// The node that it is on.
    pub node: String,
    /// Its addresses; none while it has none yet. Those of its node, where it is in the host's network.
    pub addresses: Vec<IpAddr>,
    /// The ports that its containers name.
    pub ports: Vec<NamedPort>,
    /// How far it is.
    pub phase: Phase,
    /// It shares the network of its node.
    pub host_network: bool,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its protocol; never ICMP.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// The phase of a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all its containers run yet; its init containers may.
    Pending,
    /// It runs.
    Running,
    /// It has ended well.
    Succeeded,
    /// It has ended badly.
    Failed,
}

impl Phase {
    /// Whether nothing runs any more, so that the address may already be another pod's.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, or ICMPv6: an echo request. The port has no meaning.
    Icmp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp];
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// From where.
    pub source: IpAddr,
    /// To where: what the destination is after services are translated.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
}

impl World {
    /// The pod that an address belongs to: neither an ended one (whose address may have been given on) nor one in the host's
    /// network (whose address is the node's).
    pub fn pod_at(&self, address: IpAddr) -> Option<(&PodName, &Pod)> {
        self.pods
            .iter()
            .find(|(_, pod)| !pod.host_network && !pod.phase.has_ended() && pod.addresses.contains(&address))
    }

    /// Whether a node has this address.
    pub fn is_address_of_node(&self, node: &str, address: IpAddr) -> bool {
        self.nodes.get(node).is_some_and(|addresses| addresses.contains(&address))
    }

    /// Everybody who can be at an end of a packet, with addresses: pods that run in networks of their own, nodes, hosts outside.
    pub fn parties(&self) -> Vec<(String, Vec<IpAddr>)> {
        let pods = self.pods.iter().filter(|(_, pod)| !pod.host_network && !pod.phase.has_ended());
        pods.map(|(name, pod)| (name.to_string(), pod.addresses.clone()))
            .chain(self.nodes.iter().map(|(name, addresses)| (name.clone(), addresses.clone())))
            .chain(self.externals.iter().map(|(name, addresses)| (name.clone(), addresses.clone())))
            .collect()
    }
}

impl PodName {
    /// A pod's name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl PolicyName {
    /// A policy's name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", self.source, self.destination, self.protocol)?;
        if self.protocol == Protocol::Icmp { Ok(()) } else { write!(f, " {}", self.port) }
    }
}

impl fmt::Display for World {
    /// A few lines, one for each thing that is there: what a failed property prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, labels) in &self.namespaces {
            writeln!(f, "namespace {name} {{{}}}", Comma(labels.iter().map(|(key, value)| format!("{key}={value}"))))?;
        }
        for (name, addresses) in self.nodes.iter().chain(&self.externals) {
            let kind = if self.nodes.contains_key(name) { "node" } else { "outside" };
            writeln!(f, "{kind} {name} {}", Comma(addresses.iter()))?;
        }
        for (name, pod) in &self.pods {
            let labels = Comma(pod.labels.iter().map(|(key, value)| format!("{key}={value}")));
            write!(f, "pod {name} on {} {} {{{labels}}}", pod.node, Comma(pod.addresses.iter()))?;
            for port in &pod.ports {
                write!(f, " {}={}/{}", port.name, port.protocol, port.number)?;
            }
            match pod.phase {
                Phase::Running => {}
                phase => write!(f, " {phase:?}")?,
            }
            writeln!(f, "{}", if pod.host_network { " host network" } else { "" })?;
        }
        for (name, spec) in &self.policies {
            writeln!(f, "policy {name} {spec}")?;
        }
        Ok(())
    }
}

struct Comma<I>(I);

impl<I: Iterator + Clone> fmt::Display for Comma<I>
where
    I::Item: fmt::Display,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.clone().enumerate() {
            write!(f, "{}{item}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
