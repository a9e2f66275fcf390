//! Which sessions a node has: a pure function of what the cluster declares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::PeerConfig;
use types::resource::{BgpConfigurationSpec, BgpPeerSpec, PeerTarget};
use types::{Asn, ClusterNode, Family, NodeName, ResourceName};

/// The port of BGP (RFC 4271 section 8.2.1).
pub const PORT: u16 = 179;

/// What the cluster declares about peering, from which the sessions of each node follow.
#[derive(Debug, Clone)]
pub struct DeclaredPeering<'a> {
    /// All nodes that are known, this one among them.
    pub nodes: &'a [ClusterNode],
    /// All BGPPeer resources, with their names.
    pub peers: &'a [(ResourceName, BgpPeerSpec)],
    /// The BGPConfiguration resource, or its defaults where there is none.
    pub configuration: &'a BgpConfigurationSpec,
}

impl DeclaredPeering<'_> {
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
pub fn sessions(own: &NodeName, declared: &DeclaredPeering<'_>) -> Vec<PeerConfig> {
    let Some(own) = declared.nodes.iter().find(|node| node.name == *own) else { return Vec::new() };
    let mut found = SessionList { own, declared, by_address: BTreeMap::new() };

    let mut peers: Vec<_> = declared.peers.iter().collect();
    peers.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, peer) in peers {
        found.bgp_peer(name.as_str(), peer);
    }
    let mesh = declared.configuration.node_to_node_mesh_enabled.unwrap_or(true);
    if mesh && own.cluster_id.is_none() {
        for node in declared.nodes.iter().filter(|node| node.cluster_id.is_none()) {
            let restart_time = declared.configuration.mesh_restart_time();
            found.node("mesh", node, SessionTerms { restart_time, ..SessionTerms::default() });
        }
    }
    found.by_address.into_values().collect()
}

/// The sessions of one node, while they are gathered.
struct SessionList<'a> {
    /// The node.
    own: &'a ClusterNode,
    /// Where they come from.
    declared: &'a DeclaredPeering<'a>,
    /// Those that were found; the first with an address stays.
    by_address: BTreeMap<IpAddr, PeerConfig>,
}

impl SessionList<'_> {
    fn bgp_peer(&mut self, name: &str, peer: &BgpPeerSpec) {
        let has_session = |node: &ClusterNode| match (&peer.node, &peer.node_selector) {
            (Some(wanted), _) => node.name == *wanted,
            (None, Some(selector)) => selector.matches(&node.labels),
            (None, None) => true,
        };
        match peer.target() {
            Some(PeerTarget::Router(address, asn)) if has_session(self.own) => {
                let is_node = |node: &ClusterNode| node.addresses().contains(&address.address);
                let terms = SessionTerms {
                    dials_local_address: self.declared.nodes.iter().any(is_node),
                    reflector_client: self.own.cluster_id.is_some(),
                    restart_time: peer.restart_time(),
                    export_all: peer.export_other_nodes,
                };
                self.add(name, address.address, address.port.unwrap_or(PORT), asn, terms);
            }
            Some(PeerTarget::Nodes(selector)) => {
                let selected = |node: &ClusterNode| selector.matches(&node.labels);
                // The other side of a session needs it as well, whichever of the two the resource selects.
                for node in self.declared.nodes {
                    let ours = has_session(self.own) && selected(node);
                    let theirs = has_session(node) && selected(self.own);
                    if ours || theirs {
                        let export_all = peer.export_other_nodes;
                        self.node(
                            name,
                            node,
                            SessionTerms { restart_time: peer.restart_time(), export_all, ..SessionTerms::default() },
                        );
                    }
                }
            }
            Some(PeerTarget::Router(..)) | None => {}
        }
    }

    fn node(&mut self, origin: &str, node: &ClusterNode, terms: SessionTerms) {
        if node.name == self.own.name {
            return;
        }
        // Reflectors of one cluster are no clients of each other (RFC 4456 section 7).
        let reflector_client = self.own.cluster_id.is_some() && node.cluster_id != self.own.cluster_id;
        for family in Family::ALL {
            if let Some(address) = node.address(family) {
                let (port, asn) = (self.declared.port(node), self.declared.asn(node));
                let terms = SessionTerms { reflector_client, dials_local_address: true, ..terms };
                self.add(origin, address, port, asn, terms);
            }
        }
    }

    fn add(&mut self, origin: &str, address: IpAddr, port: u16, asn: Asn, terms: SessionTerms) {
        let family = Family::of(address);
        let Some(local_address) = self.own.address(family) else { return };
        let local_asn = self.declared.asn(self.own);
        self.by_address.entry(address).or_insert_with(|| PeerConfig {
            port,
            local_address: Some(local_address),
            dials_local_address: terms.dials_local_address,
            route_reflector_client: terms.reflector_client && asn == local_asn,
            export_all: terms.export_all && asn != local_asn,
            graceful_restart: terms.restart_time,
            description: origin.to_owned(),
            ..PeerConfig::new(address, asn, local_asn)
        });
    }
}

/// What is agreed with the peer of a session, apart from who the two are.
#[derive(Debug, Clone, Copy, Default)]
struct SessionTerms {
    /// The peer dials our own address alone.
    dials_local_address: bool,
    /// The peer is our client, if it is of our AS.
    reflector_client: bool,
    /// How long its routes stay while it restarts.
    restart_time: Option<Duration>,
    /// It is told of other nodes' blocks, if it is of another AS.
    export_all: bool,
}

#[cfg(test)]
mod tests;
