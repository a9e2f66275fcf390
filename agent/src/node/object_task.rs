//! The task that tends the node's place in Kubernetes: its registration, and its Node object.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use types::backoff::Backoff;
use types::{NodeName, Registration};

use super::addresses::subnets;
use super::kubernetes::ApiServer;
use super::latest::{self, tell};
use super::object::{Network, UNREADY_GRACE, registration, wanted};
use super::readiness::Readiness;

/// The shortest and the longest delay between two attempts to write what was not taken.
const WRITE_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The parts that the task is made of.
pub(crate) struct NodeTask {
    pub(crate) node: NodeName,
    pub(crate) readiness: Readiness,
    /// The API server, where there is one.
    pub(crate) api: Option<ApiServer>,
    /// What the node says of itself, but for its addresses and what Kubernetes knows of it.
    pub(crate) registration: Registration,
    /// The node's addresses.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    /// The registration with all that belongs to it; nothing before that is known.
    pub(crate) registered: watch::Sender<Option<Registration>>,
}

impl NodeTask {
    /// The Node object says whether pods may come.
    pub(crate) async fn run(self) {
        let (network, state) = watch::channel(Network::NotYet);
        let damped = damp(&self.readiness, network);
        tokio::join!(damped, self.tend_object(state), self.register());
    }

    /// Without Kubernetes at once. With it when the Node object is known: a registration without its labels would end
    /// sessions that are for nodes with such labels.
    async fn register(&self) {
        let mut addresses = self.addresses.clone();
        let mut own = self.registration.clone();
        let mut node = self.api.clone().map(|api| api.node);
        loop {
            let found = addresses.borrow_and_update().clone();
            own.put_addresses(&found);
            own.ttl_security_subnets = subnets(found).await;
            let whole = match &mut node {
                None => Some(own.clone()),
                Some(node) => node.borrow_and_update().as_ref().map(|node| registration(&own, node)),
            };
            if whole.is_some() {
                tell(&self.registered, whole);
            }
            let changed = tokio::select! {
                changed = addresses.changed() => changed,
                changed = latest::changed(&mut node) => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn tend_object(&self, mut state: watch::Receiver<Network>) {
        let Some(ApiServer { tasks, mut node }) = self.api.clone() else { return };
        let mut writer = tasks.writer();
        let mut backoff = Backoff::new(WRITE_DELAYS.0, WRITE_DELAYS.1, u64::from(std::process::id()));
        loop {
            let write = {
                let network = state.borrow_and_update();
                let node = node.borrow_and_update();
                node.as_ref().and_then(|node| wanted(node, &network))
            };
            if let Some(write) = write {
                match write.carry_out(&mut writer, &self.node).await {
                    Ok(()) => {
                        info!(?write, "a change of the node's Node object is written");
                        backoff.reset();
                    }
                    Err(error) => {
                        warn!(%error, ?write, "a change of the node's Node object cannot be written yet; trying again")
                    }
                }
                // What the watch says next is what was written, unless somebody else was faster.
                let _ = tokio::time::timeout(backoff.delay(), node.changed()).await;
                continue;
            }
            let changed = tokio::select! {
                changed = node.changed() => changed,
                changed = state.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// Follows the reasons not to be ready; those that pass soon are passed over.
async fn damp(readiness: &Readiness, to: watch::Sender<Network>) {
    let mut changes = readiness.changes();
    loop {
        let why: Vec<_> = changes.borrow_and_update().values().cloned().collect();
        if why.is_empty() {
            to.send_replace(Network::Available);
            if changes.changed().await.is_err() {
                return;
            }
        } else if tokio::time::timeout(UNREADY_GRACE, readiness.all_ready()).await.is_err() {
            to.send_replace(Network::Unavailable(why.join("; ")));
            readiness.all_ready().await;
        }
    }
}
