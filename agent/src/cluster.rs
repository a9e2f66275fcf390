//! What the cluster's declarations mean for this node: pure. The task around it is in `tasks`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::PeerConfig;
use bgp::sessions::{Cluster as Declared, sessions};
use types::resource::{BgpConfigurationSpec, BgpPeerSpec, IpPoolSpec, Kind, Metadata, NodeSpec, Resource, Spec};
use types::{Asn, ClusterNode, Gone, NodeName, Prefix, Registration, ResourceName, ServiceRanges};

use crate::load_balancer::Pool;
use crate::sources::ClusterUpdate;
use crate::table::Table;

/// Everything that sources have said, and who we are.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// This node.
    own: NodeName,
    /// Its addresses, which the store hears of later.
    addresses: Vec<IpAddr>,
    registrations: Table<NodeName, Registration>,
    gone: Table<NodeName, Gone>,
    pools: Table<ResourceName, Box<Resource>>,
    nodes: Table<ResourceName, Box<Resource>>,
    configurations: Table<ResourceName, Box<Resource>>,
    peers: Table<ResourceName, Box<Resource>>,
}

/// What follows for this node.
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
    /// Every node with its addresses.
    pub(crate) nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Where addresses come from, with whether this node may claim blocks there.
    pub(crate) pools: Vec<(ResourceName, IpPoolSpec, bool)>,
    /// Ranges of pools: what is accepted from peers.
    pub(crate) ranges: BTreeSet<Prefix>,
    /// Ranges whose blocks are not announced.
    pub(crate) unexported: BTreeSet<Prefix>,
    /// Where Services of type LoadBalancer get their addresses from.
    pub(crate) load_balancers: Vec<Pool>,
    /// Ranges of Services' addresses that are announced.
    pub(crate) services: ServiceRanges,
}

impl Cluster {
    pub(crate) const fn new(own: NodeName, addresses: Vec<IpAddr>) -> Self {
        Self {
            own,
            addresses,
            registrations: Table::new(),
            gone: Table::new(),
            pools: Table::new(),
            nodes: Table::new(),
            configurations: Table::new(),
            peers: Table::new(),
        }
    }

