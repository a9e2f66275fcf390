//! Host ports that a node chooses for a pod: what a pod asks for, what it is given, and how the Pod object says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::policy::Protocol;
use crate::{InterfaceName, NetworkName};

/// The annotation by which a pod asks for host ports: `auto`, or a list of container ports.
pub const WISH_ANNOTATION: &str = "manx.io/hostport";

/// The annotation by which the node says which ones the pod has.
pub const GIVEN_ANNOTATION: &str = "manx.io/hostports";

/// The name of the network under which portmap maps an attachment's host ports: portmap's chains are named after network and
/// container, and say the network in their rules' comments.
pub fn mapping_network(network: &NetworkName, host_interface: &InterfaceName) -> String {
    format!("{network}{MAPPING_NETWORK}{host_interface}")
}

/// Of which attachment, by its host interface, portmap maps host ports under this name; none: it is another network.
pub fn mapped_interface(network: &str) -> Option<InterfaceName> {
    let (_, interface) = network.rsplit_once(MAPPING_NETWORK)?;
    interface.parse::<InterfaceName>().ok().filter(InterfaceName::is_ours)
}

const MAPPING_NETWORK: &str = "-hostports-";

/// Container ports with the protocols that each is asked for in.
pub type Wanted = BTreeMap<u16, BTreeSet<Protocol>>;

/// A port that a pod declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredPort {
    /// The port's protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's port that the pod names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}

/// What a pod says of host ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPorts {
    /// The value of [`WISH_ANNOTATION`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<String>,
    /// The value of [`GIVEN_ANNOTATION`], whoever has written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// The ports of all containers that run beside each other; without a wish only those that name a host port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<DeclaredPort>,
}

impl PodPorts {
    /// Whether there is nothing that concerns host ports.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The container ports that are asked for; none: the pod asks for nothing.
    pub fn wanted(&self) -> Result<Option<Wanted>, WishError> {
        let Some(wish) = &self.wish else { return Ok(None) };
        let wanted = if wish.trim() == "auto" { self.all_declared()? } else { self.listed(wish)? };
        let sctp = wanted.iter().find(|(_, protocols)| protocols.contains(&Protocol::Sctp));
        match sctp {
            Some((port, _)) => Err(WishError::Sctp(*port)),
            None => Ok(Some(wanted)),
        }
    }

    fn all_declared(&self) -> Result<Wanted, WishError> {
        let mut wanted = Wanted::new();
        for DeclaredPort { protocol, container_port, .. } in &self.declared {
            wanted.entry(*container_port).or_default().insert(*protocol);
        }
        if wanted.is_empty() { Err(WishError::NothingDeclared) } else { Ok(wanted) }
    }

    /// Of a list `8080, 53/UDP`. A port without a protocol is meant in those in which it is declared, else in TCP.
    fn listed(&self, wish: &str) -> Result<Wanted, WishError> {
        let mut wanted = Wanted::new();
        for item in wish.split(',').map(str::trim) {
            let malformed = || WishError::Malformed(item.to_owned());
            let (port, protocol) = match item.split_once('/') {
                None => (item, None),
                Some((port, protocol)) => {
                    (port, Some(protocol.to_ascii_uppercase().parse::<Protocol>().map_err(|_| malformed())?))
                }
            };
            let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(malformed)?;
            let declared = self.declared.iter().filter(|declared| declared.container_port == port);
            let mut protocols: BTreeSet<_> = match protocol {
                Some(protocol) => BTreeSet::from([protocol]),
                None => declared.map(|declared| declared.protocol).collect(),
            };
            if protocols.is_empty() {
                protocols.insert(Protocol::Tcp);
            }
            wanted.entry(port).or_default().extend(protocols);
        }
        Ok(wanted)
    }
}

/// A pod asks for host ports in a way that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// An item of the list is no container port.
    #[error("annotation {WISH_ANNOTATION}: {0:?} is neither auto nor a container port such as 8080 or 53/UDP")]
    Malformed(String),
    /// All declared ports are asked for, and there is none.
    #[error(
        "annotation {WISH_ANNOTATION}: auto, but no container of the pod declares a port; list container ports instead"
    )]
    NothingDeclared,
    /// The port is one of SCTP.
    #[error(
        "annotation {WISH_ANNOTATION}: container port {0}/SCTP: host ports are of TCP and UDP; list the others instead"
    )]
    Sctp(u16),
}

/// A host port that leads to a container port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// The protocol of both ports.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's port.
    pub host_port: u16,
}

/// The value of [`GIVEN_ANNOTATION`]: a JSON list, one object per container port and protocol.
pub fn annotation(host_addresses: &[IpAddr], ports: &[HostPort]) -> String {
    let port = |port: &HostPort| {
        json!({
            "containerPort": port.container_port,
            "protocol": port.protocol.to_string(),
            "hostPort": port.host_port,
            "hostIPs": host_addresses,
        })
    };
    serde_json::Value::Array(ports.iter().map(port).collect()).to_string()
}

/// A range of ports, both ends among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The least port of a range: those below are for the host's own services.
    pub const LEAST: u16 = 1_024;

    /// The range from `first` to `last`; none if it is empty or begins below [`PortRange::LEAST`].
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first >= Self::LEAST && first <= last { Some(Self { first, last }) } else { None }
    }

    /// All ports of it.
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// All ports of it, beginning with `start`, or with the first where `start` lies outside.
    pub fn ports_from(self, start: u16) -> impl Iterator<Item = u16> {
        let start = if self.ports().contains(&start) { start } else { self.first };
        (start..=self.last).chain(self.first..start)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text
            .split_once('-')
            .and_then(|(first, last)| Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?)));
        let range = ends.and_then(|(first, last)| Self::new(first, last));
        range.ok_or_else(|| format!("not a range FIRST-LAST of ports of {} to 65535", Self::LEAST))
    }
}

#[cfg(test)]
mod tests;
