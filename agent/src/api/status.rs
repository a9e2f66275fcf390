//! The node at a glance: asked of the owners of state each time, kept nowhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bgp::Bgp;
use felix::acl::Acl;
use felix::routes::Routes;
use ipam::{Ipam, Stray};
use kernel::netstat::TcpDrops;
use store::{Store, keys};
use tokio::sync::watch;

use types::api::{IpamView, NodeStatus, RejectedRoute, RouteCounts, RouteView};
use types::{Family, NodeName, Passwords, Prefix, WorkloadEndpoint};

use super::metrics::Moment;
use crate::cluster::desired_task::Identity;
use crate::cluster::passwords;
use crate::node::readiness::Readiness;
use crate::node::{cni_configuration::Fault, runtime_task};
use crate::services::tasks::ServiceView;

/// The sources that the answers are put together from.
#[derive(Clone)]
pub(crate) struct Status {
    /// This node's name.
    pub(crate) node: NodeName,
    /// The datastore in words.
    pub(crate) datastore: String,
    /// The datastore, to be asked whether it answers.
    pub(crate) store: Arc<dyn Store>,
    /// The owners that are asked.
    pub(crate) owners: Owners,
    /// The identity of the BGP speaker.
    pub(crate) identity: watch::Receiver<Identity>,
    /// What keeps the node from being ready.
    pub(crate) readiness: Readiness,
    /// How many published endpoints do not count.
    pub(crate) refused_endpoints: watch::Receiver<usize>,
    /// How the watches of the API server fare, where there is one.
    pub(crate) kubernetes: Option<watch::Receiver<kube_watch::Status>>,
    /// The addresses of Services that are announced and given out.
    pub(crate) services: ServiceView,
    /// What is known of the passwords of sessions.
    pub(crate) passwords: watch::Receiver<Passwords>,
    /// Whether what this node originates is kept from its peers.
    pub(crate) drained: watch::Sender<bool>,
    /// What is wrong with what the runtime plugs pods in by.
    pub(crate) runtime: watch::Receiver<Option<Vec<Fault>>>,
    /// What is wrong with the host's settings, in words.
    pub(crate) host_problems: Arc<Vec<String>>,
}

/// The owners of this node's state.
#[derive(Debug, Clone)]
pub(crate) struct Owners {
    /// The owner of addresses and endpoints.
    pub(crate) ipam: Ipam,
    /// The owner of the kernel's routes.
    pub(crate) routes: Routes,
    /// The owner of the filter.
    pub(crate) acl: Acl,
    /// The owner of BGP sessions and tables.
    pub(crate) bgp: Bgp,
}

/// How long the datastore may take to answer: one that takes longer is as good as away to a person who waits.
const DATASTORE_WAIT: Duration = Duration::from_millis(500);

impl Status {
    /// What keeps the node from being ready; empty when it is.
    pub(crate) fn unready(&self) -> Vec<String> {
        self.readiness.reasons()
    }

    pub(crate) async fn node(&self) -> NodeStatus {
        let identity = self.identity.borrow().clone();
        let key = keys::schema_version();
        let probe = tokio::time::timeout(DATASTORE_WAIT, self.store.get(&key));
        let (connected, routes, peers) = tokio::join!(probe, self.owners.routes.view(), self.owners.bgp.peers());
        let datastore_connected = matches!(connected, Ok(Ok(_)));
        let peers = peers.unwrap_or_default();
        let unready = self.unready();
        let ready = unready.is_empty();
        let mut problems = unready;
        problems.extend(self.host_problems.iter().cloned());
        problems.extend(runtime_task::remarks(&self.runtime));
        if *self.drained.borrow() {
            problems.push("drained: nothing of this node is announced (manxctl node drain --undo)".to_owned());
        }
        let standing = self.owners.ipam.standing().await;
        problems.extend(standing.fenced.map(|why| format!("no addresses are given out: {why}")));
        problems.extend(standing.strays.iter().map(stray));
        if !datastore_connected {
            problems.push(format!("{} does not answer; the last known state stays in force", self.datastore));
        }
        if let Some(watches) = &self.kubernetes {
            problems.extend(watches.borrow().troubles());
        }
        problems.extend(self.services.problems.borrow().iter().cloned());
        problems.extend(passwords::problems(&self.passwords.borrow()));
        let rejected = peers.iter().filter_map(|peer| Some((peer.address, peer.rejected.as_ref()?)));
        problems
            .extend(rejected.map(|(peer, route)| format!("BGP peer {peer} announces what is not its own: {route}")));
        let mut counts = RouteCounts::default();
        if let Some(routes) = routes {
            counts = RouteCounts {
                local: routes.local as u64,
                blocks: routes.blocks as u64,
                bgp: routes.bgp as u64,
                failed: routes.failures.len() as u64,
            };
            problems.extend(routes.failures);
        }
        NodeStatus {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready,
            problems,
            datastore: self.datastore.clone(),
            datastore_connected,
            datastore_confirmed_secs: standing.confirmed.map(|ago| ago.as_secs()),
            asn: identity.asn,
            router_id: Some(identity.router_id),
            addresses: identity.addresses,
            peers,
            routes: counts,
            endpoints: self.owners.ipam.endpoints().await.len(),
        }
    }

    /// Everything that a scrape shows, taken together at one moment.
    pub(crate) async fn moment(&self) -> Moment {
        let (status, routes, acl) = tokio::join!(self.node(), self.owners.routes.view(), self.owners.acl.view());
        let refused_endpoints = *self.refused_endpoints.borrow();
        let announced_services = self.services.announced.borrow().as_ref().map_or(0, BTreeSet::len);
        let (routes, acl) = (routes.unwrap_or_default(), acl.unwrap_or_default());
        let turned_away = self.owners.bgp.turned_away();
        // Counts that cannot be read are none, as those are that the kernel does not keep.
        let tcp_drops = TcpDrops::now().unwrap_or_default();
        Moment { status, routes, acl, refused_endpoints, announced_services, turned_away, tcp_drops }
    }

    pub(crate) async fn ipam(&self) -> IpamView {
        let view = self.owners.ipam.view().await;
        IpamView::new(view.pools, view.blocks, view.addresses)
    }

    pub(crate) async fn endpoints(&self) -> Vec<WorkloadEndpoint> {
        self.owners.ipam.endpoints().await
    }

    pub(crate) async fn rejected_routes(&self) -> Vec<RejectedRoute> {
        self.owners.bgp.rejected().await.unwrap_or_default()
    }

    /// One destination.
    pub(crate) async fn route(&self, prefix: Prefix) -> Option<RouteView> {
        self.owners.bgp.route(prefix).await.ok().flatten()
    }

    /// The destinations of a family behind one, or from the first on: the next few of them; none at the end.
    pub(crate) async fn routes(&self, family: Family, after: Option<Prefix>) -> Vec<RouteView> {
        self.owners.bgp.routes(family, after).await.unwrap_or_default()
    }
}

/// What to know of an address of a pod whose block this node has lost.
fn stray(stray: &Stray) -> String {
    let Stray { pod, address, owner } = stray;
    let whose = owner
        .as_ref()
        .map_or_else(|| "in no block of this node".to_owned(), |owner| format!("in a block of node {owner}"));
    format!("pod {pod} has {address}, which is {whose}: delete the pod, so that it is made anew with another address")
}
