//! Sources of cluster state: one task per watched prefix of the store, which types what it reads and keeps no copy.
//!
//! An entry that cannot be read is left out and said in the log, by key; it does not keep the others from being used.

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::warn;

use store::keys::{self, Subject};
use store::{Entry, Key, Store};
use types::resource::{Kind, Resource};
use types::{NodeName, Registration, ResourceName, Update};

/// A change of what the agent knows of the cluster.
#[derive(Debug)]
pub(crate) enum ClusterUpdate {
    /// Of the nodes' registrations.
    Registration(Update<NodeName, Registration>),
    /// Of the resources of a kind.
    Resource(Kind, Update<ResourceName, Box<Resource>>),
}

/// Follows one prefix for as long as somebody listens.
pub(crate) async fn follow(
    store: std::sync::Arc<dyn Store>,
    prefix: Key,
    wrap: impl Fn(Update<Subject, Entry>) -> Option<ClusterUpdate>,
    out: mpsc::Sender<ClusterUpdate>,
) {
    let send = async |update: Update<Key, Entry>| {
        let update = match update {
            Update::Restart => Update::Restart,
            Update::InSync => Update::InSync,
            Update::Set(key, entry) => match keys::subject(&key) {
                Ok(subject) => Update::Set(subject, entry),
                Err(error) => return warn_and_go_on(&error),
            },
            Update::Delete(key) => match keys::subject(&key) {
                Ok(subject) => Update::Delete(subject),
                Err(error) => return warn_and_go_on(&error),
            },
        };
        match wrap(update) {
            Some(update) => out.send(update).await.is_ok(),
            None => true,
        }
    };
    let mut updates = store.watch(prefix);
    while let Some(update) = updates.recv().await {
        if !send(update).await {
            return;
        }
    }
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

fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    store::decode(&entry.key, &entry.value).inspect_err(|error| warn!(%error, "left out")).ok()
}

fn warn_and_go_on(error: &store::KeyError) -> bool {
    warn!(%error, "left out");
    true
}
