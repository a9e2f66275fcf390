//! The tasks of what other nodes publish: who owns which block, and the endpoints that count for policy.

use std::sync::Arc;

use felix::policy::PolicyUpdate;
use store::keys::Subject;
use store::{Entry, Key, Store, keys};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use types::ownership::Claim;
use types::{EndpointId, NodeName, Prefix, Update, WorkloadEndpoint};

use super::remote::{Consequence, Peers};
use crate::cluster::sources::{self, ClusterUpdate, decode, subjects};
use crate::node::latest::tell;

/// A change of what other nodes publish.
#[derive(Debug)]
pub(crate) enum PeerUpdate {
    /// A report about the claim of a block.
    Block(Update<Prefix, Claim>),
    /// A report about a published endpoint.
    Endpoint(Update<(NodeName, EndpointId), Box<WorkloadEndpoint>>),
}

fn endpoint(update: Update<Subject, Entry>) -> Option<PeerUpdate> {
    let endpoints = update.filter_map(|subject| match subject {
        Subject::Endpoint(node, id) => Some((node, id)),
        _ => None,
    })?;
    // What cannot be read gives its address no rights.
    let read = endpoints.try_map(|_, entry| decode(&entry).ok_or(()));
    Some(PeerUpdate::Endpoint(read.unwrap_or_else(|(key, ())| Update::Delete(key))))
}

/// Follows the claims of blocks, for those who judge other nodes' routes and for those who judge their endpoints.
pub(crate) async fn follow_blocks(
    mut updates: mpsc::Receiver<Update<Key, Entry>>,
    cluster: mpsc::Sender<ClusterUpdate>,
    peers: mpsc::Sender<PeerUpdate>,
) {
    while let Some(update) = updates.recv().await {
        let Some(claim) = subjects(update).and_then(sources::claim) else { continue };
        // Routes first: they are what packets wait for.
        if cluster.send(ClusterUpdate::Block(claim.clone())).await.is_err()
            || peers.send(PeerUpdate::Block(claim)).await.is_err()
        {
            return;
        }
    }
}

/// Follows all that nodes say, for those who route to nodes and for those who police their pods, and begins anew when
/// `relist` says so.
pub(crate) async fn follow_nodes(
    store: Arc<dyn Store>,
    cluster: mpsc::Sender<ClusterUpdate>,
    peers: mpsc::Sender<PeerUpdate>,
    mut relist: mpsc::Receiver<()>,
) {
    loop {
        let mut updates = store.watch(keys::nodes());
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                Some(()) = relist.recv() => break,
            };
            let Some(update) = update else { return };
            let Some(update) = subjects(update) else { continue };
            let (registration, endpoint) = split(update);
            if let Some(endpoint) = endpoint
                && peers.send(endpoint).await.is_err()
            {
                return;
            }
            if let Some(registration) = registration
                && cluster.send(registration).await.is_err()
            {
                return;
            }
        }
        debug!("a block has changed hands: published endpoints are listed anew");
    }
}

/// Who is to hear of it: an object is for one of the two, what is said of the whole listing is for both.
fn split(update: Update<Subject, Entry>) -> (Option<ClusterUpdate>, Option<PeerUpdate>) {
    match update.key() {
        Some(Subject::Endpoint(..)) => (None, endpoint(update)),
        Some(_) => (sources::registration(update), None),
        // There is no entry in it that would be copied.
        None => (sources::registration(update.clone()), endpoint(update)),
    }
}

/// Judges what other nodes publish.
pub(crate) async fn judge_peers(
    mut peers: Peers,
    mut updates: mpsc::Receiver<PeerUpdate>,
    out: mpsc::Sender<PolicyUpdate>,
    relist: mpsc::Sender<()>,
    refused: watch::Sender<usize>,
) {
    while let Some(update) = updates.recv().await {
        let updates = match update {
            PeerUpdate::Endpoint(update) => peers.endpoint(update),
            PeerUpdate::Block(update) => match peers.block(update) {
                Consequence::Accepted(updates) => updates,
                Consequence::Relist => {
                    // One that is under way comes after this change as well.
                    let _ = relist.try_send(());
                    Vec::new()
                }
            },
        };
        tell(&refused, peers.refused());
        for update in updates {
            if out.send(PolicyUpdate::Remote(update)).await.is_err() {
                return;
            }
        }
    }
}
