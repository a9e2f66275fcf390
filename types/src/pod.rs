//! What Manx needs of a Kubernetes Pod.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::host_ports::PodPorts;
use crate::policy::Labels;
use crate::{EndpointPort, PodRef};

/// The part of a Pod object that policy and attachments need; the rest is dropped as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The pod's namespace, name and UID.
    pub reference: PodRef,
    /// The annotation `kubernetes.io/config.hash`: what the runtime calls the UID of a static pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// The pod's labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The named ports of all the pod's containers, including init containers that keep running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// Whether the pod shares the node's network: such a pod is never selected and never a peer.
    #[serde(default)]
    pub host_network: bool,
    /// Whether the pod's phase is Succeeded or Failed.
    #[serde(default)]
    pub finished: bool,
    /// The pod's addresses: `status.podIPs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// What the pod says of host ports.
    #[serde(default, skip_serializing_if = "PodPorts::is_empty")]
    pub host_ports: PodPorts,
}

impl Pod {
    /// Whether the runtime means this pod: by UID, or by the hash that stands in for the UID of a static pod.
    pub fn is_meant_by(&self, reference: &PodRef) -> bool {
        let same_name = self.reference.namespace == reference.namespace && self.reference.name == reference.name;
        let same_uid = match &reference.uid {
            None => true,
            uid => *uid == self.reference.uid || *uid == self.config_hash,
        };
        same_name && same_uid
    }
}
