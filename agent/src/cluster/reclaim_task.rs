//! The elected agent's task of taking back what nodes had that have gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp::Bgp;
use store::{Check, MAX_TRANSACTION, Outcome, Store, StoreError, Write, keys};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use types::update::Mirror;
use types::{BlockClaim, Gone, NodeName, Prefix, Registration, Update, WorkloadEndpoint};

use super::reclaim::{Candidate, ReclaimAction, Verdict, candidates, judge, returned};
use super::sources::decode;
use crate::node::kubernetes::ApiServer;

/// How long after a failure everything is looked at again.
const RECLAIM_RETRY_DELAY: Duration = Duration::from_secs(10);

/// How many updates are taken at most before what follows from them is done.
const UPDATES_PER_ROUND: usize = 1_024;

/// The parts that the task is made of.
pub(crate) struct ReclaimTask {
    /// The store that has the nodes' keys.
    pub(crate) store: Arc<dyn Store>,
    /// Sessions: a node that is heard there has not gone.
    pub(crate) bgp: Bgp,
    /// The API server, which says which Node objects exist.
    pub(crate) api: ApiServer,
    /// Whether this agent is elected.
    pub(crate) elected: watch::Receiver<bool>,
    /// Nodes that are registered, with what is noted of those that have gone; nothing before that is known.
    pub(crate) registered: watch::Receiver<BTreeMap<NodeName, Option<Gone>>>,
    /// How long what a gone node had stays its own.
    pub(crate) grace: Duration,
}

/// What is noted of nodes that have gone, and since when this agent has known just that.
type Watched = BTreeMap<NodeName, (Gone, Instant)>;

impl ReclaimTask {
    pub(crate) async fn run(mut self) {
        while self.elected.wait_for(|is_elected| *is_elected).await.is_ok() {
            let mut elected = self.elected.clone();
            tokio::select! {
                // At once, in the middle of whatever is being done: each step is one transaction.
                biased;
                _ = elected.wait_for(|is_elected| !*is_elected) => {}
                () = self.serve() => return,
            }
        }
    }

