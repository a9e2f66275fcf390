//! What the cluster's declarations mean for this node (pure). The task around it is in `desired_task`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::sessions::{DeclaredPeering, PORT, sessions};
use bgp::{OriginNode, PeerConfig};
use felix::policy::Infrastructure;
use types::resource::{BgpConfigurationSpec, BgpPeerSpec, IpPoolSpec, Kind, Metadata, NodeSpec, Resource, Spec};
use types::selector::Selector;
use types::update::Mirror;
use types::{
    Asn, ClusterNode, Gone, NodeName, PasswordSource, Prefix, Registration, ResourceName, ServiceRanges,
    WorkloadEndpoint,
};

use super::sources::ClusterUpdate;

/// Everything that sources have said, and who we are.
#[derive(Debug)]
pub(crate) struct ClusterState {
    /// This node's name.
    own: NodeName,
    /// Its addresses, which the store hears of later.
    addresses: Vec<IpAddr>,
    /// What nodes' agents say of their nodes.
    registrations: Mirror<NodeName, Registration>,
    /// What elected agents have noted of nodes that have gone.
    gone: Mirror<NodeName, Gone>,
    /// Resources of kind IPPool.
    pools: Mirror<ResourceName, Box<Resource>>,
    /// Resources of kind Node.
    nodes: Mirror<ResourceName, Box<Resource>>,
    /// Resources of kind BGPConfiguration.
    configurations: Mirror<ResourceName, Box<Resource>>,
    /// Resources of kind BGPPeer.
    peers: Mirror<ResourceName, Box<Resource>>,
    /// This node's pods, where a BGPPeer means some of them.
    pods: Vec<WorkloadEndpoint>,
}

/// A pool of addresses for Services of type LoadBalancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadBalancerPool {
    /// Its name, by which Services may ask for it.
    pub(crate) name: String,
    /// The pool's range.
    pub(crate) cidr: Prefix,
    /// No new addresses are given out; those given stay.
    pub(crate) is_disabled: bool,
}

/// What the cluster's state demands of this node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Desired {
    /// The speaker's AS number.
    pub(crate) asn: Asn,
    /// The port that the speaker listens on.
    pub(crate) port: u16,
    /// The speaker's sessions.
    pub(crate) sessions: Vec<PeerConfig>,
    /// This node, as the cluster sees it.
    pub(crate) node: Option<ClusterNode>,
    /// Other nodes that say that an address of this one is theirs.
    pub(crate) contested: Vec<(IpAddr, NodeName)>,
    /// Every node, as its routes are judged.
    pub(crate) origins: Vec<OriginNode>,
    /// Every node with its addresses.
    pub(crate) nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Who routes for the pods: what is closed to them.
    pub(crate) infrastructure: Infrastructure,
    /// Where addresses come from, with whether this node may claim blocks there.
    pub(crate) pools: Vec<(ResourceName, IpPoolSpec, bool)>,
    /// Ranges of pools: what is accepted from peers.
    pub(crate) ranges: BTreeSet<Prefix>,
    /// Ranges whose blocks are not announced.
    pub(crate) unexported: BTreeSet<Prefix>,
    /// Where Services of type LoadBalancer get their addresses from.
    pub(crate) load_balancers: Vec<LoadBalancerPool>,
    /// Ranges of Services' addresses that are announced.
    pub(crate) services: ServiceRanges,
}

impl Desired {
    /// Where the passwords are that the sessions need.
    pub(crate) fn password_sources(&self) -> BTreeSet<PasswordSource> {
        self.sessions.iter().filter_map(|session| session.security.password.clone()).collect()
    }
}

impl ClusterState {
    pub(crate) const fn new(own: NodeName, addresses: Vec<IpAddr>) -> Self {
        Self {
            own,
            addresses,
            registrations: Mirror::new(),
            gone: Mirror::new(),
            pools: Mirror::new(),
            nodes: Mirror::new(),
            configurations: Mirror::new(),
            peers: Mirror::new(),
            pods: Vec::new(),
        }
    }

