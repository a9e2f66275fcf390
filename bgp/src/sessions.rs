//! Which sessions a node has: a pure function of what the cluster declares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::{PeerConfig, PeerImport, PeerRole};
use types::resource::{BgpConfigurationSpec, BgpPeerSpec, LimitAction, MeshTtlSecurity, OriginValidation, PeerTarget};
use types::selector::Selector;
use types::{Asn, ClusterNode, Family, Hops, NodeName, Prefix, ResourceName, SessionSecurity, WorkloadEndpoint};

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
    /// The pods of this node.
    pub pods: &'a [WorkloadEndpoint],
}

impl DeclaredPeering<'_> {
    /// The AS number of a node: its own, else the configuration's, else 64512.
    pub fn asn(&self, node: &ClusterNode) -> Asn {
        node.asn.or(self.configuration.as_number).unwrap_or(Asn::DEFAULT)
    }

    /// What follows from a route whose origin does not check: what the peer's resource says, else the configuration.
    fn validation(&self, of_peer: Option<OriginValidation>) -> OriginValidation {
        of_peer.or(self.configuration.origin_validation).unwrap_or_default()
    }

    /// Which of its own pods a node peers with.
    pub fn router_pods(&self, own: &ClusterNode) -> impl Iterator<Item = &Selector> {
        let peers = self.peers.iter().filter(|(_, peer)| has_session(peer, own));
        peers.filter_map(|(_, peer)| match peer.target() {
            Some(PeerTarget::Pods(selector, _)) => Some(selector),
            _ => None,
        })
    }

    /// The addresses of this node's pods that a selector means; pods that have come to their end are no routers.
    pub fn pods_of(&self, selector: &Selector) -> impl Iterator<Item = IpAddr> {
        let meant = self.pods.iter().filter(move |pod| !pod.finished && selector.matches(&pod.labels));
        meant.flat_map(|pod| pod.addresses.iter().copied())
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
            found.mesh(node);
        }
    }
    found.by_address.into_values().collect()
}

