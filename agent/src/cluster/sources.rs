//! Sources of cluster state: one task per watched prefix of the store, which types what it reads and keeps no copy.
//!
//! An entry that cannot be read is left out and said in the log, by key; it does not keep the others from being used.

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::warn;

use store::keys::{self, Subject};
use store::{Entry, Key};
use types::resource::{Kind, Resource};
use types::{Gone, NodeName, Registration, ResourceName, Update};

/// A change of what the agent knows of the cluster.
#[derive(Debug)]
pub(crate) enum ClusterUpdate {
    /// Of the nodes' registrations.
    Registration(Update<NodeName, Registration>),
    /// Of nodes that have gone.
    Gone(Update<NodeName, Gone>),
    /// Of the resources of a kind.
    Resource(Kind, Update<ResourceName, Box<Resource>>),
}

/// Types what a watch says, for as long as somebody listens.
pub(crate) async fn follow<T>(
    mut updates: mpsc::Receiver<Update<Key, Entry>>,
    wrap: impl Fn(Update<Subject, Entry>) -> Option<T>,
    out: mpsc::Sender<T>,
) {
    while let Some(update) = updates.recv().await {
        if let Some(update) = subjects(update).and_then(&wrap)
            && out.send(update).await.is_err()
        {
            return;
        }
    }
}

/// The same update by what its key is about; none for a key that this build does not know, which is said.
pub(crate) fn subjects(update: Update<Key, Entry>) -> Option<Update<Subject, Entry>> {
    let subject = |key: &Key| keys::subject(key).inspect_err(|error| warn!(%error, "left out")).ok();
    Some(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(key, entry) => Update::Set(subject(&key)?, entry),
        Update::Delete(key) => Update::Delete(subject(&key)?),
    })
}

/// Registrations; the endpoints that lie under the same prefix are for others.
pub(crate) fn registration(update: Update<Subject, Entry>) -> Option<ClusterUpdate> {
    Some(ClusterUpdate::Registration(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(Subject::Registration(node), entry) => Update::Set(node, decode(&entry)?),
        Update::Delete(Subject::Registration(node)) => Update::Delete(node),
        Update::Set(..) | Update::Delete(..) => return None,
    }))
}

/// Nodes that have gone.
pub(crate) fn gone(update: Update<Subject, Entry>) -> Option<ClusterUpdate> {
    Some(ClusterUpdate::Gone(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(Subject::Gone(node), entry) => Update::Set(node, decode(&entry)?),
        Update::Delete(Subject::Gone(node)) => Update::Delete(node),
        Update::Set(..) | Update::Delete(..) => return None,
    }))
}

/// Resources of a kind.
pub(crate) fn resource(kind: Kind) -> impl Fn(Update<Subject, Entry>) -> Option<ClusterUpdate> {
    move |update| {
        let update = match update {
            Update::Restart => Update::Restart,
            Update::InSync => Update::InSync,
            Update::Set(Subject::Resource(_, name), entry) => Update::Set(name, Box::new(decode(&entry)?)),
            Update::Delete(Subject::Resource(_, name)) => Update::Delete(name),
            Update::Set(..) | Update::Delete(..) => return None,
        };
        Some(ClusterUpdate::Resource(kind, update))
    }
}

/// What an entry says; none where it cannot be read, which is said.
pub(crate) fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    store::decode(&entry.key, &entry.value).inspect_err(|error| warn!(%error, "left out")).ok()
}
