//! The tasks of this room, as the diagram in `crate::tasks` shows them.

use std::sync::Arc;

use felix::acl::{Acl, AclBackend, AclConfig};
use ipam::Ipam;
use kernel::Linux;
use kernel::acl::{ConnectionTable, Iptables, LinuxSets, NftEvents};
use kube_watch::Watches;
use store::{Cache, CacheForm, Key, Store, keys};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use types::config::Config;
use types::resource::Kind;
use types::{NodeName, Update};

use super::drop_log::{self, Look};
use super::foreseen::Foreseen;
use super::pods::{self, Question};
use super::remembered::{Namespaces, Pods, Policies, QUEUED_UPDATES, Remembered};
use super::remote::Peers;
use super::{feed, remote_task};
use crate::cluster::sources::{self, ClusterUpdate};
use crate::node::kubernetes::{API_SERVER_WAIT, ApiServer, follow_node};
use crate::node::readiness::{Part, Readiness};

/// The parts that the tasks of this room are made of.
pub(crate) struct PolicyTasks {
    /// This node.
    pub(crate) node: NodeName,
    /// Where blocks and nodes are, and policies and namespaces without an API server.
    pub(crate) store: Arc<dyn Store>,
    /// The owner of this node's endpoints.
    pub(crate) ipam: Ipam,
    /// The filter, which everything here is told to.
    pub(crate) acl: Acl,
    /// What the API server says, with the questions of ADDs about their pods; none: there is no API server.
    pub(crate) kubernetes: Option<(Remembered, mpsc::Receiver<Question>)>,
    /// How many published endpoints do not count.
    pub(crate) refused: watch::Sender<usize>,
    /// The requests of viewers who want to see denied packets.
    pub(crate) looks: mpsc::Receiver<Look>,
    /// The group of the kernel's log that denied packets are said in.
    pub(crate) log_group: u16,
    /// What keeps the node from being ready, as far as policy is the reason.
    pub(crate) readiness: Readiness,
}

impl PolicyTasks {
    /// Starts them. `cluster` is told of registrations, which lie among the endpoints of nodes.
    pub(crate) fn start(self, cluster: mpsc::Sender<ClusterUpdate>, tracker: &TaskTracker) {
        let Self { node, store, ipam, acl, kubernetes, refused, looks, log_group, readiness } = self;
        let (updates, carried) = mpsc::channel(feed::QUEUED_UPDATES);
        // Without an API server no pod is known before its ADD.
        let foreseen = kubernetes.is_none().then(Foreseen::default);
        match kubernetes {
            None => {
                let watched = |kind| store.watch(keys::resources(kind));
                tracker.spawn(sources::follow(watched(Kind::NetworkPolicy), feed::policy, updates.clone()));
                tracker.spawn(sources::follow(watched(Kind::Namespace), feed::namespace, updates.clone()));
            }
            Some((Remembered { policies, namespaces, pods, .. }, questions)) => {
                tracker.spawn(pods::follow(pods, questions, ipam.clone(), acl.clone()));
                let policy = |update| Some(feed::watched_policy(update));
                tracker.spawn(sources::pass_on(policies, policy, updates.clone()));
                let namespace = |update| Some(feed::watched_namespace(update));
                tracker.spawn(sources::pass_on(namespaces, namespace, updates.clone()));
            }
        }

        let (peers, published) = mpsc::channel(feed::QUEUED_UPDATES);
        let (relist, relisted) = mpsc::channel(1);
        let blocks = store.watch(keys::blocks());
        tracker.spawn(remote_task::follow_blocks(blocks, cluster.clone(), peers.clone()));
        tracker.spawn(remote_task::follow_nodes(store, cluster, peers, relisted));
        tracker.spawn(remote_task::judge_peers(Peers::new(node), published, updates, relist, refused));
        tracker.spawn(feed::carry(carried, foreseen, acl.clone()));
        tracker.spawn(follow_readiness(acl.clone(), readiness));
        tracker.spawn(drop_log::serve(log_group, looks, acl, ipam));
    }
}

/// Puts the cache behind the watches.
pub(crate) fn remember(watches: Watches, cache: &Cache, tracker: &TaskTracker) -> Remembered {
    let Watches { policies, namespaces, pods, node, status, tasks } = watches;
    let (known_node, node_known) = watch::channel(None);
    tracker.spawn(follow_node(node, known_node));
    Remembered {
        policies: remembered::<Policies>(keys::resources(Kind::NetworkPolicy), policies, cache, tracker),
        namespaces: remembered::<Namespaces>(keys::resources(Kind::Namespace), namespaces, cache, tracker),
        pods: remembered::<Pods>(keys::pods(), pods, cache, tracker),
        status,
        api: ApiServer { tasks: Arc::new(tasks), node: node_known },
    }
}

fn remembered<F: CacheForm>(
    prefix: Key,
    from: mpsc::Receiver<Update<F::Key, F::Value>>,
    cache: &Cache,
    tracker: &TaskTracker,
) -> mpsc::Receiver<Update<F::Key, F::Value>> {
    let (out, remembered) = mpsc::channel(QUEUED_UPDATES);
    tracker.spawn(store::remembered_as::<F>(prefix, from, cache.clone(), API_SERVER_WAIT, out));
    remembered
}

/// Policy is ready when felix has no reason against it.
async fn follow_readiness(acl: Acl, readiness: Readiness) {
    let mut reasons = acl.readiness();
    loop {
        let now = reasons.borrow_and_update().clone();
        if now.is_empty() {
            readiness.ready(Part::Policy);
        } else {
            readiness.unready(Part::Policy, now.join("; "));
        }
        if reasons.changed().await.is_err() {
            return;
        }
    }
}

/// Starts the filter on threads of its own.
pub(crate) fn acl(config: &Config) -> anyhow::Result<Acl> {
    let policy = &config.policy;
    let acl = AclConfig {
        mark_mask: config.kernel.mark_mask,
        endpoint_to_host: policy.endpoint_to_host,
        allow_vxlan: policy.allow_vxlan,
        allow_tunnels: policy.allow_tunnels,
        nat_outgoing_exclusions: policy.nat_outgoing_exclusions,
        cut_connections: policy.cut_connections,
        log_group: policy.log_group,
        ..AclConfig::default()
    };
    let tables = match policy.iptables {
        None => Iptables::detect()?,
        Some(variant) => Iptables::new(variant),
    };
    let events = NftEvents::subscribe()?.except(tables.own_restores());
    let backend = AclBackend {
        sets: Box::new(LinuxSets::open()?),
        tables: Box::new(tables),
        connections: Box::new(ConnectionTable::open()?),
        events: Box::new(events),
        host: Box::new(Linux::open()?),
    };
    Ok(felix::acl::start(acl, backend)?)
}
