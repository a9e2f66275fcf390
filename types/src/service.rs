//! What Manx needs of Services and of what stands behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::{Family, NamespacedName, Prefix};

/// The part of a Service that its addresses and their announcement follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `metadata.uid`: which of the objects that have had this name.
    pub uid: String,
    /// `metadata.resourceVersion`: which state of the object this is.
    pub version: String,
    /// `metadata.creationTimestamp`, RFC 3339 in UTC: the order of texts is that of times.
    pub created: String,
    /// Whether its type is `LoadBalancer` and it is not being deleted.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// The families that it is to have addresses of.
    pub families: Vec<Family>,
    /// `spec.clusterIPs`, without `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of `status.loadBalancer.ingress`.
    pub ingress: Vec<IpAddr>,
    /// Whether a host name stands in `status.loadBalancer.ingress`, put there by somebody else.
    pub has_ingress_hostname: bool,
    /// Whether `externalTrafficPolicy` is `Local`: a client from outside is served on the node where it comes in, or
    /// not at all.
    pub is_local: bool,
    /// Its ports on every node, of whatever protocol: `nodePort` of its ports, and `healthCheckNodePort`.
    pub node_ports: BTreeSet<u16>,
    /// What it asks for of its addresses.
    pub requested: Requested,
    /// The condition about its addresses in its status, if it is ours.
    pub said: Option<AddressCondition>,
}

/// The addresses that a Service asks for, for load balancing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// The addresses asked for: `spec.loadBalancerIP` and the annotation `projectcalico.org/loadBalancerIPs`.
    pub addresses: Vec<IpAddr>,
    /// Names or ranges of pools of a family, by the annotations `projectcalico.org/ipv4pools` and `ipv6pools`.
    pub pools: Vec<(Family, Vec<String>)>,
    /// The parts of the request that cannot be read, in words.
    pub problem: Option<String>,
}

/// The condition in a Service's status that says whether it has its addresses, and that they are ours to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressCondition {
    /// Whether it has all the addresses that it is to have.
    pub is_met: bool,
    /// The reason in one word, for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl AddressCondition {
    /// The `type` of the condition.
    pub const TYPE: &str = "manx.io/LoadBalancerAddresses";
}

/// The part of an EndpointSlice that announcements follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service that the slice belongs to; none if it belongs to none.
    pub service: Option<NamespacedName>,
    /// The family of the slice's addresses; none if they are names.
    pub family: Option<Family>,
    /// The nodes that have a ready endpoint in the slice, each once, in order.
    pub ready_nodes: Vec<String>,
}

/// The ranges of Services' addresses that all nodes announce (BGPConfiguration).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRanges {
    /// `serviceClusterIPs`.
    pub cluster: Vec<Prefix>,
    /// `serviceExternalIPs`.
    pub external: Vec<Prefix>,
    /// `serviceLoadBalancerIPs`.
    pub load_balancer: Vec<Prefix>,
    /// Whether `serviceLoadBalancerAggregation` is `Disabled`: then no range of `load_balancer` is announced, but each
    /// address that a Service has.
    pub load_balancer_apart: bool,
}

impl ServiceRanges {
    /// Every range that is announced or whose addresses are.
    pub fn all(&self) -> impl Iterator<Item = &Prefix> {
        self.cluster.iter().chain(&self.external).chain(&self.load_balancer)
    }

    /// Whether nothing is to be announced.
    pub const fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.external.is_empty() && self.load_balancer.is_empty()
    }
}
