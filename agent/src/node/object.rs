//! What the agent reads in its node's Node object, and what it writes there: the condition NetworkUnavailable, and that the
//! startup taint goes (pure, but for the writing). The task around it is in `object_task`.

use std::str::FromStr;
use std::time::Duration;

use kube_watch::{Node, Writer};
use tracing::warn;

use types::{ClusterId, NodeName, Registration};

/// A taint that keeps pods off a node that has no network yet, if whoever registers nodes puts it there.
pub(crate) const STARTUP_TAINT: &str = "manx.io/agent-not-ready";

/// Annotations of a Node that operators know: the fields `bgp.asNumber` and `bgp.routeReflectorClusterID` of a Node of
/// `projectcalico.org/v3`, which win.
const AS_NUMBER: &str = "projectcalico.org/ASNumber";
const CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";

/// How long a node may be unready before it is given no more pods: a restart of etcd is no reason.
pub(crate) const UNREADY_GRACE: Duration = Duration::from_secs(30);

/// The registration, with what Kubernetes knows of the node.
pub(crate) fn registration(own: &Registration, node: &Node) -> Registration {
    fn read<T: FromStr>(node: &Node, key: &str) -> Option<T> {
        let value = node.annotations.get(key)?;
        let say =
            |_: &T::Err| warn!(key, value, "an annotation of this node's Node object makes no sense and is left out");
        value.parse().inspect_err(say).ok()
    }
    Registration {
        as_number: read(node, AS_NUMBER),
        cluster_id: read(node, CLUSTER_ID).map(ClusterId),
        labels: node.labels.clone(),
        ..own.clone()
    }
}

/// What is to be written into the Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// The condition NetworkUnavailable, with words for people.
    NetworkUnavailable(bool, String),
    /// Removes the startup taint.
    RemoveTaint,
}

/// What there is to write for a node in this state: whether its pods have a network, and if not, why.
pub(crate) fn wanted(node: &Node, network: &Network) -> Option<Write> {
    match network {
        Network::NotYet => None,
        Network::Available if node.network_unavailable != Some(false) => {
            Some(Write::NetworkUnavailable(false, "Manx serves pods on this node".to_owned()))
        }
        Network::Available => node.taints.iter().any(|key| key == STARTUP_TAINT).then_some(Write::RemoveTaint),
        Network::Unavailable(why) if node.network_unavailable != Some(true) => {
            Some(Write::NetworkUnavailable(true, why.clone()))
        }
        Network::Unavailable(_) => None,
    }
}

/// Whether pods of this node have a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// The agent has started just now: it is left as it was.
    NotYet,
    /// The agent is ready, or was until just now.
    Available,
    /// The agent has not been ready for long, for this reason.
    Unavailable(String),
}

impl Write {
    /// Writes the change to the API server.
    pub(crate) async fn carry_out(&self, writer: &mut Writer, node: &NodeName) -> Result<(), kube_watch::WriteError> {
        match self {
            Self::NetworkUnavailable(is, why) => writer.put_network_unavailable(node.as_str(), *is, why).await,
            Self::RemoveTaint => writer.remove_taint(node.as_str(), STARTUP_TAINT).await,
        }
    }
}

#[cfg(test)]
mod tests;
