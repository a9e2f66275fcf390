//! The resource Node.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Asn, ClusterId, Family};

/// What the operator says of a node; each field wins over what the node's agent found out by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// The node as a BGP speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
}

impl NodeSpec {
    pub(super) fn problem(&self) -> Option<String> {
        let bgp = self.bgp.as_ref()?;
        let wrong = |name: &str, text: &Option<String>, family: Family| {
            let text = text.as_ref()?;
            match address(text) {
                Some(address) if Family::of(address) == family => None,
                _ => Some(format!("bgp.{name}: {text:?} is not an {family} address")),
            }
        };
        wrong("ipv4Address", &bgp.ipv4_address, Family::Ipv4)
            .or_else(|| wrong("ipv6Address", &bgp.ipv6_address, Family::Ipv6))
    }
}

/// The node as a BGP speaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeBgp {
    /// The node's own AS number (default: that of BGPConfiguration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<Asn>,
    /// The IPv4 address that the node peers from, with or without a prefix length.
    #[serde(default, rename = "ipv4Address", skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<String>,
    /// The IPv6 address that the node peers from, with or without a prefix length.
    #[serde(default, rename = "ipv6Address", skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<String>,
    /// The node is a route reflector of this cluster (RFC 4456) and not part of the mesh.
    #[serde(default, rename = "routeReflectorClusterID", skip_serializing_if = "Option::is_none")]
    pub route_reflector_cluster_id: Option<ClusterId>,
}

impl NodeBgp {
    /// The address of the family, where the operator gave one.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let text = match family {
            Family::Ipv4 => self.ipv4_address.as_ref()?,
            Family::Ipv6 => self.ipv6_address.as_ref()?,
        };
        address(text)
    }
}

/// An address, or an address with a prefix length as Calico writes it.
fn address(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}
