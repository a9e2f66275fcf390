//! Every task of the agent, and what they say to each other. The rooms start their own (`ROOM/tasks.rs`); what goes from room to
//! room is here.
//!
//! ```text
//!  cluster
//!   source (1 per prefix) ──ClusterUpdate──► desired (1) ──sessions, import, who owns which block──► bgp
//!                                               │ └───────pools──────────────► ipam
//!   ipam ──own blocks──► origination (1) ──originate──► bgp,  ──unreachable routes──► felix
//!   bgp ──FibUpdate──► carry_routes (1) ──► felix        bgp ──NextHopWatch──► carry_watches (1) ──► felix
//!   felix ──NextHopState──► carry_next_hops (1) ──► bgp
//!   ipam ──how etcd stands to its blocks──► freshness (1) ──► desired
//!   desired ──which passwords──► passwords (1) ◄── Secrets, files   ──passwords──► desired
//!   presence (1): the lease on the node's name, and its registration
//!   election (1): the lease on `elected/holder` ──► reclaim, load_balancer
//!   election, Nodes' names, registrations ──► reclaim (1) ──► store: what gone nodes had is free
//!  services
//!   desired ──ranges──► announcements (1) ──announced addresses──► origination   ──ranges──► felix (acl): drop what comes back
//!   desired ──pools──► load_balancer (1) ──addresses──► API server
//!   API server ──Services, EndpointSlices (while needed)──► announcements, load_balancer   ──Node──► announcements
//!  cni
//!   cni.sock ──► conversation (1 per connection) ──► ipam, felix ──parked──► reaper (1 thread)
//!   conversation ──asks──► host_ports (1) ──who has which──► annotations (1) ──► API server   API server ──Services (while needed)──► host_ports
//!   API server ──annotations of own pods──► annotations   stale_mappings (1): host ports of pods that have gone
//!   tombstones (1) ──► ipam, felix: DELs that were not answered
//!  policy
//!   policies, namespaces (1 source each) ──PolicyUpdate──► carry (1) ──► felix (acl)
//!   follow_nodes (1) ──registrations──► desired   ──endpoints──► judge_peers (1) ◄──claims── follow_blocks (1) ──claims──► desired
//!                                                                  └──those that count──► carry
//!   API server ──► remembered (1 per kind) ──► the sources above, pods (1)
//!   pods (1) ──labels──► ipam, felix (acl); answers the ADDs that wait for their Pod
//!   the kernel's log of denied packets (1 thread while somebody looks) ──► drop_log (1) ──► whoever looks
//!  node
//!   interfaces (1 thread), Node ──► addresses (1) ──this node's──► desired, object
//!   readiness, Node ──► object (1) ──► API server   ──registration──► presence
//!   runtime (1): CNI configurations, the CNI binary ──what pods suffer from──► readiness   ──all that is wrong──► status, events (1) ──► API server
//!  api
//!   agent.sock, health port (1 server each) ──► status: asks ipam, felix, bgp
//! ```
//!
//! A task that cannot go on says why on one channel, and the agent ends with that; the others end with the process.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::tasks::ApiTasks;
use crate::cluster::tasks::ClusterTasks;
use crate::cni::tasks::CniTasks;
use crate::node::fatal;
use crate::node::tasks::NodeTasks;
use crate::policy::tasks::PolicyTasks;
use crate::services::tasks::ServiceTasks;

/// What the tasks of all rooms are made of.
pub(crate) struct Tasks {
    /// This node by itself.
    pub(crate) node: NodeTasks,
    /// What the cluster says, and this node's place in it.
    pub(crate) cluster: ClusterTasks,
    /// Policy.
    pub(crate) policy: PolicyTasks,
    /// Addresses of Services.
    pub(crate) services: ServiceTasks,
    /// Conversations with the CNI binary.
    pub(crate) cni: CniTasks,
    /// The local API and the health port.
    pub(crate) api: ApiTasks,
}

impl Tasks {
    /// Starts every task; what comes back resolves when one cannot go on.
    pub(crate) fn start(
        self,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Error> + use<>> {
        let Self { node, cluster, policy, services, cni, api } = self;
        let (fatal, fatals) = fatal::channel();
        let elected = cluster.election.is_elected();
        let registrations = cluster.start(&fatal, tracker, cancel);
        policy.start(registrations, tracker);
        node.start(tracker)?;
        services.start(elected, tracker);
        cni.start(tracker)?;
        api.start(&fatal, tracker);
        Ok(async move {
            let error = fatals.first().await;
            drop(fatal);
            error
        })
    }
}
