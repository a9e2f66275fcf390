//! Endpoints whose pod has changed: they are described anew to the other nodes, and policy here is told.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use felix::acl::{Acl, AclError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipam::{Description, Ipam};
use tracing::warn;

use types::{EndpointId, WorkloadEndpoint};

use super::facts;

/// Gives an endpoint another description: publishes it to the other nodes, then tells policy here and returns when that is
/// in force, which takes as long as iptables fails.
pub(crate) async fn redescribe(endpoint: WorkloadEndpoint, description: Description, ipam: &Ipam, acl: &Acl) {
    let described = publish(endpoint, description, ipam).await;
    let id = described.id.clone();
    say(&id, acl.relabel(id.clone(), facts::of_endpoint(described)).await);
}

/// Publishes another description of an endpoint to the other nodes; gives the endpoint as it is then.
pub(super) async fn publish(endpoint: WorkloadEndpoint, description: Description, ipam: &Ipam) -> WorkloadEndpoint {
    let Description { labels, ports, finished } = description.clone();
    let described = WorkloadEndpoint { labels, ports, finished, ..endpoint };
    if let Err(error) = ipam.describe(described.id.clone(), description).await {
        warn!(endpoint = %described.id, %error, "changed labels of a pod are not published to the other nodes");
    }
    described
}

/// Says in the log where policy of another description is not in force.
pub(super) fn say(endpoint: &EndpointId, relabelled: Result<(), AclError>) {
    if let Err(error) = relabelled {
        warn!(%endpoint, %error, "policy of a pod with changed labels is not in force yet");
    }
}

/// Relabels that are not in force yet, for as long as iptables fails. At most one an endpoint: the last says it all.
#[derive(Default)]
pub(super) struct Relabels(BTreeMap<EndpointId, BoxFuture<'static, Result<(), AclError>>>);

impl Relabels {
    /// Takes the place of the endpoint's earlier one: policy hears that one before this or never, and answers it no more.
    pub(super) fn begin(&mut self, endpoint: WorkloadEndpoint, acl: Acl) {
        let id = endpoint.id.clone();
        let relabel = async move { acl.relabel(endpoint.id.clone(), facts::of_endpoint(endpoint)).await };
        self.0.insert(id, relabel.boxed());
    }

    /// Carries all on until one is done; without any, for ever.
    pub(super) async fn next(&mut self) -> (EndpointId, Result<(), AclError>) {
        poll_fn(|context| {
            // All are polled, and not only those that were woken: there are fewer than a node has pods.
            let done = self.0.iter_mut().find_map(|(id, relabel)| match relabel.poll_unpin(context) {
                Poll::Ready(outcome) => Some((id.clone(), outcome)),
                Poll::Pending => None,
            });
            let Some((id, outcome)) = done else { return Poll::Pending };
            self.0.remove(&id);
            Poll::Ready((id, outcome))
        })
        .await
    }
}

#[cfg(test)]
mod tests;
