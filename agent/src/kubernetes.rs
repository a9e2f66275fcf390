//! What the API server says, in the shape in which the store says such things: so that it is typed by the same code, and
//! remembered by the same cache for the time when the API server is away.

use std::time::Duration;

use serde_json::json;
use store::{Entry, Key, Version, keys};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use types::policy::{Labels, PolicyId};
use types::resource::Kind;
use types::{NamespacedName, Pod, ResourceName, Update};

use crate::tasks::ApiServer;

/// So long the API server may be silent at the start before what is remembered counts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Updates that wait for whoever types them.
pub(crate) const UPDATES: usize = 256;

/// The key under which an object is remembered, and its value, empty where it is gone; nothing where its names make no key.
pub(crate) type EntryOf<K, V> = fn(&K, Option<V>) -> Option<(Key, Vec<u8>)>;

/// The watches, remembered.
pub(crate) struct Remembered {
    /// Under `resources/NetworkPolicy/`.
    pub(crate) policies: mpsc::Receiver<Update<Key, Entry>>,
    /// Under `resources/Namespace/`.
    pub(crate) namespaces: mpsc::Receiver<Update<Key, Entry>>,
    /// Under `pods/`.
    pub(crate) pods: mpsc::Receiver<Update<Key, Entry>>,
    /// How the watches fare.
    pub(crate) status: watch::Receiver<::watch::Status>,
    /// What is asked of the API server beside these, and not remembered.
    pub(crate) api: ApiServer,
}

/// A pod of this node, from its entry.
pub(crate) fn pod(update: Update<Key, Entry>) -> Option<Update<NamespacedName, Pod>> {
    Some(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(key, entry) => Update::Set(pod_key(&key)?, crate::sources::decode(&entry)?),
        Update::Delete(key) => Update::Delete(pod_key(&key)?),
    })
}

/// Types the entries of pods.
pub(crate) async fn follow_pods(
    mut updates: mpsc::Receiver<Update<Key, Entry>>,
    out: mpsc::Sender<Update<NamespacedName, Pod>>,
) {
    while let Some(update) = updates.recv().await {
        if let Some(update) = pod(update)
            && out.send(update).await.is_err()
        {
            return;
        }
    }
}

/// Turns objects into entries. One whose names make no key is left out and said.
pub(crate) async fn write_down<K, V>(
    mut from: mpsc::Receiver<Update<K, V>>,
    entry: EntryOf<K, V>,
    out: mpsc::Sender<Update<Key, Entry>>,
) {
    while let Some(update) = from.recv().await {
        let update = match update {
            Update::Restart => Some(Update::Restart),
            Update::InSync => Some(Update::InSync),
            Update::Set(key, value) => entry(&key, Some(value)).map(|(key, value)| {
                let version = Version::new(0);
                Update::Set(key.clone(), Entry { key, value, version, created: version })
            }),
            Update::Delete(key) => entry(&key, None).map(|(key, _)| Update::Delete(key)),
        };
        if let Some(update) = update
            && out.send(update).await.is_err()
        {
            return;
        }
    }
}

pub(crate) fn policy_entry(id: &PolicyId, spec: Option<serde_json::Value>) -> Option<(Key, Vec<u8>)> {
    let (namespace, name) = (named(&id.namespace)?, named(&id.name)?);
    let document = json!({
        "apiVersion": Kind::NetworkPolicy.api_version(),
        "kind": Kind::NetworkPolicy.as_str(),
        "metadata": { "namespace": id.namespace, "name": id.name },
        "spec": spec,
    });
    Some((keys::namespaced_resource(Kind::NetworkPolicy, &namespace, &name), store::encode(&document)))
}

pub(crate) fn namespace_entry(name: &String, labels: Option<Labels>) -> Option<(Key, Vec<u8>)> {
    let document = json!({
        "apiVersion": Kind::Namespace.api_version(),
        "kind": Kind::Namespace.as_str(),
        "metadata": { "name": name, "labels": labels.unwrap_or_default() },
    });
    Some((keys::resource(Kind::Namespace, &named(name)?), store::encode(&document)))
}

pub(crate) fn pod_entry(name: &NamespacedName, pod: Option<Pod>) -> Option<(Key, Vec<u8>)> {
    let text = format!("{}{}/{}", keys::pods().as_str(), named(&name.namespace)?, named(&name.name)?);
    Some((Key::new(text).ok()?, pod.map(|pod| store::encode(&pod)).unwrap_or_default()))
}

fn pod_key(key: &Key) -> Option<NamespacedName> {
    let (namespace, name) = key.as_str().strip_prefix(keys::pods().as_str())?.split_once('/')?;
    Some(NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn named(text: &str) -> Option<ResourceName> {
    ResourceName::new(text).inspect_err(|error| warn!(%error, "left out")).ok()
}