    /// Serves one term of office.
    async fn serve(&mut self) {
        let mut updates: mpsc::Receiver<Update<String, ()>> = self.api.tasks.node_names();
        let mut nodes: Mirror<String, ()> = Mirror::new();
        let mut watched = Watched::new();
        let mut batch = Vec::new();
        let mut again = None;
        loop {
            let later = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = updates.recv_many(&mut batch, UPDATES_PER_ROUND) => if count == 0 {
                    return;
                },
                changed = self.registered.changed() => if changed.is_err() {
                    return;
                },
                () = later => {}
            }
            for update in batch.drain(..) {
                nodes.apply(update);
            }
            // A node counts as absent only by a complete listing.
            if nodes.is_known() {
                let names = nodes.entries().keys().cloned().collect();
                let pause = self.look(&names, &mut watched).await.unwrap_or_else(|error| {
                    warn!(%error, "the blocks and keys of nodes that have gone cannot be taken back now; this is tried again");
                    Some(RECLAIM_RETRY_DELAY)
                });
                again = pause.map(|pause| Instant::now() + pause);
            }
        }
    }

    /// Does what there is to do; how long until something may be to be done again.
    async fn look(
        &mut self,
        kubernetes: &BTreeSet<String>,
        watched: &mut Watched,
    ) -> Result<Option<Duration>, StoreError> {
        let registered = self.registered.borrow_and_update().clone();
        let now = Instant::now();
        watched.retain(|node, (gone, _)| registered.get(node).and_then(Option::as_ref) == Some(gone));
        for (node, gone) in registered.iter().filter_map(|(node, gone)| Some((node, gone.as_ref()?))) {
            watched.entry(node.clone()).or_insert_with(|| (gone.clone(), now));
        }
        let mut pause: Option<Duration> = None;
        for action in returned(&registered, kubernetes) {
            self.take(action).await?;
        }
        for (node, gone) in candidates(&registered, kubernetes) {
            let is_alive = self.store.get(&keys::alive(&node)).await?.is_some();
            let entry = self.store.get(&keys::registration(&node)).await?;
            let is_heard = match &entry {
                Some(entry) => self.hears(&decode(entry).unwrap_or_default()).await,
                None => false,
            };
            let since = watched.get(&node).map(|(_, since)| *since);
            let watched = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let candidate = Candidate { node, gone, watched, is_registered: entry.is_some(), is_alive, is_heard };
            match judge(&candidate, self.grace, SystemTime::now()) {
                Verdict::Act(action) => self.take(action).await?,
                Verdict::Wait(later) => pause = Some(pause.map_or(later, |pause| pause.min(later))),
                Verdict::NothingLeft => {}
            }
        }
        Ok(pause)
    }

    /// Whether there is a session with one of the addresses that the node has registered.
    async fn hears(&self, registration: &Registration) -> bool {
        let own = [registration.ipv4.map(IpAddr::V4), registration.ipv6.map(IpAddr::V6)];
        let peers = self.bgp.peers().await.unwrap_or_default();
        peers.iter().any(|peer| peer.state.is_established() && own.contains(&Some(peer.address)))
    }

    async fn take(&self, action: ReclaimAction) -> Result<(), StoreError> {
        match action {
            ReclaimAction::Note(node, gone) => {
                if gone.waited.is_zero() {
                    info!(%node, grace = ?self.grace, "a node has gone; its blocks and keys stay its own for the grace period");
                }
                self.write(vec![Write::put(keys::gone(&node), store::encode(&gone))]).await
            }
            ReclaimAction::Forget(node) => {
                info!(%node, "a node does not count as gone any more");
                self.write(vec![Write::delete(keys::gone(&node))]).await
            }
            ReclaimAction::Reclaim(node, gone) => {
                self.release_blocks(&node).await?;
                // From here on nobody peers with it or believes its endpoints, whoever may write its keys.
                self.write(vec![Write::put(keys::gone(&node), store::encode(&gone))]).await?;
                match self.clear(&node).await {
                    // Its certificate may keep an agent to its own node's keys. They count for nothing.
                    Err(StoreError::Refused { .. }) => {
                        info!(%node, "the store keeps this agent from deleting what the gone node published; it counts for nothing")
                    }
                    other => other?,
                }
                info!(%node, "the blocks and keys of a node that has gone are free for others");
                Ok(())
            }
        }
    }

    /// Gives its blocks back, each with the endpoints in it, if it is still the node's.
    async fn release_blocks(&self, node: &NodeName) -> Result<(), StoreError> {
        let endpoints = self.store.list(&keys::endpoints(node)).await?.entries;
        let claims = self.store.list(&keys::blocks()).await?.entries;
        for claim in claims {
            let Ok(keys::Subject::Block(block)) = keys::subject(&claim.key) else { continue };
            if decode::<BlockClaim>(&claim).is_none_or(|claim| claim.owner != *node) {
                continue;
            }
            let of_block = endpoints.iter().filter(|entry| is_within(entry, &block)).map(|entry| entry.key.clone());
            let mut writes = vec![Write::delete(claim.key.clone())];
            writes.extend(of_block.take(MAX_TRANSACTION - 1).map(Write::delete));
            let outcome = match self.store.transact(vec![Check::unchanged(&claim)], writes).await {
                Err(StoreError::Refused { .. }) => {
                    self.store.transact(vec![Check::unchanged(&claim)], vec![Write::delete(claim.key.clone())]).await?
                }
                outcome => outcome?,
            };
            if let Outcome::Committed(_) = outcome {
                info!(%node, %block, "a block of the gone node is released");
            }
        }
        Ok(())
    }

    /// Takes away what else is under the node's name, its registration last.
    async fn clear(&self, node: &NodeName) -> Result<(), StoreError> {
        let left = self.store.list(&keys::endpoints(node)).await?.entries;
        for some in left.chunks(MAX_TRANSACTION) {
            self.write(some.iter().map(|entry| Write::delete(entry.key.clone())).collect()).await?;
        }
        self.write(vec![Write::delete(keys::registration(node)), Write::delete(keys::gone(node))]).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.store.transact(Vec::new(), writes).await.map(drop)
    }
}

fn is_within(endpoint: &store::Entry, block: &Prefix) -> bool {
    let endpoint = decode::<WorkloadEndpoint>(endpoint);
    endpoint.is_some_and(|endpoint| endpoint.addresses.iter().any(|address| block.contains(*address)))
}
