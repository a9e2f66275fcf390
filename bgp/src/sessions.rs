//! Which sessions a node has: a pure function of what the cluster declares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::PeerConfig;
use types::resource::{BgpConfigurationSpec, BgpPeerSpec, PeerTarget};
use types::{Asn, ClusterNode, Family, NodeName, ResourceName};

/// The port of BGP (RFC 4271 section 8.2.1).
pub const PORT: u16 = 179;

/// What the sessions of one node follow from.
#[derive(Debug, Clone)]
pub struct Cluster<'a> {
    /// All nodes that are known, this one among them.
    pub nodes: &'a [ClusterNode],
    /// All BGPPeers.
    pub peers: &'a [(ResourceName, BgpPeerSpec)],
    /// The BGPConfiguration, or its defaults.
    pub configuration: &'a BgpConfigurationSpec,
}

impl Cluster<'_> {
    /// The AS number of a node: its own, else the configuration's, else 64512.
    pub fn asn(&self, node: &ClusterNode) -> Asn {
        node.asn.or(self.configuration.as_number).unwrap_or(Asn::DEFAULT)
    }

    /// The port that a node's speaker listens on.
    pub fn port(&self, node: &ClusterNode) -> u16 {
        node.listen_port.or(self.configuration.listen_port).unwrap_or(PORT)
    }
}

/// The sessions of the node of this name, by address, with the resource that each comes from (`mesh`, or the BGPPeer's
/// name) as description. A BGPPeer wins over the mesh, the first BGPPeer by name over later ones. One session per family
/// of the peer's address.
pub fn sessions(own: &NodeName, cluster: &Cluster<'_>) -> Vec<PeerConfig> {
    let Some(own) = cluster.nodes.iter().find(|node| node.name == *own) else { return Vec::new() };
    let mut found = Found { own, cluster, by_address: BTreeMap::new() };

    let mut peers: Vec<_> = cluster.peers.iter().collect();
    peers.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, peer) in peers {
        found.bgp_peer(name.as_str(), peer);
    }
    let mesh = cluster.configuration.node_to_node_mesh_enabled.unwrap_or(true);
    if mesh && own.cluster_id.is_none() {
        for node in cluster.nodes.iter().filter(|node| node.cluster_id.is_none()) {
            let restart_time = cluster.configuration.mesh_restart_time();
            found.node("mesh", node, Terms { restart_time, ..Terms::default() });
        }
    }
    found.by_address.into_values().collect()
}

struct Found<'a> {
    own: &'a ClusterNode,
    cluster: &'a Cluster<'a>,
    by_address: BTreeMap<IpAddr, PeerConfig>,
}

impl Found<'_> {
    fn bgp_peer(&mut self, name: &str, peer: &BgpPeerSpec) {
        let has_session = |node: &ClusterNode| match (&peer.node, &peer.node_selector) {
            (Some(wanted), _) => node.name == *wanted,
            (None, Some(selector)) => selector.matches(&node.labels),
            (None, None) => true,
        };
        match peer.target() {
            Some(PeerTarget::Router(address, asn)) if has_session(self.own) => {
                let terms = Terms {
                    reflector_client: self.own.cluster_id.is_some(),
                    restart_time: peer.restart_time(),
                    export_all: peer.export_other_nodes,
                };
                self.add(name, address.address, address.port.unwrap_or(PORT), asn, terms);
            }
            Some(PeerTarget::Nodes(selector)) => {
                let selected = |node: &ClusterNode| selector.matches(&node.labels);
                // The other side of a session needs it as well, whichever of the two the resource selects.
                for node in self.cluster.nodes {
                    let ours = has_session(self.own) && selected(node);
                    let theirs = has_session(node) && selected(self.own);
                    if ours || theirs {
                        let export_all = peer.export_other_nodes;
                        self.node(
                            name,
                            node,
                            Terms { restart_time: peer.restart_time(), export_all, ..Terms::default() },
                        );
                    }
                }
            }
            Some(PeerTarget::Router(..)) | None => {}
        }
    }

    fn node(&mut self, origin: &str, node: &ClusterNode, terms: Terms) {
        if node.name == self.own.name {
            return;
        }
        // RFC 4456 section 7: reflectors of one cluster are no clients of each other.
        let reflector_client = self.own.cluster_id.is_some() && node.cluster_id != self.own.cluster_id;
        for family in Family::ALL {
            if let Some(address) = node.address(family) {
                let (port, asn) = (self.cluster.port(node), self.cluster.asn(node));
                self.add(origin, address, port, asn, Terms { reflector_client, ..terms });
            }
        }
    }

    fn add(&mut self, origin: &str, address: IpAddr, port: u16, asn: Asn, terms: Terms) {
        let family = Family::of(address);
        let Some(local_address) = self.own.address(family) else { return };
        let local_asn = self.cluster.asn(self.own);
        self.by_address.entry(address).or_insert_with(|| PeerConfig {
            port,
            local_address: Some(local_address),
            route_reflector_client: terms.reflector_client && asn == local_asn,
            export_all: terms.export_all && asn != local_asn,
            graceful_restart: terms.restart_time,
            description: origin.to_owned(),
            ..PeerConfig::new(address, asn, local_asn)
        });
    }
}

/// What a session is to be like, beside its ends.
#[derive(Debug, Clone, Copy, Default)]
struct Terms {
    /// The peer is our client, if it is of our AS.
    reflector_client: bool,
    /// How long its routes stay while it restarts.
    restart_time: Option<Duration>,
    /// It is told of other nodes' blocks, if it is of another AS.
    export_all: bool,
}

#[cfg(test)]
mod tests;
