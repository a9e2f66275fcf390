//! Workload endpoints: one interface of one pod.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::policy::Protocol;
use crate::{ContainerId, Family, InterfaceName, NameError, NetworkName};

/// What identifies an attachment (CNI spec section 2, "Parameters"): network, container and interface.
///
/// As a key of the store it is `NETWORK/CONTAINER/INTERFACE` with the slashes kept out of every part by their types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId {
    /// The CNI network's name.
    pub network: NetworkName,
    /// The container id of the sandbox.
    pub container: ContainerId,
    /// The interface's name inside the sandbox.
    pub interface: InterfaceName,
}

impl EndpointId {
    /// The name of the host's end of this attachment.
    pub fn host_interface(&self) -> InterfaceName {
        InterfaceName::of_attachment(&self.container, &self.interface)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.interface)
    }
}

impl From<EndpointId> for String {
    fn from(id: EndpointId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for EndpointId {
    type Error = EndpointIdError;
    fn try_from(text: String) -> Result<Self, EndpointIdError> {
        text.parse()
    }
}

impl FromStr for EndpointId {
    type Err = EndpointIdError;
    fn from_str(text: &str) -> Result<Self, EndpointIdError> {
        let mut parts = text.split('/');
        let (Some(network), Some(container), Some(interface), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(EndpointIdError::Parts(text.to_owned()));
        };
        Ok(Self { network: network.parse()?, container: container.parse()?, interface: interface.parse()? })
    }
}

/// Why a text is not an endpoint's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointIdError {
    /// The text does not have three parts.
    #[error("{0:?} is not NETWORK/CONTAINER/INTERFACE")]
    Parts(String),
    /// A part of the text is not a name of its kind.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The pod that an endpoint belongs to, as the runtime named it in CNI_ARGS (or, outside Kubernetes, namespace `default`
/// and the container's id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_UID, where the runtime passes it.
    pub name: String,
    /// K8S_POD_UID, where the runtime says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A named port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The port's name.
    pub name: String,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
}

/// One interface of one pod on this node: who it is, and what was given to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadEndpoint {
    /// The id of the attachment.
    pub id: EndpointId,
    /// The pod that the interface belongs to.
    pub pod: PodRef,
    /// The host's end of the veth pair.
    pub host_interface: InterfaceName,
    /// The addresses, at most one per family, each out of a block of this node (or borrowed by it).
    pub addresses: Vec<IpAddr>,
    /// The subnets of the addresses, in their order, where another plugin wires the interface and has asked for addresses alone.
    /// None: the interface is one end of a pair of links of this node, and its addresses have no subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// The pod's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The pod's named ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// The pod has ended (Succeeded, Failed): its address is nobody's peer any more, though it is not given back yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

impl WorkloadEndpoint {
    /// Whether another plugin has made the interface: it has no link, no route and no rule of ours.
    pub fn is_wired_elsewhere(&self) -> bool {
        !self.subnets.is_empty()
    }

    /// Every address that nobody else may have: its own, and of a subnet of two the gateway.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let pairs = self.addresses.iter().zip(&self.subnets).filter(|(address, subnet)| subnet.is_pair(**address));
        self.addresses.iter().copied().chain(pairs.map(|(_, subnet)| subnet.gateway))
    }
}

/// What plugins that wire by themselves are told beside an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The length of the prefix.
    pub length: u8,
    /// The gateway, an address of the subnet.
    pub gateway: IpAddr,
}

impl Subnet {
    /// Whether it has no room for others than the address and its gateway.
    pub fn is_pair(&self, address: IpAddr) -> bool {
        self.length + 1 == Family::of(address).bits()
    }
}

/// The kind of link that a plugin makes which wires by itself: it decides what a gateway has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The interface and its node alone are on the link (ptp): each attachment has a gateway of its own.
    PointToPoint,
    /// Others of the same network are on it (bridge, macvlan): all of a node have one subnet and one gateway.
    Shared,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_later_version_adds_to_a_stored_endpoint_is_passed_over_at_every_level() {
        let endpoint: WorkloadEndpoint = serde_json::from_value(json!({
            "id": "manx/0123abc/eth0",
            "pod": { "namespace": "default", "name": "web", "next": 1 },
            "host_interface": "mxabc",
            "addresses": ["10.42.0.7"],
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "next": 1 }],
            "next": { "of": [1] },
        }))
        .unwrap();
        assert_eq!(endpoint.ports, [EndpointPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80 }]);
    }
}
