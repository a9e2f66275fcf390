//! A cluster as a test sees it: the parties in it, and the policies.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// A cluster: namespaces, nodes, pods, hosts outside, and policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// Namespaces with their labels, `kubernetes.io/metadata.name` among them where somebody set it.
    pub namespaces: BTreeMap<String, Labels>,
    /// Nodes with their addresses; pods in the host's network have these.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
    /// The pods, including those that have ended until their object is gone.
    pub pods: BTreeMap<PodName, Pod>,
    /// Hosts outside the cluster.
    pub externals: BTreeMap<String, Vec<IpAddr>>,
    /// The `spec` of every NetworkPolicy, as it was written.
    pub policies: BTreeMap<PolicyName, Value>,
}

/// The name of a pod in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

/// The name of a policy in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// The namespace.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
}

/// A pod, as its object describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The pod's labels.
    pub labels: Labels,
    /// The name of the node that the pod is on.
    pub node: String,
    /// The pod's addresses; none before it has any. In the host's network they are its node's.
    pub addresses: Vec<IpAddr>,
    /// The ports that its containers name.
    pub ports: Vec<NamedPort>,
    /// The phase of the pod's life.
    pub phase: Phase,
    /// Whether the pod shares the network of its node.
    pub host_network: bool,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The port's name.
    pub name: String,
    /// The port's protocol; never ICMP.
    pub protocol: Protocol,
    /// The port's number.
    pub number: u16,
}

/// The phase of a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all containers run yet; the pod's init containers may.
    Pending,
    /// The pod runs.
    Running,
    /// The pod has ended well.
    Succeeded,
    /// The pod has ended badly.
    Failed,
}

impl Phase {
    /// Whether nothing runs in the pod any more, so that its address may already be another pod's.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An ICMP or ICMPv6 echo request. The port has no meaning.
    Icmp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp];
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, after services have been translated.
    pub destination: IpAddr,
    /// The packet's protocol.
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

    /// Every party with addresses that can be at an end of a packet: pods that run in networks of their own, nodes,
    /// hosts outside.
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
    /// A few lines, one for each object of the world, which a failed property prints.
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