    /// This node has these addresses from now on.
    pub(crate) fn readdress(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// Takes a report; true where what is known has changed.
    pub(crate) fn apply(&mut self, update: ClusterUpdate) -> bool {
        match update {
            ClusterUpdate::Registration(update) => self.registrations.apply(update),
            ClusterUpdate::Gone(update) => self.gone.apply(update),
            ClusterUpdate::Resource(Kind::IpPool, update) => self.pools.apply(update),
            ClusterUpdate::Resource(Kind::Node, update) => self.nodes.apply(update),
            ClusterUpdate::Resource(Kind::BgpConfiguration, update) => self.configurations.apply(update),
            ClusterUpdate::Resource(Kind::BgpPeer, update) => self.peers.apply(update),
            // Those are felix's.
            ClusterUpdate::Resource(Kind::NetworkPolicy | Kind::Namespace, _) => false,
        }
    }

    /// Nodes that are registered or noted as gone, with what is noted.
    pub(crate) fn registered(&self) -> BTreeMap<NodeName, Option<Gone>> {
        let registered = self.registrations.iter().map(|(name, _)| (name.clone(), None));
        registered.chain(self.gone.iter().map(|(name, gone)| (name.clone(), Some(gone.clone())))).collect()
    }

    /// What follows, once every source has told its whole state: half a state would start sessions that the other half
    /// forbids.
    pub(crate) fn desired(&self) -> Option<Desired> {
        let resources = [&self.pools, &self.nodes, &self.configurations, &self.peers];
        if !self.registrations.is_known() || !self.gone.is_known() || !resources.iter().all(|table| table.is_known()) {
            return None;
        }
        let nodes = self.cluster_nodes();
        let node = nodes.iter().find(|node| node.name == self.own).cloned();
        let configuration = self.configuration();
        let peers = self.bgp_peers();
        let declared = Declared { nodes: &nodes, peers: &peers, configuration: &configuration };
        let labels = node.as_ref().map(|node| node.labels.clone()).unwrap_or_default();
        let pools: Vec<_> = self
            .pools
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
        // Nobody but pods has a block, and nobody but the router is told a way to a Service.
        let (pools, load_balancers): (Vec<_>, Vec<_>) = pools.into_iter().partition(|(_, pool, _)| pool.is_for_pods());
        let load_balancers = load_balancers.into_iter().map(|(name, pool, _)| Pool {
            name: name.to_string(),
            cidr: pool.cidr,
            is_disabled: pool.disabled,
        });
        Some(Desired {
            asn: node.as_ref().map_or(Asn::DEFAULT, |node| declared.asn(node)),
            port: node.as_ref().map_or(bgp::sessions::PORT, |node| declared.port(node)),
            sessions: sessions(&self.own, &declared),
            ranges: pools.iter().map(|(_, pool, _)| pool.cidr).collect(),
            unexported: pools.iter().filter(|(_, pool, _)| pool.disable_bgp_export).map(|(_, p, _)| p.cidr).collect(),
            load_balancers: load_balancers.collect(),
            services: configuration.service_ranges(),
            nodes: nodes.iter().map(|node| (node.name.clone(), node.addresses())).collect(),
            contested: node.iter().flat_map(|node| self.contested(node, &nodes)).collect(),
            node,
            pools,
        })
    }

    /// Nodes that have an address of this one, but for those that are gone: machines are given new names.
    fn contested(&self, own: &ClusterNode, nodes: &[ClusterNode]) -> Vec<(IpAddr, NodeName)> {
        let others = nodes.iter().filter(|other| other.name != own.name && self.gone.find(&other.name).is_none());
        let ours = own.addresses();
        let claims =
            others.flat_map(|other| other.addresses().into_iter().map(|address| (address, other.name.clone())));
        claims.filter(|(address, _)| ours.contains(address)).collect()
    }

    /// Nodes that are registered or declared.
    fn cluster_nodes(&self) -> Vec<ClusterNode> {
        let declared = self.nodes.iter().filter_map(|(name, _)| name.as_str().parse::<NodeName>().ok());
        let names: BTreeSet<NodeName> =
            self.registrations.iter().map(|(name, _)| name.clone()).chain(declared).collect();
        let is_reclaimed = |name: &NodeName| self.gone.find(name).is_some_and(|gone| gone.reclaimed);
        names
            .into_iter()
            .filter(|name| !is_reclaimed(name))
            .map(|name| {
                let resource = name
                    .as_str()
                    .parse()
                    .ok()
                    .and_then(|name| self.nodes.find(&name))
                    .and_then(|resource| node_spec(resource));
                let mut registration = self.registrations.find(&name).cloned();
                if let Some(own) = registration.as_mut().filter(|_| name == self.own) {
                    own.put_addresses(&self.addresses);
                }
                ClusterNode::new(name.clone(), registration.as_ref(), resource)
            })
            .collect()
    }

    fn configuration(&self) -> BgpConfigurationSpec {
        let mut found = self.configurations.iter().filter_map(|(_, resource)| match &resource.spec {
            Spec::BgpConfiguration(configuration) => Some(configuration.clone()),
            _ => None,
        });
        found.next().unwrap_or_default()
    }

    fn bgp_peers(&self) -> Vec<(ResourceName, BgpPeerSpec)> {
        let spec = |(name, resource): (&ResourceName, &Spec)| match resource {
            Spec::BgpPeer(peer) => Some((name.clone(), peer.clone())),
            _ => None,
        };
        self.peers.iter().map(|(name, resource)| (name, &resource.spec)).filter_map(spec).collect()
    }
}

fn node_spec(resource: &Resource) -> Option<(&Metadata, &NodeSpec)> {
    match &resource.spec {
        Spec::Node(node) => Some((&resource.metadata, node)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Update;

    fn resource(kind: &str, name: &str, spec: serde_json::Value) -> ClusterUpdate {
        let document = serde_json::json!({
            "apiVersion": types::resource::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
        let resource = Resource::from_value(document).unwrap();
        ClusterUpdate::Resource(resource.kind(), Update::Set(resource.metadata.name.clone(), Box::new(resource)))
    }

    fn registration(name: &str, ipv4: &str) -> ClusterUpdate {
        let registration = Registration { ipv4: Some(ipv4.parse().unwrap()), ..Registration::default() };
        ClusterUpdate::Registration(Update::Set(name.parse().unwrap(), registration))
    }

    fn in_sync() -> impl Iterator<Item = ClusterUpdate> {
        Kind::CLUSTER
            .into_iter()
            .map(|kind| ClusterUpdate::Resource(kind, Update::InSync))
            .chain([ClusterUpdate::Registration(Update::InSync), ClusterUpdate::Gone(Update::InSync)])
    }

    fn updates() -> Vec<ClusterUpdate> {
        vec![
            registration("a", "192.0.2.1"),
            registration("b", "192.0.2.2"),
            resource("IPPool", "p", serde_json::json!({"cidr": "10.0.0.0/16", "nodeSelector": "rack == '1'"})),
            resource("IPPool", "q", serde_json::json!({"cidr": "10.1.0.0/16", "disableBGPExport": true})),
            resource("IPPool", "lb", serde_json::json!({"cidr": "10.2.0.0/16", "allowedUses": ["LoadBalancer"]})),
            resource(
                "BGPConfiguration",
                "default",
                serde_json::json!({"asNumber": 65001, "serviceLoadBalancerIPs": [{"cidr": "10.2.0.0/16"}]}),
            ),
        ]
    }

    fn desired(updates: impl IntoIterator<Item = ClusterUpdate>) -> Option<Desired> {
        let mut cluster = Cluster::new("a".parse().unwrap(), vec!["192.0.2.1".parse().unwrap()]);
        for update in updates {
            cluster.apply(update);
        }
        cluster.desired()
    }

    #[test]
    fn nothing_follows_before_every_source_is_known() {
        assert_eq!(desired(updates()), None);
        assert_eq!(desired(updates().into_iter().chain(in_sync().skip(1))), None);
    }

    #[test]
    fn nobody_peers_with_a_node_whose_things_were_taken_back() {
        let gone = |reclaimed| {
            let gone = Gone { since: 1, waited: std::time::Duration::ZERO, reclaimed };
            updates().into_iter().chain([ClusterUpdate::Gone(Update::Set("b".parse().unwrap(), gone))])
        };
        let sessions = |reclaimed| desired(gone(reclaimed).chain(in_sync())).unwrap().sessions.len();
        assert_eq!((sessions(false), sessions(true)), (1, 0));
    }

    #[test]
    fn what_this_node_knows_of_its_addresses_wins_over_what_the_store_has_heard() {
        let mut cluster = Cluster::new("a".parse().unwrap(), vec!["192.0.2.1".parse().unwrap()]);
        updates().into_iter().chain(in_sync()).for_each(|update| {
            cluster.apply(update);
        });
        let renumbered = "192.0.2.9".parse().unwrap();
        cluster.readdress(vec![renumbered]);
        let local: Vec<_> = cluster.desired().unwrap().sessions.iter().map(|session| session.local_address).collect();
        assert_eq!(local, [Some(renumbered)]);
    }

    #[test]
    fn an_address_that_two_nodes_claim_is_named_unless_the_other_is_gone() {
        let twin = || updates().into_iter().chain([registration("c", "192.0.2.1")]);
        let contested = |updates| desired(updates).unwrap().contested;
        assert_eq!(
            contested(twin().chain(in_sync()).collect::<Vec<_>>()),
            [("192.0.2.1".parse().unwrap(), "c".parse().unwrap())]
        );
        let gone = Gone { since: 1, waited: std::time::Duration::ZERO, reclaimed: false };
        let gone = ClusterUpdate::Gone(Update::Set("c".parse().unwrap(), gone));
        assert_eq!(contested(twin().chain([gone]).chain(in_sync()).collect()), []);
    }

    #[test]
    fn what_follows_does_not_depend_on_the_order_of_arrival() {
        let forward = desired(updates().into_iter().chain(in_sync())).unwrap();
        let backward = desired(updates().into_iter().rev().chain(in_sync())).unwrap();
        assert_eq!(forward, backward);
        assert_eq!(forward.asn.number(), 65_001);
        assert_eq!(forward.sessions.len(), 1);
        assert_eq!(forward.pools.iter().map(|(_, _, ours)| *ours).collect::<Vec<_>>(), [false, true]);
        assert_eq!(forward.unexported.len(), 1);
        assert_eq!(
            (forward.ranges.len(), forward.load_balancers.len()),
            (2, 1),
            "a pool for Services is none for pods"
        );
        assert_eq!(forward.services.all().collect::<Vec<_>>(), [&forward.load_balancers[0].cidr]);
    }
}
