//! How the watches fare: what readiness and `node status` are told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::WatchError;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// NetworkPolicies of all namespaces.
    NetworkPolicies,
    /// All Namespaces.
    Namespaces,
    /// This node's Pods.
    Pods,
    /// This node's Node.
    Nodes,
    /// The names of all Nodes.
    AllNodes,
    /// Services of all namespaces.
    Services,
    /// EndpointSlices of all namespaces.
    EndpointSlices,
    /// Secrets of the agent's own namespace, each by its name.
    Secrets,
}

impl Resource {
    /// Those that are watched in any case.
    pub const ALWAYS: [Self; 4] = [Self::NetworkPolicies, Self::Namespaces, Self::Pods, Self::Nodes];
}

/// The name that the API has for it, which is what RBAC rules name.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NetworkPolicies => "networkpolicies",
            Self::Namespaces => "namespaces",
            Self::Pods => "pods",
            Self::Nodes | Self::AllNodes => "nodes",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Secrets => "secrets",
        })
    }
}

/// How all watches fare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Each of them that somebody reads.
    pub watches: BTreeMap<Resource, WatchStatus>,
}

/// How a watch fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchStatus {
    /// Since when it follows without a break; none: it does not at present.
    pub connected_since: Option<SystemTime>,
    /// So many times it has listed everything. One is normal; more say that history was lost (410 Gone).
    pub listings: u64,
    /// The last thing that went wrong; it may be over.
    pub last_failure: Option<Failure>,
    /// So many tasks follow it: of one that is begun anew, the former may not have ended yet.
    pub(crate) tasks: u32,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it went wrong.
    pub at: SystemTime,
    /// What went wrong.
    pub error: WatchError,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self { watches: Resource::ALWAYS.into_iter().map(|resource| (resource, WatchStatus::default())).collect() }
    }

    /// What is not followed at present, and why: what was said of it last stays in force.
    pub fn troubles(&self) -> Vec<String> {
        let lost = self.watches.iter().filter(|(_, watch)| watch.connected_since.is_none());
        let told = lost.filter_map(|(resource, watch)| Some((resource, watch.last_failure.as_ref()?)));
        told.map(|(resource, failure)| format!("{resource} are not followed: {}", failure.error)).collect()
    }

    /// What has never been known whole yet, and why, as far as that is known: reasons not to be ready. An API server that
    /// goes away later is no such reason: what it said stays in force.
    pub fn unlisted(&self) -> Vec<String> {
        let unlisted = self.watches.iter().filter(|(_, watch)| watch.listings == 0);
        unlisted
            .map(|(resource, watch)| match &watch.last_failure {
                Some(failure) => format!("{resource} not listed yet: {}", failure.error),
                None => format!("{resource} not listed yet"),
            })
            .collect()
    }
}

/// Where one watch says how it fares.
#[derive(Debug)]
pub(crate) struct Report {
    resource: Resource,
    status: Arc<watch::Sender<Status>>,
    /// The failure that was logged last and is not over.
    failing: Option<WatchError>,
}

/// A watch that ended, as nobody reads it any more, has nothing to say.
impl Drop for Report {
    fn drop(&mut self) {
        self.status.send_modify(|status| {
            let Some(watch) = status.watches.get_mut(&self.resource) else { return };
            watch.tasks = watch.tasks.saturating_sub(1);
            if watch.tasks == 0 {
                status.watches.remove(&self.resource);
            }
        });
    }
}

impl Report {
    pub(crate) fn new(resource: Resource, status: Arc<watch::Sender<Status>>) -> Self {
        let report = Self { resource, status, failing: None };
        report.change(|watch| watch.tasks += 1);
        report
    }

    /// Everything was listed.
    pub(crate) fn listed(&self) {
        self.change(|watch| watch.listings += 1);
    }

    /// Changes are being followed.
    pub(crate) fn connected(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!(resource = %self.resource, "the watch of the API server works again");
        }
        self.change(|watch| {
            watch.connected_since.get_or_insert_with(SystemTime::now);
        });
    }

    /// Changes are not being followed. A watch has no errors for its reader, so this is logged; the same error once only.
    pub(crate) fn failed(&mut self, error: WatchError) {
        self.change(|watch| {
            watch.connected_since = None;
            watch.last_failure = Some(Failure { at: SystemTime::now(), error: error.clone() });
        });
        if self.failing.as_ref() != Some(&error) {
            tracing::warn!(resource = %self.resource, %error, "the watch of the API server has failed; it is tried again");
            self.failing = Some(error);
        }
    }

    fn change(&self, change: impl FnOnce(&mut WatchStatus)) {
        self.status.send_modify(|status| change(status.watches.entry(self.resource).or_default()));
    }
}
