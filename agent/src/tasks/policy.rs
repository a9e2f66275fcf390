//! The tasks of policy, of the diagram above.

use std::sync::Arc;

use ::watch::Watches;
use felix::acl::{Acl, AclBackend, AclConfig, ToHost};
use felix::policy::PolicyUpdate;
use ipam::Ipam;
use kernel::acl::{ConnectionTable, DropLog, Iptables, LinuxSets, NftEvents};
use kernel::events::Waker;
use kernel::{KernelError, Linux};
use store::{Cache, Entry, Key, Store, keys};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use types::config::{Config, EndpointToHost};
use types::resource::Kind;
use types::{NodeName, Update};

use super::services::{self, ApiServer};
use crate::kubernetes::Remembered;
use crate::peers::Peers;
use crate::readiness::{Part, Readiness};
use crate::{drop_log, kubernetes, pods, policies, sources};

/// What the tasks of policy are made of.
pub(crate) struct PolicyWiring {
    pub(crate) node: NodeName,
    pub(crate) acl: Acl,
    /// Policies, namespaces and pods from the API server; none: the first two are in the store.
    pub(crate) kubernetes: Option<(Remembered, mpsc::Receiver<pods::Question>)>,
    /// How many published endpoints do not count.
    pub(crate) refused: watch::Sender<usize>,
    pub(crate) readiness: Readiness,
}

impl PolicyWiring {
    pub(super) fn start(
        self,
        store: &Arc<dyn Store>,
        cluster: mpsc::Sender<sources::ClusterUpdate>,
        ipam: &Ipam,
        tracker: &TaskTracker,
    ) {
        let (updates, carried) = mpsc::channel(policies::UPDATES);
        let (policies, namespaces) = match self.kubernetes {
            None => {
                let watched = |kind| store.watch(keys::resources(kind));
                // Without an API server no pod is expected before its ADD.
                let none = [Update::Restart, Update::InSync].map(PolicyUpdate::Expected);
                let out = updates.clone();
                tracker.spawn(async move {
                    for update in none {
                        // felix ends only with the agent.
                        let _ = out.send(update).await;
                    }
                });
                (watched(Kind::NetworkPolicy), watched(Kind::Namespace))
            }
            Some((Remembered { policies, namespaces, pods: entries, .. }, questions)) => {
                let (pods, known) = mpsc::channel(pods::QUESTIONS);
                tracker.spawn(kubernetes::follow_pods(entries, pods));
                tracker.spawn(pods::follow(known, questions, ipam.clone(), self.acl.clone()));
                (policies, namespaces)
            }
        };
        tracker.spawn(sources::follow(policies, policies::policy, updates.clone()));
        tracker.spawn(sources::follow(namespaces, policies::namespace, updates.clone()));

        let (peers, published) = mpsc::channel(policies::UPDATES);
        let (relist, relisted) = mpsc::channel(1);
        tracker.spawn(sources::follow(store.watch(keys::blocks()), policies::block, peers.clone()));
        tracker.spawn(policies::follow_nodes(Arc::clone(store), cluster, peers, relisted));
        tracker.spawn(policies::judge_peers(Peers::new(self.node), published, updates, relist, self.refused));
        tracker.spawn(policies::carry(carried, self.acl.clone()));
        tracker.spawn(follow_policy_readiness(self.acl, self.readiness));
    }
}

/// Puts the cache behind the watches.
pub(crate) fn remember(watches: Watches, cache: &Cache, tracker: &TaskTracker) -> Remembered {
    let Watches { policies, namespaces, pods, node, status, tasks } = watches;
    let (known_node, node_known) = watch::channel(None);
    tracker.spawn(services::follow_node(node, known_node));
    Remembered {
        policies: remembered(keys::resources(Kind::NetworkPolicy), policies, kubernetes::policy_entry, cache, tracker),
        namespaces: remembered(
            keys::resources(Kind::Namespace),
            namespaces,
            kubernetes::namespace_entry,
            cache,
            tracker,
        ),
        pods: remembered(keys::pods(), pods, kubernetes::pod_entry, cache, tracker),
        status,
        api: ApiServer { tasks: Arc::new(tasks), node: node_known },
    }
}

fn remembered<K: Send + 'static, V: Send + 'static>(
    prefix: Key,
    from: mpsc::Receiver<Update<K, V>>,
    entry: kubernetes::EntryOf<K, V>,
    cache: &Cache,
    tracker: &TaskTracker,
) -> mpsc::Receiver<Update<Key, Entry>> {
    let (raw, entries) = mpsc::channel(kubernetes::UPDATES);
    let (out, remembered) = mpsc::channel(kubernetes::UPDATES);
    tracker.spawn(kubernetes::write_down(from, entry, raw));
    tracker.spawn(store::remembered(prefix, entries, cache.clone(), kubernetes::PATIENCE, out));
    remembered
}

/// Policy is ready when felix has no reason against it.
async fn follow_policy_readiness(acl: Acl, readiness: Readiness) {
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

/// A thread that reads denied packets until it is woken.
pub(crate) async fn read_drop_log(group: u16, packets: mpsc::Sender<drop_log::Logged>) -> Result<Waker, KernelError> {
    let log = DropLog::open(group)?;
    let waker = log.waker();
    // The runtime's threads for blocking work: one such reader at a time.
    tokio::task::spawn_blocking(move || drop_log::read(log, &packets));
    Ok(waker)
}

/// Policy on threads of its own.
pub(crate) fn acl(config: &Config) -> anyhow::Result<Acl> {
    let policy = &config.policy;
    let acl = AclConfig {
        mark_mask: config.kernel.mark_mask,
        endpoint_to_host: match policy.endpoint_to_host {
            EndpointToHost::Accept => ToHost::Accept,
            EndpointToHost::Policed => ToHost::Policed,
            EndpointToHost::Drop => ToHost::Drop,
        },
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
