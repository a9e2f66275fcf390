//! Nodes as the cluster knows them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resource::{Metadata, NodeSpec};
use crate::{Asn, ClusterId, Family, NodeName, Prefix};

/// What a node's agent says of its node: `nodes/NAME/registration`. It stays until the node is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The IPv4 address that the node peers from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that the node peers from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The port that its speaker listens on, where the agent's configuration sets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// The AS number of the node, where Kubernetes' Node object has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<Asn>,
    /// The cluster id under which the node reflects routes, where Kubernetes' Node object has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// The labels of Kubernetes' Node object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The subnets of its addresses. An agent that says them sends all of BGP with TTL 255, and the node reaches others on
    /// those subnets without a router: they may drop what comes from farther away (RFC 5082).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ttl_security_subnets: Vec<Prefix>,
    /// The version of the node's agent.
    pub agent_version: String,
}

impl Registration {
    /// Sets the addresses that the node peers from: of those given, the first of each family.
    pub fn put_addresses(&mut self, addresses: &[IpAddr]) {
        self.ipv4 =
            addresses.iter().find_map(|address| if let IpAddr::V4(ipv4) = address { Some(*ipv4) } else { None });
        self.ipv6 =
            addresses.iter().find_map(|address| if let IpAddr::V6(ipv6) = address { Some(*ipv6) } else { None });
    }
}

/// That a node's agent is alive, and which one: `nodes/NAME/alive`, under a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alive {
    /// The agent's instance: it changes when the journal, the boot or the network namespace is another.
    pub instance: String,
}

/// Marks a node that is gone: `elected/gone/NAME`. What the node had is taken back when it has been gone for long
/// enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// When the elected agent noticed, in seconds of Unix time on its clock. It is for people to read; nothing rests on
    /// it.
    pub since: u64,
    /// For how long of the grace period elected agents have seen it gone, as far as that is noted: in whole seconds.
    #[serde(default, with = "whole_seconds")]
    pub waited: Duration,
    /// Whether everything that the node had has been taken back, so that this mark has no effect any more.
    #[serde(default)]
    pub reclaimed: bool,
}

/// A span of time as the store has it: a number of seconds. Parts of a second are dropped.
mod whole_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(span.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// Who has claimed a block: `blocks/CIDR`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockClaim {
    /// The node that owns the block.
    pub owner: NodeName,
}

/// A node, from its agent's registration and the operator's Node resource, which wins field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// The node's name.
    pub name: NodeName,
    /// The IPv4 address that the node peers from.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that the node peers from.
    pub ipv6: Option<Ipv6Addr>,
    /// The node's own AS number, where it has one.
    pub asn: Option<Asn>,
    /// The port of the node's speaker, where it differs from the others'.
    pub listen_port: Option<u16>,
    /// The cluster id under which the node reflects routes, where it does.
    pub cluster_id: Option<ClusterId>,
    /// The node's labels, which selectors look at.
    pub labels: BTreeMap<String, String>,
    /// Its subnets, where it sends BGP with TTL 255: see [`Registration::ttl_security_subnets`].
    pub ttl_security_subnets: Vec<Prefix>,
}

impl ClusterNode {
    /// A node that has only this name.
    pub fn new(name: NodeName, registration: Option<&Registration>, resource: Option<(&Metadata, &NodeSpec)>) -> Self {
        let bgp = resource.and_then(|(_, spec)| spec.bgp.as_ref());
        let said = |family| match bgp?.address(family) {
            Some(IpAddr::V4(address)) => Some((Some(address), None)),
            Some(IpAddr::V6(address)) => Some((None, Some(address))),
            None => None,
        };
        let mut labels = registration.map(|registration| registration.labels.clone()).unwrap_or_default();
        labels.extend(resource.into_iter().flat_map(|(metadata, _)| metadata.labels.clone()));
        labels.entry("kubernetes.io/hostname".to_owned()).or_insert_with(|| name.to_string());
        Self {
            ipv4: said(Family::Ipv4).map_or_else(|| registration.and_then(|r| r.ipv4), |(ipv4, _)| ipv4),
            ipv6: said(Family::Ipv6).map_or_else(|| registration.and_then(|r| r.ipv6), |(_, ipv6)| ipv6),
            asn: bgp.and_then(|bgp| bgp.as_number).or_else(|| registration.and_then(|r| r.as_number)),
            listen_port: registration.and_then(|r| r.listen_port),
            cluster_id: bgp
                .and_then(|bgp| bgp.route_reflector_cluster_id)
                .or_else(|| registration.and_then(|r| r.cluster_id)),
            ttl_security_subnets: registration.map(|r| r.ttl_security_subnets.clone()).unwrap_or_default(),
            labels,
            name,
        }
    }

    /// The address of the family that the node peers from.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.ipv4.map(IpAddr::V4),
            Family::Ipv6 => self.ipv6.map(IpAddr::V6),
        }
    }

    /// The addresses that the node peers from: at most one per family.
    pub fn addresses(&self) -> Vec<IpAddr> {
        Family::ALL.into_iter().filter_map(|family| self.address(family)).collect()
    }

    /// Whether the node and another say both, of themselves, that no router is between it and the other's address, and send
    /// with the TTL that shows it (RFC 5082).
    pub fn shows_to_neighbour(&self, other: &Self, family: Family) -> bool {
        let reaches = |from: &Self, to: &Self| {
            to.address(family).is_some_and(|to| from.ttl_security_subnets.iter().any(|subnet| subnet.contains(to)))
        };
        reaches(self, other) && reaches(other, self)
    }

    /// The prefix of the node's own address of the family.
    pub fn host_prefix(&self, family: Family) -> Option<Prefix> {
        self.address(family).map(Prefix::host)
    }
}

#[cfg(test)]
mod tests;
