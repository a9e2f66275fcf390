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

use crate::cluster::sources::read;
use crate::node::kubernetes::ApiServer;

/// How long the API server may be silent at the start before what is remembered counts.
pub(crate) const API_SERVER_WAIT: Duration = Duration::from_secs(2);

/// Updates that wait for whoever types them.
pub(crate) const QUEUED_UPDATES: usize = 256;

/// How the objects of a kind are remembered.
pub(crate) struct Form<K, V> {
    /// The key of an object; nothing where its names make none, which is said.
    key: fn(&K) -> Option<Key>,
    /// What is written there.
    value: fn(&K, V) -> Vec<u8>,
}

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

/// A pod of this node, from its entry. Of one that cannot be read nothing is told.
fn pod(update: Update<Key, Entry>) -> Option<Update<NamespacedName, Pod>> {
    read(update.filter_map(|key| pod_key(&key))?)
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
    form: Form<K, V>,
    out: mpsc::Sender<Update<Key, Entry>>,
) {
    let version = Version::new(0);
    while let Some(update) = from.recv().await {
        let Some(keyed) = update.filter_map(|name| Some(((form.key)(&name)?, name))) else { continue };
        let entries = keyed.map(
            |keyed| keyed,
            |(key, name), object| {
                let value = (form.value)(name, object);
                Entry { key: key.clone(), value, version, created: version }
            },
        );
        if out.send(entries.map(|(key, _)| key, |_, entry| entry)).await.is_err() {
            return;
        }
    }
}

/// Policies, as documents of their kind.
pub(crate) const POLICIES: Form<PolicyId, serde_json::Value> = Form {
    key: |id| {
        Some(keys::namespaced_resource(Kind::NetworkPolicy, &resource_name(&id.namespace)?, &resource_name(&id.name)?))
    },
    value: |id, spec| {
        store::encode(&json!({
            "apiVersion": Kind::NetworkPolicy.api_version(),
            "kind": Kind::NetworkPolicy.as_str(),
            "metadata": { "namespace": id.namespace, "name": id.name },
            "spec": spec,
        }))
    },
};

/// Labels of namespaces, as documents of their kind.
pub(crate) const NAMESPACES: Form<String, Labels> = Form {
    key: |name| Some(keys::resource(Kind::Namespace, &resource_name(name)?)),
    value: |name, labels| {
        store::encode(&json!({
            "apiVersion": Kind::Namespace.api_version(),
            "kind": Kind::Namespace.as_str(),
            "metadata": { "name": name, "labels": labels },
        }))
    },
};

/// Pods of this node.
pub(crate) const PODS: Form<NamespacedName, Pod> = Form {
    key: |name| {
        let (namespace, name) = (resource_name(&name.namespace)?, resource_name(&name.name)?);
        Key::new(format!("{}{namespace}/{name}", keys::pods().as_str())).ok()
    },
    value: |_, pod| store::encode(&pod),
};

fn pod_key(key: &Key) -> Option<NamespacedName> {
    let (namespace, name) = key.as_str().strip_prefix(keys::pods().as_str())?.split_once('/')?;
    Some(NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn resource_name(text: &str) -> Option<ResourceName> {
    let name = ResourceName::new(text);
    name.inspect_err(|error| warn!(%error, "an object of the API server has a name that no key has; it is left out"))
        .ok()
}
