//! The tasks of this room, as the diagram in `crate::tasks` shows them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp::Outputs;
use felix::routes::Routes;
use ipam::Ipam;
use kernel::Linux;
use kernel::events::Events;
use store::{Session, Store, keys};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use types::Registration;
use types::config::Config;
use types::resource::Kind;

use super::desired_task::DesiredTask;
use super::election::Election;
use super::forwarding;
use super::freshness;
use super::origination::Origination;
use super::passwords_task::PasswordsTask;
use super::presence::Presence;
use super::reclaim_task::ReclaimTask;
use super::sources::{self, ClusterUpdate};
use crate::node::fatal::Fatal;

/// Updates that wait for the task that puts them in force.
const QUEUED_UPDATES: usize = 1_024;

/// The parts that the tasks of this room are made of.
pub(crate) struct ClusterTasks {
    /// The store that has the cluster's state.
    pub(crate) store: Arc<dyn Store>,
    /// Puts that state in force.
    pub(crate) desired: DesiredTask,
    /// Reads the passwords of sessions.
    pub(crate) passwords: PasswordsTask,
    /// Carries what follows from the own blocks and Services to the speaker as routes to originate.
    pub(crate) origination: Origination,
    /// What the speaker has to say to the owner of the kernel's routes.
    pub(crate) outputs: Outputs,
    /// This agent's hold on its node's name in the store.
    pub(crate) presence: Presence,
    /// The session under which the name is held, where it was taken at the start.
    pub(crate) session: Option<Session>,
    /// What the node says of itself, once that is known.
    pub(crate) registrations: watch::Receiver<Option<Registration>>,
    /// This agent as a candidate.
    pub(crate) election: Election,
    /// How the store stands to this node's blocks.
    pub(crate) ipam: Ipam,
    /// How long the blocks of a node that is gone stay its own.
    pub(crate) grace: Duration,
    /// Takes back what gone nodes had, where there is Kubernetes to say that they are gone.
    pub(crate) reclaim: Option<ReclaimTask>,
}

impl ClusterTasks {
    /// Starts them, but for the source of registrations: it is for policy as well, which says it into the channel that
    /// comes back.
    pub(crate) fn start(
        self,
        fatal: &Fatal,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> mpsc::Sender<ClusterUpdate> {
        let (updates, reports) = mpsc::channel(QUEUED_UPDATES);
        for kind in Kind::CLUSTER {
            let watched = self.store.watch(keys::resources(kind));
            tracker.spawn(sources::follow(watched, sources::resource(kind), updates.clone()));
        }
        tracker.spawn(sources::follow(self.store.watch(keys::all_gone()), sources::gone, updates.clone()));

        if self.desired.origins.is_shared() {
            tracker.spawn(freshness::follow(self.ipam, self.grace, updates.clone()));
        } else {
            tracker.spawn(sources::own_blocks(self.ipam.blocks(), updates.clone()));
        }
        let (routes, bgp) = (self.desired.routes.clone(), self.desired.bgp.clone());
        let readiness = self.desired.readiness.clone();
        tracker.spawn(fatal.clone().unless_ok(self.desired.run(reports)));
        tracker.spawn(self.passwords.run());
        tracker.spawn(self.origination.follow(routes.clone(), bgp.clone(), readiness));
        tracker.spawn(forwarding::carry_routes(self.outputs.fib, routes.clone()));
        tracker.spawn(forwarding::carry_watches(self.outputs.watches, routes.clone()));
        tracker.spawn(forwarding::carry_next_hops(routes, bgp));

        if let Some(reclaim) = self.reclaim {
            tracker.spawn(reclaim.run());
        }
        tracker.spawn(self.election.stand(cancel.clone()));
        let presence = self.presence.keep(self.session, self.registrations, cancel.clone());
        tracker.spawn(fatal.clone().unless_ok(async { Ok(presence.await?) }));
        updates
    }
}

/// The owner of the kernel's routes on a thread of its own, with a netlink socket and a subscription of its own.
pub(crate) fn routes(config: &Config, addresses: &[IpAddr]) -> anyhow::Result<Routes> {
    let routes = felix::routes::RoutesConfig {
        local_protocol: config.kernel.local_protocol,
        bgp_protocol: config.kernel.bgp_protocol,
        node_addresses: addresses.to_vec(),
        ..felix::routes::RoutesConfig::default()
    };
    let mut kernel = Linux::open()?;
    let events = Events::subscribe()?.except(kernel.port()?);
    Ok(felix::routes::start(routes, Box::new(kernel), Box::new(events))?)
}
