//! Events on Nodes: one at most of each node's agent, which is there while something is wrong.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use serde_json::json;

use crate::call::CallError;
use crate::{WriteError, Writer};

/// Events of what is in no namespace are in this one: the API server takes them nowhere else.
const NAMESPACE: &str = "default";

/// Who tells.
const COMPONENT: &str = "manx-agent";

impl Writer {
    /// Warns of a Node by an Event: the one that there is says so from now on, or there is a new one. It has to be renewed
    /// before the API server forgets it.
    pub async fn warn_of_node(&mut self, node: &str, reason: &str, message: &str) -> Result<(), WriteError> {
        let (path, name, now) = (path(), name(node), Time(Timestamp::now()));
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": name, "namespace": NAMESPACE },
            // As the kubelet does it: `kubectl describe node` looks for the name as UID as well.
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": { "component": COMPONENT, "host": node },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        match self.calls.create(&path, &event).await {
            Ok(()) => return Ok(()),
            Err(CallError::Failed(error)) => return Err(error.into()),
            // There is one of that name.
            Err(CallError::Gone) => {}
        }
        let patch = json!({ "reason": reason, "message": message, "lastTimestamp": now });
        self.calls.patch(&path, &name, &patch).await.map_err(|error| not_written(error, &name))
    }

    /// Takes the warning back; none there is success.
    pub async fn end_warning_of_node(&mut self, node: &str) -> Result<(), WriteError> {
        let name = name(node);
        match self.calls.delete(&path(), &name).await {
            Ok(()) | Err(CallError::Gone) => Ok(()),
            Err(error) => Err(not_written(error, &name)),
        }
    }
}

fn path() -> String {
    core::Event::url_path(&(), Some(NAMESPACE))
}

fn name(node: &str) -> String {
    format!("{node}.{COMPONENT}")
}

fn not_written(error: CallError, name: &str) -> WriteError {
    match error {
        CallError::Gone => WriteError::Outdated { object: format!("Event {NAMESPACE}/{name}") },
        CallError::Failed(error) => error.into(),
    }
}
