//! Sources of cluster state: one task per watched prefix of the store, which types what it reads and keeps no copy.
//!
//! An entry that cannot be read is left out and said in the log, by key; it does not keep the others from being used.

use std::collections::BTreeSet;
use std::sync::Arc;

use bgp::Freshness;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use store::keys::{self, Subject};
use store::{Entry, Key};
use types::ownership::Claim;
use types::resource::{Kind, Resource};
use types::{BlockClaim, Gone, NodeName, Prefix, Registration, ResourceName, Update};

/// A change of what the agent knows of the cluster.
#[derive(Debug)]
pub(crate) enum ClusterUpdate {
    /// A report about a node's registration.
    Registration(Update<NodeName, Registration>),
    /// A report about the claim of a block.
    Block(Update<Prefix, Claim>),
    /// This node's blocks, all of them.
    OwnBlocks(Arc<BTreeSet<Prefix>>),
    /// How well claims are known.
    Freshness(Freshness),
    /// A report about the note that a node is gone.
    Gone(Update<NodeName, Gone>),
    /// A report about a resource of a kind.
    Resource(Kind, Update<ResourceName, Box<Resource>>),
}

/// Passes this node's blocks on, for as long as somebody listens.
pub(crate) async fn own_blocks(mut blocks: watch::Receiver<Arc<BTreeSet<Prefix>>>, out: mpsc::Sender<ClusterUpdate>) {
    loop {
        let own = Arc::clone(&blocks.borrow_and_update());
        if out.send(ClusterUpdate::OwnBlocks(own)).await.is_err() || blocks.changed().await.is_err() {
            return;
        }
    }
}

/// Types what a watch of the store says and passes it on, for as long as somebody listens.
pub(crate) async fn follow<T>(
    updates: mpsc::Receiver<Update<Key, Entry>>,
    wrap: impl Fn(Update<Subject, Entry>) -> Option<T>,
    out: mpsc::Sender<T>,
) {
    pass_on(updates, |update| subjects(update).and_then(&wrap), out).await;
}

/// Passes on what `wrap` makes of what comes, for as long as somebody listens.
pub(crate) async fn pass_on<U, T>(mut updates: mpsc::Receiver<U>, wrap: impl Fn(U) -> Option<T>, out: mpsc::Sender<T>) {
    while let Some(update) = updates.recv().await {
        if let Some(update) = wrap(update)
            && out.send(update).await.is_err()
        {
            return;
        }
    }
}

/// The same report by what its key is about; none for a key that this build does not know, which is said.
pub(crate) fn subjects(update: Update<Key, Entry>) -> Option<Update<Subject, Entry>> {
    update.filter_map(|key| {
        let subject = keys::subject(&key);
        subject.inspect_err(|error| warn!(%error, "the store has a key that is not known here; it is left out")).ok()
    })
}

/// Registrations; the endpoints that lie under the same prefix are for others.
pub(crate) fn registration(update: Update<Subject, Entry>) -> Option<ClusterUpdate> {
    let registrations = update.filter_map(|subject| match subject {
        Subject::Registration(node) => Some(node),
        _ => None,
    })?;
    read(registrations).map(ClusterUpdate::Registration)
}

/// Reads a report about nodes that have gone.
pub(crate) fn gone(update: Update<Subject, Entry>) -> Option<ClusterUpdate> {
    let gone = update.filter_map(|subject| match subject {
        Subject::Gone(node) => Some(node),
        _ => None,
    })?;
    read(gone).map(ClusterUpdate::Gone)
}

/// Claims of blocks. One that cannot be read is somebody's all the same.
pub(crate) fn claim(update: Update<Subject, Entry>) -> Option<Update<Prefix, Claim>> {
    let blocks = update.filter_map(|subject| match subject {
        Subject::Block(block) => Some(block),
        _ => None,
    })?;
    let claim = |_: &Prefix, entry: Entry| {
        let owner = decode::<BlockClaim>(&entry).map(|claim| claim.owner);
        Claim { owner, created: entry.created.count() }
    };
    Some(blocks.map(|block| block, claim))
}

/// Reads reports about the resources of a kind.
pub(crate) fn resource(kind: Kind) -> impl Fn(Update<Subject, Entry>) -> Option<ClusterUpdate> {
    move |update| {
        let resources = update.filter_map(|subject| match subject {
            Subject::Resource(_, name) => Some(name),
            _ => None,
        })?;
        read(resources).map(|update| ClusterUpdate::Resource(kind, update))
    }
}

/// The same report with its entry read. Of an entry that cannot be read nothing is told, and what was known of the object
/// before stays.
pub(crate) fn read<K, T: DeserializeOwned>(update: Update<K, Entry>) -> Option<Update<K, T>> {
    update.try_map(|_, entry| decode(&entry).ok_or(())).ok()
}

/// What an entry says; none where it cannot be read, which is said.
pub(crate) fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    let say = |error: &store::DecodeError| warn!(%error, "an entry of the store cannot be read here; it is left out");
    store::decode(&entry.key, &entry.value).inspect_err(say).ok()
}