    /// This node has these addresses from now on.
    pub(crate) fn readdress(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// Whether a BGPPeer means pods, so that it matters who this node's are.
    pub(crate) fn peers_with_pods(&self) -> bool {
        let means_pods = |spec: &Spec| matches!(spec, Spec::BgpPeer(peer) if peer.local_workload_selector.is_some());
        self.peers.entries().values().any(|resource| means_pods(&resource.spec))
    }

    /// These are this node's pods.
    pub(crate) fn set_pods(&mut self, mut pods: Vec<WorkloadEndpoint>) {
        pods.sort_by(|one, other| one.id.cmp(&other.id));
        self.pods = pods;
    }

    /// Takes a report; true where what is known has changed.
    pub(crate) fn apply(&mut self, update: ClusterUpdate) -> bool {
        match update {
            ClusterUpdate::Registration(update) => self.registrations.changes(update),
            ClusterUpdate::Gone(update) => self.gone.changes(update),
            ClusterUpdate::Resource(Kind::IpPool, update) => self.pools.changes(update),
            ClusterUpdate::Resource(Kind::Node, update) => self.nodes.changes(update),
            ClusterUpdate::Resource(Kind::BgpConfiguration, update) => self.configurations.changes(update),
            ClusterUpdate::Resource(Kind::BgpPeer, update) => self.peers.changes(update),
            // Those are judged apart, one by one: there are more of them than of everything else here.
            ClusterUpdate::Block(_) | ClusterUpdate::OwnBlocks(_) | ClusterUpdate::Freshness(_) => false,
            // Policies and namespaces go to the filter, not here.
            ClusterUpdate::Resource(Kind::NetworkPolicy | Kind::Namespace, _) => false,
        }
    }

    /// Nodes that are registered or noted as gone, with what is noted.
    pub(crate) fn registered(&self) -> BTreeMap<NodeName, Option<Gone>> {
        let registered = self.registrations.entries().keys().map(|name| (name.clone(), None));
        registered.chain(self.gone.entries().iter().map(|(name, gone)| (name.clone(), Some(gone.clone())))).collect()
    }

    /// What follows, once every source has told its whole state: half a state would start sessions that the other half
    /// forbids.
    pub(crate) fn desired(&self) -> Option<Desired> {
        let resources = [&self.pools, &self.nodes, &self.configurations, &self.peers];
        if !self.registrations.is_known() || !self.gone.is_known() || !resources.iter().all(|kind| kind.is_known()) {
            return None;
        }
        let nodes = self.cluster_nodes();
        let node = nodes.iter().find(|node| node.name == self.own).cloned();
        let configuration = self.configuration();
        let peers = self.bgp_peers();
        let declared =
            DeclaredPeering { nodes: &nodes, peers: &peers, configuration: &configuration, pods: &self.pods };
        let labels = node.as_ref().map(|node| node.labels.clone()).unwrap_or_default();
        let pools: Vec<_> = self
            .pools
            .entries()
            .iter()
            .filter_map(|(name, resource)| match &resource.spec {
                Spec::IpPool(pool) => Some((name.clone(), pool.clone())),
                _ => None,
            })
            .map(|(name, pool)| {
                let ours = pool.node_selector.as_ref().is_none_or(|selector| selector.matches(&labels));
                (name, pool, ours)
            })
            .collect();
        // A pool is for pods, whose blocks nodes claim and peers may announce, or for Services, which have single addresses.
        let (pools, load_balancers): (Vec<_>, Vec<_>) = pools.into_iter().partition(|(_, pool, _)| pool.is_for_pods());
        let load_balancers = load_balancers.into_iter().map(|(name, pool, _)| LoadBalancerPool {
            name: name.to_string(),
            cidr: pool.cidr,
            is_disabled: pool.disabled,
        });
        Some(Desired {
            asn: node.as_ref().map_or(Asn::DEFAULT, |node| declared.asn(node)),
            port: node.as_ref().map_or(PORT, |node| declared.port(node)),
            sessions: sessions(&self.own, &declared),
            ranges: pools.iter().map(|(_, pool, _)| pool.cidr).collect(),
            unexported: pools.iter().filter(|(_, pool, _)| pool.disable_bgp_export).map(|(_, p, _)| p.cidr).collect(),
            load_balancers: load_balancers.collect(),
            services: configuration.service_ranges(),
            infrastructure: infrastructure(&declared, node.as_ref()),
            origins: nodes
                .iter()
                .map(|node| OriginNode {
                    name: node.name.clone(),
                    addresses: node.addresses(),
                    asn: declared.asn(node),
                })
                .collect(),
            nodes: nodes.iter().map(|node| (node.name.clone(), node.addresses())).collect(),
            contested: node.iter().flat_map(|node| self.contested(node, &nodes)).collect(),
            node,
            pools,
        })
    }

    /// Nodes that have an address of this one, but for those that are gone: machines are given new names.
    fn contested(&self, own: &ClusterNode, nodes: &[ClusterNode]) -> Vec<(IpAddr, NodeName)> {
        let others =
            nodes.iter().filter(|other| other.name != own.name && self.gone.entries().get(&other.name).is_none());
        let ours = own.addresses();
        let claims =
            others.flat_map(|other| other.addresses().into_iter().map(|address| (address, other.name.clone())));
        claims.filter(|(address, _)| ours.contains(address)).collect()
    }

    /// Nodes that are registered or declared.
    fn cluster_nodes(&self) -> Vec<ClusterNode> {
        let declared = self.nodes.entries().keys().filter_map(|name| name.as_str().parse::<NodeName>().ok());
        let names: BTreeSet<NodeName> = self.registrations.entries().keys().cloned().chain(declared).collect();
        let is_reclaimed = |name: &NodeName| self.gone.entries().get(name).is_some_and(|gone| gone.reclaimed);
        names
            .into_iter()
            .filter(|name| !is_reclaimed(name))
            .map(|name| {
                let resource = name
                    .as_str()
                    .parse()
                    .ok()
                    .and_then(|name| self.nodes.entries().get(&name))
                    .and_then(|resource| node_spec(resource));
                let mut registration = self.registrations.entries().get(&name).cloned();
                if let Some(own) = registration.as_mut().filter(|_| name == self.own) {
                    own.put_addresses(&self.addresses);
                }
                ClusterNode::new(name.clone(), registration.as_ref(), resource)
            })
            .collect()
    }

    fn configuration(&self) -> BgpConfigurationSpec {
        let mut found = self.configurations.entries().values().filter_map(|resource| match &resource.spec {
            Spec::BgpConfiguration(configuration) => Some(configuration.clone()),
            _ => None,
        });
        found.next().unwrap_or_default()
    }

    fn bgp_peers(&self) -> Vec<(ResourceName, BgpPeerSpec)> {
        let spec = |(name, resource): (&ResourceName, &Spec)| match resource {
            Spec::BgpPeer(peer) => Some((name.clone(), (**peer).clone())),
            _ => None,
        };
        self.peers.entries().iter().map(|(name, resource)| (name, &resource.spec)).filter_map(spec).collect()
    }
}

/// Every node and every router that a BGPPeer names, of this node or of others.
fn infrastructure(declared: &DeclaredPeering<'_>, own: Option<&ClusterNode>) -> Infrastructure {
    let nodes = declared.nodes.iter().flat_map(|node| {
        let port = declared.port(node);
        node.addresses().into_iter().map(move |address| (address, port))
    });
    let routers = declared.peers.iter().filter_map(|(_, peer)| peer.peer_ip);
    let routers = routers.map(|peer| (peer.address, peer.port.unwrap_or(PORT)));
    let selectors: Vec<&Selector> = own.iter().flat_map(|own| declared.router_pods(own)).collect();
    let pods = selectors.iter().flat_map(|selector| declared.pods_of(selector)).map(|address| (address, PORT));
    Infrastructure {
        speakers: nodes.chain(routers).chain(pods).collect(),
        own_port: own.map_or(PORT, |node| declared.port(node)),
        routers: selectors.into_iter().cloned().collect(),
    }
}

fn node_spec(resource: &Resource) -> Option<(&Metadata, &NodeSpec)> {
    match &resource.spec {
        Spec::Node(node) => Some((&resource.metadata, node)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
