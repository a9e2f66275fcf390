//! The resource BGPPeer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bgp_configuration::{bad_restart_time, duration};
use super::bgp_import::{LimitAction, OriginValidation};
use super::session_password::{self, BgpPassword};
use crate::selector::Selector;
use crate::{Asn, Hops, NodeName, PasswordSource, Prefix};

/// Sessions between some nodes and some peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// The name of the one node that has this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The nodes that have this session (with neither: every node).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// The peer's address, with a port where it is not 179.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<PeerAddress>,
    /// The peers are these nodes, at their own addresses and AS numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_selector: Option<Selector>,
    /// The peers are those pods of the node itself that have such labels: routers that run as pods. Their node's speaker is
    /// open to them, and to no other pod. What they announce inside of pools is refused, whatever `originValidation` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_workload_selector: Option<Selector>,
    /// The peer's AS number; goes with `peerIP` and `localWorkloadSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<Asn>,
    /// How long this peer's routes stay while it restarts, such as `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<String>,
    /// An external peer (one of another AS number) is told of the blocks of other nodes as well, with this node as next
    /// hop, or the other node itself where it is on a subnet that this node shares with the peer (RFC 4271 section 5.1.3);
    /// without it, of this node's own blocks alone. For a router that has sessions with some of the nodes and is to
    /// reach all of them. Only what a pool covers is told, and nothing of pools with `disableBGPExport`; for internal
    /// peers RFC 4271 section 9.2 and RFC 4456 decide, and this says nothing.
    ///
    /// `projectcalico.org/v3` has no such field: there external peers are always told of all nodes, which sends the
    /// traffic of every pod through every peering node, and a BGPFilter that rejects `source: RemotePeers` keeps it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub export_other_nodes: bool,
    /// Where the password of these sessions is (TCP MD5, RFC 2385). Without the password there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<BgpPassword>,
    /// The password is in this file of the node, for installations without Kubernetes (not in Calico's BGPPeer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The peer is at most so many hops away, 1 being a neighbour: what comes from farther away is dropped (RFC 5082).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<Hops>,
    /// What follows from a route in a pool that does not come from who owns the block (default: BGPConfiguration's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_validation: Option<OriginValidation>,
    /// Aggregates of whole blocks that the peer may announce, each exactly as it stands here. For a router that sums up the
    /// blocks of a rack; without them it may announce claimed blocks alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_aggregates: Vec<Prefix>,
    /// How many prefixes of each family the peer may have in use (default: what follows from what it is and from how many
    /// blocks there are).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
    /// What becomes of more (default `refuse`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes_action: Option<LimitAction>,
}

/// The peers that a BGPPeer speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerTarget<'a> {
    /// A router at an address.
    Router(PeerAddress, Asn),
    /// Nodes of this cluster.
    Nodes(&'a Selector),
    /// Pods of the node that has the sessions.
    Pods(&'a Selector, Asn),
}

impl BgpPeerSpec {
    /// The peers that this resource speaks of; `None` only for a value that [`super::Resource::from_value`] would have
    /// refused.
    pub fn target(&self) -> Option<PeerTarget<'_>> {
        match (self.peer_ip, self.as_number, &self.peer_selector, &self.local_workload_selector) {
            (Some(address), Some(asn), None, None) => Some(PeerTarget::Router(address, asn)),
            (None, None, Some(selector), None) => Some(PeerTarget::Nodes(selector)),
            (None, Some(asn), None, Some(selector)) => Some(PeerTarget::Pods(selector, asn)),
            _ => None,
        }
    }

    /// The restart time of this peer, where one is set.
    pub fn restart_time(&self) -> Option<Duration> {
        self.max_restart_time.as_deref().and_then(duration)
    }

    /// Where the password of these sessions is, where they have one.
    pub fn password_source(&self) -> Option<PasswordSource> {
        session_password::source(self.password.as_ref(), self.password_file.as_deref())
    }

    pub(super) fn problem(&self) -> Option<String> {
        let (password, file) = (self.password.as_ref(), self.password_file.as_ref());
        if let Some(problem) = session_password::problem(("password", password), ("passwordFile", file)) {
            return Some(problem);
        }
        if self.node.is_some() && self.node_selector.is_some() {
            return Some("node and nodeSelector exclude each other".to_owned());
        }
        if let Some(text) = self.max_restart_time.as_ref().filter(|text| duration(text).is_none()) {
            return Some(bad_restart_time("maxRestartTime", text));
        }
        if self.max_prefixes == Some(0) {
            return Some(
                "maxPrefixes 0 would refuse every route; delete the BGPPeer, or leave maxPrefixes out".to_owned(),
            );
        }
        if let Some(aggregate) =
            self.accept_aggregates.iter().find(|aggregate| aggregate.len() == 0 || aggregate.is_host())
        {
            return Some(format!("acceptAggregates: {aggregate} is no aggregate of blocks such as 10.42.64.0/18"));
        }
        if self.local_workload_selector.is_some() {
            return self.problem_with_pods().map(str::to_owned);
        }
        match (self.peer_ip, self.as_number, &self.peer_selector) {
            (None, _, None) => Some("needs peerIP, peerSelector or localWorkloadSelector".to_owned()),
            (Some(_), _, Some(_)) => Some("peerIP and peerSelector exclude each other".to_owned()),
            (Some(_), None, None) => Some("peerIP needs asNumber".to_owned()),
            (None, Some(_), Some(_)) => Some("asNumber goes with peerIP (a node's AS number is its own)".to_owned()),
            _ => None,
        }
    }

    /// What is wrong with a resource whose peers are pods.
    fn problem_with_pods(&self) -> Option<&'static str> {
        if self.peer_ip.is_some() || self.peer_selector.is_some() {
            return Some("localWorkloadSelector excludes peerIP and peerSelector");
        }
        if self.as_number.is_none() {
            return Some("localWorkloadSelector needs asNumber");
        }
        if !matches!(self.origin_validation, None | Some(OriginValidation::Enforce))
            || !self.accept_aggregates.is_empty()
        {
            return Some(
                "originValidation and acceptAggregates do not go with localWorkloadSelector: what a pod announces inside of \
                 pools is refused; leave them out",
            );
        }
        None
    }
}

/// A peer's address and port, written `192.0.2.1`, `192.0.2.1:1790`, `2001:db8::1` or `[2001:db8::1]:1790`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    /// The address.
    pub address: IpAddr,
    /// The port, where one was written.
    pub port: Option<u16>,
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;
    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: None });
        }
        let socket: SocketAddr = text.parse().map_err(|_| PeerAddressError(text.to_owned()))?;
        if socket.port() == 0 {
            return Err(PeerAddressError(text.to_owned()));
        }
        Ok(Self { address: socket.ip(), port: Some(socket.port()) })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.address.fmt(f),
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
        }
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;
    fn try_from(text: String) -> Result<Self, PeerAddressError> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

/// The text is no peer address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as 192.0.2.1, 192.0.2.1:1790 or [2001:db8::1]:1790")]
pub struct PeerAddressError(String);
