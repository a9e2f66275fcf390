//! The Node object: what is read of it, and what is written into it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use types::policy::Labels;

use crate::call::{CallError, Calls};
use crate::kinds::path_of;
use crate::{WatchConfig, WatchError, WriteError, Writer};

/// The part of a Node object that Manx needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The labels of the node.
    pub labels: Labels,
    /// Those of its annotations that are Manx's or that Manx understands.
    pub annotations: BTreeMap<String, String>,
    /// Its addresses of type InternalIP, in the kubelet's order.
    pub addresses: Vec<IpAddr>,
    /// The keys of its taints.
    pub taints: Vec<String>,
    /// The condition NetworkUnavailable, where it has one that is known.
    pub network_unavailable: Option<bool>,
}

/// The same, as the API server has it. Fields that are empty are left out or null.
#[derive(Deserialize)]
struct NodeObject {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Spec {
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Deserialize)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    /// The address; a name where the type is another.
    address: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The condition by which a node is given no pods that need a network
/// (<https://kubernetes.io/docs/reference/node/node-status/#condition>).
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

impl Node {
    /// Reads the object.
    pub(crate) fn read(object: Value) -> Result<Self, serde_json::Error> {
        let NodeObject { metadata, spec, status } = serde_json::from_value(object)?;
        let (addresses, conditions) = status.map_or((None, None), |status| (status.addresses, status.conditions));
        let internal = addresses.into_iter().flatten().filter(|address| address.kind == "InternalIP");
        let condition = conditions.into_iter().flatten().find(|condition| condition.kind == NETWORK_UNAVAILABLE);
        Ok(Self {
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.into_iter().flatten().filter(|(key, _)| is_understood(key)).collect(),
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            taints: spec.and_then(|spec| spec.taints).into_iter().flatten().map(|taint| taint.key).collect(),
            network_unavailable: condition.and_then(|condition| match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            }),
        })
    }
}

/// Whether Manx reads this annotation: others change often and may be large.
fn is_understood(annotation: &str) -> bool {
    ["manx.io/", "projectcalico.org/"].iter().any(|prefix| annotation.starts_with(prefix))
}

/// This node's Node object as it is now; none where nobody has registered it.
///
/// # Errors
///
/// [`WatchError`] where the API server cannot be asked, does not answer, or refuses.
pub async fn node(config: WatchConfig) -> Result<Option<Node>, WatchError> {
    let name = config.node_name.clone();
    let mut calls = Calls::new(Arc::new(config)).await?;
    match calls.get(&path_of::<core::Node>(), name.as_str()).await {
        Ok(object) => Node::read(object).map(Some).map_err(|error| calls.not_read(&error)),
        Err(CallError::Gone) => Ok(None),
        Err(CallError::Failed(error)) => Err(error),
    }
}

impl Writer {
    /// Says by the condition NetworkUnavailable whether the node's pods have a network; `why` is for people.
    pub async fn put_network_unavailable(
        &mut self,
        node: &str,
        is_unavailable: bool,
        why: &str,
    ) -> Result<(), WriteError> {
        let now = Time(Timestamp::now());
        let condition = json!({
            "type": NETWORK_UNAVAILABLE,
            "status": if is_unavailable { "True" } else { "False" },
            "reason": if is_unavailable { "ManxIsNotReady" } else { "ManxIsReady" },
            "message": why,
            "lastTransitionTime": now,
            "lastHeartbeatTime": now,
        });
        // A strategic merge patch goes by `type`, so that others' conditions stay.
        let patch = json!({ "status": { "conditions": [condition] } });
        let patched = self.calls.patch_status(&path_of::<core::Node>(), node, &patch).await;
        patched.map(drop).map_err(|error| not_written(error, node))
    }

    /// Takes the taint with this key off the node, if it is there.
    pub async fn remove_taint(&mut self, node: &str, key: &str) -> Result<(), WriteError> {
        let path = path_of::<core::Node>();
        let object = self.calls.get(&path, node).await.map_err(|error| not_written(error, node))?;
        let taints = object.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
        let left: Vec<_> = taints.iter().filter(|taint| taint["key"] != key).collect();
        if left.len() == taints.len() {
            return Ok(());
        }
        // The list is one value to the API server: what others have changed in it meanwhile is not to be undone.
        let version = object.pointer("/metadata/resourceVersion");
        let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "taints": left } });
        self.calls.patch(&path, node, &patch).await.map_err(|error| not_written(error, node))
    }
}

fn not_written(error: CallError, node: &str) -> WriteError {
    match error {
        CallError::Gone => WriteError::Outdated { object: format!("Node {node}") },
        CallError::Failed(error) => error.into(),
    }
}

#[cfg(test)]
mod tests;
