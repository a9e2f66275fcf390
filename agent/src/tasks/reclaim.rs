//! The elected agent's task of taking back what nodes had that have gone, of the diagram above.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp::Bgp;
use store::{Check, MAX_TRANSACTION, Outcome, Store, StoreError, Write, keys};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use types::{BlockClaim, Gone, NodeName, Prefix, Registration, Update, WorkloadEndpoint};

use super::ApiServer;
use crate::reclaim::{Candidate, Step, candidates, returned, step};
use crate::table::Table;

/// After a failure everything is looked at again.
const RETRY: Duration = Duration::from_secs(10);

/// Updates that are taken before what follows is done.
const ROUND: usize = 1_024;

/// What the task is made of.
pub(super) struct ReclaimTask {
    pub(super) store: Arc<dyn Store>,
    pub(super) bgp: Bgp,
    pub(super) api: ApiServer,
    pub(super) elected: watch::Receiver<bool>,
    /// Nodes that are registered, with what is noted of those that have gone; nothing before that is known.
    pub(super) registered: watch::Receiver<BTreeMap<NodeName, Option<Gone>>>,
    pub(super) grace: Duration,
}

/// What is noted of nodes that have gone, and since when this agent has known just that.
type Watched = BTreeMap<NodeName, (Gone, Instant)>;

impl ReclaimTask {
    pub(super) async fn run(mut self) {
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

    /// One term.
    async fn serve(&mut self) {
        let mut updates: mpsc::Receiver<Update<String, ()>> = self.api.tasks.node_names();
        let mut nodes: Table<String, ()> = Table::new();
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
                count = updates.recv_many(&mut batch, ROUND) => if count == 0 {
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
            // Mere absence counts in a whole list only.
            if nodes.is_known() {
                let names = nodes.iter().map(|(name, ())| name.clone()).collect();
                let pause = self.look(&names, &mut watched).await.unwrap_or_else(|error| {
                    warn!(%error, "what nodes had that have gone is not taken back; tried again");
                    Some(RETRY)
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
        for step in returned(&registered, kubernetes) {
            self.take(step).await?;
        }
        for (node, gone) in candidates(&registered, kubernetes) {
            let is_alive = self.store.get(&keys::alive(&node)).await?.is_some();
            let entry = self.store.get(&keys::registration(&node)).await?;
            let is_heard = match &entry {
                Some(entry) => self.hears(&crate::sources::decode(entry).unwrap_or_default()).await,
                None => false,
            };
            let since = watched.get(&node).map(|(_, since)| *since);
            let watched = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let candidate = Candidate { node, gone, watched, is_registered: entry.is_some(), is_alive, is_heard };
            match step(&candidate, self.grace, SystemTime::now()) {
                Ok(Some(step)) => self.take(step).await?,
                Ok(None) => {}
                Err(later) => pause = Some(pause.map_or(later, |pause| pause.min(later))),
            }
        }
        Ok(pause)
    }

    /// Whether there is a session with one of the addresses that the node has registered.
    async fn hears(&self, registration: &Registration) -> bool {
        let own = [registration.ipv4.map(IpAddr::V4), registration.ipv6.map(IpAddr::V6)];
        let peers = self.bgp.peers().await.unwrap_or_default();
        peers.iter().any(|peer| peer.state == "established" && own.contains(&Some(peer.address)))
    }

    async fn take(&self, step: Step) -> Result<(), StoreError> {
        match step {
            Step::Note(node, gone) => {
                if gone.waited.is_zero() {
                    info!(%node, grace = ?self.grace, "the node has gone; what it has stays its own for the grace period");
                }
                self.write(vec![Write::put(keys::gone(&node), store::encode(&gone))]).await
            }
            Step::Forget(node) => {
                info!(%node, "the node does not count as gone any more");
                self.write(vec![Write::delete(keys::gone(&node))]).await
            }
            Step::Reclaim(node, gone) => {
                self.release_blocks(&node).await?;
                // From here on nobody peers with it or believes its endpoints, whoever may write its keys.
                self.write(vec![Write::put(keys::gone(&node), store::encode(&gone))]).await?;
                match self.clear(&node).await {
                    // Its certificate may keep an agent to its own node's keys. They count for nothing.
                    Err(StoreError::Refused { .. }) => info!(%node, "its keys stay"),
                    other => other?,
                }
                info!(%node, "what the node had is free");
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
            if crate::sources::decode::<BlockClaim>(&claim).is_none_or(|claim| claim.owner != *node) {
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
                info!(%node, %block, "block released");
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
    let endpoint = crate::sources::decode::<WorkloadEndpoint>(endpoint);
    endpoint.is_some_and(|endpoint| endpoint.addresses.iter().any(|address| block.contains(*address)))
}
