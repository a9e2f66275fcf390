//! The tasks of this room, as the diagram in `crate::tasks` shows them.

use std::collections::BTreeSet;

use felix::acl::Acl;
use store::Cache;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use types::{NodeName, Prefix, ServiceRanges};

use super::announcements_task::AnnouncementTask;
use super::load_balancer_task::LoadBalancerTask;
use crate::cluster::desired::LoadBalancerPool;
use crate::node::kubernetes::ApiServer;

/// The parts that the tasks of this room are made of.
pub(crate) struct ServiceTasks {
    /// The task that says what this node announces.
    announcements: AnnouncementTask,
    /// The API server, where there is one.
    api: Option<ApiServer>,
    /// The pools that addresses are given out from.
    pools: watch::Receiver<Vec<LoadBalancerPool>>,
    /// The sentences that say what is wrong with which Service.
    problems: watch::Sender<BTreeSet<String>>,
}

/// What operators see of the addresses of Services.
#[derive(Debug, Clone)]
pub(crate) struct ServiceView {
    /// What is announced of them; nothing before that is known.
    pub(crate) announced: watch::Receiver<Option<BTreeSet<Prefix>>>,
    /// What is wrong with which of them, in the elected agent.
    pub(crate) problems: watch::Receiver<BTreeSet<String>>,
}

impl ServiceTasks {
    /// The tasks of this node; `ranges` and `pools` are what the cluster says.
    pub(crate) fn new(
        node: NodeName,
        api: Option<ApiServer>,
        ranges: watch::Receiver<Option<ServiceRanges>>,
        pools: watch::Receiver<Vec<LoadBalancerPool>>,
        cache: Cache,
        acl: Acl,
    ) -> Self {
        let announcements = AnnouncementTask::new(node, ranges, api.clone(), cache, acl);
        Self { announcements, api, pools, problems: watch::Sender::default() }
    }

    /// What others see of it.
    pub(crate) fn view(&self) -> ServiceView {
        ServiceView { announced: self.announcements.announced(), problems: self.problems.subscribe() }
    }

    /// Starts the tasks of this room.
    pub(crate) fn start(self, elected: watch::Receiver<bool>, tracker: &TaskTracker) {
        let Self { announcements, api, pools, problems } = self;
        if let Some(api) = api {
            tracker.spawn(LoadBalancerTask { api, pools, elected, problems }.run());
        }
        tracker.spawn(announcements.run());
    }
}
