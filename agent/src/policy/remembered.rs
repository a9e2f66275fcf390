//! What the API server says, and how it is remembered for the time when the API server is away. Objects travel as the watch
//! gives them; only what comes from the cache is decoded.

use serde_json::{Value, json};
use store::keys::{self, Subject};
use store::{CacheForm, Entry, Key, Version};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use types::policy::{Labels, PolicyId, PolicyKind};
use types::resource::{Kind, Resource};
use types::{NamespacedName, Pod, ResourceName, Update};

use crate::cluster::sources::decode;
use crate::node::kubernetes::ApiServer;

/// Updates that wait for whoever takes them.
pub(crate) const QUEUED_UPDATES: usize = 256;

/// The watches, remembered.
pub(crate) struct Remembered {
    /// The `spec` of policies, as it is written.
    pub(crate) policies: mpsc::Receiver<Update<PolicyId, Value>>,
    /// The labels of namespaces.
    pub(crate) namespaces: mpsc::Receiver<Update<String, Labels>>,
    /// This node's pods.
    pub(crate) pods: mpsc::Receiver<Update<NamespacedName, Pod>>,
    /// How the watches fare.
    pub(crate) status: watch::Receiver<kube_watch::Status>,
    /// What is asked of the API server beside these, and not remembered.
    pub(crate) api: ApiServer,
}

/// Policies are remembered as documents of their kind, where the store would have them.
pub(crate) enum Policies {}

impl CacheForm for Policies {
    type Key = PolicyId;
    type Value = Value;

    fn key(id: &PolicyId) -> Option<Key> {
        let (namespace, name) = (resource_name(&id.namespace)?, resource_name(&id.name)?);
        Some(keys::namespaced_resource(Kind::NetworkPolicy, &namespace, &name))
    }

    fn entry(id: &PolicyId, key: Key, spec: &Value) -> Entry {
        entry(
            key,
            &json!({
                "apiVersion": Kind::NetworkPolicy.api_version(),
                "kind": Kind::NetworkPolicy.as_str(),
                "metadata": { "namespace": id.namespace, "name": id.name },
                "spec": spec,
            }),
        )
    }

    /// One that cannot be read governs its namespace and allows nothing: left out, it would open pods.
    fn object(entry: Entry) -> Option<(PolicyId, Value)> {
        let Ok(Subject::NamespacedResource(_, namespace, name)) = keys::subject(&entry.key) else { return None };
        let (namespace, name) = (namespace.to_string(), name.to_string());
        let id = PolicyId { kind: PolicyKind::NetworkPolicy, namespace, name };
        let document = decode::<Value>(&entry).filter(|document| document.get("kind").is_some());
        let spec = document.map(|mut document| match document.get_mut("spec").map(Value::take) {
            None | Some(Value::Null) => json!({}),
            Some(spec) => spec,
        });
        Some((id, spec.unwrap_or_default()))
    }
}

/// The labels of namespaces are remembered in documents of their kind, where the store would have them.
pub(crate) enum Namespaces {}

impl CacheForm for Namespaces {
    type Key = String;
    type Value = Labels;

    fn key(name: &String) -> Option<Key> {
        Some(keys::resource(Kind::Namespace, &resource_name(name)?))
    }

    fn entry(name: &String, key: Key, labels: &Labels) -> Entry {
        entry(
            key,
            &json!({
                "apiVersion": Kind::Namespace.api_version(),
                "kind": Kind::Namespace.as_str(),
                "metadata": { "name": name, "labels": labels },
            }),
        )
    }

    fn object(entry: Entry) -> Option<(String, Labels)> {
        let metadata = decode::<Resource>(&entry)?.metadata;
        Some((metadata.name.to_string(), metadata.labels))
    }
}

/// The pods of this node are remembered as they are, under a prefix that the store does not have.
pub(crate) enum Pods {}

impl CacheForm for Pods {
    type Key = NamespacedName;
    type Value = Pod;

    fn key(name: &NamespacedName) -> Option<Key> {
        let (namespace, name) = (resource_name(&name.namespace)?, resource_name(&name.name)?);
        Key::new(format!("{}{namespace}/{name}", keys::pods().as_str())).ok()
    }

    fn entry(_: &NamespacedName, key: Key, pod: &Pod) -> Entry {
        entry(key, pod)
    }

    fn object(entry: Entry) -> Option<(NamespacedName, Pod)> {
        let (namespace, name) = entry.key.as_str().strip_prefix(keys::pods().as_str())?.split_once('/')?;
        Some((NamespacedName::new(namespace, name), decode(&entry)?))
    }
}

fn entry(key: Key, value: &impl serde::Serialize) -> Entry {
    let version = Version::new(0);
    Entry { key, value: store::encode(value), version, created: version }
}

fn resource_name(text: &str) -> Option<ResourceName> {
    let name = ResourceName::new(text);
    name.inspect_err(|error| warn!(%error, "an object of the API server has a name that no key has; it is left out"))
        .ok()
}

#[cfg(test)]
mod tests;
