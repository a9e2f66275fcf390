//! What is written to the API server: the status of a Service, an annotation of a Pod; modules `node` and `events` have what
//! is written of Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use serde_json::{Value, json};
use types::{AddressCondition, NamespacedName};

use crate::WatchError;
use crate::call::{CallError, Calls};

/// Writes to the API server. Nothing is tried twice: whoever wants something looks at what the watch says, and asks again.
#[derive(Debug)]
pub struct Writer {
    pub(crate) calls: Calls,
}

/// Something was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The object is not what it was, or is gone: the watch says, or will say, what it is now.
    #[error("{object} has been changed by somebody else meanwhile")]
    Outdated {
        /// Kind, namespace and name.
        object: String,
    },
    /// The API server did not take it.
    #[error(transparent)]
    Failed(#[from] WatchError),
}

impl Writer {
    pub(crate) const fn new(calls: Calls) -> Self {
        Self { calls }
    }

    /// Writes the addresses of a Service that is in this version into its status, with what is to be said of them; without
    /// a condition there is to be none of ours. Gives the version that it is in then.
    pub async fn put_addresses(
        &mut self,
        service: &NamespacedName,
        version: &str,
        addresses: &[IpAddr],
        condition: Option<&AddressCondition>,
    ) -> Result<String, WriteError> {
        let ingress: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
        let condition = match condition {
            // A strategic merge patch goes by `type`, so that others' conditions stay.
            None => json!({ "$patch": "delete", "type": AddressCondition::TYPE }),
            Some(AddressCondition { is_met, reason, message }) => json!({
                "type": AddressCondition::TYPE,
                "status": if *is_met { "True" } else { "False" },
                "reason": reason,
                "message": message,
                "lastTransitionTime": Time(Timestamp::now()),
            }),
        };
        let patch = json!({
            "metadata": { "resourceVersion": version },
            "status": { "loadBalancer": { "ingress": ingress }, "conditions": [condition] },
        });
        let path = core::Service::url_path(&(), Some(&service.namespace));
        match self.calls.patch_status(&path, &service.name, &patch).await {
            Ok(version) => Ok(version),
            Err(CallError::Gone) => Err(WriteError::Outdated { object: format!("Service {service}") }),
            Err(CallError::Failed(error)) => Err(error.into()),
        }
    }

    /// Sets an annotation of a Pod. Without its UID the patch could meet another pod of the name.
    pub async fn annotate_pod(
        &mut self,
        pod: &NamespacedName,
        uid: &str,
        key: &str,
        value: &str,
    ) -> Result<(), WriteError> {
        let patch = json!({ "metadata": { "uid": uid, "annotations": { key: value } } });
        let path = core::Pod::url_path(&(), Some(&pod.namespace));
        match self.calls.patch(&path, &pod.name, &patch).await {
            Ok(()) => Ok(()),
            Err(CallError::Gone) => Err(WriteError::Outdated { object: format!("Pod {pod}") }),
            Err(CallError::Failed(error)) => Err(error.into()),
        }
    }
}