/// Whether a BGPPeer is for a node.
fn has_session(peer: &BgpPeerSpec, node: &ClusterNode) -> bool {
    match (&peer.node, &peer.node_selector) {
        (Some(wanted), _) => node.name == *wanted,
        (None, Some(selector)) => selector.matches(&node.labels),
        (None, None) => true,
    }
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
        let terms = SessionTerms {
            reflector_client: self.own.cluster_id.is_some(),
            restart_time: peer.restart_time(),
            export_all: peer.export_other_nodes,
            security: SessionSecurity { password: peer.password_source(), ttl_security: peer.ttl_security },
            import: ImportTerms {
                validation: self.declared.validation(peer.origin_validation),
                aggregates: &peer.accept_aggregates,
                max_prefixes: peer.max_prefixes,
                max_prefixes_action: peer.max_prefixes_action.unwrap_or_default(),
            },
            ..SessionTerms::default()
        };
        match peer.target() {
            Some(PeerTarget::Router(address, asn)) if has_session(peer, self.own) => {
                let is_node = |node: &ClusterNode| node.addresses().contains(&address.address);
                let terms = SessionTerms { dials_local_address: self.declared.nodes.iter().any(is_node), ..terms };
                self.add(name, address.address, address.port.unwrap_or(PORT), asn, terms);
            }
            Some(PeerTarget::Nodes(selector)) => {
                let selected = |node: &ClusterNode| selector.matches(&node.labels);
                // The other side of a session needs it as well, whichever of the two the resource selects.
                for node in self.declared.nodes {
                    let ours = has_session(peer, self.own) && selected(node);
                    let theirs = has_session(peer, node) && selected(self.own);
                    if ours || theirs {
                        for family in Family::ALL {
                            self.node(name, node, family, terms.clone());
                        }
                    }
                }
            }
            Some(PeerTarget::Pods(selector, asn)) if has_session(peer, self.own) => {
                let import = ImportTerms { validation: OriginValidation::Enforce, ..terms.import };
                for address in self.declared.pods_of(selector) {
                    self.add(name, address, PORT, asn, SessionTerms { is_pod: true, import, ..terms.clone() });
                }
            }
            Some(PeerTarget::Router(..) | PeerTarget::Pods(..)) | None => {}
        }
    }

    fn mesh(&mut self, node: &ClusterNode) {
        let configuration = self.declared.configuration;
        let shows = configuration.node_mesh_ttl_security != Some(MeshTtlSecurity::Disabled);
        for family in Family::ALL {
            let is_neighbour = shows && self.own.shows_to_neighbour(node, family);
            let security = SessionSecurity {
                password: configuration.mesh_password_source(),
                ttl_security: is_neighbour.then_some(Hops::NEIGHBOUR),
            };
            let terms = SessionTerms {
                restart_time: configuration.mesh_restart_time(),
                security,
                import: ImportTerms { validation: self.declared.validation(None), ..ImportTerms::default() },
                ..SessionTerms::default()
            };
            self.node("mesh", node, family, terms);
        }
    }

    fn node(&mut self, origin: &str, node: &ClusterNode, family: Family, terms: SessionTerms<'_>) {
        if node.name == self.own.name {
            return;
        }
        // Reflectors of one cluster are no clients of each other (RFC 4456 section 7).
        let reflector_client = self.own.cluster_id.is_some() && node.cluster_id != self.own.cluster_id;
        if let Some(address) = node.address(family) {
            let (port, asn) = (self.declared.port(node), self.declared.asn(node));
            self.add(
                origin,
                address,
                port,
                asn,
                SessionTerms {
                    reflector_client,
                    dials_local_address: true,
                    is_node: Some(node.cluster_id.is_some()),
                    ..terms
                },
            );
        }
    }

    fn add(&mut self, origin: &str, address: IpAddr, port: u16, asn: Asn, terms: SessionTerms<'_>) {
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
            import: PeerImport {
                role: terms.role(asn == local_asn),
                validation: terms.import.validation,
                aggregates: terms.import.aggregates.to_vec(),
            },
            max_prefixes: terms.import.max_prefixes,
            max_prefixes_action: terms.import.max_prefixes_action,
            security: terms.security,
            description: origin.to_owned(),
            ..PeerConfig::new(address, asn, local_asn)
        });
    }
}

/// What is agreed with the peer of a session, apart from who the two are.
#[derive(Debug, Clone, Default)]
struct SessionTerms<'a> {
    /// The peer dials our own address alone.
    dials_local_address: bool,
    /// The peer is our client, if it is of our AS.
    reflector_client: bool,
    /// How long its routes stay while it restarts.
    restart_time: Option<Duration>,
    /// It is told of other nodes' blocks, if it is of another AS.
    export_all: bool,
    /// What is asked of the transport.
    security: SessionSecurity,
    /// The peer is a node of the cluster; whether it reflects others' routes.
    is_node: Option<bool>,
    /// The peer is a pod of this node.
    is_pod: bool,
    /// What is taken in of its routes.
    import: ImportTerms<'a>,
}

/// What is taken in of a peer's routes.
#[derive(Debug, Clone, Copy, Default)]
struct ImportTerms<'a> {
    /// What follows from a route whose origin does not check.
    validation: OriginValidation,
    /// Aggregates of whole blocks that it may announce.
    aggregates: &'a [Prefix],
    /// How many prefixes of a family may be in use.
    max_prefixes: Option<u32>,
    /// What becomes of more.
    max_prefixes_action: LimitAction,
}

impl SessionTerms<'_> {
    /// What the peer is to the cluster. Between nodes of two ASes, one that is told to export other nodes' blocks passes them
    /// on, in either direction: both know the same resource.
    const fn role(&self, is_internal: bool) -> PeerRole {
        match (self.is_node, is_internal) {
            _ if self.is_pod => PeerRole::Pod,
            (Some(false), true) => PeerRole::Node,
            (Some(false), false) if !self.export_all => PeerRole::Node,
            (Some(_), false) => PeerRole::Relay,
            (Some(true) | None, true) => PeerRole::Reflector,
            (None, false) => PeerRole::Fabric,
        }
    }
}

#[cfg(test)]
mod tests;
